//! The server as a whole: what it listens on, whom it serves, and how it ends.

use crate::admission::Admission;
use crate::config::{Config, Handed, Limits, Listen};
use crate::git::Git;
use crate::listen::{self, BoundUnix, Origin};
use crate::patient::Patient;
use crate::repository::Base;
use crate::tokens::{Grant, Tokens};
use crate::{hook, http};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempPath;
use terok_proto::gate::{GateServerStatus, ServerMode, ServerTransport};
use terok_proto::{Fault, Kind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) mod report;

/// Events that wait for a slow listener before they are dropped.
const EVENTS: usize = 1024;

/// How long stopping may take: the patience of an exchange and of [`crate::git`] with a child add up to less.
const STOP: Duration = Duration::from_secs(2);

/// How often the last use of tokens is written down.
const FLUSH: Duration = Duration::from_secs(60);

/// How long and how much is read from a client that was answered before it had said everything.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 << 20;

/// A push that has happened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PushEvent {
    /// Project of the token.
    pub project: String,
    /// Task of the token.
    pub task_id: String,
    /// Resolved path of the gate.
    pub gate_path: PathBuf,
    /// What moved.
    pub refs: Vec<PushedRef>,
}

/// A ref that a push moved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PushedRef {
    /// Full name.
    pub name: String,
    /// Before; none if it was created.
    pub old: Option<String>,
    /// After; none if it was deleted.
    pub new: Option<String>,
}

/// A running gate server. A handle: clones are the same server. It ends with [`GateServer::stop`].
#[derive(Clone, Debug)]
pub struct GateServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) base: Base,
    pub(crate) git: Git,
    pub(crate) tokens: Tokens,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
    pub(crate) host_dir: PathBuf,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) requests: AtomicU64,
    active: Arc<AtomicU64>,
    run_dir: PathBuf,
    events: mpsc::Sender<PushEvent>,
    listeners: Mutex<BTreeMap<Origin, Listening>>,
    facts: Facts,
}

/// What does not change while it runs.
#[derive(Debug)]
struct Facts {
    mode: ServerMode,
    transport: ServerTransport,
    port: Option<u16>,
    address: String,
    since: String,
}

#[derive(Debug)]
struct Listening {
    stop: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
    bound: Option<BoundUnix>,
}

impl GateServer {
    /// Starts serving: the host's listener, and one for every task that has a token unless containers come by TCP.
    /// Pushes are told on the channel, first those that an earlier server could not tell of.
    ///
    /// # Errors
    /// The base or the runtime directory cannot be used, or the address is taken. A task's own listener that cannot
    /// be bound is logged: it concerns nobody else.
    pub async fn start(
        config: Config,
        tokens: Tokens,
    ) -> Result<(Self, mpsc::Receiver<PushEvent>), Fault> {
        let Config {
            base,
            runtime_dir,
            path,
            hook_program,
            listen,
            handed,
            limits,
        } = config;
        let base = Base::open(&base)?;
        let hooks = hook::install(base.path(), &hook_program)?;
        let host_dir = listen::runtime_subdir(&runtime_dir, "host")?;
        let run_dir = listen::runtime_subdir(&runtime_dir, "run")?;
        let host = bind_host(listen, handed, &runtime_dir)?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        for push in report::take_left(&host_dir) {
            tell(&sender, push);
        }
        let by_socket = host.facts.transport == ServerTransport::Socket;
        let inner = Arc::new(Inner {
            git: Git::new(path, &hooks),
            base,
            tokens,
            admission: Admission::new(&limits),
            limits,
            host_dir,
            run_dir,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            requests: AtomicU64::new(0),
            active: Arc::default(),
            events: sender,
            listeners: Mutex::default(),
            facts: host.facts,
        });
        let server = Self { inner };
        server.serve(Origin::Host, host.acceptor, host.bound);
        server.inner.tasks.spawn(keep_times(
            server.inner.tokens.clone(),
            server.inner.stop.clone(),
        ));
        if by_socket {
            for (project, task) in server.inner.tokens.tasks() {
                if let Err(fault) = server.add_task(&project, &task).await {
                    tracing::warn!(project, task, %fault, "this task does not reach its gate");
                }
            }
        }
        Ok((server, receiver))
    }

    /// Binds a task's own socket, which admits only its own tokens, and gives its directory, for mounting. Again for
    /// a task that has one: makes sure that it is there.
    ///
    /// # Errors
    /// The directory cannot be made private, or something is in the way.
    pub async fn add_task(&self, project: &str, task: &str) -> Result<PathBuf, Fault> {
        let key = listen::task_key(project, task);
        let dir = self.inner.run_dir.join(&key);
        let origin = Origin::Task {
            project: project.to_owned(),
            task: task.to_owned(),
        };
        if self.inner.stop.is_cancelled() {
            return Err(Fault::new(
                Kind::GateUnreachable,
                "the gate server is stopped",
            ));
        }
        let present = {
            let listeners = self.inner.listeners();
            let listening = listeners.get(&origin).and_then(|one| one.bound.as_ref());
            listening.is_some_and(BoundUnix::is_in_place)
        };
        if present {
            return Ok(dir);
        }
        self.close(&origin).await;
        let bound = listen::bind_unix(&self.inner.run_dir, &key)?;
        let failed = |error: io::Error| Fault::io("listen on", &dir, &error);
        let acceptor = Acceptor::unix(bound.listener().map_err(failed)?).map_err(failed)?;
        self.serve(origin, acceptor, Some(bound));
        Ok(dir)
    }

    /// Closes a task's socket and its connections, and removes its directory unless others use it.
    pub async fn remove_task(&self, project: &str, task: &str) {
        let origin = Origin::Task {
            project: project.to_owned(),
            task: task.to_owned(),
        };
        self.close(&origin).await;
        let dir = self.inner.run_dir.join(listen::task_key(project, task));
        // Not empty: the sockets of other services are still there, and who closes the last of them removes it.
        let _ = std::fs::remove_dir(dir);
    }

    /// Closes all listeners, ends all children and comes back within two seconds. Task directories stay, because
    /// running containers have them mounted.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let listeners = std::mem::take(&mut *self.inner.listeners());
        for listening in listeners.into_values() {
            let _ = listening.accepting.await;
        }
        self.inner.tasks.close();
        if tokio::time::timeout(STOP, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("children of the gate server do not end");
        }
        if let Err(fault) = self.inner.tokens.flush().await {
            tracing::warn!(%fault, "the last use of tokens is not recorded");
        }
    }

    /// The TCP port, if there is one: to be passed as `previous` the next time.
    pub fn port(&self) -> Option<u16> {
        self.inner.facts.port
    }

    /// The tokens that it admits.
    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }

    /// What it is doing.
    pub fn status(&self) -> GateServerStatus {
        let inner = &self.inner;
        let facts = &inner.facts;
        let running = !inner.stop.is_cancelled();
        GateServerStatus {
            mode: if running {
                facts.mode
            } else {
                ServerMode::None
            },
            running,
            port: facts.port,
            transport: Some(facts.transport),
            address: Some(facts.address.clone()),
            active_requests: inner.active.load(Ordering::Relaxed),
            requests_total: inner.requests.load(Ordering::Relaxed),
            tokens: inner.tokens.count() as u64,
            base_path: inner.base.path().to_string_lossy().into_owned(),
            since: running.then(|| facts.since.clone()),
            error: None,
        }
    }

    fn serve(&self, origin: Origin, acceptor: Acceptor, bound: Option<BoundUnix>) {
        let stop = self.inner.stop.child_token();
        let inner = Arc::clone(&self.inner);
        let accepting = accept(inner, Arc::new(origin.clone()), acceptor, stop.clone());
        let listening = Listening {
            accepting: tokio::spawn(accepting),
            stop,
            bound,
        };
        self.inner.listeners().insert(origin, listening);
    }

    async fn close(&self, origin: &Origin) {
        let listening = self.inner.listeners().remove(origin);
        if let Some(listening) = listening {
            listening.stop.cancel();
            let _ = listening.accepting.await;
        }
    }
}

impl Inner {
    /// Counts a request as active until dropped.
    pub(crate) fn active(&self) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(&self.active))
    }

    /// An empty report of a push that is about to begin.
    pub(crate) fn report(&self, grant: &Grant) -> io::Result<TempPath> {
        let push = PushEvent {
            project: grant.scope.clone(),
            task_id: grant.task_id.clone(),
            gate_path: grant.gate_path.clone(),
            refs: Vec::new(),
        };
        report::create(&self.host_dir, &push)
    }

    /// Tells of a push, after its child has ended. What nobody would hear of any more, because the server stops or the child was
    /// killed before its hook had reported, is left for the next start.
    pub(crate) fn pushed(&self, report: TempPath, killed: bool) {
        let push = match report::read(&report) {
            Ok(push) => push,
            Err(error) => {
                tracing::warn!(%error, "what was pushed is not known");
                return;
            }
        };
        let moved = !push.refs.is_empty();
        if killed && !moved || moved && self.stop.is_cancelled() {
            if let Err(error) = report.keep() {
                tracing::warn!(%error, "what was pushed is forgotten");
            }
        } else if moved {
            tell(&self.events, push);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<Origin, Listening>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(events: &mpsc::Sender<PushEvent>, push: PushEvent) {
    if let Err(error) = events.try_send(push) {
        let push = error.into_inner();
        tracing::warn!(scope = push.project, "nobody hears of a push");
    }
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct Active(Arc<AtomicU64>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Host {
    acceptor: Acceptor,
    bound: Option<BoundUnix>,
    facts: Facts,
}

fn bind_host(listen: Listen, handed: Handed, runtime: &Path) -> Result<Host, Fault> {
    let failed =
        |error: io::Error| Fault::internal(format!("cannot listen for the gate server: {error}"));
    let socket = runtime.join("host").join(listen::SOCKET);
    let facts = |mode, transport, port, address| Facts {
        mode,
        transport,
        port,
        address,
        since: Timestamp::now().to_string(),
    };
    let tcp = |listener: std::net::TcpListener, mode| {
        let address = listener.local_addr().map_err(failed)?;
        Ok(Host {
            acceptor: Acceptor::tcp(listener).map_err(failed)?,
            bound: None,
            facts: facts(
                mode,
                ServerTransport::Tcp,
                Some(address.port()),
                address.to_string(),
            ),
        })
    };
    if matches!(listen, Listen::Tcp { .. }) && handed.unix.is_some()
        || matches!(listen, Listen::Socket) && handed.tcp.is_some()
    {
        tracing::warn!(
            "a socket that was handed over for gates is not used: it does not fit `services.mode`"
        );
    }
    match (listen, handed) {
        (
            Listen::Tcp { port, .. },
            Handed {
                tcp: Some(listener),
                ..
            },
        ) => {
            listen::check_handed_tcp(&listener, port)?;
            tcp(listener, ServerMode::Systemd)
        }
        (Listen::Tcp { port, previous }, _) => {
            tcp(listen::bind_tcp(port, previous)?, ServerMode::Daemon)
        }
        (
            Listen::Socket,
            Handed {
                unix: Some(listener),
                ..
            },
        ) => {
            let address = listen::check_handed_unix(&listener)?;
            let address = address.to_string_lossy().into_owned();
            Ok(Host {
                acceptor: Acceptor::unix(listener).map_err(failed)?,
                bound: None,
                facts: facts(ServerMode::Systemd, ServerTransport::Socket, None, address),
            })
        }
        (Listen::Socket, _) => {
            let bound = listen::bind_unix(runtime, "host")?;
            let address = socket.to_string_lossy().into_owned();
            Ok(Host {
                acceptor: Acceptor::unix(bound.listener().map_err(failed)?).map_err(failed)?,
                bound: Some(bound),
                facts: facts(ServerMode::Daemon, ServerTransport::Socket, None, address),
            })
        }
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::Unix)
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Accepts until told to stop. When there are too many connections, others wait in the kernel.
async fn accept(
    inner: Arc<Inner>,
    origin: Arc<Origin>,
    acceptor: Acceptor,
    stop: CancellationToken,
) {
    let most = match *origin {
        Origin::Host => inner.limits.connections,
        Origin::Task { .. } => inner.limits.connections_per_task,
    };
    let room = Arc::new(Semaphore::new(most));
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (acceptor.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                let (inner, origin) = (Arc::clone(&inner), Arc::clone(&origin));
                let stop = stop.clone();
                let tasks = inner.tasks.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection(inner, origin, stream) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely; some will be free in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(inner: Arc<Inner>, origin: Arc<Origin>, stream: Box<dyn Stream>) {
    let (header, idle) = (inner.limits.header, inner.limits.idle);
    // Boxed, because the connection is polled by reference below.
    let service = service_fn(move |request| {
        let (inner, origin) = (Arc::clone(&inner), Arc::clone(&origin));
        Box::pin(async move {
            Ok::<_, std::convert::Infallible>(http::answer(inner, origin, request).await)
        })
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .max_headers(64)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(Patient::new(stream, idle)), service);
    if let Err(error) = poll_fn(|context| connection.poll_without_shutdown(context)).await {
        tracing::debug!(%error, "a connection ended early");
    }
    let stream = connection.into_parts().io.into_inner();
    // Whoever does not read will not read his answer either.
    if !stream.has_stalled() {
        linger(stream).await;
    }
}

/// Lets a client that is still sending read its answer: closing at once would reset the connection.
async fn linger(mut stream: impl Stream) {
    if stream.shutdown().await.is_ok() {
        let rest = async {
            let _ = tokio::io::copy(
                &mut (&mut stream).take(LINGER_BYTES),
                &mut tokio::io::sink(),
            )
            .await;
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

/// Writes down, now and then, when tokens were used.
async fn keep_times(tokens: Tokens, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(FLUSH) => {}
            () = stop.cancelled() => return,
        }
        if let Err(fault) = tokens.flush().await {
            tracing::warn!(%fault, "the last use of tokens is not recorded");
        }
    }
}
