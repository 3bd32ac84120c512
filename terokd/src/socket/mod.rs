//! The socket: who may connect, which dialect they speak, and how much of anything they may send.
//!
//! Owns listening, framing, limits and back-pressure. Knows the method table, nothing of what methods do.

mod conversation;
mod http;
mod listener;
mod session;
mod stream;

pub use listener::{Bound, Busy, bind};

use crate::daemon::Daemon;
use jsonrpsee::core::server::Methods;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use terok_proto::codec::{Dialect, FrameError, SNIFF_BYTES, sniff};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

/// What one client may use up. Fixed for the life of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Nesting of JSON.
    pub depth: usize,
    /// Calls in one batch.
    pub batch: usize,
    /// Connections at once.
    pub connections: usize,
    /// Calls in flight per connection.
    pub in_flight: usize,
    /// Subscriptions per connection.
    pub subscriptions: u32,
    /// Time to complete a first message.
    pub first_message: Duration,
}

/// Accepts connections until the daemon stops, then lets them finish.
pub async fn serve(daemon: Arc<Daemon>, bound: Bound, methods: Methods) {
    let slots = Arc::new(Semaphore::new(daemon.limits.connections));
    let own = nix::unistd::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = daemon.tasks.stopping().cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: connections have to end before more can begin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => {}
            Ok(peer) => {
                daemon.metrics.refused_peers.fetch_add(1, Relaxed);
                tracing::warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "closed a connection of another user"
                );
                continue;
            }
            Err(error) => {
                daemon.metrics.refused_peers.fetch_add(1, Relaxed);
                tracing::warn!(%error, "closed a connection whose peer is unknown");
                continue;
            }
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            daemon.metrics.refused_connections.fetch_add(1, Relaxed);
            let _ = stream.try_write(session::too_many_connections(&daemon.limits).as_bytes());
            continue;
        };
        daemon.metrics.connections.fetch_add(1, Relaxed);
        let (daemon, methods) = (Arc::clone(&daemon), methods.clone());
        let tasks = daemon.tasks.clone();
        tasks.spawn("connection", async move {
            let metrics = Arc::clone(&daemon.metrics);
            connection(daemon, methods, stream).await;
            metrics.connections.fetch_sub(1, Relaxed);
            drop(slot);
        });
    }
}

/// Finds out the dialect and speaks it until the end.
async fn connection(daemon: Arc<Daemon>, methods: Methods, mut stream: UnixStream) {
    let deadline = tokio::time::Instant::now() + daemon.limits.first_message;
    let mut begin = Vec::with_capacity(SNIFF_BYTES);
    let chosen = tokio::time::timeout_at(deadline, async {
        loop {
            match sniff(&begin) {
                Ok(Some(dialect)) => return Some(Ok(dialect)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            match stream.read_buf(&mut begin).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            // Blanks before the first brace need not be kept, however many there are.
            let blank = begin.iter().take_while(|b| b.is_ascii_whitespace()).count();
            begin.drain(..blank.saturating_sub(1));
        }
    });
    let chosen = tokio::select! {
        chosen = chosen => chosen,
        () = daemon.tasks.stopping().cancelled() => return,
    };
    let dialect = match chosen {
        Ok(Some(Ok(dialect))) => dialect,
        Ok(Some(Err(error))) => {
            daemon.metrics.bad_streams.fetch_add(1, Relaxed);
            return session::last_words(stream, &garbage(error)).await;
        }
        Ok(None) | Err(_) => return,
    };
    let counter = match dialect {
        Dialect::Line => 0,
        Dialect::Lsp => 1,
        Dialect::Http => 2,
    };
    daemon.metrics.dialects[counter].fetch_add(1, Relaxed);
    let session = session::Session::new(&daemon, methods, dialect);
    match dialect {
        Dialect::Line | Dialect::Lsp => {
            let framed = stream::framed(stream, begin, dialect, daemon.limits.message_bytes);
            conversation::hold(&daemon, session, framed, Some(deadline)).await;
        }
        Dialect::Http => {
            http::serve(
                daemon,
                session,
                stream::Rewound::new(begin, stream),
                deadline,
            )
            .await
        }
    }
}

/// The answer to a stream that cannot be decoded.
fn garbage(error: FrameError) -> terok_proto::Fault {
    use terok_proto::{Fault, Kind};
    match error {
        FrameError::TooLarge { limit } => Fault::new(
            Kind::RequestTooLarge,
            format!("the message exceeds {limit} bytes"),
        )
        .hint("raise `rpc.max_message_bytes` in terokd.yml, or send less at once"),
        error => Fault::new(
            Kind::ParseError,
            format!("cannot read the message: {error}"),
        ),
    }
}
