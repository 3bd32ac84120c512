//! Servers on loopback ports of their own: a listener, one thread per connection, and an end of everything with the value.

use crate::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A listener on a free loopback port whose connections go to a handler.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What the connections of one listener have in common.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    connections: usize,
    /// Open connections, to be cut at the end.
    open: BTreeMap<usize, TcpStream>,
    /// Processes that serve a connection, to be killed at the end.
    children: Vec<Pid>,
}

impl Listener {
    /// Listens; the handler gets every connection in a thread of its own, which has to end when the connection is cut.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start(handle: impl Fn(TcpStream, &Arc<Shared>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let (common, handle) = (Arc::clone(&shared), Arc::new(handle));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let Some(number) = common.enter(&stream) else {
                    return;
                };
                let (common, handle) = (Arc::clone(&common), Arc::clone(&handle));
                std::thread::spawn(move || {
                    handle(stream, &common);
                    common.leave(number);
                });
            }
        });
        Self {
            port,
            shared,
            accepting: Some(accepting),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// How many connections have come so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until so many connections have come.
    ///
    /// # Panics
    /// They do not.
    pub fn wait_connections(&self, count: usize) {
        self.shared.wait("connections", |state| {
            (state.connections >= count).then_some(())
        });
    }

    /// Waits until no connection is open.
    ///
    /// # Panics
    /// One stays.
    pub fn wait_idle(&self) {
        self.shared.wait("the end of connections", |state| {
            state.open.is_empty().then_some(())
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.end();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address()));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, what: &str, probe: impl Fn(&State) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(found) = probe(&state) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "gave up waiting: {what}");
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a connection in, unless everything has ended.
    fn enter(&self, stream: &TcpStream) -> Option<usize> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.connections += 1;
        let number = state.connections;
        let copy = stream.try_clone().expect("a second handle");
        state.open.insert(number, copy);
        self.changed.notify_all();
        Some(number)
    }

    fn leave(&self, number: usize) {
        let mut state = self.lock();
        if let Some(stream) = state.open.remove(&number) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for child in &state.children {
            let _ = kill(*child, Signal::SIGKILL);
        }
        self.changed.notify_all();
    }

    /// Whether the listener is gone.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Runs a program until it ends or the listener does. It is not reaped before it is off the list of those to kill.
    ///
    /// # Panics
    /// It cannot be executed.
    pub fn run(&self, command: &mut Command) {
        let mut child = {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let child = command.spawn().unwrap_or_else(|e| {
                panic!("cannot start {}: {e}", command.get_program().display())
            });
            state.children.push(pid_of(&child));
            child
        };
        let pid = pid_of(&child);
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        self.lock().children.retain(|other| *other != pid);
        let _ = child.wait();
    }

    /// Lets a program serve a connection as inetd would.
    ///
    /// # Panics
    /// It cannot be executed.
    pub fn inetd(&self, command: &mut Command, stream: TcpStream) {
        let write = OwnedFd::from(stream.try_clone().expect("a second handle"));
        command
            .stdin(OwnedFd::from(stream))
            .stdout(write)
            .stderr(Stdio::null());
        self.run(command);
    }
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a pid"))
}
