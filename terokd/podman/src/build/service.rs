//! A service of Podman's for one build, because nothing in the API ends the step that it runs.
//!
//! When a client goes, Podman finishes the step at hand, however long that takes. What runs below a service of ours is
//! ours to end. It shares storage and events with every other service of the same user.

use crate::connect::{Connector, answers, private_directory, spawn_service};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use terok_proto::Fault;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

static NEXT: AtomicU64 = AtomicU64::new(0);
/// How long a step may take to die before it is killed without a word.
const GRACE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Seconds without a connection after which the service goes by itself, should we be killed.
const IDLE: u32 = 10;

/// The service; it ends with this value, and the step that it runs with it.
#[derive(Debug)]
pub(super) struct BuildService {
    child: Option<Child>,
    socket: PathBuf,
    log: PathBuf,
}

/// A connection to a service of its own, or to the common one where none can be started.
pub(super) async fn connect(
    connector: &Connector,
) -> Result<(UnixStream, Option<BuildService>), Fault> {
    let settings = connector.settings();
    if settings.explicit.is_none()
        && let Some(program) = &settings.program
    {
        private_directory(&settings.directory)?;
        let name = format!(
            "build.{}.{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let socket = settings.directory.join(format!("{name}.sock"));
        let log = settings.directory.join(format!("{name}.log"));
        match spawn_service(program, &socket, &log, IDLE) {
            Ok(child) => {
                let mut service = BuildService {
                    child: Some(child),
                    socket,
                    log,
                };
                if let Ok(Some(stream)) =
                    timeout(settings.deadlines.start, service.connected()).await
                {
                    return Ok((stream, Some(service)));
                }
            }
            Err(error) => tracing::debug!(%error, "no service of its own for a build"),
        }
    }
    Ok((connector.connect().await?, None))
}

impl BuildService {
    async fn connected(&mut self) -> Option<UnixStream> {
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket).await
                && answers(stream).await
            {
                return UnixStream::connect(&self.socket).await.ok();
            }
            if !matches!(self.child.as_mut()?.try_wait(), Ok(None)) {
                return None;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for BuildService {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.log);
        let Some(child) = self.child.take() else {
            return;
        };
        // The id is the child's until somebody waits for it.
        let Some(leader) = child.id() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end(child, leader))),
            // Nobody can wait any more: the step is killed, and the service goes by itself.
            Err(_) => Family::of(leader).each(|member| member.signal(Signal::SIGTERM)),
        }
    }
}

/// Ends the step first and the service after it. The other way round buildah's supervisor dies with the service, before
/// it has killed the step, which then runs on with nobody above it.
async fn end(mut child: Child, leader: u32) {
    let mut family = Family::of(leader);
    family.each(|member| member.signal(Signal::SIGTERM));
    let begun = Instant::now();
    while family.grow(leader) && begun.elapsed() < GRACE {
        sleep(LOOK_AGAIN).await;
    }
    let group = i32::try_from(leader)
        .map(Pid::from_raw)
        .expect("ids are positive");
    let _ = killpg(group, Signal::SIGTERM);
    let begun = Instant::now();
    loop {
        let ended = timeout(LOOK_AGAIN, child.wait()).await.is_ok();
        family.grow(leader);
        if ended || begun.elapsed() > GRACE {
            break;
        }
    }
    if child.id().is_some() {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait().await;
    }
    family.each(|member| member.signal(Signal::SIGKILL));
}

/// What a service has started, as far as it was seen.
#[derive(Debug, Default)]
struct Family(Vec<Process>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: i32,
    /// In ticks since the machine started: tells it from a later one with the same id.
    born: u64,
    parent: i32,
}

impl Family {
    fn of(leader: u32) -> Self {
        let mut family = Self::default();
        family.grow(leader);
        family
    }

    /// Adds what is there now; whether anything is.
    fn grow(&mut self, leader: u32) -> bool {
        let all: Vec<Process> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?))
            .collect();
        let mut ids = vec![i32::try_from(leader).expect("ids are positive")];
        let mut next = 0;
        while let Some(&id) = ids.get(next) {
            next += 1;
            for process in all.iter().filter(|process| process.parent == id) {
                if !ids.contains(&process.id) {
                    ids.push(process.id);
                    if !self
                        .0
                        .iter()
                        .any(|known| (known.id, known.born) == (process.id, process.born))
                    {
                        self.0.push(*process);
                    }
                }
            }
        }
        self.0.retain(|process| process.is_alive());
        !self.0.is_empty()
    }

    fn each(&self, act: impl FnMut(&Process)) {
        self.0.iter().for_each(act);
    }
}

impl Process {
    fn read(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name may hold anything, brackets included.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        if matches!(fields.first(), Some(&("Z" | "X"))) {
            return None;
        }
        Some(Self {
            id,
            born: fields.get(19)?.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
        })
    }

    fn is_alive(&self) -> bool {
        Self::read(self.id).is_some_and(|now| now.born == self.born)
    }

    fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.id), signal);
        }
    }
}
