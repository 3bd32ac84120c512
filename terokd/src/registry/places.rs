//! Which directories to watch so that nothing that matters changes unheard: where files are, what stands above
//! them, and every step behind a symbolic link.

use super::reconcile::roster_dir;
use super::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many existing directories above a place are watched for being moved or replaced.
const ABOVE: usize = 3;

/// Symbolic links followed in a row, as the kernel does.
const MAX_HOPS: usize = 40;

/// Entries of a projects directory that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// Which entries of a directory matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Every one.
    All,
    /// These.
    These(BTreeSet<OsString>),
}

/// Directories by inode: the path that led there first, and what matters inside.
#[derive(Debug, Default)]
pub(super) struct Places {
    dirs: HashMap<(u64, u64), (PathBuf, Names)>,
    seen: HashSet<PathBuf>,
    /// Symbolic links followed on the way to the present entry.
    hops: usize,
}

impl Places {
    /// All places of that state.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut places = Self::default();
        for dir in snapshot.paths.projects_dirs() {
            places.projects(dir);
        }
        places.directory(&roster_dir(&snapshot.global));
        let files = snapshot.global.watched_paths.iter();
        for file in files.chain(snapshot.identity_files.iter()) {
            places.entry(file, ABOVE);
        }
        places
    }

    /// The watches to set: by path, with the inode and the names that matter.
    pub(super) fn into_watches(self) -> BTreeMap<PathBuf, ((u64, u64), Names)> {
        self.dirs
            .into_iter()
            .map(|(id, (path, names))| (path, (id, names)))
            .collect()
    }

    /// A directory whose directories hold, or may get, a `project.yml`.
    fn projects(&mut self, dir: &Path) {
        self.directory(dir);
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<(PathBuf, bool)> = entries
            .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
            .filter(|(_, kind)| !kind.is_file())
            .map(|(path, kind)| (path, kind.is_symlink()))
            .take(MAX_ENTRIES)
            .collect();
        // Which of two paths to one directory is watched must not depend on the order on disk.
        names.sort_unstable();
        for (project, is_link) in names {
            if is_link {
                self.links(&project);
            }
            if self.watch(&project, None) {
                self.links(&project.join("project.yml"));
            }
        }
    }

    /// Everything directly inside a directory, whether it exists yet or not.
    fn directory(&mut self, dir: &Path) {
        self.watch(dir, None);
        self.entry(dir, ABOVE);
    }

    /// One name, whether it exists yet or not, and `above` directories over it.
    fn entry(&mut self, path: &Path, above: usize) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        self.links(path);
        let exists = self.watch(parent, Some(name.to_owned()));
        // What is missing comes with its first missing directory, however far up that is.
        match (exists, above) {
            (true, 0) => {}
            // Nobody replaces `/home` or `/etc` while programs run there.
            (true, _) if parent.parent().is_none_or(|root| root.parent().is_none()) => {}
            (true, _) => self.entry(parent, above - 1),
            (false, _) => self.entry(parent, above),
        }
    }

    /// Where a symbolic link leads, if it is one; a chain of them step by step.
    fn links(&mut self, path: &Path) {
        if self.hops == MAX_HOPS {
            return;
        }
        if let Ok(target) = std::fs::read_link(path) {
            let target = path.parent().unwrap_or(Path::new("/")).join(target);
            self.hops += 1;
            self.entry(&target, ABOVE);
            self.hops -= 1;
        }
    }

    /// Watches a directory for one name, or for all. Whether there is such a directory.
    fn watch(&mut self, dir: &Path, name: Option<OsString>) -> bool {
        let Ok(meta) = std::fs::metadata(dir) else {
            return false;
        };
        if !meta.is_dir() {
            return false;
        }
        let (_, names) = self
            .dirs
            .entry((meta.dev(), meta.ino()))
            .or_insert_with(|| (dir.to_owned(), Names::These(BTreeSet::new())));
        match (name, names) {
            (Some(name), Names::These(names)) => {
                names.insert(name);
            }
            (None, names) => *names = Names::All,
            (Some(_), Names::All) => {}
        }
        true
    }
}
