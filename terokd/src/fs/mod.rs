//! The only place that writes files: whole or not at all, with the mode from the start.

pub mod remove;
pub mod tree;

use crate::crash;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use terok_proto::{Fault, Kind};

/// Replaces a file's content: readers see the old file or the new one, never a mixture. Writes through symbolic
/// links; an existing file keeps its mode and owner, a new one gets `mode`.
///
/// # Errors
/// What stands there is no regular file, or the system refuses. The old content is untouched then.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let target = final_target(path)?;
    let existing = match std::fs::metadata(&target) {
        Ok(meta) if meta.is_file() => Some(meta),
        Ok(_) => {
            return Err(Fault::new(
                Kind::StorageError,
                format!("`{}` is not a regular file", path.display()),
            )
            .with("path", path.to_string_lossy()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Fault::io("inspect", path, &error)),
    };
    let mode = existing.as_ref().map_or(mode, |meta| meta.mode() & 0o7777);
    let owner = existing.map(|meta| (meta.uid(), meta.gid()));
    let dir = parent(&target);
    let temporary = temporary_in(dir)?;
    let fail = |e: &io::Error| Fault::io("write", path, e);
    if let Some((uid, gid)) = owner {
        // Only root can give files away; for anybody else the owner is right already.
        let _ = std::os::unix::fs::fchown(temporary.as_file(), Some(uid), Some(gid));
    }
    fill(&temporary, bytes, mode).map_err(|e| fail(&e))?;
    crash::point("file.written");
    temporary.persist(&target).map_err(|e| fail(&e.error))?;
    sync_dir(dir)
}

/// Creates a file that must not exist yet: it appears with all its content or not at all.
///
/// # Errors
/// `already_exists`, or the system refuses; nothing is left behind then.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let dir = parent(path);
    let temporary = temporary_in(dir)?;
    fill(&temporary, bytes, mode).map_err(|e| Fault::io("write", path, &e))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_dir(dir),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(Fault::new(
            Kind::AlreadyExists,
            format!("`{}` exists already", path.display()),
        )
        .with("path", path.to_string_lossy())),
        Err(error) => Err(Fault::io("create", path, &error.error)),
    }
}

const TEMPORARY_PREFIX: &str = ".terokd-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Digits of chance between the two, as `tempfile` makes them.
const TEMPORARY_CHANCE: usize = 6;

/// Whether a file of that name is one that [`replace`] or [`create_new`] did not live to rename.
fn is_temporary(name: &str) -> bool {
    let chance = name.strip_prefix(TEMPORARY_PREFIX);
    let chance = chance.and_then(|name| name.strip_suffix(TEMPORARY_SUFFIX));
    chance.is_some_and(|chance| {
        chance.len() == TEMPORARY_CHANCE && chance.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Removes what writers that died left in a directory: files of this user, under names that only [`replace`] and
/// [`create_new`] make, that no living writer holds.
pub fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_temporary) {
            continue;
        }
        let path = entry.path();
        match remove_abandoned(&path) {
            Ok(true) => tracing::info!("removed `{}`, which was never finished", path.display()),
            Ok(false) => {}
            Err(error) => tracing::warn!("cannot remove `{}`: {error}", path.display()),
        }
    }
}

fn remove_abandoned(path: &Path) -> io::Result<bool> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Ok(false);
    }
    std::fs::remove_file(path).map(|()| true)
}

/// A file that nobody else can read and that goes away by itself unless it is given a name.
fn temporary_in(dir: &Path) -> Result<NamedTempFile, Fault> {
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .suffix(TEMPORARY_SUFFIX)
        .rand_bytes(TEMPORARY_CHANCE)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(|e| Fault::io("create a file in", dir, &e))?;
    // Says that its writer lives. A file system without locks has nobody who asks.
    let _ = temporary.as_file().try_lock();
    Ok(temporary)
}

fn fill(temporary: &NamedTempFile, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = temporary.as_file();
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes a directory that only we can enter, and those above it that are missing.
///
/// # Errors
/// The system refuses, or something else stands there.
pub fn create_dir_private(path: &Path) -> Result<(), Fault> {
    create_dir_all_mode(path, 0o700)
}

/// Takes a file's permissions for others away, if it is there.
///
/// # Errors
/// `storage_error`
pub fn make_private(path: &Path) -> Result<(), Fault> {
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::io("change the mode of", path, &error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory with that mode, and those above it that are missing. An existing one is left as it is.
///
/// # Errors
/// The system refuses, or something else stands there.
pub fn create_dir_all_mode(path: &Path, mode: u32) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|e| Fault::io("create the directory", path, &e))
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// It is larger, no regular file, or unreadable.
pub fn read_limited(path: &Path, max: u64) -> Result<Vec<u8>, Fault> {
    let fail = |e: &io::Error| Fault::io("read", path, e);
    // A pipe would block the open itself.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path)
        .map_err(|e| fail(&e))?;
    if !file.metadata().map_err(|e| fail(&e))?.is_file() {
        return Err(Fault::new(
            Kind::StorageError,
            format!("`{}` is not a regular file", path.display()),
        ));
    }
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fail(&e))?;
    if bytes.len() as u64 > max {
        return Err(Fault::new(
            Kind::StorageError,
            format!("`{}` is larger than {max} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// Makes renames and new files in a directory durable.
///
/// # Errors
/// The system refuses.
pub fn sync_dir(dir: &Path) -> Result<(), Fault> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|e| Fault::io("sync", dir, &e))
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Where a chain of symbolic links ends, whether or not anything is there: what [`replace`] writes.
///
/// # Errors
/// The links form a loop.
pub fn final_target(path: &Path) -> Result<PathBuf, Fault> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match std::fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Fault::new(
        Kind::StorageError,
        format!("`{}` is a loop of symbolic links", path.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_stays_and_its_target_keeps_its_mode() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").expect("write");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).expect("mode");
        symlink("real", &link).expect("link");
        replace(&link, b"new", 0o600).expect("replace");
        assert!(link.symlink_metadata().expect("link").is_symlink());
        assert_eq!(std::fs::read_to_string(&real).expect("read"), "new");
        assert_eq!(real.metadata().expect("meta").mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 2);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = replace(dir.path(), b"x", 0o600).expect_err("a directory");
        assert_eq!(error.kind, Kind::StorageError);
        symlink("loop", dir.path().join("loop")).expect("link");
        assert!(replace(&dir.path().join("loop"), b"x", 0o600).is_err());
        assert!(read_limited(&dir.path().join("none"), 9).is_err());
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("f");
        create_new(&path, b"12345", 0o600).expect("create");
        assert_eq!(
            create_new(&path, b"", 0o600).expect_err("exists").kind,
            Kind::AlreadyExists
        );
        assert_eq!(read_limited(&path, 5).expect("fits"), b"12345");
        assert!(read_limited(&path, 4).is_err());
    }

    #[test]
    fn a_new_file_has_its_mode_whatever_the_umask_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("f");
        create_new(&path, b"x", 0o666).expect("create");
        assert_eq!(path.metadata().expect("meta").mode() & 0o7777, 0o666);
        symlink("nowhere", dir.path().join("dangling")).expect("link");
        for taken in ["f", "dangling"] {
            let fault = create_new(&dir.path().join(taken), b"y", 0o600).expect_err("taken");
            assert_eq!(fault.kind, Kind::AlreadyExists, "{taken}");
        }
        assert_eq!(std::fs::read(&path).expect("read"), b"x");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 2);
    }

    #[test]
    fn only_what_dead_writers_left_is_swept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        let living = temporary_in(dir.path()).expect("a writer");
        std::fs::write(at(".terokd-Ab12xZ.tmp"), "half").expect("write");
        let kept = [
            ".terokd-Ab1.tmp",
            ".terokd-Ab12-Z.tmp",
            ".terokd-Ab12xZ.tmp~",
            "terokd-Ab12xZ.tmp",
            "project.yml",
        ];
        for name in kept {
            std::fs::write(at(name), "mine").expect("write");
        }
        symlink("project.yml", at(".terokd-linked.tmp")).expect("link");
        std::fs::create_dir(at(".terokd-folder.tmp")).expect("directory");
        sweep(dir.path());
        assert!(!at(".terokd-Ab12xZ.tmp").exists());
        for name in kept
            .iter()
            .chain(&[".terokd-linked.tmp", ".terokd-folder.tmp"])
        {
            assert!(at(name).exists(), "{name}");
        }
        assert!(living.path().exists());
        sweep(&at("none"));
    }

    #[test]
    fn a_link_to_nothing_is_written_through() {
        let dir = tempfile::tempdir().expect("temporary directory");
        symlink("later", dir.path().join("link")).expect("link");
        replace(&dir.path().join("link"), b"x", 0o640).expect("replace");
        let meta = dir.path().join("later").metadata().expect("meta");
        assert_eq!(meta.mode() & 0o7777, 0o640);
    }

    #[test]
    fn faults_name_the_path_and_a_pipe_does_not_block() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        assert!(read_limited(&pipe, 9).is_err());
        assert!(replace(&pipe, b"x", 0o600).is_err());
        let missing = dir.path().join("no/such");
        let fault = replace(&missing, b"x", 0o600).expect_err("no directory");
        assert!(fault.message.contains("no"), "{fault}");
        assert_eq!(fault.kind, Kind::StorageError);
        let private = dir.path().join("a/b");
        create_dir_private(&private).expect("create");
        create_dir_private(&private).expect("again");
        assert_eq!(private.metadata().expect("meta").mode() & 0o7777, 0o700);
    }
}
