//! What a sync is going to do about every branch and tag: a list of changes to refs, and what the caller is told.

use crate::classify::{Sides, Verdict, judge};
use crate::refs::{ATTIC, Edits, HEADS, Names, Refs, TAGS, UPSTREAM};
use crate::remote::Remote;
use crate::sync::{Run, Trouble};
use crate::{Advertisement, backup};
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use terok_proto::Fault;
use terok_proto::gate::{
    AppliedKind, AppliedUpdate, BackupReason, GateOnlyBranch, PendingKind, PendingOp, PendingReason,
};

impl Run<'_> {
    /// Classifies every branch; what is to be done about all of them.
    pub(crate) fn plan(
        &mut self,
        repository: &gix::Repository,
        refs: &Refs,
        remote: &Remote,
        advertised: &Advertisement,
        migrated: bool,
        left: &BTreeMap<String, Option<String>>,
    ) -> Result<Edits, Trouble> {
        let mut edits = Edits::default();
        let heads = Names::new(refs.heads.keys());
        let fresh = Names::new(remote.heads.keys());
        // What upstream's new names leave no room for is gone there, asked for or not; and what was kept of a branch that
        // the gate has no more is in nobody's interest.
        let gone = refs
            .upstream
            .keys()
            .filter(|branch| self.is_wanted(branch) || !fresh.has_room(branch));
        let kept = refs
            .attic
            .keys()
            .filter(|branch| self.is_wanted(branch) || !refs.heads.contains_key(*branch));
        let names: BTreeSet<&String> = remote
            .heads
            .keys()
            .chain(refs.heads.keys())
            .filter(|branch| self.is_wanted(branch))
            .chain(gone)
            .chain(kept)
            .filter(|branch| !left.contains_key(*branch))
            .collect();
        for branch in names {
            self.control.check()?;
            if refs.symbolic.contains(&format!("{HEADS}{branch}")) {
                self.note(format!(
                    "the gate's `{branch}` stands for another branch and is left as it is"
                ));
                continue;
            }
            let before = refs.upstream.get(branch).copied();
            let kept = refs.attic.get(branch).copied();
            let sides = Sides {
                gate: refs.heads.get(branch).copied(),
                upstream: remote.heads.get(branch).copied(),
                past: kept.or(before),
            };
            let waits = self.decide(
                repository, refs, &heads, branch, sides, migrated, &mut edits,
            )?;
            let attic = format!("{ATTIC}{branch}");
            match (waits, kept, before) {
                // As long as the snapshot stays, it says the same.
                (true, None, Some(past)) if sides.upstream != Some(past) => {
                    edits.set(&attic, None, past, "terok: went pending")?;
                }
                (false, Some(kept), _) => edits.delete(&attic, kept)?,
                _ => {}
            }
            let name = format!("{UPSTREAM}{branch}");
            match (before, sides.upstream) {
                (before, Some(now)) if before != Some(now) => {
                    edits.set(&name, before, now, "terok: fetched")?;
                }
                (Some(before), None) => edits.delete(&name, before)?,
                _ => {}
            }
        }
        if self.selection.is_none() {
            self.tags(repository, refs, remote, &mut edits)?;
        }
        if migrated {
            let theirs: HashSet<&str> = advertised.refs.iter().map(|r| r.name.as_str()).collect();
            for (name, id) in &refs.foreign {
                if name.starts_with("refs/") && theirs.contains(name.as_str()) {
                    edits.delete(name, *id)?;
                }
            }
        }
        Ok(edits.without(&left.keys().cloned().collect()))
    }

    /// What becomes of one branch; true if it waits for a human.
    #[allow(clippy::too_many_arguments, reason = "each is a part of one decision")]
    fn decide(
        &mut self,
        repository: &gix::Repository,
        refs: &Refs,
        heads: &Names,
        branch: &str,
        sides: Sides,
        migrated: bool,
        edits: &mut Edits,
    ) -> Result<bool, Fault> {
        let head = format!("{HEADS}{branch}");
        match judge(repository, branch, sides) {
            Verdict::Nothing => {}
            Verdict::Create(new) => {
                if !heads.has_room(branch) {
                    self.note(format!(
                        "upstream's branch `{branch}` is left out: the gate has a branch whose name is in its way"
                    ));
                    return Ok(false);
                }
                edits.set(&head, None, new, "terok: created upstream")?;
                self.applied(branch, AppliedKind::Create, None, new);
            }
            Verdict::FastForward(new) => {
                edits.set(&head, sides.gate, new, "terok: fast-forward")?;
                self.applied(branch, AppliedKind::FastForward, sides.gate, new);
            }
            Verdict::Ahead(ahead) => self.gate_only(branch, Some(ahead)),
            Verdict::GateOnly => {
                self.gate_only(branch, None);
                if let (true, Some(gate)) = (migrated, sides.gate) {
                    self.report.result.pending.push(PendingOp {
                        branch: branch.to_owned(),
                        kind: PendingKind::Delete,
                        reason: PendingReason::UnknownProvenance,
                        gate_sha: gate.to_string(),
                        upstream_sha: None,
                        old_snapshot_sha: None,
                        lossless: false,
                        gate_only_commits: None,
                    });
                }
            }
            Verdict::Pending(op) => {
                if self.options.auto_apply_lossless && op.lossless {
                    apply_op(edits, refs, branch, sides)?;
                    if let (Some(gate), Some(new)) = (sides.gate, sides.upstream) {
                        self.note(format!("`{branch}` was rewritten upstream; the old head {gate} is kept as a backup"));
                        self.applied(branch, AppliedKind::FastForward, Some(gate), new);
                    } else {
                        self.note(format!(
                            "`{branch}` was deleted upstream; its head is kept as a backup"
                        ));
                    }
                    return Ok(false);
                }
                self.report.result.pending.push(op);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn applied(&mut self, branch: &str, kind: AppliedKind, old: Option<ObjectId>, new: ObjectId) {
        self.report.result.applied.push(AppliedUpdate {
            branch: branch.to_owned(),
            kind,
            old: old.map(|id| id.to_string()),
            new: new.to_string(),
        });
    }

    fn gate_only(&mut self, branch: &str, ahead: Option<u64>) {
        self.report.result.gate_only_branches.push(GateOnlyBranch {
            branch: branch.to_owned(),
            ahead,
        });
    }

    /// New tags come in; one that moved or went away upstream stays as it is.
    fn tags(
        &mut self,
        repository: &gix::Repository,
        refs: &Refs,
        remote: &Remote,
        edits: &mut Edits,
    ) -> Result<(), Fault> {
        let names = Names::new(refs.tags.keys());
        for (tag, reference) in &remote.tags {
            match refs.tags.get(tag) {
                Some(id) if *id == reference.id => {}
                Some(_) => self.note(format!(
                    "tag `{tag}` moved upstream; the gate keeps its own"
                )),
                None if !names.has_room(tag) => {
                    self.note(format!("upstream's tag `{tag}` is left out: the gate has a tag whose name is in its way"));
                }
                None if repository.has_object(reference.id) => {
                    edits.set(
                        &format!("{TAGS}{tag}"),
                        None,
                        reference.id,
                        "terok: fetched",
                    )?;
                }
                None => self.note(format!(
                    "upstream's tag `{tag}` is left out: its object did not come"
                )),
            }
        }
        Ok(())
    }
}

/// Replaces or removes a head as upstream has it; the old one is kept.
pub(crate) fn apply_op(
    edits: &mut Edits,
    refs: &Refs,
    branch: &str,
    sides: Sides,
) -> Result<Option<String>, Fault> {
    let Some(gate) = sides.gate else {
        return Ok(None);
    };
    let kept = backup::keep(edits, refs, branch, gate, BackupReason::Sync)?;
    let head = format!("{HEADS}{branch}");
    match sides.upstream {
        Some(new) => edits.set(&head, Some(gate), new, "terok: applied what was pending")?,
        None => edits.delete(&head, gate)?,
    }
    Ok(Some(kept))
}
