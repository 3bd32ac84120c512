//! The real daemon as a child process, watched through its readiness socket.

use crate::client::{Client, RpcError};
use crate::events::Events;
use crate::http::{self, HttpAnswer};
use crate::programs;
use crate::transport::{Lsp, Ws, open};
use crate::world::World;
use crate::{PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A running daemon; killed with the value, and then checked for not having died or panicked before.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    told: Mutex<Receiver<String>>,
    _listening: Arc<()>,
    client: Mutex<Option<Client>>,
    gone: Option<ExitStatus>,
    forgiven: bool,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Daemon {
    /// Starts it and waits until it says `READY=1`.
    ///
    /// # Panics
    /// It ends first, or takes too long.
    pub fn start(world: &World, change: impl FnOnce(&mut Command)) -> Self {
        let mut daemon = Self::spawn(world, change);
        if let Err(status) = daemon.wait_ready() {
            daemon.forgiven = true;
            panic!("terokd ended ({status}):\n{}", daemon.log());
        }
        daemon
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// It cannot be executed.
    pub fn spawn(world: &World, change: impl FnOnce(&mut Command)) -> Self {
        world.settle();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = world.dir().join(format!("log.{number}"));
        let notify_path = world.dir().join(format!("notify.{number}"));
        let notify = UnixDatagram::bind(&notify_path).expect("a readiness socket");
        world.own(&notify_path);
        let listening = Arc::new(());
        let told = listen(notify, Arc::downgrade(&listening));
        let output = fs::File::create(&log).expect("a log");
        let mut command = world.command(&programs::terokd());
        command
            .env("NOTIFY_SOCKET", &notify_path)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        change(&mut command);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start terokd: {e}"));
        Self {
            child,
            socket: world.socket(),
            log,
            told: Mutex::new(told),
            _listening: listening,
            client: Mutex::new(None),
            gone: None,
            forgiven: false,
        }
    }

    /// Waits until the daemon says that it is ready, or ends.
    ///
    /// # Errors
    /// It has ended, with that status.
    ///
    /// # Panics
    /// Neither happens in time.
    pub fn wait_ready(&mut self) -> Result<(), ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(told) = self.told()
                && told.lines().any(|l| l == "READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.try_wait() {
                return Err(status);
            }
            assert!(Instant::now() < end, "terokd is not ready:\n{}", self.log());
        }
    }

    /// One message of the readiness protocol, if one comes soon.
    pub fn told(&self) -> Option<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.recv_timeout(Duration::from_millis(100)).ok()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let from = text.len().saturating_sub(6000);
        let from = (from..text.len())
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text[from..].to_owned()
    }

    /// A new connection in the line dialect.
    pub fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// A new connection in the `Content-Length` dialect.
    pub fn connect_lsp(&self) -> Client<Lsp> {
        Client::over(Lsp::new(open(&self.socket)))
    }

    /// A new WebSocket.
    pub fn connect_ws(&self) -> Client<Ws> {
        Client::over(Ws::new(open(&self.socket)))
    }

    /// One HTTP request.
    pub fn http(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        http::request(&self.socket, method, path, body)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls on a connection that is kept for this purpose.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.kept()
            .get_or_insert_with(|| Client::connect(&self.socket))
            .call(method, params)
    }

    /// Calls a method that must succeed.
    pub fn ok(&self, method: &str, params: Value) -> Value {
        self.kept()
            .get_or_insert_with(|| Client::connect(&self.socket))
            .ok(method, params)
    }

    /// Calls a method that must fail with that kind.
    pub fn fails(&self, method: &str, params: Value, kind: &str) -> RpcError {
        self.kept()
            .get_or_insert_with(|| Client::connect(&self.socket))
            .fails(method, params, kind)
    }

    /// Subscribes to events.
    pub fn events(&self, params: Value) -> Events {
        Events::subscribe(&self.socket, params)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// The process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().expect("a pid")), signal)
            .expect("the daemon is there");
    }

    /// Its status, if it has ended.
    ///
    /// # Panics
    /// The system does not tell.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.gone.is_none() {
            self.gone = self.child.try_wait().expect("a status");
        }
        self.gone
    }

    /// Waits for its end, which is expected.
    pub fn wait(&mut self) -> ExitStatus {
        self.forgiven = true;
        eventually("the daemon ends", || self.try_wait())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Asks it to end, as systemd would.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Does not mind that the log tells of a panic, or that the process has died.
    pub fn forgive(&mut self) {
        self.forgiven = true;
    }

    /// One line of `/proc/PID/status`, in kB where it is a size.
    pub fn proc_status(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Process ids of its children.
    pub fn children(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()))
            .into_iter()
            .flatten()
            .flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|l| {
                l.split_whitespace()
                    .filter_map(|p| p.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Takes every message at once, as systemd does: a full queue would block the daemon. Ends with whoever listens.
fn listen(notify: UnixDatagram, wanted: Weak<()>) -> Receiver<String> {
    notify
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a deadline");
    let (listener, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while wanted.upgrade().is_some() {
            if let Ok(n) = notify.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                if listener.send(text).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten().or(self.gone);
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- end of terokd's log ---\n{log}");
        } else if !self.forgiven {
            assert!(
                ended.is_none(),
                "terokd ended by itself ({ended:?}):\n{log}"
            );
            assert!(!log.contains("panicked at"), "terokd panicked:\n{log}");
        }
    }
}
