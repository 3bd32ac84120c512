//! One connection in the line dialect: calls, their answers, and the notifications between them.
//!
//! Texts are handed on as they came, so that `--json` prints what the wire had. Every wait has an optional deadline and
//! ends with Ctrl-C.

use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, Woken};
use nix::poll::PollFlags;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use terok_proto::codec::line;
use terok_proto::error::ErrorObject;

/// An answer beyond this is no answer of terokd's.
const MAX_ANSWER: usize = 256 << 20;

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: line::Decoder,
    buffer: Vec<u8>,
    /// How much of the buffer is used up.
    used: usize,
    last_id: u64,
    notifications: VecDeque<Notification>,
    interrupts: Rc<Interrupts>,
}

/// One item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The subscription it belongs to.
    pub(crate) subscription: String,
    /// The item's JSON.
    pub(crate) item: String,
}

/// One message of the daemon's.
enum Incoming {
    Answer { id: Value, outcome: Result<String> },
    Notification(Notification),
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    id: Value,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<Item<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(default)]
    subscription: Value,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// Tells a `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

impl Connection {
    /// Connects.
    pub(crate) fn open(path: &Path, interrupts: Rc<Interrupts>) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            decoder: line::Decoder::default(),
            buffer: Vec::new(),
            used: 0,
            last_id: 0,
            notifications: VecDeque::new(),
            interrupts,
        })
    }

    /// Calls and waits for the answer; `params` is JSON. Notifications that come in between are kept.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: &str,
        deadline: Option<Instant>,
    ) -> Result<String> {
        let id = self.send(method, params, deadline)?;
        self.answer(id, method, deadline)
    }

    /// As [`Self::call`] for a call that starts something: the first Ctrl-C waits `grace` for the answer, without which
    /// nobody could cancel what was started. Answers too whether there was one.
    pub(crate) fn call_to_start(
        &mut self,
        method: &str,
        params: &str,
        deadline: Option<Instant>,
        grace: Duration,
    ) -> Result<(String, bool)> {
        let id = self.send(method, params, deadline)?;
        match self.answer(id, method, deadline) {
            Err(Failure::Interrupted) => {
                let answer = self.answer(id, method, Some(Instant::now() + grace));
                answer.map_or(Err(Failure::Interrupted), |answer| Ok((answer, true)))
            }
            outcome => Ok((outcome?, false)),
        }
    }

    /// Waits for what comes first: something from the daemon, or something to read from `other`, which answers true.
    pub(crate) fn is_first(
        &self,
        other: BorrowedFd<'_>,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let both = [
            (self.stream.as_fd(), PollFlags::POLLIN),
            (other, PollFlags::POLLIN),
        ];
        match self.interrupts.wait_any(&both, deadline)? {
            (Woken::Interrupted, _) => Err(Failure::Interrupted),
            // Out of time, which whoever reads the answer finds out again.
            (Woken::TimedOut, _) => Ok(false),
            (Woken::Ready, which) => Ok(which == 1),
        }
    }

    /// The answer to the call with that id.
    pub(crate) fn answer(
        &mut self,
        id: u64,
        method: &str,
        deadline: Option<Instant>,
    ) -> Result<String> {
        loop {
            match self.receive(method, deadline)? {
                Incoming::Notification(item) => self.notifications.push_back(item),
                Incoming::Answer {
                    id: answered,
                    outcome,
                } => {
                    // An error about a message that could not be read carries no id; it can only mean ours.
                    if answered.as_u64() == Some(id) || (answered.is_null() && outcome.is_err()) {
                        return outcome;
                    }
                    if answered.as_u64().is_none_or(|earlier| earlier >= id) {
                        return Err(garbage("an answer to a call that was never made"));
                    }
                }
            }
        }
    }

    /// The next item of any stream.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Notification> {
        if let Some(item) = self.notifications.pop_front() {
            return Ok(item);
        }
        loop {
            // Answers here belong to calls that were given up.
            if let Incoming::Notification(item) = self.receive("the stream", deadline)? {
                return Ok(item);
            }
        }
    }

    /// Waits until the daemon closes the connection.
    pub(crate) fn wait_for_end(&mut self, deadline: Option<Instant>) -> Result<()> {
        loop {
            match self.receive("the end", deadline) {
                Ok(_) => {}
                Err(Failure::NoDaemon { .. }) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Sends a call and answers its id.
    pub(crate) fn send(
        &mut self,
        method: &str,
        params: &str,
        deadline: Option<Instant>,
    ) -> Result<u64> {
        self.last_id += 1;
        let name = serde_json::to_string(method).expect("a string is JSON");
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":{name},"params":{}}}"#,
            self.last_id,
            one_line(params)
        );
        let mut bytes = Vec::with_capacity(message.len() + 1);
        line::encode(&message, &mut bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, method, deadline)?;
                }
                // The daemon may have said why before it closed: read on.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
        Ok(self.last_id)
    }

    fn receive(&mut self, waiting_for: &str, deadline: Option<Instant>) -> Result<Incoming> {
        loop {
            let frame = self
                .decoder
                .decode(&self.buffer[self.used..], MAX_ANSWER)
                .map_err(|error| garbage(&error.to_string()))?;
            if let Some(frame) = frame {
                let bytes = &self.buffer[self.used + frame.start..self.used + frame.end];
                let incoming = if bytes.is_empty() {
                    None
                } else {
                    Some(read(bytes)?)
                };
                self.used += frame.consumed;
                match incoming {
                    Some(incoming) => return Ok(incoming),
                    None => continue,
                }
            }
            self.fill(waiting_for, deadline)?;
        }
    }

    fn fill(&mut self, waiting_for: &str, deadline: Option<Instant>) -> Result<()> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        let mut chunk = [0; 32 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(lost("it closed the connection")),
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, waiting_for, deadline)?;
                }
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
    }

    fn wait(&self, events: PollFlags, what: &str, deadline: Option<Instant>) -> Result<()> {
        match self
            .interrupts
            .wait(Some(self.stream.as_fd()), events, deadline)?
        {
            Woken::Ready => Ok(()),
            Woken::Interrupted => Err(Failure::Interrupted),
            Woken::TimedOut => Err(Failure::Timeout(format!(
                "no answer to `{what}` in the time given with --timeout"
            ))),
        }
    }
}

/// JSON on one line: a line break can only stand between its tokens.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

fn read(bytes: &[u8]) -> Result<Incoming> {
    let message: Message<'_> =
        serde_json::from_slice(bytes).map_err(|error| garbage(&error.to_string()))?;
    if message.method.is_some() {
        let item = message
            .params
            .ok_or_else(|| garbage("a notification without an item"))?;
        let subscription = match item.subscription {
            Value::String(id) => id,
            other => other.to_string(),
        };
        return Ok(Incoming::Notification(Notification {
            subscription,
            item: item.result.get().to_owned(),
        }));
    }
    let outcome = match (message.result, message.error) {
        (Some(result), None) => Ok(result.get().to_owned()),
        (None, Some(error)) => Err(refused(error.get())?),
        _ => return Err(garbage("an answer with neither a result nor an error")),
    };
    Ok(Incoming::Answer {
        id: message.id,
        outcome,
    })
}

/// The daemon's error object as our failure.
pub(crate) fn refused(raw: &str) -> Result<Failure> {
    let error: ErrorObject =
        serde_json::from_str(raw).map_err(|error| garbage(&error.to_string()))?;
    Ok(Failure::Daemon {
        raw: raw.to_owned(),
        error: Box::new(error),
    })
}

fn garbage(what: &str) -> Failure {
    Failure::Internal(format!(
        "what answers on the socket does not speak terokd's protocol: {what}"
    ))
}

fn lost(why: &str) -> Failure {
    Failure::no_daemon(format!("the daemon went away: {why}"))
}
