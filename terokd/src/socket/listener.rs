//! Taking the socket: a private directory, one instance by lock, stale files out of the way, activation.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The socket, bound and locked.
#[derive(Debug)]
pub struct Bound {
    /// Accepts connections.
    pub listener: UnixListener,
    /// Where it is.
    pub path: PathBuf,
    /// We made the file, so we take it away.
    owned: bool,
    _lock: Flock<File>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.owned {
            // The lock file stays: removing it would let two daemons hold two locks of one name.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why the socket could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    /// Another daemon serves it.
    #[error("already running (pid {0})")]
    AlreadyRunning(String),
    /// The directory is not private.
    #[error("`{path}` {reason}; refusing to serve from it")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system says no.
    #[error("cannot {action} `{path}`: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

impl Busy {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }
}

/// Takes the socket at `path`, or the one that was handed over.
///
/// # Errors
/// Another daemon serves it, its directory is not private, or the system refuses.
pub fn bind(
    path: &Path,
    activated: Option<std::os::unix::net::UnixListener>,
) -> Result<Bound, Busy> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_private(parent)?;
    let lock = lock(path)?;
    let (listener, owned) = match activated {
        Some(listener) => (listener, false),
        None => (fresh(path)?, true),
    };
    listener
        .set_nonblocking(true)
        .map_err(Busy::io("prepare", path))?;
    let listener = UnixListener::from_std(listener).map_err(Busy::io("listen on", path))?;
    Ok(Bound {
        listener,
        path: path.to_owned(),
        owned,
        _lock: lock,
    })
}

/// Makes sure that only we can reach into the directory.
fn make_private(dir: &Path) -> Result<(), Busy> {
    if !dir.exists() {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(Busy::io("create", dir))?;
    }
    let meta = std::fs::metadata(dir).map_err(Busy::io("inspect", dir))?;
    let refuse = |reason: String| {
        Err(Busy::Unsafe {
            path: dir.to_owned(),
            reason,
        })
    };
    if !meta.is_dir() {
        return refuse("is not a directory".to_owned());
    }
    let own = nix::unistd::geteuid().as_raw();
    if meta.uid() != own {
        return refuse(format!("belongs to uid {}, not to uid {own}", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        return refuse(format!(
            "has mode {:04o}: run `chmod 700` on it or choose another socket",
            meta.mode() & 0o7777
        ));
    }
    Ok(())
}

/// Takes the lock beside the socket and writes our pid into it.
fn lock(socket: &Path) -> Result<Flock<File>, Busy> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(&path)
        .map_err(Busy::io("open", &path))?;
    let mut holder = String::new();
    let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut holder);
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let holder = holder.trim();
            return Err(Busy::AlreadyRunning(
                if holder.is_empty() { "unknown" } else { holder }.to_owned(),
            ));
        }
        Err((_, error)) => return Err(Busy::io("lock", &path)(error.into())),
    };
    let write = |file: &mut File| {
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(Busy::io("write", &path))?;
    Ok(lock)
}

/// Binds, after a file that nobody answers at is out of the way.
fn fresh(path: &Path) -> Result<std::os::unix::net::UnixListener, Busy> {
    if let Ok(meta) = path.symlink_metadata() {
        if !meta.file_type().is_socket() {
            return Err(Busy::Unsafe {
                path: path.to_owned(),
                reason: "is there and is no socket".to_owned(),
            });
        }
        match UnixStream::connect(path) {
            Ok(_) => {
                return Err(Busy::AlreadyRunning(
                    "unknown: it does not hold the lock".to_owned(),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(Busy::io("remove the stale socket", path))?;
            }
            Err(error) => return Err(Busy::io("connect to the existing", path)(error)),
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(Busy::io("bind", path))?;
    // The directory is private, so nobody could connect in between.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(Busy::io("protect", path))?;
    Ok(listener)
}
