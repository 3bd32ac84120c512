//! What the gate holds that upstream does not: commits and their extent, for a human to judge.
//!
//! Reads objects only. No hook, filter, text conversion or attribute of the repository runs.

use crate::commits::describe;
use crate::refs::{CommitError, Edits, HEADS, Names, Refs, UPSTREAM};
use crate::remote::{Remote, missing};
use crate::walk::{broken, count, is_commit, merge_base};
use crate::{
    Control, GateSpec, GitTransport, Limits, TransportError, Upstream, check_branch, layout, lock,
    status,
};
use gix::ObjectId;
use std::ops::ControlFlow;
use terok_proto::Fault;
use terok_proto::gate::ReviewRow;

/// Commits that one row lists.
const MAX_COMMITS: usize = 200;
/// Files whose lines are counted; those beyond count as files only.
const MAX_FILES: u64 = 10_000;
/// Entries that are looked at: a few small trees that name each other can stand for more files than anybody can count.
const MAX_ENTRIES: u64 = 500_000;

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
    layout::must_exist(spec)?;
    let repository = layout::open(&spec.path)?;
    let mut refs = Refs::read(&repository)?;
    if let Some(branch) = branch.filter(|branch| !refs.heads.contains_key(*branch)) {
        return Err(Fault::invalid_argument(format!(
            "the gate has no branch `{branch}`"
        )));
    }
    // An upstream that nobody has a way to, with a locked vault for example, is as good as one that is away.
    let mut stale = upstream.is_none() && spec.upstream_url.is_some();
    if let Some(upstream) = upstream {
        match look(&repository, &refs, upstream, transport, limits, control) {
            Ok(remote) => {
                note(spec, &remote);
                refs.upstream = remote.heads;
            }
            Err(TransportError::Cancelled) => return Err(TransportError::Cancelled.into()),
            Err(error) => {
                tracing::debug!(gate = %spec.path.display(), %error, "reviewed against the last snapshot");
                stale = true;
            }
        }
    }
    // Opened again, so that new packs are seen.
    let repository = layout::open(&spec.path)?;
    let snapshot_at = stale.then(|| status::snapshot_at(&spec.path)).flatten();
    let base = default_upstream(spec, &repository, &refs);
    let mut rows = Vec::new();
    for (name, head) in refs
        .heads
        .iter()
        .filter(|(name, _)| branch.is_none_or(|branch| branch == name.as_str()))
    {
        control.check().map_err(Fault::from)?;
        let against = refs.upstream.get(name).copied().or(base);
        if let Some(mut row) = row(&repository, name, *head, against, control)? {
            row.stale = stale;
            row.snapshot_at.clone_from(&snapshot_at);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Upstream's heads as they are now, with their objects.
fn look(
    repository: &gix::Repository,
    refs: &Refs,
    upstream: &Upstream,
    transport: &dyn GitTransport,
    limits: &Limits,
    control: &Control,
) -> Result<Remote, TransportError> {
    let mut read = Ok(Remote::default());
    let mut choose = |advertised: &crate::Advertisement| {
        read = Remote::read(advertised);
        match &read {
            Ok(remote) => missing(repository, refs, remote),
            Err(_) => Vec::new(),
        }
    };
    transport.ls_refs_and_fetch(
        repository.git_dir(),
        upstream,
        &[HEADS],
        &mut choose,
        limits,
        control,
    )?;
    read
}

/// Writes down what upstream has, if nobody else works on the gate; heads stay where they are. The snapshot of a head that
/// is where upstream was stays as well: it is what will tell a rewrite from lost work when the next sync judges.
fn note(spec: &GateSpec, remote: &Remote) {
    let write = || -> Result<(), Fault> {
        let Some(_lock) = lock::try_lock(&spec.path)? else {
            return Ok(());
        };
        let repository = layout::open(&spec.path)?;
        let refs = Refs::read(&repository)?;
        let (mut edits, names) = (Edits::default(), Names::new(refs.upstream.keys()));
        for (branch, id) in &remote.heads {
            let before = refs.upstream.get(branch).copied();
            let telling = before.is_some() && before == refs.heads.get(branch).copied();
            let fits = before.is_some() || names.has_room(branch);
            if before != Some(*id) && !telling && fits && is_commit(&repository, *id) {
                let name = format!("{UPSTREAM}{branch}");
                edits.set(&name, before, *id, "terok: fetched")?;
            }
        }
        edits.commit(&repository).map_err(CommitError::into_fault)
    };
    if let Err(fault) = write() {
        tracing::debug!(gate = %spec.path.display(), message = fault.message, "the snapshot stays as it is");
    }
}

/// Upstream's default branch, against which a branch of the gate's own is measured.
fn default_upstream(
    spec: &GateSpec,
    repository: &gix::Repository,
    refs: &Refs,
) -> Option<ObjectId> {
    let names = [spec.default_branch.clone(), crate::head::branch(repository)];
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
    control: &Control,
) -> Result<Option<ReviewRow>, Fault> {
    if against == Some(head) {
        return Ok(None);
    }
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
    let extent = extent(repository, base, head, control)?;
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

/// Files and lines between two commits; a binary or enormous file counts as a file without lines. What is too much to be
/// looked at counts as [`MAX_ENTRIES`] files.
fn extent(
    repository: &gix::Repository,
    base: Option<ObjectId>,
    head: ObjectId,
    control: &Control,
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
    let (mut extent, mut entries) = (Extent::default(), 0);
    let mut changes = old.changes().map_err(|error| fail(&error))?;
    changes.options(|options| {
        options.track_rewrites(None);
    });
    let looked = changes
        .for_each_to_obtain_tree(&new, |change: gix::object::tree::diff::Change<'_, '_, '_>| -> Result<ControlFlow<()>, gix::Error> {
            entries += 1;
            if control.cancelled() || entries > MAX_ENTRIES {
                return Ok(ControlFlow::Break(()));
            }
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
        });
    control.check().map_err(Fault::from)?;
    if entries > MAX_ENTRIES {
        // Where directories alone are too many, a small number of files would say that there is little to see.
        extent.files = extent.files.max(MAX_ENTRIES);
    } else {
        looked.map_err(|error| fail(&error))?;
    }
    Ok(extent)
}
