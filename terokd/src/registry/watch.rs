//! Hints that something changed on disk, through inotify. Says that, never what; whoever hears it looks for himself.
//!
//! A watch belongs to an inode, so every directory is watched once, however many paths lead to it, and is known by
//! the path it was watched under. What becomes of it is heard from itself and from what stands above it.

use super::places::{Names, Places};
use super::snapshot::Snapshot;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

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
    /// Files that somebody has written to and not closed yet: which inode each is, and when that was heard.
    written: HashMap<PathBuf, ((u64, u64), Instant)>,
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
        let mut written = state.written.values();
        written.any(|(id, last)| *id == (dev, inode) && last.elapsed() < WRITER)
    }

    /// Takes every watch for gone.
    pub(super) fn lose_all(&self) {
        self.state().lose_all();
    }

    /// Whether watches may have to be set anew since the last time this was asked.
    pub(super) fn take_structure(&self) -> bool {
        std::mem::take(&mut self.state().structure)
    }

    /// Paths that are heard of, directories without links; those of whole directories end in `project.yml`.
    #[cfg(test)]
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let state = self.state();
        let dirs = state.watched.iter().filter_map(|(dir, names)| {
            let real = std::fs::canonicalize(dir).ok()?;
            Some(match names {
                Names::All => vec![real.join("project.yml")],
                Names::These(names) => names.iter().map(|name| real.join(name)).collect(),
            })
        });
        dirs.flatten().collect()
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
                .any(|path| self.written.remove(path).is_some()),
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
                    self.written.remove(path);
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
        let now = Instant::now();
        self.written
            .retain(|_, (_, last)| now.duration_since(*last) < WRITER);
        for path in paths {
            if path.extension().is_none_or(|extension| extension != "yml") {
                continue;
            }
            // Asking for the inode at every single write would make a fast writer the slower one.
            match self.written.get_mut(path) {
                Some((_, last)) => *last = now,
                None => {
                    if let Some(inode) = inode(path) {
                        self.written.insert(path.clone(), (inode, now));
                    }
                }
            }
        }
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
    /// A directory went away just then, and may be back: plan again.
    pub(super) raced: bool,
    /// Not everything is watched.
    pub(super) degraded: bool,
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
        let mut armed = Armed::default();
        let failure = self.watch(ids, &mut armed);
        let was = std::mem::replace(&mut self.degraded, failure.is_some());
        Armed {
            degraded: self.degraded,
            warning: failure.filter(|_| !was).map(|reason| {
                format!("cannot watch all files ({reason}): comparing them every two seconds")
            }),
            ..armed
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

    fn watch(&mut self, wanted: Vec<(PathBuf, (u64, u64))>, armed: &mut Armed) -> Option<String> {
        let hints = Arc::clone(&self.hints);
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => match notify::recommended_watcher(move |event| hints.hear(event)) {
                Ok(watcher) => none.insert(watcher),
                Err(error) => return Some(error.to_string()),
            },
        };
        let mut failure = None;
        for (path, id) in wanted {
            if self.armed.contains_key(&path) {
                continue;
            }
            if self.armed.len() >= self.limit {
                return Some(format!("there are more than {} directories", self.limit));
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    armed.added = true;
                    self.armed.insert(path, id);
                }
                Err(error) => match refusal(&error) {
                    Refusal::Gone => armed.raced = true,
                    Refusal::Full => {
                        let limit = "the limit fs.inotify.max_user_watches is reached";
                        return Some(limit.to_owned());
                    }
                    // Nobody can look into it, so nothing in it counts; its mode is heard from above.
                    Refusal::Closed if std::fs::read_dir(&path).is_err() => {}
                    Refusal::Closed | Refusal::Other => failure = Some(error.to_string()),
                },
            }
        }
        failure
    }
}

/// Why a directory cannot be watched.
enum Refusal {
    Gone,
    Full,
    Closed,
    Other,
}

fn refusal(error: &notify::Error) -> Refusal {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Refusal::Full,
        ErrorKind::PathNotFound => Refusal::Gone,
        ErrorKind::Io(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::Gone,
            io::ErrorKind::PermissionDenied => Refusal::Closed,
            _ => Refusal::Other,
        },
        _ => Refusal::Other,
    }
}

/// Sets watches on a thread of its own: while files change without end the kernel's queue comes first, and whoever
/// waits for a new watch waits for long.
#[derive(Debug)]
pub(super) struct Sentry {
    orders: std::sync::mpsc::Sender<Arc<Snapshot>>,
    reports: mpsc::Receiver<Armed>,
    /// An order is being carried out.
    busy: bool,
    /// Another one is to follow.
    wanted: bool,
}

impl Sentry {
    /// Begins without any watch; none if the system has no thread to spare.
    pub(super) fn start(hints: Arc<Hints>, max_watches: usize) -> Option<Self> {
        let (orders, work) = std::sync::mpsc::channel::<Arc<Snapshot>>();
        let (report, reports) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("watches".to_owned());
        let started = thread.spawn(move || {
            let mut watch = Watch::new(hints, max_watches);
            // Ends with its owner.
            while let Ok(snapshot) = work.recv() {
                let armed = watch.arm(Places::of(&snapshot));
                if report.blocking_send(armed).is_err() {
                    return;
                }
            }
        });
        started.ok().map(|_| Self {
            orders,
            reports,
            busy: false,
            wanted: false,
        })
    }

    /// Orders the watches that state needs, now or once the present order is carried out.
    pub(super) fn arm(&mut self, snapshot: &Arc<Snapshot>) {
        self.wanted = self.busy;
        if !self.busy {
            self.busy = self.orders.send(Arc::clone(snapshot)).is_ok();
        }
    }

    /// Watches are being set: until then something may change unheard.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// What became of an order, and whether another one is wanted. None if the thread has died.
    pub(super) async fn report(&mut self) -> Option<(Armed, bool)> {
        let armed = self.reports.recv().await?;
        self.busy = false;
        Some((armed, std::mem::take(&mut self.wanted)))
    }
}
