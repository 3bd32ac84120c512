//! The comparison of disk and memory: what is new, what differs, what is gone, and what has to settle first.

use super::differences::differences;
use super::settle::{COARSE, Settling, age};
use super::snapshot::{ProjectEntry, Snapshot};
use super::watch::Hints;
use crate::events::Draft;
use crate::git::identity;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use terok_config::env::Environment;
use terok_config::global::{self, Global};
use terok_config::project::{self, Candidate, ProjectLoad, Stamp};
use terok_config::resolve::Context;
use terok_config::roster::Roster;
use terok_config::yaml;

/// How much of the disk is taken as it stands.
#[derive(Debug)]
pub(super) enum Haste {
    /// Everything has to settle.
    Settle,
    /// This project was written by ourselves, whole.
    Ours(String),
    /// Everything as it stands: somebody has waited for long enough.
    Everything,
}

/// The outcome of a look.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The next state, if anything changed.
    pub(super) next: Option<Snapshot>,
    /// What to tell about it.
    pub(super) events: Vec<Draft>,
    /// Something has to be looked at again.
    pub(super) again_in: Option<Duration>,
}

/// What is remembered between looks.
#[derive(Debug)]
pub(super) struct Reconciler {
    env: Arc<Environment>,
    /// As loaded, before projects that claim one id were marked.
    loads: BTreeMap<String, ProjectLoad>,
    /// What the global configuration, the identity and the roster were read from.
    global: Source,
    identity: Source,
    roster: Source,
    /// Projects that were read so soon after a change that another one may have the same stamp.
    coarse: HashSet<String>,
    /// Since when a file waits to settle, or is away.
    unsettled: HashMap<PathBuf, Instant>,
}

/// Files that something was read from, as they were then.
#[derive(Debug, Default)]
struct Source {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    prints: Vec<Print>,
}

/// What of a file matters to those who read it: its content, and who else may read it.
type Print = Option<(String, u32)>;

impl Source {
    fn of(files: &[PathBuf]) -> Self {
        Self {
            stamps: stamps(files),
            prints: files.iter().map(|file| print(file)).collect(),
        }
    }

    /// The files as they are now, if they say something else and have settled.
    fn newer(&mut self, files: &[PathBuf], settling: &mut Settling<'_>) -> Option<Self> {
        let stamps = stamps(files);
        if stamps == self.stamps || !settling.all_settled(&stamps, &self.stamps) {
            return None;
        }
        let same_files = stamps
            .iter()
            .map(|s| &s.0)
            .eq(self.stamps.iter().map(|s| &s.0));
        let prints = files.iter().map(|file| print(file)).collect();
        if same_files && prints == self.prints {
            self.stamps = stamps;
            return None;
        }
        Some(Self { stamps, prints })
    }
}

fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, Option<Stamp>)> {
    files
        .iter()
        .map(|path| (path.clone(), Stamp::of(path)))
        .collect()
}

fn print(file: &Path) -> Print {
    let mode = std::fs::metadata(file).ok()?.mode();
    // What cannot be read, or is too large to be of use, differs from what can.
    let bytes = crate::fs::read_limited(file, yaml::MAX_BYTES);
    let hash = bytes.map_or_else(|fault| fault.message, |bytes| project::sha256_hex(&bytes));
    Some((hash, mode))
}

/// The parts of a snapshot that every project is resolved against.
struct Common {
    global: Arc<Global>,
    identity: Arc<terok_config::GitIdentity>,
    identity_files: Arc<Vec<PathBuf>>,
    roster: Arc<Roster>,
}

impl Reconciler {
    pub(super) fn new(env: Arc<Environment>) -> Self {
        Self {
            env,
            loads: BTreeMap::new(),
            global: Source::default(),
            identity: Source::default(),
            roster: Source::default(),
            coarse: HashSet::new(),
            unsettled: HashMap::new(),
        }
    }

    /// The state at start: everything as it stands.
    pub(super) fn first(&mut self) -> Snapshot {
        // The stamps come before the content: what changes in between is noticed afterwards.
        self.global = Source::of(&global::load(&self.env, None).watched_paths);
        let global = Arc::new(global::load(&self.env, None));
        let (identity, identity_files, source) = read_identity(&self.env);
        self.identity = source;
        self.roster = Source::of(&roster_files(&global));
        let roster = Arc::new(read_roster(&global));
        let common = Common {
            global,
            identity,
            identity_files,
            roster,
        };
        let candidates = project::discover(&common.global.paths);
        let loaded = load_all(&candidates, &common, &self.env);
        self.coarse = coarse(&loaded);
        self.loads = loaded
            .into_iter()
            .map(|load| (load.dir_name.to_string(), load))
            .collect();
        self.build(1, common, None)
    }

    /// Compares the disk with `current`. `begun` is when the first hint since the last look came.
    pub(super) fn look(
        &mut self,
        current: &Snapshot,
        haste: &Haste,
        begun: Option<Instant>,
        hints: &Hints,
    ) -> Looked {
        let hurried = matches!(haste, Haste::Everything);
        let remembered = std::mem::take(&mut self.unsettled);
        let mut settling = Settling::new(remembered, begun, hints, hurried);
        let common = self.look_at_common(current, &mut settling);
        let resolve_all = !Arc::ptr_eq(&common.global, &current.global)
            || common.identity != current.identity
            || !Arc::ptr_eq(&common.roster, &current.roster);
        let loads = self.look_at_projects(&common, resolve_all, haste, &mut settling);
        let again_in;
        (self.unsettled, again_in) = settling.finish();
        let unchanged = !resolve_all
            && common.identity_files == current.identity_files
            && loads.len() == self.loads.len()
            && loads
                .iter()
                .zip(&self.loads)
                .all(|(new, old)| new.0 == old.0 && new.1.same_file(old.1));
        if unchanged {
            return Looked {
                again_in,
                ..Looked::default()
            };
        }
        self.loads = loads;
        let next = self.build(current.generation + 1, common, Some(current));
        Looked {
            events: differences(&self.env, current, &next),
            next: Some(next),
            again_in,
        }
    }

    /// Every project as it is to be from now on: read again, or as it was.
    fn look_at_projects(
        &mut self,
        common: &Common,
        resolve_all: bool,
        haste: &Haste,
        settling: &mut Settling<'_>,
    ) -> BTreeMap<String, ProjectLoad> {
        let ours = |name: &str| matches!(haste, Haste::Ours(ours) if *ours == *name);
        let mut loads = BTreeMap::new();
        let mut stale = Vec::new();
        for candidate in project::discover(&common.global.paths) {
            let name = &candidate.dir_name;
            let Some(known) = self.loads.get(name) else {
                if ours(name) || settling.settled(&candidate.yml_path) {
                    stale.push(candidate);
                }
                continue;
            };
            let same = !self.coarse.contains(name) && is_same(known, &candidate);
            // One of the same name in the other directory must not step in while an editor saves.
            let covered = *known.yml_path != *candidate.yml_path
                && !ours(name)
                && Stamp::of(&known.yml_path).is_none()
                && settling.absent_for_a_moment(&known.yml_path);
            let take = if same {
                resolve_all
            } else {
                !covered && (ours(name) || settling.settled(&candidate.yml_path))
            };
            if take {
                stale.push(candidate);
            } else {
                loads.insert(name.clone(), known.clone());
            }
        }
        let mut read = Vec::new();
        for load in load_all(&stale, common, &self.env) {
            let known = self.loads.get(&*load.dir_name);
            let worse = known.is_none_or(|known| known.outcome.is_ok())
                && (load.outcome.is_err() || is_empty(&load.yml_path));
            if worse && !ours(&load.dir_name) && settling.doubtful(&load.yml_path) {
                loads.extend(known.map(|known| (known.dir_name.to_string(), known.clone())));
            } else {
                read.push(load);
            }
        }
        for load in &read {
            self.coarse.remove(&*load.dir_name);
        }
        self.coarse.extend(coarse(&read));
        if !self.coarse.is_empty() {
            settling.look_again(COARSE);
        }
        loads.extend(
            read.into_iter()
                .map(|load| (load.dir_name.to_string(), load)),
        );
        let found: HashSet<&str> = stale.iter().map(|c| c.dir_name.as_str()).collect();
        for (name, load) in &self.loads {
            if !loads.contains_key(name)
                && !found.contains(name.as_str())
                && !ours(name)
                && settling.absent_for_a_moment(&load.yml_path)
            {
                loads.insert(name.clone(), load.clone());
            }
        }
        self.coarse.retain(|name| loads.contains_key(name));
        loads
    }

    /// Configuration, identity and roster; the old ones where their files are the same or still change.
    fn look_at_common(&mut self, current: &Snapshot, settling: &mut Settling<'_>) -> Common {
        let mut common = Common {
            global: Arc::clone(&current.global),
            identity: Arc::clone(&current.identity),
            identity_files: Arc::clone(&current.identity_files),
            roster: Arc::clone(&current.roster),
        };
        if let Some(source) = self.global.newer(&common.global.watched_paths, settling) {
            self.global = source;
            common.global = Arc::new(global::load(&self.env, Some(&common.global)));
        }
        let identity = self.identity.newer(&common.identity_files, settling);
        if identity.is_some() {
            (common.identity, common.identity_files, self.identity) = read_identity(&self.env);
        }
        if let Some(source) = self.roster.newer(&roster_files(&common.global), settling) {
            self.roster = source;
            common.roster = Arc::new(read_roster(&common.global));
        }
        common
    }

    fn build(&self, generation: u64, common: Common, before: Option<&Snapshot>) -> Snapshot {
        let loads: Vec<ProjectLoad> = self.loads.values().cloned().collect();
        let projects = project::mark_conflicts(&loads)
            .into_iter()
            .map(|load| {
                let old = before.and_then(|before| before.projects.get(&*load.dir_name));
                let entry = match old {
                    Some(old) if old.load().same_outcome(&load) => Arc::clone(old),
                    old => Arc::new(ProjectEntry::new(load, old.map(AsRef::as_ref))),
                };
                (entry.dir_name().to_owned(), entry)
            })
            .collect();
        Snapshot {
            generation,
            paths: Arc::new(common.global.paths.clone()),
            global: common.global,
            identity: common.identity,
            identity_files: common.identity_files,
            roster: common.roster,
            projects,
        }
    }
}

/// Git's idea of the user, the files behind it, and their state from before they were read.
fn read_identity(env: &Environment) -> (Arc<terok_config::GitIdentity>, Arc<Vec<PathBuf>>, Source) {
    let mut read = identity::read(env);
    let mut source = Source::default();
    // An include may have been added since.
    for _ in 0..3 {
        let files = std::mem::take(&mut read.files);
        source = Source::of(&files);
        read = identity::read(env);
        if read.files == files {
            break;
        }
    }
    for warning in &read.warnings {
        tracing::warn!("git's global configuration: {warning}");
    }
    (Arc::new(read.identity), Arc::new(read.files), source)
}

/// Where the user's roster entries are.
pub(super) fn roster_dir(global: &Global) -> PathBuf {
    global.paths.config_root.join("agent/agents")
}

fn read_roster(global: &Global) -> Roster {
    let roster = Roster::load(&roster_dir(global));
    for warning in roster.warnings() {
        tracing::warn!("roster: {warning}");
    }
    roster
}

fn roster_files(global: &Global) -> Vec<PathBuf> {
    let dir = roster_dir(global);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .take(1_000)
                .collect()
        })
        .unwrap_or_default();
    files.sort();
    files
}

/// The same version of the same file in the same place.
fn is_same(known: &ProjectLoad, candidate: &Candidate) -> bool {
    known.stamp.is_some()
        && known.stamp == Stamp::of(&candidate.yml_path)
        && *known.root == *candidate.root
        && *known.yml_path == *candidate.yml_path
}

fn is_empty(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.len() == 0)
}

/// Those that were touched just before they were read.
fn coarse(loads: &[ProjectLoad]) -> HashSet<String> {
    let fresh = |load: &&ProjectLoad| {
        let meta = std::fs::metadata(&load.yml_path).ok();
        meta.as_ref().and_then(age).is_some_and(|age| age < COARSE)
    };
    loads
        .iter()
        .filter(fresh)
        .map(|load| load.dir_name.to_string())
        .collect()
}

/// Loads on as many threads as there are cores worth using; order is that of the candidates.
fn load_all(candidates: &[Candidate], common: &Common, env: &Environment) -> Vec<ProjectLoad> {
    let context = Context {
        global: &common.global,
        identity: &common.identity,
        env,
        roster: Some(&common.roster),
    };
    let threads = if candidates.len() < 16 {
        1
    } else {
        std::thread::available_parallelism().map_or(1, |n| n.get().min(4))
    };
    if threads == 1 {
        return candidates
            .iter()
            .map(|candidate| project::load_one(candidate, context).without_source())
            .collect();
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = candidates
            .chunks(candidates.len().div_ceil(threads))
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|candidate| project::load_one(candidate, context).without_source())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_default())
            .collect()
    })
}

/// What of two loads has to be equal for nothing to have changed.
trait Same {
    /// The same version of the same file.
    fn same_file(&self, other: &Self) -> bool;
    /// The same content and verdict.
    fn same_outcome(&self, other: &Self) -> bool;
}

impl Same for ProjectLoad {
    fn same_file(&self, other: &Self) -> bool {
        self.stamp == other.stamp
            && self.hash == other.hash
            && self.root == other.root
            && self.yml_path == other.yml_path
    }

    fn same_outcome(&self, other: &Self) -> bool {
        self.yml_path == other.yml_path
            && match (&self.outcome, &other.outcome) {
                (Ok(a), Ok(b)) => {
                    a.project == b.project && a.warnings == b.warnings && self.hash == other.hash
                }
                (Err(a), Err(b)) => a == b,
                _ => false,
            }
    }
}
