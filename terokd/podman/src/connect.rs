//! From settings to a connected socket, starting Podman's service where nobody else does.
//!
//! The service is our child only by birth: own process group, never killed by us, found again through its socket by
//! whoever runs next, because the monitors of containers may live in its control group.

use crate::fault;
use crate::http::{self, Call};
use crate::settings::Settings;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use terok_proto::Fault;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// After a start that failed nobody tries again for this long.
const START_AGAIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Connector {
    settings: Settings,
    /// One starter at a time in this process; between processes there is the lock file.
    starting: tokio::sync::Mutex<Option<(Instant, Fault)>>,
    connected: Mutex<Option<PathBuf>>,
}

impl Connector {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            starting: tokio::sync::Mutex::new(None),
            connected: Mutex::new(None),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The socket that was connected to last, else the first that would be tried.
    pub(crate) fn socket(&self) -> PathBuf {
        let connected = self
            .connected
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        connected
            .or_else(|| self.settings.explicit.clone())
            .or_else(|| self.settings.candidates.first().cloned())
            .unwrap_or_else(|| self.own_socket())
    }

    fn own_socket(&self) -> PathBuf {
        self.settings.directory.join("podman.sock")
    }

    /// A connection to whatever answers first; the service is started if nothing does.
    pub(crate) async fn connect(&self) -> Result<UnixStream, Fault> {
        let tried = match self.try_all().await {
            Ok(stream) => return Ok(stream),
            Err(tried) => tried,
        };
        match (&self.settings.explicit, &self.settings.program) {
            (None, Some(program)) => self.start(program, tried).await,
            _ => Err(fault::no_service(&tried)),
        }
    }

    /// The same without starting anything.
    pub(crate) async fn connect_running(&self) -> Result<UnixStream, Fault> {
        self.try_all()
            .await
            .map_err(|tried| fault::no_service(&tried))
    }

    async fn try_all(&self) -> Result<UnixStream, Vec<(PathBuf, String)>> {
        let mut tried = Vec::new();
        let own = self.own_socket();
        let sockets = match &self.settings.explicit {
            Some(explicit) => vec![explicit.clone()],
            None => self
                .settings
                .candidates
                .iter()
                .cloned()
                .chain([own.clone()])
                .collect(),
        };
        for socket in sockets {
            match self.connect_to(&socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if socket == own && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tried.push((socket, explain(&error))),
            }
        }
        Err(tried)
    }

    async fn connect_to(&self, socket: &Path) -> io::Result<UnixStream> {
        // A full backlog makes a connection wait: a service that hangs before it accepts.
        let patient = async {
            loop {
                match UnixStream::connect(socket).await {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        sleep(LOOK_AGAIN).await
                    }
                    other => return other,
                }
            }
        };
        let stream = timeout(self.settings.deadlines.read, patient)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        *self
            .connected
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(socket.to_owned());
        Ok(stream)
    }

    async fn start(
        &self,
        program: &Path,
        tried: Vec<(PathBuf, String)>,
    ) -> Result<UnixStream, Fault> {
        let mut last = self.starting.lock().await;
        if let Some((until, fault)) = last.as_ref()
            && Instant::now() < *until
        {
            return Err(fault.clone());
        }
        let limit = self.settings.deadlines.start;
        let started = timeout(limit, self.start_locked(program, tried))
            .await
            .unwrap_or_else(|_| Err(fault::timeout("the start of its service", limit)));
        *last = started
            .as_ref()
            .err()
            .map(|fault| (Instant::now() + START_AGAIN, fault.clone()));
        started
    }

    async fn start_locked(
        &self,
        program: &Path,
        tried: Vec<(PathBuf, String)>,
    ) -> Result<UnixStream, Fault> {
        let directory = &self.settings.directory;
        private_directory(directory)?;
        let _lock = lock(&directory.join("podman.lock")).await?;
        let socket = self.own_socket();
        // Somebody else may have started it meanwhile.
        if let Ok(stream) = self.connect_to(&socket).await {
            return Ok(stream);
        }
        match fs::remove_file(&socket) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::io("remove", &socket, &error)),
        }
        let log = directory.join("podman.log");
        let mut child = spawn_service(program, &socket, &log, 0).map_err(|error| {
            let mut tried = tried;
            tried.push((program.to_owned(), explain(&error)));
            fault::no_service(&tried)
        })?;
        tracing::info!(socket = %socket.display(), pid = child.id(), "started podman's service");
        loop {
            if let Ok(stream) = self.connect_to(&socket).await
                && answers(stream).await
            {
                // Nothing is killed with the handle; waiting only collects it, should it end before us.
                tokio::spawn(async move {
                    let ended = child.wait().await;
                    tracing::warn!(?ended, "podman's service has ended");
                });
                return self
                    .connect_to(&socket)
                    .await
                    .map_err(|error| fault::broken("the start of its service", error));
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = log_tail(&log);
                return Err(fault::unavailable(format!(
                    "podman's service ended with {status}: {said}; see `{}`",
                    log.display()
                )));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Starts `podman system service` as leader of a process group of its own, which ends by itself after `idle` seconds
/// without a connection, or never with 0.
#[expect(
    clippy::disallowed_methods,
    reason = "the service outlives us; whoever waits for it has the deadline"
)]
pub(crate) fn spawn_service(
    program: &Path,
    socket: &Path,
    log: &Path,
    idle: u32,
) -> io::Result<tokio::process::Child> {
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(log)?;
    let mut url = std::ffi::OsString::from("unix://");
    url.push(socket);
    Command::new(program)
        .args(["system", "service", "--time", &idle.to_string()])
        .arg(url)
        // As a client of another service it would refuse to be one itself.
        .env_remove("CONTAINER_HOST")
        // What the daemon was handed by systemd is the daemon's.
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(false)
        .spawn()
}

/// Whether the service behind a connection answers at all.
pub(crate) async fn answers(stream: UnixStream) -> bool {
    let call = Call::new("a ping", hyper::Method::GET, "/_ping".to_owned());
    http::send(stream, call)
        .await
        .is_ok_and(|answer| answer.status == 200)
}

/// Makes a directory that only we can use, or makes sure that it is one.
pub(crate) fn private_directory(path: &Path) -> Result<(), Fault> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Fault::io("make", path, &error))?;
    let meta = fs::symlink_metadata(path).map_err(|error| Fault::io("look at", path, &error))?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(fault::unavailable(format!(
            "`{}` is not a directory of ours; remove it",
            path.display()
        )));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| Fault::io("close", path, &error))?;
    }
    Ok(())
}

async fn lock(path: &Path) -> Result<Flock<File>, Fault> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| Fault::io("open", path, &error))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK | nix::errno::Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(Fault::io("lock", path, &errno.into())),
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens".into(),
        io::ErrorKind::PermissionDenied => "may not be used by this user".into(),
        io::ErrorKind::TimedOut => "does not accept connections".into(),
        _ => error.to_string(),
    }
}

fn log_tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let from = file
            .metadata()
            .map_or(0, |meta| meta.len().saturating_sub(500));
        let _ = file.seek(SeekFrom::Start(from));
        let _ = file.take(500).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}
