//! What the server is told when it starts.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the server needs to know of its surroundings.
#[derive(Debug)]
pub struct Config {
    /// Gate base directory; made if it does not exist.
    pub base: PathBuf,
    /// Sandbox runtime directory: sockets and reports live in `host/` and `run/` below it.
    pub runtime_dir: PathBuf,
    /// `PATH` of children; git and what it runs is found there.
    pub path: OsString,
    /// The program that answers to `gate-hook`: terokd itself.
    pub hook_program: PathBuf,
    /// Where the host reaches it.
    pub listen: Listen,
    /// Listeners of the service manager's; the one that fits `listen` is used instead of one of ours.
    pub handed: Handed,
    /// How much of everything.
    pub limits: Limits,
}

/// Where the host, and in TCP mode every container, reaches the server.
#[derive(Debug)]
pub enum Listen {
    /// `host/gate-server.sock` below the runtime directory; containers have sockets of their own.
    Socket,
    /// A loopback port.
    Tcp {
        /// The one that is configured; taken or refused.
        port: Option<u16>,
        /// The one that was allocated before; kept if it is free.
        previous: Option<u16>,
    },
}

/// Listening sockets that were handed over, and stay open at their addresses when this process ends.
#[derive(Debug, Default)]
pub struct Handed {
    /// For [`Listen::Socket`].
    pub unix: Option<UnixListener>,
    /// For [`Listen::Tcp`].
    pub tcp: Option<TcpListener>,
}

/// Limits, with the defaults of the specification.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Children at once.
    pub children: usize,
    /// Children at once of one task.
    pub children_per_task: usize,
    /// Requests of one task that wait for a child; more are refused at once.
    pub waiting_per_task: usize,
    /// How long a request waits for a child.
    pub wait: Duration,
    /// How long the head of a request may take.
    pub header: Duration,
    /// How long a body may stand still, in either direction.
    pub idle: Duration,
    /// How long a push whose client is gone may go on with what has arrived.
    pub settle: Duration,
    /// Largest body, unpacked.
    pub max_push_bytes: u64,
    /// Connections at once of the host's listener.
    pub connections: usize,
    /// Connections at once of one task's listener.
    pub connections_per_task: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            children: 32,
            children_per_task: 4,
            waiting_per_task: 256,
            wait: Duration::from_secs(120),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            settle: Duration::from_secs(60),
            max_push_bytes: 2 << 30,
            connections: 256,
            connections_per_task: 64,
        }
    }
}
