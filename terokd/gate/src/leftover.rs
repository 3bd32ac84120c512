//! What a killed process leaves in a gate: locks of refs, which would keep everybody out for ever.
//!
//! Before refs are locked, their names are written down; a list that is still there when the gate's lock is free again
//! belongs to somebody who died. Locks of anybody else are not touched: they are git's.

use crate::layout;
use crate::refs::lock_of;
use gix::bstr::ByteSlice;
use gix::refs::transaction::{Change, RefEdit};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use terok_proto::Fault;

const LIST: &str = "terok-locks";
/// A lock that somebody holds is gone or another one after this.
const LOOK: Duration = Duration::from_millis(200);

/// Refs that are about to be locked; forgotten when dropped.
pub(crate) struct Intents {
    list: PathBuf,
}

impl Intents {
    pub(crate) fn write(git_dir: &Path, edits: &[RefEdit]) -> Result<Self, Fault> {
        let mut text = String::new();
        for edit in edits {
            let new = match &edit.change {
                Change::Update { new, .. } => match new {
                    gix::refs::Target::Object(id) => id.to_string(),
                    gix::refs::Target::Symbolic(name) => format!("ref: {}", name.as_bstr()),
                },
                Change::Delete { .. } => String::new(),
            };
            text.push_str(&format!("{}\t{new}\n", edit.name.as_bstr()));
        }
        let list = git_dir.join(LIST);
        layout::write(&list, text.as_bytes())?;
        Ok(Self { list })
    }
}

impl Drop for Intents {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.list) {
            tracing::warn!(list = %self.list.display(), %error, "cannot remove");
        }
    }
}

/// A lock file that may be a dead process's.
#[derive(PartialEq, Eq)]
struct Lock {
    path: PathBuf,
    inode: u64,
    changed: (i64, i64),
}

impl Lock {
    fn look(path: PathBuf) -> Option<Self> {
        let meta = path.symlink_metadata().ok()?;
        meta.is_file().then(|| Self {
            inode: meta.ino(),
            changed: (meta.mtime(), meta.mtime_nsec()),
            path,
        })
    }
}

/// Removes the locks of a process that died while it changed refs. The caller holds the gate's lock.
pub(crate) fn sweep(git_dir: &Path) {
    let list = git_dir.join(LIST);
    let Ok(text) = fs::read(&list) else { return };
    let since = list
        .symlink_metadata()
        .map_or((0, 0), |meta| (meta.mtime(), meta.mtime_nsec()));
    let mut locks: Vec<Lock> = Vec::new();
    for line in text.to_str_lossy().lines() {
        let Some((name, new)) = line.split_once('\t') else {
            continue;
        };
        if gix::refs::FullName::try_from(name.as_bytes().as_bstr()).is_err() {
            continue;
        }
        let Some(lock) = Lock::look(lock_of(git_dir, name)) else {
            continue;
        };
        let ours = fs::read_to_string(&lock.path)
            .is_ok_and(|held| held.is_empty() || held.trim_end() == new);
        if ours {
            locks.push(lock);
        }
    }
    locks.extend(Lock::look(lock_of(git_dir, "packed-refs")));
    locks.retain(|lock| lock.changed >= since);
    if !locks.is_empty() {
        std::thread::sleep(LOOK);
    }
    for lock in locks {
        if Lock::look(lock.path.clone()).as_ref() == Some(&lock) {
            tracing::info!(lock = %lock.path.display(), "removing the lock of a process that died");
            if let Err(error) = fs::remove_file(&lock.path) {
                tracing::warn!(lock = %lock.path.display(), %error, "cannot remove");
            }
        }
    }
    if let Err(error) = fs::remove_file(&list) {
        tracing::warn!(list = %list.display(), %error, "cannot remove");
    }
}
