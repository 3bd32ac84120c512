//! Small private files: 0600 from the start, replaced whole, read with a limit and without following links.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use terok_proto::{Fault, Kind};
use zeroize::Zeroizing;

/// More than any passphrase, sealed passphrase or private key needs.
pub(crate) const SMALL: u64 = 64 * 1024;

/// Makes a directory with mode 0700, with its parents; an existing one is narrowed to that.
pub(crate) fn private_dir(path: &Path) -> Result<(), Fault> {
    let fail = |error: &io::Error| Fault::io("make the private directory", path, error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| fail(&e))?;
    narrow(path, 0o700).map_err(|e| fail(&e))
}

/// Takes group and others every right, with a warning if they had any.
pub(crate) fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let found = std::fs::metadata(path)?.mode() & 0o7777;
    if found & 0o077 != 0 {
        tracing::warn!(path = %path.display(), found = format!("{found:o}"), "others had access to a path of the vault: mode repaired");
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes a file of mode 0600: readers see the old content, the new, or none. A link in its place is replaced.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let fail = |error: &io::Error| Fault::io("write", path, error);
    let dir = path.parent().unwrap_or(Path::new("/"));
    private_dir(dir)?;
    // Made with mode 0600.
    let mut temporary = tempfile::Builder::new()
        .prefix(".vault-")
        .tempfile_in(dir)
        .map_err(|e| fail(&e))?;
    temporary.write_all(bytes).map_err(|e| fail(&e))?;
    temporary.as_file().sync_all().map_err(|e| fail(&e))?;
    temporary.persist(path).map_err(|e| fail(&e.error))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| fail(&e))
}

/// Reads a small regular file without following a link in its place. `None`: there is nothing.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    read_checked(path, None)
}

/// The same, and the file must belong to that user.
pub(crate) fn read_owned(path: &Path, uid: u32) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    read_checked(path, Some(uid))
}

fn read_checked(path: &Path, uid: Option<u32>) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io("open", path, &error)),
    };
    let meta = file
        .metadata()
        .map_err(|e| Fault::io("inspect", path, &e))?;
    if !meta.is_file() {
        return Err(unusable(path, "is not a regular file"));
    }
    if uid.is_some_and(|uid| uid != meta.uid()) {
        return Err(unusable(path, "belongs to another user"));
    }
    // Reserved in one piece, so that no half-filled copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SMALL as usize + 1));
    file.take(SMALL + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Fault::io("read", path, &e))?;
    if bytes.len() as u64 > SMALL {
        return Err(unusable(path, "is larger than 64 KiB"));
    }
    Ok(Some(bytes))
}

/// Opens for reading; neither a link in its place nor a pipe without a writer holds it up.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Removes a file; one that is not there is as good.
pub(crate) fn remove(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn unusable(path: &Path, why: &str) -> Fault {
    Fault::new(Kind::StorageError, format!("`{}` {why}", path.display()))
        .with("path", path.to_string_lossy())
}

/// Runs blocking work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Fault::new(
                Kind::ShuttingDown,
                "the daemon is shutting down",
            )),
        },
    }
}
