//! What systemd is told, and the socket it may hand over. Without systemd every call here does nothing.

use sd_notify::NotifyState;
use std::collections::VecDeque;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use terok_gate_server::Handed;

/// Names of the gate server's sockets, as its unit or systemd calls them; everything else is the daemon's own.
const GATE: [&str; 2] = ["terokd-gate", "terokd-gate.socket"];

/// The listening sockets that systemd passed.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where clients call.
    pub main: Option<UnixListener>,
    /// Where gates are served.
    pub gate: Handed,
}

/// Takes the sockets that systemd passed under these names (`LISTEN_FDNAMES`): of each kind the first.
///
/// # Errors
/// Something was passed that is no such socket.
pub fn take_listeners(names: &str) -> std::io::Result<Listeners> {
    let mut names = names.split(':');
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Listeners::default();
    for index in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let unused = if !GATE.contains(&name) {
            replace(&mut listeners.main, passed.take_unix_listener(index)?)
        } else if let Ok(unix) = passed.take_unix_listener(index) {
            replace(&mut listeners.gate.unix, unix)
        } else {
            replace(&mut listeners.gate.tcp, passed.take_tcp_listener(index)?)
        };
        if unused {
            tracing::warn!(
                name,
                "a socket too many was handed over: nobody answers there"
            );
        }
    }
    Ok(listeners)
}

/// Fills an empty place; otherwise closes what came and says so.
fn replace<T>(place: &mut Option<T>, found: Option<T>) -> bool {
    let unused = place.is_some() && found.is_some();
    if place.is_none() {
        *place = found;
    }
    unused
}

/// Begins to pass on what systemd is told, in a thread of its own: whoever tells never waits for the reader of the
/// socket. Before it, and without `NOTIFY_SOCKET`, nothing is told.
pub fn connect() {
    OUTBOX.get_or_init(|| {
        let outbox = Arc::new(Outbox::default());
        let sender = Arc::clone(&outbox);
        let started = thread::Builder::new()
            .name("systemd".to_owned())
            .spawn(move || sender.send_all());
        if let Err(error) = started {
            tracing::warn!(%error, "systemd is not notified");
        }
        outbox
    });
}

/// Waits for so long until everything was passed on.
pub fn flush(limit: Duration) {
    if let Some(outbox) = OUTBOX.get() {
        outbox.flush(limit);
    }
}

/// The daemon accepts calls.
pub fn ready(status: &str) {
    tell(
        Topic::Life,
        &[NotifyState::Ready, NotifyState::Status(status)],
    );
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(Topic::Status, &[NotifyState::Status(status)]);
}

/// The configuration is being read again; followed by [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(Topic::Reload, &[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the clock for systemd"),
    }
}

/// The daemon is ending.
pub fn stopping() {
    let states = [NotifyState::Stopping, NotifyState::Status("stopping")];
    tell(Topic::End, &states);
}

/// The runtime is alive.
pub fn watchdog() {
    tell(Topic::Watchdog, &[NotifyState::Watchdog]);
}

/// How often systemd wants to hear [`watchdog`], if it does.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(topic: Topic, states: &[NotifyState<'_>]) {
    if let Some(outbox) = OUTBOX.get() {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        outbox.put(topic, lines.join("\n"));
    }
}

static OUTBOX: OnceLock<Arc<Outbox>> = OnceLock::new();

/// What a message is about. Of those that wait only the newest of a topic counts, which bounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Life,
    Reload,
    End,
    Status,
    Watchdog,
}

/// Messages on their way, in order.
#[derive(Debug, Default)]
struct Outbox {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Topic, String)>,
    sending: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, topic: Topic, text: String) {
        let mut waiting = self.lock();
        waiting.messages.retain(|(other, _)| *other != topic);
        waiting.messages.push_back((topic, text));
        drop(waiting);
        self.changed.notify_all();
    }

    fn send_all(&self) {
        loop {
            let waiting = self.lock();
            let nothing = |waiting: &mut Waiting| waiting.messages.is_empty();
            let mut waiting = self
                .changed
                .wait_while(waiting, nothing)
                .unwrap_or_else(PoisonError::into_inner);
            let next = waiting.messages.pop_front();
            waiting.sending = true;
            drop(waiting);
            if let Some((_, text)) = next
                && let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)])
            {
                tracing::debug!(%error, "cannot notify systemd");
            }
            self.lock().sending = false;
            self.changed.notify_all();
        }
    }

    fn flush(&self, limit: Duration) {
        let busy = |waiting: &mut Waiting| waiting.sending || !waiting.messages.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, busy);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!("systemd does not read what it is told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_waits_the_newest_of_a_topic_counts() {
        let outbox = Outbox::default();
        for n in 0..1000 {
            outbox.put(Topic::Status, format!("s{n}"));
            outbox.put(Topic::Reload, format!("r{n}"));
            outbox.put(Topic::Life, format!("l{n}"));
        }
        outbox.put(Topic::End, "end".to_owned());
        let waiting: Vec<String> = outbox.lock().messages.iter().map(|m| m.1.clone()).collect();
        assert_eq!(waiting, ["s999", "r999", "l999", "end"]);
    }
}
