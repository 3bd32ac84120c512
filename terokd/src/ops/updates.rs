//! What one follower of an operation is told, and the queue in which it waits for a slow reader.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use terok_proto::ops::{Operation, Progress};
use tokio::sync::Notify;

/// Items that wait for one reader before the oldest are dropped; a log line has at most 8 KiB.
const CAPACITY: usize = 256;

/// One item of `operation.subscribe`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// How far the operation is.
    Progress(Progress),
    /// A line of its log.
    Log(LogLine),
    /// So many items were dropped: the reader is slow.
    Lagged(u64),
    /// The final state; nothing follows.
    Operation(Arc<Operation>),
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

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Update>,
    lagged: u64,
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
        waiting.items.clear();
    }
}

impl Queue {
    /// Adds an item; false if nobody reads any more.
    pub(super) fn push(&self, update: Update) -> bool {
        let mut waiting = self.lock();
        if waiting.ended {
            return false;
        }
        if waiting.items.len() >= CAPACITY {
            waiting.items.pop_front();
            waiting.lagged += 1;
        }
        waiting.items.push_back(update);
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
        if waiting.lagged > 0 {
            return Some(Some(Update::Lagged(std::mem::take(&mut waiting.lagged))));
        }
        if let Some(item) = waiting.items.pop_front() {
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
