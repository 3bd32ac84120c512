//! A connection that carries many messages: one task reads, answers and writes, so nothing can pile up between.
//!
//! Calls that answer at once cost no task switch. A client that does not read is not read from either; its
//! notifications wait, and lag is told by the stream they come from.

use super::garbage;
use super::session::{Answer, Notifications, Session, last};
use super::stream::{StreamError, Transport};
use crate::daemon::Daemon;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt, poll, ready};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use terok_proto::codec::FrameError;
use tokio::time::Instant;

/// How long a stopping daemon waits for a client to take its last answers.
const FAREWELL: Duration = Duration::from_millis(500);

/// How often a half-closed connection is looked at, whether anybody is still there.
const HALF_CLOSED_CHECK: Duration = Duration::from_secs(2);

/// Speaks with one client until it leaves, sends garbage, or the daemon stops.
pub(super) async fn hold<T: Transport>(
    daemon: &Arc<Daemon>,
    (session, mut notifications): (Arc<Session>, Notifications),
    mut transport: T,
    first_message: Option<Instant>,
) {
    let limits = daemon.limits;
    let mut session = Some(session);
    let mut first_message = first_message;
    let mut calls = FuturesUnordered::new();
    let mut queue: VecDeque<String> = VecDeque::new();
    // Something may still stand in the transport's own buffer.
    let mut unsent = false;
    let mut ending = false;
    let mut check = tokio::time::interval(HALF_CLOSED_CHECK);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if session.is_none()
            && calls.is_empty()
            && !unsent
            && (ending || notifications.is_closed() && notifications.is_empty())
        {
            break;
        }
        let reading = session.is_some()
            && calls.len() < limits.in_flight
            && queue.len() < limits.in_flight
            && queue.iter().map(String::len).sum::<usize>() < limits.message_bytes;
        tokio::select! {
            biased;
            Some(answer) = calls.next(), if !calls.is_empty() => {
                ending |= take(answer, &mut queue, &mut unsent);
                if ending {
                    session = None;
                }
            }
            io = exchange(&mut transport, &mut queue, unsent, reading), if unsent || reading => match io {
                Io::Sent => unsent = false,
                Io::Received(message) => {
                    first_message = None;
                    let Some(session_now) = session.as_ref() else { continue };
                    let mut call = Arc::clone(session_now).handle(message);
                    // Most calls answer from a snapshot: they are done before they would be queued.
                    match poll!(call.as_mut()) {
                        Poll::Ready(answer) => {
                            ending |= take(answer, &mut queue, &mut unsent);
                            if ending {
                                session = None;
                            }
                        }
                        Poll::Pending => calls.push(call),
                    }
                }
                Io::Garbage(error) => {
                    daemon.metrics.bad_streams.fetch_add(1, Relaxed);
                    take(last(&garbage(error)), &mut queue, &mut unsent);
                    (session, ending) = (None, true);
                }
                // The client is done with sending, but may still read.
                Io::Ended => session = None,
                Io::Broken => return,
            },
            notification = notifications.recv(), if !unsent && !ending => match notification {
                Some(raw) => {
                    queue.push_back(Box::<str>::from(raw).into());
                    unsent = true;
                }
                None => ending = true,
            },
            () = expired(first_message) => return,
            _ = check.tick(), if session.is_none() && !ending => {
                if transport.hung_up() {
                    return;
                }
            }
            () = daemon.tasks.stopping().cancelled(), if !ending => {
                (session, ending) = (None, true);
                first_message = Some(Instant::now() + FAREWELL);
            }
        }
    }
    let _ = tokio::time::timeout(FAREWELL, transport.close()).await;
}

/// Queues an answer; true if it is the connection's last.
fn take(answer: Answer, queue: &mut VecDeque<String>, unsent: &mut bool) -> bool {
    if let Some(text) = answer.text {
        queue.push_back(text);
        *unsent = true;
    }
    answer.close
}

/// What the transport did.
enum Io {
    Sent,
    Received(Bytes),
    Garbage(FrameError),
    Ended,
    Broken,
}

/// Sends what is queued and receives what arrives, whichever is possible first. Safe to drop half-way: a message
/// leaves the queue only into the transport's buffer.
async fn exchange<T: Transport>(
    transport: &mut T,
    queue: &mut VecDeque<String>,
    sending: bool,
    reading: bool,
) -> Io {
    poll_fn(|cx| {
        if sending {
            match poll_send(transport, queue, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Io::Sent),
                Poll::Ready(Err(_)) => return Poll::Ready(Io::Broken),
                Poll::Pending => {}
            }
        }
        if !reading {
            return Poll::Pending;
        }
        transport.poll_next_unpin(cx).map(|message| match message {
            Some(Ok(message)) => Io::Received(message),
            Some(Err(StreamError::Frame(error))) => Io::Garbage(error),
            Some(Err(StreamError::Io(_))) => Io::Broken,
            None => Io::Ended,
        })
    })
    .await
}

fn poll_send<T: Transport>(
    transport: &mut T,
    queue: &mut VecDeque<String>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), StreamError>> {
    while !queue.is_empty() {
        ready!(transport.poll_ready_unpin(cx))?;
        if let Some(message) = queue.pop_front() {
            transport.start_send_unpin(message)?;
        }
    }
    transport.poll_flush_unpin(cx)
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
