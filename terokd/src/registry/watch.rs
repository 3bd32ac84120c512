//! Hints that something changed on disk, through inotify. Says that, never what; whoever hears it looks for himself.
//!
//! A watch belongs to an inode, so every directory is watched once, however many paths lead to it, and is known by
//! the path it was watched under. What becomes of it is heard from itself and from what stands above it.

use super::places::{Names, Places};
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Directories watched at most; beyond that files are compared from time to time.
pub(super) const MAX_WATCHES: usize = 100_000;

/// A file whose writer has not been heard of for so long is no longer being written.
const WRITER: Duration = Duration::from_secs(2);

/// What the thread that listens to the kernel leaves for the owner of the set.
#[derive(Debug, Default)]
pub(super) struct Hints {
    heard: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Watched directories by the path they were watched under, and what matters in each.
    watched: BTreeMap<PathBuf, Names>,
    /// Something other than the content of a file changed.
    structure: bool,
    /// Paths whose watches, and those below them, may be gone.
    lost: BTreeSet<PathBuf>,
    /// Hints were lost: any watch may be gone.
    all_lost: bool,
    /// Files by device and inode that somebody has written to and not closed yet.
    written: HashMap<(u64, u64), Instant>,
}

impl Hints {
    /// Waits for a hint.
    pub(super) async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Makes a hint.
    pub(super) fn nudge(&self) {
        self.heard.notify_one();
    }

    /// Somebody has the file open and has begun to write.
    pub(super) fn is_written(&self, dev: u64, inode: u64) -> bool {
        let state = self.state();
        let last = state.written.get(&(dev, inode));
        last.is_some_and(|last| last.elapsed() < WRITER)
    }

    /// Takes every watch for gone.
    pub(super) fn lose_all(&self) {
        self.state().lose_all();
    }

    /// Whether watches may have to be set anew since the last time this was asked.
    pub(super) fn take_structure(&self) -> bool {
        std::mem::take(&mut self.state().structure)
    }

    #[cfg(test)]
    pub(super) fn begin_writing(&self, path: &Path) {
        self.state().note_writing(&[path.to_owned()]);
    }

    #[cfg(test)]
    pub(super) fn end_writing(&self, path: &Path) {
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        self.hear(Ok(Event::new(close).add_path(path.to_owned())));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: notify::Result<Event>) {
        if self.state().note(event) {
            self.nudge();
        }
    }
}

impl State {
    /// Keeps what matters of an event; whether it is a reason to look.
    fn note(&mut self, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            return self.lose_all();
        };
        if event.need_rescan() || event.paths.is_empty() {
            return self.lose_all();
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => event
                .paths
                .iter()
                .filter_map(|path| inode(path))
                .any(|file| self.written.remove(&file).is_some()),
            // Reading is not changing; most of it is our own.
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                let relevant = event.paths.iter().any(|path| self.matters(path));
                if relevant {
                    self.note_writing(&event.paths);
                }
                relevant
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => {
                event.paths.iter().any(|path| self.matters(path))
            }
            _ => {
                let mut relevant = false;
                for path in &event.paths {
                    let watched = self.watched_at_or_below(path);
                    if watched {
                        self.lost.insert(path.clone());
                    }
                    relevant |= watched || self.matters(path);
                }
                self.structure |= relevant;
                relevant
            }
        }
    }

    fn lose_all(&mut self) -> bool {
        self.structure = true;
        self.all_lost = true;
        self.written.clear();
        true
    }

    fn note_writing(&mut self, paths: &[PathBuf]) {
        self.written.retain(|_, last| last.elapsed() < WRITER);
        let files = paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
            .filter_map(|path| inode(path));
        self.written
            .extend(files.map(|file| (file, Instant::now())));
    }

    /// The path is a watched directory, or a name that matters in one.
    fn matters(&self, path: &Path) -> bool {
        let inside = path.parent().and_then(|parent| self.watched.get(parent));
        let named = match (inside, path.file_name()) {
            (Some(Names::All), _) => true,
            (Some(Names::These(names)), Some(name)) => names.contains(name),
            _ => false,
        };
        named || self.watched.contains_key(path)
    }

    fn watched_at_or_below(&self, path: &Path) -> bool {
        // Paths sort by component, so one look is enough.
        let from = (Bound::Included(path), Bound::Unbounded);
        let mut below = self.watched.range::<Path, _>(from);
        below.next().is_some_and(|(next, _)| next.starts_with(path))
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The watches of one registry.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    hints: Arc<Hints>,
    /// Directories under watch, and which inode each was.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    degraded: bool,
    limit: usize,
}

/// What setting watches led to.
#[derive(Debug, Default)]
pub(super) struct Armed {
    /// What happened before these watches has not been heard: look again.
    pub(super) added: bool,
    /// Watching begins to be incomplete.
    pub(super) warning: Option<String>,
}

impl Watch {
    pub(super) fn new(hints: Arc<Hints>, limit: usize) -> Self {
        Self {
            watcher: None,
            hints,
            armed: BTreeMap::new(),
            degraded: false,
            limit,
        }
    }

    /// Not everything can be watched: files have to be compared from time to time.
    pub(super) fn degraded(&self) -> bool {
        self.degraded
    }

    /// Watches these places and nothing else.
    pub(super) fn arm(&mut self, places: Places) -> Armed {
        let wanted = places.into_watches();
        self.forget_lost();
        let gone: Vec<PathBuf> = self
            .armed
            .iter()
            .filter(|(path, id)| wanted.get(*path).is_none_or(|(wanted, _)| wanted != *id))
            .map(|(path, _)| path.clone())
            .collect();
        self.unwatch(gone);
        let ids: Vec<(PathBuf, (u64, u64))> = wanted
            .iter()
            .map(|(path, (id, _))| (path.clone(), *id))
            .collect();
        // What matters is known before the first hint about it can come.
        self.hints.state().watched = wanted
            .into_iter()
            .map(|(path, (_, names))| (path, names))
            .collect();
        let (added, failure) = self.watch(ids);
        let was = std::mem::replace(&mut self.degraded, failure.is_some());
        Armed {
            added,
            warning: failure.filter(|_| !was).map(|reason| {
                format!("cannot watch all files ({reason}): comparing them every two seconds")
            }),
        }
    }

    /// Takes watches that may be gone for gone.
    fn forget_lost(&mut self) {
        let (lost, all) = {
            let mut state = self.hints.state();
            let all = std::mem::take(&mut state.all_lost);
            (std::mem::take(&mut state.lost), all)
        };
        let gone: Vec<PathBuf> = self
            .armed
            .keys()
            .filter(|path| all || path.ancestors().any(|above| lost.contains(above)))
            .cloned()
            .collect();
        self.unwatch(gone);
    }

    fn unwatch(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            if let Some(watcher) = &mut self.watcher {
                // A directory that no longer exists has lost its watch already.
                let _ = watcher.unwatch(&path);
            }
            self.armed.remove(&path);
        }
    }

    fn watch(&mut self, wanted: Vec<(PathBuf, (u64, u64))>) -> (bool, Option<String>) {
        if self.watcher.is_none() {
            let hints = Arc::clone(&self.hints);
            match notify::recommended_watcher(move |event| hints.hear(event)) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => return (false, Some(error.to_string())),
            }
        }
        let (mut added, mut failure) = (false, None);
        for (path, id) in wanted {
            if self.armed.contains_key(&path) {
                continue;
            }
            if self.armed.len() >= self.limit {
                let limit = self.limit;
                failure = Some(format!("there are more than {limit} directories"));
                break;
            }
            let Some(watcher) = &mut self.watcher else {
                break;
            };
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    added = true;
                    self.armed.insert(path, id);
                }
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                    failure = Some("the limit fs.inotify.max_user_watches is reached".to_owned());
                    break;
                }
                // It went away in between, which is heard from above it, or nobody can look into it anyway.
                Err(_) if std::fs::read_dir(&path).is_err() => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        (added, failure)
    }
}
