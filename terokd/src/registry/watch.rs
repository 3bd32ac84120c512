//! Hints that something changed on disk, through inotify. Says that, never what; whoever hears it looks for himself.

use super::reconcile::roster_dir;
use super::snapshot::Snapshot;
use notify::event::EventKind;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use terok_config::env::Environment;
use tokio::sync::Notify;

/// The watches of one registry.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    interest: Arc<RwLock<Interest>>,
    /// Directories under watch, and which directory it was: one that was made anew needs a new watch.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    degraded: bool,
}

/// What makes a hint.
#[derive(Debug, Default)]
struct Interest {
    /// Anything directly inside these.
    dirs: BTreeSet<PathBuf>,
    /// These files, and whatever stands above them.
    files: BTreeSet<PathBuf>,
}

impl Interest {
    fn covers(&self, event: &Event) -> bool {
        // Reading is not changing; most of it is our own.
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| {
                path.parent()
                    .is_some_and(|parent| self.dirs.contains(parent))
                    || self.below(&self.dirs, path)
                    || self.below(&self.files, path)
            })
    }

    /// Something of interest is at that path or below it. Paths sort by component, so one look is enough.
    fn below(&self, set: &BTreeSet<PathBuf>, path: &Path) -> bool {
        let from = (Bound::Included(path), Bound::Unbounded);
        set.range::<Path, _>(from)
            .next()
            .is_some_and(|next| next.starts_with(path))
    }
}

impl Watch {
    pub(super) fn new(hint: Arc<Notify>) -> Self {
        let interest = Arc::new(RwLock::new(Interest::default()));
        let inner = Arc::clone(&interest);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let relevant = match &event {
                Ok(event) => inner
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .covers(event),
                // Lost hints are a reason to look.
                Err(_) => true,
            };
            if relevant {
                hint.notify_one();
            }
        });
        Self {
            watcher: watcher.ok(),
            interest,
            armed: BTreeMap::new(),
            degraded: false,
        }
    }

    /// Not everything can be watched: files have to be compared from time to time.
    pub(super) fn degraded(&self) -> bool {
        self.degraded
    }

    /// Watches what matters for that state. Answers a warning when watching begins to be incomplete.
    pub(super) fn arm(&mut self, snapshot: &Snapshot, env: &Environment) -> Option<String> {
        let interest = interest(snapshot, env);
        let mut wanted: BTreeMap<PathBuf, (u64, u64)> = BTreeMap::new();
        for path in interest
            .dirs
            .iter()
            .map(PathBuf::as_path)
            .chain(interest.files.iter().filter_map(|file| file.parent()))
        {
            // The directory itself and what is above it: it may be removed, replaced or made anew.
            let present = path.ancestors().find_map(identity);
            let above = path
                .parent()
                .and_then(|parent| parent.ancestors().find_map(identity));
            wanted.extend(present);
            if interest.dirs.contains(path) {
                wanted.extend(above);
            }
        }
        *self
            .interest
            .write()
            .unwrap_or_else(PoisonError::into_inner) = interest;
        let failure = self.update(wanted);
        let was = std::mem::replace(&mut self.degraded, failure.is_some());
        failure.filter(|_| !was).map(|reason| {
            format!("cannot watch all files ({reason}): comparing them every two seconds; raise fs.inotify.max_user_watches")
        })
    }

    fn update(&mut self, wanted: BTreeMap<PathBuf, (u64, u64)>) -> Option<String> {
        let Some(watcher) = &mut self.watcher else {
            return Some("inotify is not available".to_owned());
        };
        let gone: Vec<PathBuf> = self
            .armed
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            // A directory that no longer exists has lost its watch already.
            let _ = watcher.unwatch(&path);
            self.armed.remove(&path);
        }
        let mut failure = None;
        for (path, id) in wanted {
            if self.armed.contains_key(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.armed.insert(path, id);
                }
                // It went away in between; what is above it is watched.
                Err(_) if !path.exists() => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        failure
    }
}

fn identity(path: &Path) -> Option<(PathBuf, (u64, u64))> {
    let meta = std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_dir)?;
    Some((path.to_owned(), (meta.dev(), meta.ino())))
}

fn interest(snapshot: &Snapshot, env: &Environment) -> Interest {
    let mut interest = Interest::default();
    for dir in snapshot.paths.projects_dirs() {
        interest.dirs.insert(dir.to_owned());
        interest.dirs.insert(env.normalise(dir));
        // Directories that hold no project yet may get one.
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.path().is_dir()).take(100_000);
        interest.dirs.extend(inner.map(|entry| entry.path()));
    }
    interest.dirs.insert(roster_dir(&snapshot.global));
    interest
        .files
        .extend(snapshot.global.watched_paths.iter().cloned());
    interest
        .files
        .extend(snapshot.identity_files.iter().cloned());
    for entry in snapshot.projects.values() {
        interest.dirs.insert(entry.root().to_owned());
        interest.files.insert(entry.yml_path().to_owned());
    }
    // Behind symbolic links: every step of the way may change.
    let links: Vec<PathBuf> = interest
        .files
        .iter()
        .flat_map(|file| link_steps(file))
        .collect();
    interest.files.extend(links);
    interest
}

/// The targets along a chain of symbolic links.
fn link_steps(file: &Path) -> Vec<PathBuf> {
    let mut steps = Vec::new();
    let mut at = file.to_owned();
    while let Ok(link) = std::fs::read_link(&at) {
        at = at.parent().unwrap_or(Path::new("/")).join(link);
        if steps.len() == 40 || steps.contains(&at) {
            break;
        }
        steps.push(at.clone());
    }
    if let Some(real) = steps
        .last()
        .and_then(|last| std::fs::canonicalize(last).ok())
    {
        steps.push(real);
    }
    steps
}
