//! One connection to an upstream for gix, of any kind, that ends when its call does.

use super::child::{Guarded, Tail};
use super::credentials::Helpers;
use super::http::{Capabilities, Client, Failure};
use super::stderr;
use super::watch::{Meter, Watch};
use crate::{HostEnv, Limits, TransportError, Upstream, UrlKind, access};
use gix::bstr::ByteSlice;
use gix::protocol::transport::client::blocking_io::{Transport, http};
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use gix::protocol::transport::{Protocol, Service};
use gix::protocol::{Handshake, handshake};
use std::cell::RefCell;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

const GIT_PORT: u16 = 9418;
/// How long one wait for a connection lasts before the caller's wishes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a child may take to end after its work.
const FAREWELL: Duration = Duration::from_millis(500);

pub(super) struct Session {
    pub(super) transport: Box<dyn Transport>,
    pub(super) handshake: Handshake,
    failure: Explainer,
    /// The answer to the first question was remembered from another call.
    pub(super) from_memory: bool,
    child: Option<Guarded>,
}

/// Knows what the parts of a connection have to say about its failure.
struct Explainer {
    watch: Rc<Watch>,
    upstream: Upstream,
    complaints: Option<Complaints>,
    http: Option<Failure>,
}

impl Explainer {
    /// What lies behind an error of gix's, the most telling first.
    fn explain(&self, error: &gix::error::Error) -> TransportError {
        if let Some(reason) = self.watch.stopped() {
            return reason;
        }
        if let Some(reason) = self
            .http
            .as_ref()
            .and_then(|failure| failure.borrow().clone())
        {
            return reason;
        }
        let own = format!("{error:#}");
        let own = own.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = self
            .complaints
            .as_ref()
            .map(Complaints::text)
            .unwrap_or_default();
        if let Some(reason) = stderr::host_key(&said, &self.upstream) {
            return reason;
        }
        match stderr::classify(&said, &self.upstream) {
            TransportError::Protocol(_) if said.trim().is_empty() => {
                stderr::classify(&own, &self.upstream)
            }
            TransportError::Protocol(text) => match stderr::classify(&own, &self.upstream) {
                // gix only saw the connection end; the other side said why.
                TransportError::Protocol(_) | TransportError::Unreachable(_) => {
                    TransportError::Protocol(format!("{text}; {}", crate::clean_message(&own)))
                }
                told => told,
            },
            told => told,
        }
    }
}

impl Session {
    /// Connects and learns what the server can.
    pub(super) fn open(
        env: &HostEnv,
        upstream: &Upstream,
        limits: &Limits,
        watch: &Rc<Watch>,
        capabilities: Option<Capabilities>,
    ) -> Result<Self, TransportError> {
        let mut explainer = Explainer {
            watch: Rc::clone(watch),
            upstream: upstream.clone(),
            complaints: None,
            http: None,
        };
        let mut child = None;
        let mut used: Rc<RefCell<bool>> = Rc::default();
        let mut transport: Box<dyn Transport> = match upstream.url.kind() {
            UrlKind::Http | UrlKind::Https => {
                let client = Client::new(
                    &upstream.url,
                    env,
                    limits.connect,
                    watch.meter(),
                    Box::new(Helpers::new(env, watch, &upstream.url)),
                    capabilities,
                );
                explainer.http = Some(client.failure());
                used = Rc::clone(&client.used_capabilities);
                let url = gix::Url::try_from(upstream.url.without_userinfo().as_bytes().as_bstr())
                    .map_err(|error| TransportError::protocol(&format!("{error:#}")))?;
                Box::new(http::Transport::new_http(client, url, Protocol::V2, false))
            }
            UrlKind::Git => Box::new(connect_tcp(upstream, limits, watch)?),
            UrlKind::File => {
                let mut command = env.command("git", upstream)?;
                command.args(["upload-pack", "--", upstream.url.path()]);
                let (started, connection, complaints) = start(command, upstream, watch)?;
                child = Some(started);
                explainer.complaints = Some(complaints);
                Box::new(connection)
            }
            UrlKind::Ssh => {
                let (started, connection, complaints) =
                    start(ssh(env, upstream)?, upstream, watch)?;
                child = Some(started);
                explainer.complaints = Some(complaints);
                Box::new(connection)
            }
        };
        let refuse =
            |_| Err(gix::error::message("credentials are handled by the connection").into());
        let handshake = handshake(
            &mut transport,
            Service::UploadPack,
            refuse,
            Vec::new(),
            &mut gix::progress::Discard,
        )
        .map_err(|error| {
            // What the child says is complete once it has ended, and it ends by itself now.
            if let Some(child) = &mut child {
                child.finish(FAREWELL);
            }
            explainer.explain(&error)
        })?;
        if let Some(format) = handshake
            .capabilities
            .capability("object-format")
            .and_then(|capability| capability.value())
            && format != "sha1"
        {
            let format = crate::clean_message(&format.to_str_lossy());
            return Err(TransportError::UnsupportedObjectFormat(format));
        }
        let from_memory = *used.borrow();
        Ok(Self {
            transport,
            handshake,
            failure: explainer,
            from_memory,
            child,
        })
    }

    /// What lies behind an error of gix's.
    pub(super) fn explain(&mut self, error: &gix::error::Error) -> TransportError {
        if let Some(child) = &mut self.child {
            child.finish(FAREWELL);
        }
        self.failure.explain(error)
    }

    /// Says goodbye, so that the other side does not report a broken connection.
    pub(super) fn close(mut self) {
        let persistent = self
            .transport
            .connection_persists_across_multiple_requests();
        if persistent && self.handshake.server_protocol_version == Protocol::V2 {
            gix::protocol::indicate_end_of_interaction(&mut self.transport, false).ok();
        }
        let Self {
            transport, child, ..
        } = self;
        drop(transport);
        if let Some(mut child) = child {
            child.finish(FAREWELL);
        }
    }
}

/// gix reads and writes every line of the protocol in pieces.
type Buffered<R, W> = Connection<BufReader<Metered<R>>, BufWriter<Metered<W>>>;
type Piped = Buffered<std::process::ChildStdout, std::process::ChildStdin>;

fn start(
    mut command: Command,
    upstream: &Upstream,
    watch: &Watch,
) -> Result<(Guarded, Piped, Complaints), TransportError> {
    command
        .env("GIT_PROTOCOL", "version=2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Guarded::spawn(&mut command, watch)?;
    let pipes = child.child();
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take())
    else {
        return Err(TransportError::storage("a child has no pipes"));
    };
    let complaints = Complaints::listen(stderr)?;
    let connection = Connection::new(
        BufReader::new(Metered::new(stdout, watch.meter())),
        BufWriter::new(Metered::new(stdin, watch.meter())),
        Protocol::V2,
        upstream.url.path(),
        None::<(&str, _)>,
        ConnectMode::Process,
        false,
    );
    Ok((child, connection, complaints))
}

/// ssh to the upstream's `git-upload-pack`.
fn ssh(env: &HostEnv, upstream: &Upstream) -> Result<Command, TransportError> {
    let mut command = match access::ssh_arguments(&upstream.access) {
        Some(arguments) => {
            let mut command = env.command("ssh", upstream)?;
            command.args(arguments);
            command
        }
        None => match access::personal_ssh(env) {
            Some(line) => {
                let mut command = env.command("sh", upstream)?;
                command.args(["-c", &format!("{line} \"$@\""), "ssh"]);
                command
            }
            None => env.command("ssh", upstream)?,
        },
    };
    if access::is_batch(&upstream.access) {
        command.args(["-o", "BatchMode=yes"]);
    }
    command.args(["-o", "SendEnv=GIT_PROTOCOL"]);
    let url = &upstream.url;
    if let Some(port) = url.port() {
        command.args(["-p", &port.to_string()]);
    }
    command.arg(match url.user() {
        Some(user) => format!("{user}@{}", url.bare_host()),
        None => url.bare_host().to_owned(),
    });
    // `/~user/x` in a URL means what `~user/x` means to scp.
    let path = url.path();
    let path = if path.starts_with("/~") {
        &path[1..]
    } else {
        path
    };
    command.arg(format!(
        "git-upload-pack '{}'",
        path.replace('\'', "'\\''").replace('!', "'\\!'")
    ));
    Ok(command)
}

fn connect_tcp(
    upstream: &Upstream,
    limits: &Limits,
    watch: &Watch,
) -> Result<Buffered<TcpStream, TcpStream>, TransportError> {
    let url = &upstream.url;
    let port = url.port().unwrap_or(GIT_PORT);
    let unreachable = |error: io::Error| {
        if error.kind() == io::ErrorKind::TimedOut {
            TransportError::timeout(&format!("{}: {error}", url.host()))
        } else {
            TransportError::unreachable(&format!("{}: {error}", url.host()))
        }
    };
    let stream = dial(url.bare_host(), port, limits.connect, watch)?.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let writer = stream.try_clone().map_err(unreachable)?;
    let breaker = stream.try_clone().map_err(unreachable)?;
    watch.on_stop(move || {
        // It may be closed already.
        breaker.shutdown(Shutdown::Both).ok();
    });
    let name = url.bare_host();
    let name = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.to_owned()
    };
    Ok(Connection::new(
        BufReader::new(Metered::new(stream, watch.meter())),
        BufWriter::new(Metered::new(writer, watch.meter())),
        Protocol::V2,
        url.path(),
        Some((name, url.port())),
        ConnectMode::Daemon,
        false,
    ))
}

/// Resolves and connects on a thread that is left behind if the call ends: neither can be interrupted.
fn dial(
    host: &str,
    port: u16,
    patience: Duration,
    watch: &Watch,
) -> Result<io::Result<TcpStream>, TransportError> {
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    std::thread::Builder::new()
        .name("gate-dial".into())
        .spawn(move || {
            let connected = (host.as_str(), port)
                .to_socket_addrs()
                .and_then(|addresses| {
                    let mut last = io::Error::other("the name has no addresses");
                    for address in addresses {
                        match TcpStream::connect_timeout(&address, patience) {
                            Ok(stream) => return Ok(stream),
                            Err(error) => last = error,
                        }
                    }
                    Err(last)
                });
            // Nobody may be waiting any more.
            sender.send(connected).ok();
        })
        .map_err(|error| TransportError::storage(&format!("cannot start a thread: {error}")))?;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(connected) => return Ok(connected),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(TransportError::unreachable("connecting failed"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(reason) = watch.stopped() {
                    return Err(reason);
                }
            }
        }
    }
}

/// A pipe or socket whose waits are watched.
struct Metered<T> {
    inner: T,
    meter: Meter,
}

impl<T> Metered<T> {
    fn new(inner: T, meter: Meter) -> Self {
        Self { inner, meter }
    }

    fn watched(
        &mut self,
        operation: impl FnOnce(&mut T) -> io::Result<usize>,
        incoming: bool,
    ) -> io::Result<usize> {
        self.meter.waiting();
        let result = operation(&mut self.inner);
        self.meter.done(if incoming {
            *result.as_ref().unwrap_or(&0)
        } else {
            0
        });
        self.meter.check()?;
        result
    }
}

impl<T: Read> Read for Metered<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watched(|inner| inner.read(buffer), true)
    }
}

impl<T: Write> Write for Metered<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.watched(|inner| inner.write(data), false)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What a child says on stderr. A thread listens; if something keeps the pipe open beyond the child, it is left behind.
struct Complaints(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    tail: Tail,
    all: bool,
}

impl Complaints {
    fn listen(mut pipe: impl Read + Send + 'static) -> Result<Self, TransportError> {
        let shared = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let heard = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("gate-stderr".into())
            .spawn(move || {
                let mut buffer = [0; 4096];
                loop {
                    let n = pipe.read(&mut buffer).unwrap_or(0);
                    let mut state = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
                    if n == 0 {
                        state.all = true;
                        heard.1.notify_all();
                        return;
                    }
                    state.tail.push(&buffer[..n]);
                }
            })
            .map_err(|error| TransportError::storage(&format!("cannot start a thread: {error}")))?;
        Ok(Self(shared))
    }

    /// All of it, if the child has ended.
    fn text(&self) -> String {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, FAREWELL, |heard| !heard.all)
            .unwrap_or_else(PoisonError::into_inner);
        state.tail.text()
    }
}
