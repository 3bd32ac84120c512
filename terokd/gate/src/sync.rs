//! Bringing a gate up to date: create and fast-forward by itself, everything else waits for a human.

use crate::crash::point;
use crate::head;
use crate::refs::{ATTIC, CommitError, HEADS, Refs, TAGS, UPSTREAM};
use crate::remote::{Remote, missing};
use crate::{
    Advertisement, Control, GateSpec, GitTransport, Limits, TransportError, Upstream, backup,
    cache, check_branch, layout, lock, maintenance, modes, status, walk,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use terok_proto::Fault;
use terok_proto::gate::GateSyncResult;

/// Branches that one call may name.
const MAX_BRANCHES: usize = 500;
/// Notes that one answer holds.
const MAX_NOTES: usize = 100;
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
    /// Branches that somebody else was changing, so that they were left as they are.
    pub left: Vec<String>,
}

/// Brings a gate up to date with its upstream, making it if there is none. The clone that seeds tasks is left to
/// [`refresh_cache`], which needs no right to the gate.
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
        limits: *limits,
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
    result.duration_ms = milliseconds(begun);
    Ok(report)
}

/// Brings the clone that seeds tasks to what a sync has left in the gate. Others may change the gate meanwhile; what goes
/// wrong is told in the result.
pub fn refresh_cache(spec: &GateSpec, report: &mut SyncReport, control: &Control) {
    let result = &mut report.result;
    if !result.success || result.upstream_url.is_none() {
        return;
    }
    let begun = Instant::now();
    point("gate.sync.cache");
    match cache::refresh(spec, control) {
        Ok(refreshed) => result.cache_refreshed = refreshed,
        Err(why) => result.cache_error = Some(why),
    }
    result.duration_ms = result.duration_ms.saturating_add(milliseconds(begun));
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
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
pub(crate) enum Trouble {
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

pub(crate) struct Run<'a> {
    pub(crate) spec: &'a GateSpec,
    pub(crate) upstream: Option<&'a Upstream>,
    pub(crate) transport: &'a dyn GitTransport,
    pub(crate) options: &'a SyncOptions,
    pub(crate) selection: Option<BTreeSet<String>>,
    pub(crate) limits: Limits,
    pub(crate) control: &'a Control,
    pub(crate) report: SyncReport,
}

impl Run<'_> {
    fn gate(&mut self) -> Result<(), Trouble> {
        let path = &self.spec.path;
        if path.symlink_metadata().is_err() || self.options.force_reinit {
            // The lock is ours, so what lies beside the gate belongs to nobody; an old one may come back to its place.
            status::remove_leftovers(path);
        }
        let there = path.symlink_metadata().is_ok();
        if !there || self.options.force_reinit {
            return self.make(there);
        }
        let repository = layout::open(path)?;
        modes::claim(path);
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
    pub(crate) fn ask_and_fetch(
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
        let (advertised, _) = self.transport.ls_refs_and_fetch(
            repository.git_dir(),
            upstream,
            &prefixes,
            &mut choose,
            &self.limits,
            self.control,
        )?;
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
            .ls_refs(upstream, &prefixes, &self.limits, self.control)?;
        if again.refs == advertised.refs {
            return Ok(());
        }
        Err(TransportError::Protocol(
            "it shows other branches at every look; nothing was changed".to_owned(),
        ))
    }

    pub(crate) fn note_refused(&mut self, remote: &Remote) {
        for name in remote.refused.iter().take(MAX_NOTES) {
            let shown = terok_proto::error::printable_line(name);
            self.note(format!(
                "upstream's `{shown}` is left out: a gate cannot have a ref of that name"
            ));
        }
    }

    pub(crate) fn note(&mut self, note: String) {
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
        let mut wrote = fetched;
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
            wrote = true;
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
        self.report.left = left.into_keys().collect();
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
        if wrote {
            modes::tighten(repository.git_dir());
        }
        maintenance::after_sync(self.spec, self.control);
        Ok(())
    }

    pub(crate) fn is_wanted(&self, branch: &str) -> bool {
        self.selection
            .as_ref()
            .is_none_or(|selection| selection.contains(branch))
    }

    /// Points `HEAD` where upstream's does; what clones would not get is an error.
    pub(crate) fn align_head(
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

pub(crate) fn lied(branch: &str) -> TransportError {
    TransportError::Protocol(format!("what it sent for branch `{branch}` is no commit"))
}
