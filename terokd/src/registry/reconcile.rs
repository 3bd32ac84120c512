//! The comparison of disk and memory: what is new, what differs, what is gone, and what has to settle first.

use super::snapshot::{ProjectEntry, Snapshot};
use crate::events::Draft;
use crate::git::identity;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use terok_config::env::Environment;
use terok_config::global::{self, Global};
use terok_config::project::{self, Candidate, ProjectLoad, Stamp};
use terok_config::resolve::{Context, resolved_config};
use terok_config::roster::Roster;
use terok_proto::events::EventKind;

/// A file counts once nothing has touched it for this long.
const SETTLE: Duration = Duration::from_millis(80);

/// A file that is touched again and again counts after this time all the same.
const PATIENCE: Duration = Duration::from_millis(700);

/// A project whose file is gone counts as removed after this time: editors move files away for a moment.
const ABSENCE: Duration = Duration::from_millis(200);

/// How much of the disk is taken as it stands.
#[derive(Debug)]
pub(super) enum Haste {
    /// Everything has to settle.
    Settle,
    /// This project was written by ourselves, whole.
    Now(String),
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
    /// Stamps of the files behind the global configuration, the identity and the roster.
    global: Vec<(PathBuf, Option<Stamp>)>,
    identity: Vec<(PathBuf, Option<Stamp>)>,
    roster: Vec<(PathBuf, Option<Stamp>)>,
    /// Since when a file waits to settle, or is away.
    unsettled: HashMap<PathBuf, Instant>,
}

/// One look's judgement of what still changes.
struct Settling {
    now: Instant,
    since: HashMap<PathBuf, Instant>,
    seen: HashSet<PathBuf>,
    again: Option<Duration>,
}

impl Settling {
    fn new(since: HashMap<PathBuf, Instant>) -> Self {
        Self {
            now: Instant::now(),
            since,
            seen: HashSet::new(),
            again: None,
        }
    }

    /// What the next look has to remember, and when it is due.
    fn finish(mut self) -> (HashMap<PathBuf, Instant>, Option<Duration>) {
        let seen = &self.seen;
        self.since.retain(|path, _| seen.contains(path));
        (self.since, self.again)
    }

    /// All files that differ from what was seen last have settled.
    fn all_settled(
        &mut self,
        files: &[(PathBuf, Option<Stamp>)],
        before: &[(PathBuf, Option<Stamp>)],
    ) -> bool {
        let mut settled = true;
        for (path, stamp) in files {
            if before
                .iter()
                .any(|(known, same)| known == path && same == stamp)
            {
                continue;
            }
            settled &= match stamp {
                Some(_) => self.settled(path),
                None => !self.absent_for_a_moment(path),
            };
        }
        settled
    }

    /// Nothing has touched the file for a while, or it has been touched for too long to wait further.
    fn settled(&mut self, path: &Path) -> bool {
        let Ok(meta) = std::fs::metadata(path) else {
            return true;
        };
        let changed = SystemTime::UNIX_EPOCH
            + Duration::new(
                u64::try_from(meta.ctime()).unwrap_or(0),
                u32::try_from(meta.ctime_nsec()).unwrap_or(0),
            );
        // A time in the future says nothing: the clock was set back.
        let age = SystemTime::now().duration_since(changed).unwrap_or(SETTLE);
        if age >= SETTLE || self.waited(path) >= PATIENCE {
            return true;
        }
        self.look_again(path, SETTLE - age);
        false
    }

    /// The file is away, but not for long enough to count as removed.
    fn absent_for_a_moment(&mut self, path: &Path) -> bool {
        let away = self.waited(path);
        if away >= ABSENCE {
            return false;
        }
        self.look_again(path, ABSENCE - away);
        true
    }

    fn waited(&mut self, path: &Path) -> Duration {
        let since = *self.since.entry(path.to_owned()).or_insert(self.now);
        self.now.duration_since(since)
    }

    fn look_again(&mut self, path: &Path, delay: Duration) {
        self.seen.insert(path.to_owned());
        // A little more than needed, so that the next look does not come a moment too early.
        let delay = delay + Duration::from_millis(2);
        self.again = Some(self.again.map_or(delay, |known| known.max(delay)));
    }
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
            global: Vec::new(),
            identity: Vec::new(),
            roster: Vec::new(),
            unsettled: HashMap::new(),
        }
    }

    /// The state at start: everything as it stands.
    pub(super) fn first(&mut self) -> Snapshot {
        let global = Arc::new(global::load(&self.env, None));
        let (identity, identity_files) = read_identity(&self.env);
        let roster = Arc::new(read_roster(&global));
        self.global = stamps(&global.watched_paths);
        self.identity = stamps(&identity_files);
        self.roster = stamps(&roster_files(&global));
        let common = Common {
            global,
            identity,
            identity_files,
            roster,
        };
        let candidates = project::discover(&common.global.paths);
        let loaded = load_all(&candidates, &common, &self.env);
        self.loads = loaded
            .into_iter()
            .map(|load| (load.dir_name.to_string(), load))
            .collect();
        self.build(1, common, None)
    }

    /// Compares the disk with `current`.
    pub(super) fn look(&mut self, current: &Snapshot, haste: &Haste) -> Looked {
        let mut settling = Settling::new(std::mem::take(&mut self.unsettled));
        let (common, config_keys) = self.look_at_common(current, &mut settling);
        let resolve_all = !Arc::ptr_eq(&common.global, &current.global)
            || common.identity != current.identity
            || !Arc::ptr_eq(&common.roster, &current.roster);
        let candidates = project::discover(&common.global.paths);
        let mut loads = BTreeMap::new();
        let mut stale = Vec::new();
        for candidate in &candidates {
            let known = self.loads.get(&candidate.dir_name);
            let stamp = Stamp::of(&candidate.yml_path);
            let same = known.is_some_and(|load| {
                load.stamp == stamp
                    && stamp.is_some()
                    && *load.root == *candidate.root
                    && *load.yml_path == *candidate.yml_path
            });
            let ours = matches!(haste, Haste::Now(name) if *name == candidate.dir_name);
            if same && !resolve_all {
                loads.insert(candidate.dir_name.clone(), known.cloned());
            } else if same || ours || settling.settled(&candidate.yml_path) {
                stale.push(candidate.clone());
            } else {
                loads.insert(candidate.dir_name.clone(), known.cloned());
            }
        }
        for load in load_all(&stale, &common, &self.env) {
            loads.insert(load.dir_name.to_string(), Some(load));
        }
        for (name, load) in &self.loads {
            let ours = matches!(haste, Haste::Now(ours) if ours == name);
            if !loads.contains_key(name) && !ours && settling.absent_for_a_moment(&load.yml_path) {
                loads.insert(name.clone(), Some(load.clone()));
            }
        }
        let again_in;
        (self.unsettled, again_in) = settling.finish();
        let loads: BTreeMap<String, ProjectLoad> = loads
            .into_iter()
            .filter_map(|(name, load)| load.map(|load| (name, load)))
            .collect();
        let unchanged = config_keys.is_none()
            && !resolve_all
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
        let mut events = Vec::new();
        if let Some(keys) = config_keys {
            events.push(
                Draft::new(EventKind::ConfigChanged)
                    .data(json!({"generation": next.generation, "keys": keys})),
            );
        }
        events.extend(differences(current, &next));
        Looked {
            next: Some(next),
            events,
            again_in,
        }
    }

    /// Configuration, identity and roster; the old ones where their files are the same or still change.
    fn look_at_common(
        &mut self,
        current: &Snapshot,
        settling: &mut Settling,
    ) -> (Common, Option<Vec<String>>) {
        let mut common = Common {
            global: Arc::clone(&current.global),
            identity: Arc::clone(&current.identity),
            identity_files: Arc::clone(&current.identity_files),
            roster: Arc::clone(&current.roster),
        };
        let mut keys = None;
        let files = stamps(&common.global.watched_paths);
        if files != self.global && settling.all_settled(&files, &self.global) {
            let next = Arc::new(global::load(&self.env, Some(&common.global)));
            keys = Some(changed_keys(&self.env, current, &next));
            self.global = stamps(&next.watched_paths);
            common.global = next;
        }
        let files = stamps(&common.identity_files);
        if files != self.identity && settling.all_settled(&files, &self.identity) {
            (common.identity, common.identity_files) = read_identity(&self.env);
            self.identity = stamps(&common.identity_files);
        }
        let files = stamps(&roster_files(&common.global));
        if files != self.roster && settling.all_settled(&files, &self.roster) {
            common.roster = Arc::new(read_roster(&common.global));
            self.roster = files;
        }
        (common, keys)
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

fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, Option<Stamp>)> {
    files
        .iter()
        .map(|path| (path.clone(), Stamp::of(path)))
        .collect()
}

fn read_identity(env: &Environment) -> (Arc<terok_config::GitIdentity>, Arc<Vec<PathBuf>>) {
    let read = identity::read(env);
    for warning in &read.warnings {
        tracing::warn!("git's global configuration: {warning}");
    }
    (Arc::new(read.identity), Arc::new(read.files))
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

fn changed_keys(env: &Environment, current: &Snapshot, next: &Global) -> Vec<String> {
    let values = |global: &Global| {
        let context = Context {
            global,
            identity: &current.identity,
            env,
            roster: None,
        };
        resolved_config(context, None).values
    };
    let (old, new) = (values(&current.global), values(next));
    let mut keys: Vec<String> = new
        .iter()
        .filter(|(key, value)| {
            old.get(*key)
                .is_none_or(|before| before.value != value.value)
        })
        .map(|(key, _)| key.clone())
        .chain(old.keys().filter(|key| !new.contains_key(*key)).cloned())
        .collect();
    keys.sort();
    keys
}

/// What subscribers are told about the step from one state to the next.
fn differences(old: &Snapshot, new: &Snapshot) -> Vec<Draft> {
    let mut events = Vec::new();
    for (name, entry) in &new.projects {
        let before = old.projects.get(name);
        if before.is_some_and(|before| Arc::ptr_eq(before, entry)) {
            continue;
        }
        let draft = |kind| Draft::new(kind).project(entry.id());
        match (before, entry.broken()) {
            (None, None) => events.push(draft(EventKind::ProjectAdded)),
            (before, Some(broken)) => {
                if before
                    .and_then(|before| before.broken())
                    .is_none_or(|before| before != broken)
                {
                    events
                        .push(draft(EventKind::ProjectBroken).data(json!({"error": broken.error})));
                }
            }
            (Some(before), None) => {
                let repaired = before.broken().is_some();
                let fields = changed_fields(before, entry);
                if repaired || !fields.is_empty() {
                    events.push(
                        draft(EventKind::ProjectChanged)
                            .data(json!({"fields": fields, "repaired": repaired})),
                    );
                }
            }
        }
    }
    for (name, entry) in &old.projects {
        if !new.projects.contains_key(name) {
            events.push(Draft::new(EventKind::ProjectRemoved).project(entry.id()));
        }
    }
    events
}

/// Names of the fields that differ from the last healthy state.
fn changed_fields(before: &ProjectEntry, after: &ProjectEntry) -> Vec<String> {
    let fields = |entry: &ProjectEntry| -> Map<String, Value> {
        let Some(good) = entry.good() else {
            return Map::new();
        };
        let mut all = match serde_json::to_value(&good.project.config) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        all.insert("gpu".into(), json!(good.project.gpu));
        all.insert("display_name".into(), json!(good.project.display_name));
        all
    };
    let (old, new) = (fields(before), fields(after));
    if old.is_empty() {
        return Vec::new();
    }
    new.iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect()
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
        self.stamp == other.stamp && self.root == other.root && self.yml_path == other.yml_path
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
