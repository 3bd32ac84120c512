//! Harness of the black-box suites: a throw-away home, the real daemon over it, and clients of every dialect.
//!
//! Knows the programs only by their files, sockets and exit codes; it links nothing of the daemon. Nothing here
//! sleeps: everything waits for something that happens, with a deadline.

pub mod client;
pub mod daemon;
pub mod events;
pub mod git_daemon;
pub mod hold;
pub mod http;
pub mod http_git;
pub mod listen;
pub mod no_exchange;
pub mod private;
pub mod programs;
pub mod proxy;
pub mod schema;
pub mod sshd;
pub mod tls;
pub mod transport;
pub mod upstream;
pub mod world;

pub use client::{Client, RpcError};
pub use daemon::Daemon;
pub use events::Events;
pub use git_daemon::GitDaemon;
pub use hold::Hold;
pub use http_git::HttpGit;
pub use proxy::Proxy;
pub use sshd::Sshd;
pub use tls::Tls;
pub use upstream::Upstream;
pub use world::World;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until `probe` finds something. For states that nothing announces.
///
/// # Panics
/// The deadline passes.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
