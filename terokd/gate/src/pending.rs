//! Upstream changes that wait for a human, and applying them.

use crate::classify::{Sides, Verdict, judge};
use crate::crash::point;
use crate::plan::apply_op;
use crate::refs::{ATTIC, CommitError, Edits, Refs};
use crate::{Control, GateSpec, check_branch, layout, lock};
use std::collections::BTreeSet;
use terok_proto::Fault;
use terok_proto::gate::{ApplyPendingResult, ConfirmedOp, MovedBranch, PendingOp, RefusedOp};

/// How often a confirmed change is tried while somebody pushes.
const ATTEMPTS: usize = 3;

/// What waits, by branch. Follows from the refs alone, so it needs no memory of its own.
///
/// # Errors
/// There is no gate, or it cannot be read.
pub fn pending(spec: &GateSpec) -> Result<Vec<PendingOp>, Fault> {
    let repository = layout::open(&spec.path)?;
    let refs = Refs::read(&repository)?;
    Ok(refs
        .heads
        .keys()
        .filter_map(
            |branch| match judge(&repository, branch, sides(&refs, branch)) {
                Verdict::Pending(op) => Some(op),
                _ => None,
            },
        )
        .collect())
}

/// A branch by what was last heard of upstream. Where nothing was set aside, the snapshot is what it was before as well.
fn sides(refs: &Refs, branch: &str) -> Sides {
    let upstream = refs.upstream.get(branch).copied();
    Sides {
        gate: refs.heads.get(branch).copied(),
        upstream,
        past: refs.attic.get(branch).copied().or(upstream),
    }
}

/// Applies confirmed changes; each old head is kept in the same step.
///
/// # Errors
/// A name is no branch name, there is no gate, or it cannot be written.
pub fn apply_pending(
    spec: &GateSpec,
    ops: &[ConfirmedOp],
    control: &Control,
) -> Result<ApplyPendingResult, Fault> {
    for op in ops {
        check_branch(&op.branch)?;
    }
    layout::must_exist(spec)?;
    let _lock = lock::lock(spec, control)?;
    let repository = layout::open(&spec.path)?;
    let (mut result, mut seen) = (ApplyPendingResult::default(), BTreeSet::new());
    for op in ops.iter().filter(|op| seen.insert(op.branch.clone())) {
        for attempt in 1.. {
            match apply_one(&repository, op) {
                Ok(Ok(moved)) => {
                    result.applied.push(moved);
                    break;
                }
                Ok(Err(refused)) => {
                    result.refused.push(refused);
                    break;
                }
                Err(CommitError::Moved { .. }) if attempt < ATTEMPTS => {}
                Err(CommitError::Moved { why, .. }) => {
                    result.refused.push(RefusedOp {
                        branch: op.branch.clone(),
                        kind: "branch_moved".to_owned(),
                        message: format!(
                            "somebody is changing `{}`; look again ({why})",
                            op.branch
                        ),
                    });
                    break;
                }
                Err(CommitError::Fault(fault)) => return Err(fault),
            }
        }
    }
    point("gate.apply.done");
    if result.applied.iter().any(|moved| moved.new.is_none()) {
        // What clones check out may have been among them.
        let refs = Refs::read(&repository)?;
        crate::head::align(&repository, &refs, None, spec.default_branch.as_deref())?;
    }
    Ok(result)
}

fn apply_one(
    repository: &gix::Repository,
    op: &ConfirmedOp,
) -> Result<Result<MovedBranch, RefusedOp>, CommitError> {
    let refused = |kind: &str, message: String| {
        Ok(Err(RefusedOp {
            branch: op.branch.clone(),
            kind: kind.to_owned(),
            message,
        }))
    };
    let refs = Refs::read(repository).map_err(CommitError::Fault)?;
    let sides = sides(&refs, &op.branch);
    let now = sides.gate.map(|id| id.to_string());
    if now.as_deref() != Some(op.gate_sha.to_ascii_lowercase().as_str()) {
        return refused(
            "branch_moved",
            match now {
                Some(now) => format!(
                    "`{}` is at {now} by now; look at what is pending again",
                    op.branch
                ),
                None => format!("the gate no longer has `{}`", op.branch),
            },
        );
    }
    if !matches!(judge(repository, &op.branch, sides), Verdict::Pending(_)) {
        return refused(
            "invalid_argument",
            format!("nothing is pending for `{}`", op.branch),
        );
    }
    let mut edits = Edits::default();
    let backup_ref = apply_op(&mut edits, &refs, &op.branch, sides).map_err(CommitError::Fault)?;
    if let Some(kept) = refs.attic.get(&op.branch) {
        edits
            .delete(&format!("{ATTIC}{}", op.branch), *kept)
            .map_err(CommitError::Fault)?;
    }
    point("gate.apply.ready");
    edits.commit(repository)?;
    Ok(Ok(MovedBranch {
        branch: op.branch.clone(),
        old: now,
        new: sides.upstream.map(|id| id.to_string()),
        backup_ref,
    }))
}
