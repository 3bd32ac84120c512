//! What one follower of an operation is told, and the queue in which it waits for a slow reader.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use terok_proto::ops::{Operation, Progress};
use tokio::sync::Notify;

/// Items that wait for one reader, or are kept for the next one, before the oldest are dropped.
const CAPACITY: usize = 16 << 10;
/// The same in bytes of log lines.
const CAPACITY_BYTES: usize = 2 << 20;

/// One item of `operation.subscribe`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// How far the operation is.
    Progress(Progress),
    /// A line of its log.
    Log(Arc<LogLine>),
    /// So many items were dropped: the reader is slow.
    Lagged(u64),
    /// The final state; nothing follows.
    Operation(Arc<Operation>),
}

impl Update {
    /// What it weighs while it is kept; only log lines are many.
    fn bytes(&self) -> usize {
        match self {
            Self::Log(line) => line.stream.len() + line.line.len(),
            _ => 0,
        }
    }
}

/// One line that an operation logged; the data of `operation.log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Where it comes from, such as `stdout`.
    pub stream: String,
    /// The line, printable.
    pub line: String,
}

/// The updates of one operation, ending with its final state.
#[derive(Debug)]
pub struct Updates {
    queue: Arc<Queue>,
}

/// Between the operation, which never waits, and one reader.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// Items up to a limit, the newest; how many went before them.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    items: VecDeque<Update>,
    /// Of the log lines among the items.
    bytes: usize,
    lagged: u64,
}

impl Newest {
    pub(super) fn push(&mut self, update: Update) {
        self.bytes += update.bytes();
        self.items.push_back(update);
        while self.items.len() > CAPACITY || self.bytes > CAPACITY_BYTES {
            let Some(dropped) = self.items.pop_front() else {
                break;
            };
            self.bytes -= dropped.bytes();
            self.lagged += 1;
        }
    }

    fn pop(&mut self) -> Option<Update> {
        if self.lagged > 0 {
            return Some(Update::Lagged(std::mem::take(&mut self.lagged)));
        }
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }
}

#[derive(Debug, Default)]
struct Waiting {
    newest: Newest,
    last: Option<Arc<Operation>>,
    ended: bool,
}

impl Updates {
    /// A stream that has ended already.
    pub(super) fn finished(operation: Arc<Operation>) -> Self {
        let queue = Arc::new(Queue::default());
        queue.end(operation);
        Self { queue }
    }

    pub(super) fn following(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// The next update; nothing after the final state.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            // Registered before the look, so that nothing between the two is missed.
            let changed = self.queue.changed.notified();
            if let Some(answer) = self.queue.take() {
                return answer;
            }
            changed.await;
        }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.ended = true;
        waiting.newest = Newest::default();
    }
}

impl Queue {
    /// A queue in which something waits already.
    pub(super) fn starting_with(newest: Newest) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                newest,
                ..Waiting::default()
            }),
            changed: Notify::new(),
        }
    }

    /// Adds an item; false if nobody reads any more.
    pub(super) fn push(&self, update: Update) -> bool {
        let mut waiting = self.lock();
        if waiting.ended {
            return false;
        }
        waiting.newest.push(update);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Adds the final state, which is never dropped.
    pub(super) fn end(&self, operation: Arc<Operation>) {
        self.lock().last = Some(operation);
        self.changed.notify_one();
    }

    /// The next item if there is one; `Some(None)` at the end.
    fn take(&self) -> Option<Option<Update>> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Some(None);
        }
        if let Some(item) = waiting.newest.pop() {
            return Some(Some(item));
        }
        let last = waiting.last.take()?;
        waiting.ended = true;
        Some(Some(Update::Operation(last)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
