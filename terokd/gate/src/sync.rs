//! Bringing a gate up to date: create and fast-forward by itself, everything else waits for a human.

use crate::classify::{Sides, Verdict, judge};
use crate::crash::point;
use crate::head;
use crate::refs::{ATTIC, CommitError, Edits, HEADS, Names, Refs, TAGS, UPSTREAM};
use crate::{
    Advertisement, Control, GateSpec, GitTransport, Limits, PinnedKey, RemoteRef, TransportError,
    Upstream, backup, cache, check_branch, layout, lock, maintenance, status, walk,
};
use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::time::Instant;
use terok_proto::gate::{
    AppliedKind, AppliedUpdate, BackupReason, GateOnlyBranch, GateSyncResult, PendingKind,
    PendingOp, PendingReason,
};
use terok_proto::Fault;

/// Branches that one call may name.
const MAX_BRANCHES: usize = 500;
/// Notes that one answer holds.
const MAX_NOTES: usize = 100;
/// Refs that an upstream may have.
const MAX_REFS: usize = 500_000;
/// How often a sync starts over because somebody pushed meanwhile.
const RETRIES: usize = 3;

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
        point("gate.sync.cache");
        match cache::refresh(spec, control) {
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
        // No git repository has both `a` and `a/b`; what says so keeps the first.
        for branch in nested(&remote.heads) {
            remote.heads.remove(&branch);
            remote.refused.push(format!("{HEADS}{branch}"));
        }
        for tag in nested(&remote.tags) {
            remote.tags.remove(&tag);
            remote.refused.push(format!("{TAGS}{tag}"));
        }
        Ok(remote)
    }
}

/// Names below another name.
fn nested<T>(map: &BTreeMap<String, T>) -> Vec<String> {
    map.keys()
        .filter(|name| {
            name.match_indices('/')
                .any(|(at, _)| map.contains_key(&name[..at]))
        })
        .cloned()
        .collect()
}

impl Run<'_> {
    fn gate(&mut self) -> Result<(), Trouble> {
        let path = &self.spec.path;
        let there = path.symlink_metadata().is_ok();
        if !there || self.options.force_reinit {
            return self.make(there);
        }
        let repository = layout::open(path)?;
        let url = self.spec.upstream_url.as_ref();
        let mirror = layout::align_config(&repository, url, self.upstream.is_some())?;
        let Some(upstream) = self.upstream else {
            self.report.result.migrated = mirror;
            let refs = Refs::read(&repository)?;
            return Ok(self.align_head(&repository, &refs, None)?);
        };
        // Opened again: the configuration may have changed.
        let repository = layout::open(path)?;
        // Some branches alone do not tell what was upstream's.
        self.update(&repository, upstream, mirror && self.selection.is_none())
    }

    /// What this sync asks upstream about.
    fn prefixes(&self, everything: bool) -> Vec<String> {
        match &self.selection {
            Some(branches) => branches
                .iter()
                .map(|branch| format!("{HEADS}{branch}"))
                .collect(),
            None if everything => Vec::new(),
            None => vec![HEADS.to_owned(), TAGS.to_owned()],
        }
    }

    /// Asks upstream for what this sync is about, and downloads what the gate lacks of it.
    fn ask_and_fetch(
        &mut self,
        repository: &gix::Repository,
        upstream: &Upstream,
        refs: &Refs,
        everything: bool,
    ) -> Result<(Advertisement, Remote, bool), TransportError> {
        let prefixes = self.prefixes(everything);
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let mut read: Result<Remote, TransportError> = Ok(Remote::default());
        let mut wanted = false;
        let mut choose = |advertised: &Advertisement| {
            read = Remote::read(advertised);
            let wants = match &read {
                Ok(remote) => missing(repository, refs, remote),
                Err(_) => Vec::new(),
            };
            wanted = !wants.is_empty();
            wants
        };
        let (mut advertised, brought) = self.transport.ls_refs_and_fetch(
            repository.git_dir(),
            upstream,
            &prefixes,
            &mut choose,
            self.limits,
            self.control,
        )?;
        self.report.pinned.append(&mut advertised.pinned);
        self.report.pinned.extend(brought.pinned);
        Ok((advertised, read?, wanted))
    }

    /// A look that would remove snapshots but shows nothing, or no `HEAD`, has to be the same twice.
    fn confirm(
        &mut self,
        upstream: &Upstream,
        refs: &Refs,
        advertised: &Advertisement,
        remote: &Remote,
        everything: bool,
    ) -> Result<(), TransportError> {
        let removes = refs
            .upstream
            .keys()
            .any(|branch| self.is_wanted(branch) && !remote.heads.contains_key(branch));
        let plausible = if advertised.refs.is_empty() {
            advertised.empty_confirmed
        } else {
            advertised.head.is_some()
        };
        if !removes || plausible {
            return Ok(());
        }
        let prefixes = self.prefixes(everything);
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let again = self
            .transport
            .ls_refs(upstream, &prefixes, self.limits, self.control)?;
        if again.refs == advertised.refs {
            return Ok(());
        }
        Err(TransportError::Protocol(
            "it shows other branches at every look; nothing was changed".to_owned(),
        ))
    }

    /// Makes the gate beside its place and renames it there, so that it exists whole or not at all.
    fn make(&mut self, there: bool) -> Result<(), Trouble> {
        layout::private_dir(self.spec.parent())?;
        // The lock is ours, so whatever is there belongs to nobody.
        status::remove_leftovers(&self.spec.path);
        let new = self.spec.beside("reinit");
        let made = self.fill(&new);
        if let Err(trouble) = made {
            remove(&new);
            return Err(trouble);
        }
        point("gate.sync.exchanging");
        if let Err(fault) = put_in_place(self.spec, &new, there) {
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
        let repository = layout::create(new, &format!("{HEADS}{fallback}"), url)?;
        point("gate.sync.made");
        let (_, remote, _) = self.ask_and_fetch(&repository, upstream, &Refs::default(), false)?;
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
            // Peeled by ourselves: a lie in this file would be passed on to clones.
            if let Some(peeled) = walk::peeled(&repository, reference.id) {
                packed.insert(format!("{TAGS}{tag}"), (reference.id, peeled));
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
        let refs = Refs::read(&repository)?;
        self.align_head(&repository, &refs, Some(&remote))?;
        status::note_fetch(new);
        maintenance::begin(new);
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
        let refs = Refs::read(repository)?.whole(repository)?;
        let (advertised, remote, fetched) =
            self.ask_and_fetch(repository, upstream, &refs, migrated)?;
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
        self.confirm(upstream, &refs, &advertised, &remote, migrated)?;
        point("gate.sync.fetched");
        // Opened again, so that new packs are seen at once; read again, because that took its time.
        let (repository, mut refs) = if fetched {
            let repository = layout::open(repository.git_dir())?;
            let refs = Refs::read(&repository)?;
            (repository, refs)
        } else {
            (repository.clone(), refs)
        };
        if let Some((branch, _)) = remote
            .heads
            .iter()
            .find(|(branch, id)| self.is_wanted(branch) && !walk::is_commit(&repository, **id))
        {
            return Err(lied(branch).into());
        }
        self.note_refused(&remote);
        let base = self.report.result.clone();
        let mut left: BTreeMap<String, Option<String>> = BTreeMap::new();
        for attempt in 1.. {
            self.report.result = base.clone();
            for (branch, held) in &left {
                let why = held.as_ref().map_or_else(
                    || "changed while the gate was synced".to_owned(),
                    |held| format!("cannot be changed ({held})"),
                );
                self.note(format!(
                    "`{branch}` {why} and is left as it is; the next sync looks at it again"
                ));
            }
            let edits = self.plan(&repository, &refs, &remote, &advertised, migrated, &left)?;
            self.control.check()?;
            point("gate.sync.ready");
            if edits.is_empty() {
                break;
            }
            let result = edits.commit(&repository);
            refs = Refs::read(&repository)?;
            match result {
                Ok(()) => break,
                Err(CommitError::Fault(fault)) => return Err(fault.into()),
                Err(CommitError::Moved { refs, why }) => {
                    let before = left.len();
                    left.extend(
                        refs.iter()
                            .map(|(name, held)| (branch_of(name), held.clone())),
                    );
                    tracing::debug!(why, ?refs, "the gate changed meanwhile");
                    if attempt > RETRIES || left.len() == before {
                        self.report.result = base;
                        self.report.result.errors.push(format!(
                            "the gate kept changing while it was synced; try again ({why})"
                        ));
                        return Ok(());
                    }
                }
            }
        }
        point("gate.sync.refs");
        if migrated {
            layout::align_config(&repository, self.spec.upstream_url.as_ref(), false)?;
            self.report.result.migrated = true;
        }
        self.align_head(&repository, &refs, Some(&remote))?;
        point("gate.sync.head");
        status::note_fetch(repository.git_dir());
        if self.options.backup_retention_days > 0
            && let Err(fault) =
                backup::prune(&repository, &refs, self.options.backup_retention_days)
        {
            self.note(format!("old backups stay for now: {}", fault.message));
        }
        if fetched || !self.report.result.applied.is_empty() {
            layout::tighten(repository.git_dir())?;
        }
        maintenance::after_sync(self.spec, self.control);
        Ok(())
    }

    fn is_wanted(&self, branch: &str) -> bool {
        self.selection
            .as_ref()
            .is_none_or(|selection| selection.contains(branch))
    }

    /// Classifies every branch; what is to be done about all of them.
    fn plan(
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

    fn align_head(
        &mut self,
        repository: &gix::Repository,
        refs: &Refs,
        remote: Option<&Remote>,
    ) -> Result<(), Fault> {
        let theirs = remote.and_then(|remote| remote.head.as_deref());
        let configured = self.spec.default_branch.as_deref();
        if !head::align(repository, refs, theirs, configured)? {
            self.report.result.errors.push(
                "the gate's HEAD names no branch that exists, so clones of it would be empty; set `git.default_branch`"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What a ref that could not be changed means for the next attempt: the branch it belongs to, or its own full name.
fn branch_of(name: &str) -> String {
    let branch = [HEADS, UPSTREAM, ATTIC]
        .iter()
        .find_map(|space| name.strip_prefix(space));
    branch.unwrap_or(name).to_owned()
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
fn put_in_place(spec: &GateSpec, new: &Path, there: bool) -> Result<(), Fault> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let place = &spec.path;
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
    let old = spec.beside("trash");
    if there {
        fs::rename(place, &old).map_err(|error| Fault::io("set aside", place, &error))?;
        point("gate.sync.aside");
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
