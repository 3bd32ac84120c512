//! Listeners: taking an address without taking it from anybody, and accepting on it.

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use sha2::{Digest as _, Sha256};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use terok_proto::{Fault, Kind};

/// Name of the sockets.
pub(crate) const SOCKET: &str = "gate-server.sock";

/// Ports that are allocated where none is configured.
const PORTS: std::ops::RangeInclusive<u16> = 18_700..=32_700;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_RDONLY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Who can reach a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The host, and in TCP mode every container.
    Host,
    /// One task's container.
    Task { project: String, task: String },
}

impl Origin {
    /// Whether a token of that task may arrive here.
    pub(crate) fn admits(&self, scope: &str, task_id: &str) -> bool {
        match self {
            Self::Host => true,
            Self::Task { project, task } => project == scope && task == task_id,
        }
    }
}

/// Name of a task's directory below `<runtime dir>/run/`.
pub fn task_key(project: &str, task: &str) -> String {
    let hash = Sha256::digest(format!("{project}/{task}"));
    crate::token::hex(&hash[..8])
}

/// A bound Unix socket. Dropping it closes it and takes its file away, if it is still the same file.
#[derive(Debug)]
pub(crate) struct BoundUnix {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    dir: OwnedFd,
    file: (u64, u64),
}

impl BoundUnix {
    /// A second descriptor of the listener.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Whether its file is still where it was made.
    pub(crate) fn is_in_place(&self) -> bool {
        let there = nix::sys::stat::lstat(&self.path);
        there.is_ok_and(|found| (found.st_dev, found.st_ino) == self.file)
    }
}

impl Drop for BoundUnix {
    fn drop(&mut self) {
        if identity(&self.dir).is_ok_and(|file| file == self.file) {
            let _ = unlinkat(&self.dir, SOCKET, UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn identity(dir: &OwnedFd) -> nix::Result<(u64, u64)> {
    let found = fstatat(dir, SOCKET, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((found.st_dev, found.st_ino))
}

/// Makes a directory below another one private, and opens it. What is there and is something else is refused.
pub(crate) fn private_dir(parent: &Path, name: &str) -> Result<OwnedFd, Fault> {
    let path = parent.join(name);
    let failed = |error: nix::Error| Fault::io("use the directory", &path, &error.into());
    let parent = open(
        parent,
        OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)?;
    match mkdirat(&parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(nix::Error::EEXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let dir = openat(&parent, name, DIRECTORY, Mode::empty()).map_err(failed)?;
    let found = fstat(&dir).map_err(failed)?;
    let own = nix::unistd::geteuid().as_raw();
    if found.st_uid != own {
        return Err(Fault::new(
            Kind::PermissionDenied,
            format!(
                "`{}` belongs to uid {}, not to uid {own}",
                path.display(),
                found.st_uid
            ),
        )
        .with("path", path.to_string_lossy())
        .hint("remove the directory, or choose another runtime directory"));
    }
    if found.st_mode & 0o7777 != 0o700 {
        fchmod(&dir, Mode::S_IRWXU).map_err(failed)?;
    }
    Ok(dir)
}

/// Makes the runtime directory and one below it.
pub(crate) fn runtime_subdir(runtime: &Path, name: &str) -> Result<PathBuf, Fault> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(runtime)
        .map_err(|error| Fault::io("create", runtime, &error))?;
    private_dir(runtime, name)?;
    Ok(runtime.join(name))
}

/// Binds `gate-server.sock` in a private directory, mode 0600 from its first moment.
pub(crate) fn bind_unix(parent: &Path, name: &str) -> Result<BoundUnix, Fault> {
    let shown = parent.join(name).join(SOCKET);
    let failed = |error: nix::Error| Fault::io("listen on", &shown, &error.into());
    let dir = private_dir(parent, name)?;
    // By way of the descriptor: no length limit, and nobody exchanges the directory meanwhile.
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    make_room(&dir, &path, &shown)?;
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(failed)?;
    // The file gets the mode of the socket, less the umask: there is no moment in which it is wider.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&path).map_err(failed)?).map_err(failed)?;
    listen(&socket.as_fd(), Backlog::MAXALLOWABLE).map_err(failed)?;
    let file = identity(&dir).map_err(failed)?;
    Ok(BoundUnix {
        listener: UnixListener::from(socket),
        path: shown,
        dir,
        file,
    })
}

/// Takes a socket away that nobody answers at; everything else stays.
fn make_room(dir: &OwnedFd, path: &Path, shown: &Path) -> Result<(), Fault> {
    let failed = |error: io::Error| Fault::io("listen on", shown, &error);
    let found = match fstatat(dir, SOCKET, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    if found.st_mode & nix::libc::S_IFMT != nix::libc::S_IFSOCK {
        return Err(Fault::new(
            Kind::StorageError,
            format!("`{}` is there and is no socket", shown.display()),
        )
        .with("path", shown.to_string_lossy())
        .hint("look at it, and move it away"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Fault::new(
            Kind::StorageError,
            format!("another gate server answers on `{}`", shown.display()),
        )
        .with("path", shown.to_string_lossy())
        .hint("stop it first; the reference's runs as `terok-gate-socket.service` of your systemd user session")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            unlinkat(dir, SOCKET, UnlinkatFlags::NoRemoveDir).map_err(|error| failed(error.into()))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes sure that a socket that was handed over can be reached by its owner only; answers where it is.
pub(crate) fn check_handed_unix(listener: &UnixListener) -> Result<PathBuf, Fault> {
    let address = listener.local_addr().map_err(|error| {
        Fault::internal(format!("cannot ask a listener for its place: {error}"))
    })?;
    let refuse = |what: String| {
        Fault::new(
            Kind::PermissionDenied,
            format!("{what}, so gates are not served on it"),
        )
        .hint("use `ListenStream=` with a path and `SocketMode=0600` in `terokd-gate.socket`")
    };
    let Some(path) = address.as_pathname() else {
        return Err(refuse(
            "the socket that was handed over has no path".to_owned(),
        ));
    };
    let found =
        nix::sys::stat::lstat(path).map_err(|error| Fault::io("inspect", path, &error.into()))?;
    if found.st_mode & 0o077 != 0 {
        let mode = found.st_mode & 0o7777;
        let shown = path.display();
        return Err(refuse(format!(
            "`{shown}` was handed over with mode {mode:04o}"
        )));
    }
    Ok(path.to_owned())
}

/// Makes sure that a port that was handed over is on loopback.
pub(crate) fn check_handed_tcp(
    listener: &std::net::TcpListener,
    configured: Option<u16>,
) -> Result<(), Fault> {
    let address = listener.local_addr().map_err(|error| {
        Fault::internal(format!("cannot ask a listener for its place: {error}"))
    })?;
    if !address.ip().is_loopback() {
        return Err(Fault::new(
            Kind::PermissionDenied,
            format!("{address} was handed over and is not loopback, so gates are not served on it"),
        )
        .hint("use `ListenStream=127.0.0.1:PORT` in `terokd-gate.socket`"));
    }
    if let Some(configured) = configured.filter(|port| *port != address.port()) {
        tracing::warn!(%address, configured, "`gate_server.port` is not the port that was handed over, which is used");
    }
    Ok(())
}

/// Takes a loopback port: the configured one, else the previous one, else any of the range.
pub(crate) fn bind_tcp(
    port: Option<u16>,
    previous: Option<u16>,
) -> Result<std::net::TcpListener, Fault> {
    let take = |port: u16| {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    if let Some(port) = port {
        return take(port).map_err(|error| {
            Fault::new(
                Kind::PortUnavailable,
                format!("cannot listen on 127.0.0.1:{port}: {error}"),
            )
            .with("port", port)
            .hint("stop what listens there (the reference's gate server is `terok-gate.socket` of your systemd user session), or change `gate_server.port`")
        });
    }
    if let Some(port) = previous.filter(|port| *port != 0) {
        match take(port) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                tracing::warn!(port, %error, "the gate server's port is taken: running containers do not reach it until they are created anew");
            }
        }
    }
    let count = PORTS.end() - PORTS.start() + 1;
    let mut random = [0; 2];
    getrandom::fill(&mut random)
        .map_err(|error| Fault::internal(format!("the system gives no randomness: {error}")))?;
    let first = u16::from_ne_bytes(random) % count;
    (0..count)
        .map(|step| {
            PORTS.start() + (u32::from(first) + u32::from(step)).rem_euclid(u32::from(count)) as u16
        })
        .find_map(|port| take(port).ok())
        .ok_or_else(|| {
            Fault::new(
                Kind::NoFreePort,
                format!(
                    "no port from {} to {} is free for the gate server",
                    PORTS.start(),
                    PORTS.end()
                ),
            )
            .hint("set `gate_server.port`, or `services.mode: socket`")
        })
}
