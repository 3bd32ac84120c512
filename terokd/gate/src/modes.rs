//! Who may look into gates: their owner, whatever the umask was that they were made with.
//!
//! Changes what is ours, follows no link, and never fails: what may not be changed is told once and stays.

use nix::fcntl::OFlag;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What others may do with a directory or a file.
const OTHERS: u32 = 0o077;

/// Makes a gate private if others may enter it; below a gate that is private it looks at nothing.
pub(crate) fn claim(gate: &Path) {
    if is_open(gate) {
        tighten(gate);
        // Last: this is how the next one sees that all is done.
        narrow(gate);
    }
}

/// Makes everything in a repository private.
pub(crate) fn tighten(dir: &Path) {
    if let Err((path, error)) = tighten_below(dir) {
        refused(&path, &error);
    }
}

fn tighten_below(dir: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut first = Ok(());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return Err((dir.to_owned(), error)),
    };
    for entry in entries.flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.path().symlink_metadata()) else {
            // Somebody's temporary file.
            continue;
        };
        let now = meta.permissions().mode() & 0o7777;
        let wanted = if meta.is_dir() {
            0o700
        } else if meta.is_file() {
            if now & 0o222 == 0 {
                0o400
            } else {
                now & 0o700 | 0o600
            }
        } else {
            continue;
        };
        if now != wanted
            && let Err(error) = fs::set_permissions(&path, Permissions::from_mode(wanted))
            && error.kind() != io::ErrorKind::NotFound
        {
            first = first.and(Err((path.clone(), error)));
        }
        if meta.is_dir() && path.is_dir() {
            first = first.and(tighten_below(&path));
        }
    }
    first
}

/// Makes one directory private.
pub(crate) fn narrow(dir: &Path) {
    let narrowed = open(dir).and_then(|file| {
        let meta = file.metadata()?;
        if meta.mode() & OTHERS == 0 {
            return Ok(());
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to somebody else"));
        }
        tracing::info!(dir = %dir.display(), mode = format!("{:o}", meta.mode() & 0o7777), "others had access: mode repaired");
        file.set_permissions(Permissions::from_mode(0o700))
    });
    if let Err(error) = narrowed {
        refused(dir, &error);
    }
}

fn is_open(dir: &Path) -> bool {
    open(dir)
        .and_then(|file| file.metadata())
        .is_ok_and(|meta| meta.mode() & OTHERS != 0)
}

fn open(dir: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(dir)
}

/// Tells once of each path.
fn refused(path: &Path, error: &io::Error) {
    static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.insert(path.to_owned()) {
        tracing::warn!(path = %path.display(), %error, "others may have access, and the mode cannot be changed");
    }
}
