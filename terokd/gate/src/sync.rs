//! Bringing a gate up to date: create and fast-forward by itself, everything else waits for a human.

use crate::classify::{Sides, Verdict, judge};
use crate::crash::point;
use crate::refs::{ATTIC, CommitError, Edits, HEADS, Refs, TAGS, UPSTREAM};
use crate::{
    Advertisement, Control, GateSpec, GitTransport, Limits, PinnedKey, RemoteRef, TransportError,
    Upstream, backup, cache, check_branch, layout, lock, walk,
};
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::Instant;
use terok_proto::gate::{
    AppliedKind, AppliedUpdate, BackupReason, GateOnlyBranch, GateSyncResult, PendingKind,
    PendingOp, PendingReason,
};
use terok_proto::{Fault, Kind};

/// Branches that one call may name.
const MAX_BRANCHES: usize = 500;
/// Notes that one answer holds.
const MAX_NOTES: usize = 100;
/// Refs that an upstream may have.
const MAX_REFS: usize = 500_000;
/// How often a sync starts over because somebody pushed meanwhile.
const ATTEMPTS: usize = 3;

/// What a sync is told.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// Only these branches; empty means all.
    pub branches: Vec<String>,
    /// Build the gate anew.
    pub force_reinit: bool,
    /// Apply what waits for a human if nothing is lost by it.
    pub auto_apply_lossless: bool,
    /// Days that replaced heads are kept; 0 means for ever.
    pub backup_retention_days: u64,
}

/// What a sync did, and whom it met.
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    /// As the wire has it.
    pub result: GateSyncResult,
    /// Host keys that were pinned on the way.
    pub pinned: Vec<PinnedKey>,
}

/// Brings a gate up to date with its upstream, making it if there is none.
///
/// # Errors
/// The arguments are wrong, the gate is broken or busy, the disk is full, a program is missing, or it was cancelled.
/// What goes wrong on the way to upstream is told in the result.
pub fn sync(
    spec: &GateSpec,
    upstream: Option<&Upstream>,
    transport: &dyn GitTransport,
    options: &SyncOptions,
    limits: &Limits,
    control: &Control,
) -> Result<SyncReport, Fault> {
    let begun = Instant::now();
    let selection = selection(&options.branches)?;
    let mut run = Run {
        spec,
        upstream,
        transport,
        options,
        selection,
        limits,
        control,
        report: SyncReport::default(),
    };
    let result = &mut run.report.result;
    result.path = spec.path.to_string_lossy().into_owned();
    result.upstream_url = spec.upstream_url.as_ref().map(|url| url.redacted());
    let worked = {
        let _lock = lock::lock(spec, control)?;
        point("gate.sync.locked");
        run.gate()
    };
    let mut report = run.report;
    if let Err(trouble) = worked {
        match trouble {
            Trouble::Fault(fault) => return Err(fault),
            Trouble::Transport(error) => match error {
                TransportError::Cancelled
                | TransportError::UnsupportedObjectFormat(_)
                | TransportError::GitMissing(_)
                | TransportError::Storage(_) => return Err(error.into()),
                error => report.result.errors.push(error.to_string()),
            },
        }
    }
    let result = &mut report.result;
    result.success = result.errors.is_empty();
    result.updated_branches = result
        .applied
        .iter()
        .map(|update| update.branch.clone())
        .collect();
    result.notes.truncate(MAX_NOTES);
    if result.success && upstream.is_some() {
        let moved = result.created || !result.applied.is_empty();
        point("gate.sync.cache");
        match cache::refresh(spec, moved, control) {
            Ok(refreshed) => result.cache_refreshed = refreshed,
            Err(why) => result.cache_error = Some(why),
        }
    }
    result.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The branches that a caller names, each once.
fn selection(branches: &[String]) -> Result<Option<BTreeSet<String>>, Fault> {
    if branches.len() > MAX_BRANCHES {
        return Err(Fault::invalid_argument(format!(
            "{} branches are too many for one call; name at most {MAX_BRANCHES}, or none for all",
            branches.len()
        )));
    }
    for branch in branches {
        check_branch(branch)?;
    }
    Ok((!branches.is_empty()).then(|| branches.iter().cloned().collect()))
}

/// Why a sync stopped.
enum Trouble {
    Fault(Fault),
    Transport(TransportError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

struct Run<'a> {
    spec: &'a GateSpec,
    upstream: Option<&'a Upstream>,
    transport: &'a dyn GitTransport,
    options: &'a SyncOptions,
    selection: Option<BTreeSet<String>>,
    limits: &'a Limits,
    control: &'a Control,
    report: SyncReport,
}

/// What upstream has, by kind.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    pub(crate) heads: BTreeMap<String, ObjectId>,
    pub(crate) tags: BTreeMap<String, RemoteRef>,
    /// The branch that `HEAD` points at.
    pub(crate) head: Option<String>,
    /// Names that git does not take here.
    pub(crate) refused: Vec<String>,
}

impl Remote {
    pub(crate) fn read(advertised: &Advertisement) -> Result<Self, TransportError> {
        if advertised.refs.len() > MAX_REFS {
            return Err(TransportError::Protocol(format!(
                "it has {} refs; a gate takes at most {MAX_REFS}",
                advertised.refs.len()
            )));
        }
        let mut remote = Self {
            head: advertised
                .head
                .as_deref()
                .and_then(|head| head.strip_prefix(HEADS))
                .filter(|branch| check_branch(branch).is_ok())
                .map(str::to_owned),
            ..Self::default()
        };
        for reference in &advertised.refs {
            if let Some(branch) = reference.name.strip_prefix(HEADS) {
                if check_branch(branch).is_ok() {
                    remote.heads.insert(branch.to_owned(), reference.id);
                } else {
                    remote.refused.push(reference.name.clone());
                }
            } else if let Some(tag) = reference.name.strip_prefix(TAGS) {
                if check_branch(tag).is_ok() {
                    remote.tags.insert(tag.to_owned(), reference.clone());
                } else {
                    remote.refused.push(reference.name.clone());
                }
            }
        }
        Ok(remote)
    }
}

impl Run<'_> {
    fn gate(&mut self) -> Result<(), Trouble> {
        let path = &self.spec.path;
        let there = path.symlink_metadata().is_ok();
        if !there || self.options.force_reinit {
            return self.make(there);
        }
        let repository = layout::open(path)?;
        let migrated = layout::align_config(&repository, self.spec.upstream_url.as_ref())?;
        self.report.result.migrated = migrated;
        let Some(upstream) = self.upstream else {
            return Ok(self.align_head(&repository, None)?);
        };
        // Opened again: the configuration may have changed.
        let repository = layout::open(path)?;
        self.update(&repository, upstream, migrated)
    }

    /// Asks upstream for what this sync is about.
    fn ask(
        &mut self,
        upstream: &Upstream,
        everything: bool,
    ) -> Result<Advertisement, TransportError> {
        let named: Vec<String> = self
            .selection
            .iter()
            .flatten()
            .map(|branch| format!("{HEADS}{branch}"))
            .collect();
        let mut prefixes: Vec<&str> = named.iter().map(String::as_str).collect();
        if prefixes.is_empty() && !everything {
            prefixes = vec![HEADS, TAGS];
        }
        let mut advertised =
            self.transport
                .ls_refs(upstream, &prefixes, self.limits, self.control)?;
        self.report.pinned.append(&mut advertised.pinned);
        Ok(advertised)
    }

    fn fetch(
        &mut self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
    ) -> Result<(), TransportError> {
        if wants.is_empty() {
            return Ok(());
        }
        let brought =
            self.transport
                .fetch(repository, upstream, wants, self.limits, self.control)?;
        self.report.pinned.extend(brought.pinned);
        Ok(())
    }

    /// Makes the gate beside its place and renames it there, so that it exists whole or not at all.
    fn make(&mut self, there: bool) -> Result<(), Trouble> {
        layout::private_dir(self.spec.parent())?;
        let new = self.spec.beside("new");
        let made = self.fill(&new);
        if let Err(trouble) = made {
            remove(&new);
            return Err(trouble);
        }
        point("gate.sync.exchanging");
        if let Err(fault) = put_in_place(&new, &self.spec.path, there) {
            remove(&new);
            return Err(fault.into());
        }
        point("gate.sync.exchanged");
        // After an exchange this is the old one.
        remove(&new);
        if there {
            cache::drop_cache(self.spec);
        }
        self.report.result.created = true;
        Ok(())
    }

    fn fill(&mut self, new: &Path) -> Result<(), Trouble> {
        let fallback = self
            .spec
            .default_branch
            .clone()
            .unwrap_or_else(|| "main".to_owned());
        let url = self.spec.upstream_url.as_ref();
        let Some(upstream) = self.upstream else {
            layout::create(new, &format!("{HEADS}{fallback}"), url)?;
            return Ok(());
        };
        let advertised = self.ask(upstream, false)?;
        let remote = Remote::read(&advertised)?;
        let head = remote.head.clone().unwrap_or(fallback);
        let repository = layout::create(new, &format!("{HEADS}{head}"), url)?;
        point("gate.sync.made");
        let mut wants: Vec<RemoteRef> = Vec::new();
        for (branch, id) in &remote.heads {
            wants.push(RemoteRef {
                name: format!("{HEADS}{branch}"),
                id: *id,
                peeled: None,
            });
        }
        wants.extend(remote.tags.values().cloned());
        self.fetch(new, upstream, &wants)?;
        point("gate.sync.fetched");
        // Nobody sees this repository yet, so its refs can be written as one file.
        let repository = layout::open(repository.git_dir())?;
        let mut packed: BTreeMap<String, (ObjectId, Option<ObjectId>)> = BTreeMap::new();
        for (branch, id) in &remote.heads {
            if !walk::is_commit(&repository, *id) {
                return Err(lied(branch).into());
            }
            packed.insert(format!("{HEADS}{branch}"), (*id, None));
            packed.insert(format!("{UPSTREAM}{branch}"), (*id, None));
            self.report.result.applied.push(AppliedUpdate {
                branch: branch.clone(),
                kind: AppliedKind::Create,
                old: None,
                new: id.to_string(),
            });
        }
        for (tag, reference) in &remote.tags {
            if repository.has_object(reference.id) {
                packed.insert(format!("{TAGS}{tag}"), (reference.id, reference.peeled));
            }
        }
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for (name, (id, peeled)) in &packed {
            text.push_str(&format!("{id} {name}\n"));
            if let Some(peeled) = peeled {
                text.push_str(&format!("^{peeled}\n"));
            }
        }
        layout::write(&new.join("packed-refs"), text.as_bytes())?;
        self.note_refused(&remote);
        let repository = layout::open(repository.git_dir())?;
        self.align_head(&repository, Some(&remote))?;
        layout::tighten(new)?;
        if let Ok(dir) = fs::File::open(new) {
            // Where directories cannot be synced, the rename is all there is.
            let _ = dir.sync_all();
        }
        Ok(())
    }

    fn note_refused(&mut self, remote: &Remote) {
        for name in remote.refused.iter().take(MAX_NOTES) {
            let shown = terok_proto::error::printable_line(name);
            self.note(format!(
                "upstream's `{shown}` is left out: a gate cannot have a ref of that name"
            ));
        }
    }

    fn note(&mut self, note: String) {
        let notes = &mut self.report.result.notes;
        if notes.len() < MAX_NOTES {
            notes.push(note);
        }
    }

    fn update(
        &mut self,
        repository: &gix::Repository,
        upstream: &Upstream,
        migrated: bool,
    ) -> Result<(), Trouble> {
        let advertised = self.ask(upstream, migrated)?;
        let remote = Remote::read(&advertised)?;
        let refs = Refs::read(repository)?;
        let silent = advertised.refs.is_empty() && !advertised.empty_confirmed;
        if silent
            && self.selection.is_none()
            && !(refs.upstream.is_empty() && refs.heads.is_empty())
        {
            return Err(TransportError::Protocol(
                "it shows no branches at all, though it had some; nothing was changed".to_owned(),
            )
            .into());
        }
        let wants = missing(repository, &refs, &remote);
        self.fetch(repository.git_dir(), upstream, &wants)?;
        point("gate.sync.fetched");
        // Opened again, so that new packs are seen at once.
        let repository = &layout::open(repository.git_dir())?;
        if let Some((branch, _)) = remote
            .heads
            .iter()
            .find(|(branch, id)| self.is_wanted(branch) && !walk::is_commit(repository, **id))
        {
            return Err(lied(branch).into());
        }
        self.note_refused(&remote);
        let base = self.report.result.clone();
        for attempt in 1.. {
            self.report.result = base.clone();
            match self.apply(repository, &remote, &advertised, migrated) {
                Ok(()) => break,
                Err(CommitError::Fault(fault)) => return Err(fault.into()),
                Err(CommitError::Moved(why)) if attempt >= ATTEMPTS => {
                    self.report.result = base;
                    self.report.result.errors.push(format!(
                        "the gate kept changing while it was synced; try again ({why})"
                    ));
                    return Ok(());
                }
                Err(CommitError::Moved(why)) => {
                    tracing::debug!(why, "the gate changed; its refs are read again")
                }
            }
        }
        point("gate.sync.refs");
        let repository = &layout::open(repository.git_dir())?;
        self.align_head(repository, Some(&remote))?;
        point("gate.sync.head");
        if self.options.backup_retention_days > 0 {
            let refs = Refs::read(repository)?;
            backup::prune(repository, &refs, self.options.backup_retention_days)?;
        }
        crate::maintenance::after_sync(self.spec);
        Ok(())
    }

    fn is_wanted(&self, branch: &str) -> bool {
        self.selection
            .as_ref()
            .is_none_or(|selection| selection.contains(branch))
    }

    /// Classifies every branch and changes all refs in one step.
    fn apply(
        &mut self,
        repository: &gix::Repository,
        remote: &Remote,
        advertised: &Advertisement,
        migrated: bool,
    ) -> Result<(), CommitError> {
        let refs = Refs::read(repository).map_err(CommitError::Fault)?;
        let mut edits = Edits::default();
        let mut first = Edits::default();
        let heads = Names::new(refs.heads.keys());
        let attic = Names::new(refs.attic.keys());
        let names: BTreeSet<&String> = remote
            .heads
            .keys()
            .chain(refs.heads.keys())
            .chain(refs.upstream.keys())
            .chain(refs.attic.keys())
            .filter(|branch| self.is_wanted(branch))
            .collect();
        let fresh = Names::new(remote.heads.keys());
        for branch in names {
            let (gate, before) = (
                refs.heads.get(branch).copied(),
                refs.upstream.get(branch).copied(),
            );
            let kept = refs.attic.get(branch).copied();
            let sides = Sides {
                gate,
                upstream: remote.heads.get(branch).copied(),
                past: kept.or(before),
            };
            let waits = self
                .decide(
                    repository, &refs, &heads, branch, sides, migrated, &mut edits,
                )
                .map_err(CommitError::Fault)?;
            match (waits, kept, sides.past) {
                (true, None, Some(past)) if attic.has_room(branch) => edits
                    .set(
                        &format!("{ATTIC}{branch}"),
                        None,
                        past,
                        "terok: went pending",
                    )
                    .map_err(CommitError::Fault)?,
                (false, Some(kept), _) => edits
                    .delete(&format!("{ATTIC}{branch}"), kept)
                    .map_err(CommitError::Fault)?,
                _ => {}
            }
            let name = format!("{UPSTREAM}{branch}");
            match (before, sides.upstream) {
                (before, Some(now)) if before != Some(now) => {
                    edits
                        .set(&name, before, now, "terok: fetched")
                        .map_err(CommitError::Fault)?;
                }
                // A file in the way of a directory has to go before.
                (Some(before), None) if !fresh.has_room(branch) => {
                    first.delete(&name, before).map_err(CommitError::Fault)?;
                }
                (Some(before), None) => edits.delete(&name, before).map_err(CommitError::Fault)?,
                _ => {}
            }
        }
        if self.selection.is_none() {
            self.tags(repository, &refs, remote, &mut edits)
                .map_err(CommitError::Fault)?;
        }
        if migrated {
            let theirs: HashMap<&str, ObjectId> = advertised
                .refs
                .iter()
                .map(|r| (r.name.as_str(), r.id))
                .collect();
            for (name, id) in &refs.foreign {
                if name != "HEAD" && name.starts_with("refs/") && theirs.contains_key(name.as_str())
                {
                    edits.delete(name, *id).map_err(CommitError::Fault)?;
                }
            }
        }
        point("gate.sync.ready");
        if !first.is_empty() {
            first.commit(repository)?;
        }
        edits.commit(repository)
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

    /// Points `HEAD` where upstream's does, if the gate has that branch; else keeps it while it is of use.
    fn align_head(
        &mut self,
        repository: &gix::Repository,
        remote: Option<&Remote>,
    ) -> Result<(), Fault> {
        let refs = Refs::read(repository)?;
        let now = repository.head_name().ok().flatten().and_then(|name| {
            name.as_bstr()
                .to_string()
                .strip_prefix(HEADS)
                .map(str::to_owned)
        });
        let theirs = remote.and_then(|remote| remote.head.clone());
        let configured = self.spec.default_branch.clone();
        let has = |branch: &Option<String>| {
            branch
                .as_ref()
                .is_some_and(|branch| refs.heads.contains_key(branch))
        };
        let wanted = if has(&theirs) {
            theirs
        } else if has(&now) {
            now.clone()
        } else if has(&configured) {
            configured
        } else if refs.heads.is_empty() {
            // Unborn: the first push should become what clones check out.
            theirs
                .or(configured)
                .or_else(|| now.clone())
                .or(Some("main".to_owned()))
        } else {
            self.report.result.errors.push(
                "the gate's HEAD names no branch that exists, so clones of it would be empty; set `git.default_branch`"
                    .to_owned(),
            );
            return Ok(());
        };
        if wanted == now {
            return Ok(());
        }
        let Some(branch) = wanted else { return Ok(()) };
        let mut edits = Edits::default();
        edits.point_head(&format!("{HEADS}{branch}"))?;
        edits.commit(repository).map_err(CommitError::into_fault)
    }
}

/// Names of one ref space, for the question whether another one fits beside them: `a` and `a/b` do not.
pub(crate) struct Names<'a> {
    names: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(names: impl Iterator<Item = &'a String>) -> Self {
        Self {
            names: names.map(String::as_str).collect(),
        }
    }

    pub(crate) fn has_room(&self, name: &str) -> bool {
        let inside = format!("{name}/");
        let below = self
            .names
            .range(inside.as_str()..)
            .next()
            .is_some_and(|other| other.starts_with(&inside));
        let above = name
            .match_indices('/')
            .any(|(at, _)| self.names.contains(&name[..at]));
        !below && !above
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

/// What has to be downloaded.
pub(crate) fn missing(
    repository: &gix::Repository,
    refs: &Refs,
    remote: &Remote,
) -> Vec<RemoteRef> {
    let heads = remote
        .heads
        .iter()
        .filter(|(branch, id)| refs.upstream.get(*branch) != Some(id))
        .filter(|(_, id)| !repository.has_object(**id))
        .map(|(branch, id)| RemoteRef {
            name: format!("{HEADS}{branch}"),
            id: *id,
            peeled: None,
        });
    let tags = remote
        .tags
        .iter()
        .filter(|(tag, reference)| {
            !refs.tags.contains_key(*tag) && !repository.has_object(reference.id)
        })
        .map(|(_, reference)| reference.clone());
    heads.chain(tags).collect()
}

fn lied(branch: &str) -> TransportError {
    TransportError::Protocol(format!("what it sent for branch `{branch}` is no commit"))
}

/// Renames a new repository to its place; an old one that is there changes places with it.
fn put_in_place(new: &Path, place: &Path, there: bool) -> Result<(), Fault> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let flags = if there {
        RenameFlags::RENAME_EXCHANGE
    } else {
        RenameFlags::RENAME_NOREPLACE
    };
    match renameat2(AT_FDCWD, new, AT_FDCWD, place, flags) {
        Ok(()) => return Ok(()),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {}
        Err(error) => return Err(Fault::io("put the gate at", place, &error.into())),
    }
    // This file system cannot do it in one step.
    let old = new.with_extension("trash");
    if there {
        fs::rename(place, &old).map_err(|error| Fault::io("set aside", place, &error))?;
    }
    if let Err(error) = fs::rename(new, place) {
        if there {
            // Better the old one than none.
            let _ = fs::rename(&old, place);
        }
        return Err(Fault::io("put the gate at", place, &error));
    }
    remove(&old);
    Ok(())
}

/// Removes what is no longer needed; what cannot be removed now is removed at the next start.
pub(crate) fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            if let Err(error) = fs::remove_file(dir) {
                tracing::debug!(dir = %dir.display(), %error, "cannot remove");
            }
            tracing::warn!(dir = %dir.display(), %error, "cannot remove");
        }
    }
}

/// A fault for a gate that nobody made yet.
pub(crate) fn not_there(spec: &GateSpec) -> Fault {
    Fault::new(
        Kind::GateMissing,
        format!(
            "there is no gate at `{}` yet; sync it first",
            spec.path.display()
        ),
    )
}
