//! What a new look at upstream means for each branch of the gate. Decides; changes nothing.

use crate::walk::{count, is_ancestor, is_commit, merge_base};
use gix::ObjectId;
use terok_proto::gate::{PendingKind, PendingOp, PendingReason};

/// One branch, seen from all sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides {
    /// The gate's head.
    pub(crate) gate: Option<ObjectId>,
    /// Upstream's head now.
    pub(crate) upstream: Option<ObjectId>,
    /// Upstream's head when gate and upstream last agreed, as far as is known.
    pub(crate) past: Option<ObjectId>,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Nothing,
    Create(ObjectId),
    FastForward(ObjectId),
    /// The gate has commits that upstream lacks; how many.
    Ahead(u64),
    /// Upstream has no such branch and never had.
    GateOnly,
    Pending(PendingOp),
}

/// Judges one branch.
pub(crate) fn judge(repository: &gix::Repository, branch: &str, sides: Sides) -> Verdict {
    let known = |id: &ObjectId| is_commit(repository, *id);
    match (sides.gate, sides.upstream) {
        (None, None) => Verdict::Nothing,
        (None, Some(upstream)) => Verdict::Create(upstream),
        (Some(gate), Some(upstream)) if gate == upstream => Verdict::Nothing,
        (Some(gate), Some(upstream)) => {
            if is_ancestor(repository, gate, upstream) {
                return Verdict::FastForward(upstream);
            }
            if is_ancestor(repository, upstream, gate) {
                return Verdict::Ahead(count(repository, gate, &[upstream]).unwrap_or(1));
            }
            let lossless = sides.past == Some(gate);
            let since = sides
                .past
                .filter(known)
                .or_else(|| merge_base(repository, gate, upstream));
            Verdict::Pending(PendingOp {
                branch: branch.to_owned(),
                kind: PendingKind::ForceUpdate,
                reason: PendingReason::UpstreamRewrite,
                gate_sha: gate.to_string(),
                upstream_sha: Some(upstream.to_string()),
                old_snapshot_sha: sides.past.map(|id| id.to_string()),
                lossless,
                gate_only_commits: if lossless {
                    Some(0)
                } else {
                    let mut hidden = vec![upstream];
                    hidden.extend(since);
                    count(repository, gate, &hidden).ok()
                },
            })
        }
        (Some(gate), None) => match sides.past {
            None => Verdict::GateOnly,
            Some(past) => Verdict::Pending(PendingOp {
                branch: branch.to_owned(),
                kind: PendingKind::Delete,
                reason: PendingReason::UpstreamDelete,
                gate_sha: gate.to_string(),
                upstream_sha: None,
                old_snapshot_sha: Some(past.to_string()),
                lossless: gate == past,
                gate_only_commits: if known(&past) {
                    count(repository, gate, &[past]).ok()
                } else {
                    None
                },
            }),
        },
    }
}
