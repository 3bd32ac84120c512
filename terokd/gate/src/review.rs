//! What the gate holds that upstream does not: commits and their extent, for a human to judge.
//!
//! Reads objects only. No hook, filter, text conversion or attribute of the repository runs.

use crate::commits::describe;
use crate::refs::{CommitError, Edits, HEADS, Refs, UPSTREAM};
use crate::sync::{Remote, missing, not_there};
use crate::walk::{broken, count, is_commit, merge_base};
use crate::{
    Control, GateSpec, GitTransport, Limits, TransportError, Upstream, check_branch, layout, lock,
};
use gix::ObjectId;
use std::ops::ControlFlow;
use std::time::SystemTime;
use terok_proto::Fault;
use terok_proto::gate::ReviewRow;

/// Commits that one row lists.
const MAX_COMMITS: usize = 200;
/// Files whose lines are counted; those beyond count as files only.
const MAX_FILES: u64 = 10_000;

/// One row per head with commits that its upstream counterpart lacks, by branch. Upstream is asked first; if it cannot
/// be, the rows say so.
///
/// # Errors
/// There is no such branch or no gate, or it is busy.
pub fn review(
    spec: &GateSpec,
    upstream: Option<&Upstream>,
    transport: &dyn GitTransport,
    branch: Option<&str>,
    limits: &Limits,
    control: &Control,
) -> Result<Vec<ReviewRow>, Fault> {
    if let Some(branch) = branch {
        check_branch(branch)?;
    }
    if !spec.path.is_dir() {
        return Err(not_there(spec));
    }
    let _lock = lock::lock(spec, control)?;
    let repository = layout::open(&spec.path)?;
    let stale = match upstream {
        None => false,
        Some(upstream) => match look_upstream(&repository, upstream, transport, limits, control) {
            Ok(()) => false,
            Err(TransportError::Cancelled) => return Err(TransportError::Cancelled.into()),
            Err(error) => {
                tracing::debug!(gate = %spec.path.display(), %error, "reviewed against the last snapshot");
                true
            }
        },
    };
    let repository = layout::open(&spec.path)?;
    let refs = Refs::read(&repository)?;
    if let Some(branch) = branch.filter(|branch| !refs.heads.contains_key(*branch)) {
        return Err(Fault::invalid_argument(format!(
            "the gate has no branch `{branch}`"
        )));
    }
    let snapshot_at = stale
        .then(|| crate::status::snapshot_at(&spec.path))
        .flatten();
    let base = default_upstream(spec, &repository, &refs);
    let mut rows = Vec::new();
    for (name, head) in refs
        .heads
        .iter()
        .filter(|(name, _)| branch.is_none_or(|branch| branch == name.as_str()))
    {
        control.check().map_err(Fault::from)?;
        let against = refs.upstream.get(name).copied().or(base);
        if let Some(mut row) = row(&repository, name, *head, against)? {
            row.stale = stale;
            row.snapshot_at.clone_from(&snapshot_at);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Brings the snapshot up to date; heads stay where they are.
pub(crate) fn look_upstream(
    repository: &gix::Repository,
    upstream: &Upstream,
    transport: &dyn GitTransport,
    limits: &Limits,
    control: &Control,
) -> Result<(), TransportError> {
    let advertised = transport.ls_refs(upstream, &[HEADS], limits, control)?;
    let remote = Remote::read(&advertised)?;
    let refs = Refs::read(repository).map_err(|fault| TransportError::Storage(fault.message))?;
    let wants = missing(repository, &refs, &remote);
    if !wants.is_empty() {
        transport.fetch(repository.git_dir(), upstream, &wants, limits, control)?;
    }
    let fresh = layout::open(repository.git_dir())
        .map_err(|fault| TransportError::Storage(fault.message))?;
    let mut edits = Edits::default();
    let moved = |error: CommitError| TransportError::Storage(error.into_fault().message);
    let names = crate::sync::Names::new(refs.upstream.keys());
    for (branch, id) in &remote.heads {
        let before = refs.upstream.get(branch).copied();
        // What upstream had before a head went its own way is what tells a rewrite from lost work: a head that is not
        // simply behind keeps it until the next sync has judged it.
        let settled = refs.heads.get(branch).is_none_or(|head| {
            crate::walk::is_ancestor(&fresh, *head, *id)
                || crate::walk::is_ancestor(&fresh, *id, *head)
        });
        let fits = before.is_some() || names.has_room(branch);
        if before != Some(*id) && settled && fits && is_commit(&fresh, *id) {
            edits
                .set(
                    &format!("{UPSTREAM}{branch}"),
                    before,
                    *id,
                    "terok: fetched",
                )
                .map_err(|fault| TransportError::Storage(fault.message))?;
        }
    }
    edits.commit(&fresh).map_err(moved)
}

/// Upstream's default branch, against which a branch of the gate's own is measured.
fn default_upstream(
    spec: &GateSpec,
    repository: &gix::Repository,
    refs: &Refs,
) -> Option<ObjectId> {
    let names = [
        spec.default_branch.clone(),
        crate::compare::head_branch(repository),
    ];
    names
        .into_iter()
        .flatten()
        .find_map(|name| refs.upstream.get(&name).copied())
}

fn row(
    repository: &gix::Repository,
    branch: &str,
    head: ObjectId,
    against: Option<ObjectId>,
) -> Result<Option<ReviewRow>, Fault> {
    let against = against.filter(|id| is_commit(repository, *id));
    let hidden: Vec<ObjectId> = against.into_iter().collect();
    let ahead = count(repository, head, &hidden)?;
    if ahead == 0 {
        return Ok(None);
    }
    let behind = match against {
        Some(against) => count(repository, against, &[head])?,
        None => 0,
    };
    let walk = repository
        .rev_walk([head])
        .with_hidden(hidden.iter().copied())
        .sorting(gix::revision::walk::Sorting::ByCommitTime(
            Default::default(),
        ))
        .all()
        .map_err(|error| broken(repository, &error))?;
    let commits = walk
        .filter_map(Result::ok)
        .take(MAX_COMMITS)
        .filter_map(|info| describe(repository, info.id))
        .collect();
    let base = against.and_then(|against| merge_base(repository, head, against));
    let extent = extent(repository, base, head)?;
    Ok(Some(ReviewRow {
        branch: branch.to_owned(),
        commits,
        ahead,
        behind,
        files_changed: extent.files,
        insertions: extent.insertions,
        deletions: extent.deletions,
        stale: false,
        snapshot_at: None,
    }))
}

#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    files: u64,
    insertions: u64,
    deletions: u64,
}

/// Files and lines between two commits; a binary or enormous file counts as a file without lines.
fn extent(
    repository: &gix::Repository,
    base: Option<ObjectId>,
    head: ObjectId,
) -> Result<Extent, Fault> {
    let fail = |error: &dyn std::fmt::Display| broken(repository, error);
    let tree_of = |id: ObjectId| -> Result<gix::Tree<'_>, Fault> {
        let commit = repository.find_commit(id).map_err(|error| fail(&error))?;
        commit.tree().map_err(|error| fail(&error))
    };
    let new = tree_of(head)?;
    let old = match base {
        Some(base) => tree_of(base)?,
        None => repository.empty_tree(),
    };
    let mut cache = repository
        .diff_resource_cache_for_tree_diff()
        .map_err(|error| fail(&error))?;
    let mut extent = Extent::default();
    let mut changes = old.changes().map_err(|error| fail(&error))?;
    changes.options(|options| {
        options.track_rewrites(None);
    });
    changes
        .for_each_to_obtain_tree(&new, |change: gix::object::tree::diff::Change<'_, '_, '_>| -> Result<ControlFlow<()>, gix::Error> {
            if change.entry_mode().is_tree() {
                return Ok(ControlFlow::Continue(()));
            }
            extent.files += 1;
            if extent.files <= MAX_FILES {
                let counts = change
                    .diff(&mut cache)
                    .ok()
                    .and_then(|mut platform| platform.line_counts().ok())
                    .flatten();
                if let Some(counts) = counts {
                    extent.insertions += u64::from(counts.insertions);
                    extent.deletions += u64::from(counts.removals);
                }
                cache.clear_resource_cache_keep_allocation();
            }
            Ok(ControlFlow::Continue(()))
        })
        .map_err(|error| fail(&error))?;
    Ok(extent)
}

/// A moment of the file system as the wire has it.
pub(crate) fn moment(time: SystemTime) -> Option<String> {
    let moment = jiff::Timestamp::try_from(time).ok()?;
    Some(
        moment
            .round(jiff::Unit::Second)
            .unwrap_or(moment)
            .to_string(),
    )
}
