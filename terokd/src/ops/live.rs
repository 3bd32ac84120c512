//! An operation that runs: its state in memory, what it tells, and how often.
//!
//! Lock order: the bus, then the operation. Whoever holds an operation's lock never calls the bus.

use super::journal::Journal;
use super::updates::{LogLine, Newest, Queue, Update};
use crate::events::{Bus, Draft};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terok_proto::error::printable_line;
use terok_proto::events::EventKind;
use terok_proto::ops::{Operation, Progress};
use terok_proto::{Fault, Kind};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// At most so often progress is told.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(100);
/// At most so often progress is stored.
pub(super) const STORE_EVERY: Duration = Duration::from_secs(1);
/// Longest line of a log, in bytes.
const MAX_LINE: usize = 8 << 10;
/// Longest text within a progress, in bytes.
const MAX_TEXT: usize = 1 << 10;
/// Larger results are not part of events: thousands of events stay in memory. `operation.get` has them.
const MAX_EVENT_RESULT: usize = 64 << 10;

/// A running operation.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: String,
    pub(super) resumable: bool,
    /// Asks the work to stop.
    pub(super) token: CancellationToken,
    /// Takes the work away, wherever it is.
    pub(super) abandon: CancellationToken,
    /// The daemon stops: the work was asked to leave for that reason.
    pub(super) stopping: AtomicBool,
    bus: Bus,
    state: Mutex<State>,
    to_tell: Notify,
    to_store: Notify,
}

#[derive(Debug)]
struct State {
    operation: Operation,
    followers: Vec<Arc<Queue>>,
    /// What was logged so far, for those who follow from now on.
    logged: Newest,
    told_at: Option<Instant>,
    /// There is progress that was not told.
    untold: bool,
    over: bool,
}

impl Live {
    pub(super) fn new(operation: Operation, resumable: bool, bus: Bus) -> Self {
        Self {
            id: operation.id.clone(),
            resumable,
            token: CancellationToken::new(),
            abandon: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            bus,
            state: Mutex::new(State {
                operation,
                followers: Vec::new(),
                logged: Newest::default(),
                told_at: None,
                untold: false,
                over: false,
            }),
            to_tell: Notify::new(),
            to_store: Notify::new(),
        }
    }

    /// The operation as it is now.
    pub(super) fn operation(&self) -> Operation {
        self.lock().operation.clone()
    }

    /// A queue that gets every update from now on, after what was logged before and the latest progress; `None` if the
    /// operation is over.
    pub(super) fn follow(&self) -> Option<Arc<Queue>> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let queue = Arc::new(Queue::starting_with(state.logged.clone()));
        if let Some(progress) = &state.operation.progress {
            queue.push(Update::Progress(progress.clone()));
        }
        state.followers.push(Arc::clone(&queue));
        Some(queue)
    }

    /// Notes progress; it is told now or within [`TELL_EVERY`].
    fn progress(&self, progress: Progress) {
        let due = {
            let mut state = self.lock();
            if state.over {
                return;
            }
            state.operation.progress = Some(printable(progress));
            state.untold = true;
            state.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY)
        };
        if due {
            self.tell();
        }
        self.to_tell.notify_one();
        self.to_store.notify_one();
    }

    /// Tells the latest progress, unless it was told.
    fn tell(&self) {
        self.bus.commit(|publisher| {
            let mut state = self.lock();
            if let Some(draft) = state.told() {
                publisher.publish(draft);
            }
        });
    }

    fn log(&self, stream: &str, line: &str) {
        let line = LogLine {
            stream: cut(stream, 64),
            line: cut(line, MAX_LINE),
        };
        self.bus.commit(|publisher| {
            let mut state = self.lock();
            if state.over {
                return;
            }
            let draft = state.draft(EventKind::OperationLog);
            publisher.publish(draft.data(json!({"stream": line.stream, "line": line.line})));
            let line = Update::Log(Arc::new(line));
            state.logged.push(line.clone());
            state.followers.retain(|queue| queue.push(line.clone()));
        });
    }

    /// Tells progress that was noted while it was too early. Runs beside the work, never ends.
    pub(super) async fn report(&self) {
        loop {
            let due = {
                let state = self.lock();
                state.untold.then(|| {
                    state
                        .told_at
                        .map_or_else(Instant::now, |at| at + TELL_EVERY)
                })
            };
            match due {
                None => self.to_tell.notified().await,
                Some(due) if due <= Instant::now() => self.tell(),
                // Then it looks again: meanwhile the work itself may have told.
                Some(due) => tokio::time::sleep_until(due).await,
            }
        }
    }

    /// Stores progress, at most every [`STORE_EVERY`]. Runs beside the work and apart from [`Live::report`], because
    /// a disk can be slow; never ends.
    pub(super) async fn record<F, Fut>(&self, store: F)
    where
        F: Fn(Progress) -> Fut,
        Fut: Future<Output = ()>,
    {
        loop {
            self.to_store.notified().await;
            let progress = self.lock().operation.progress.clone();
            if let Some(progress) = progress {
                let stored_at = Instant::now();
                store(progress).await;
                tokio::time::sleep_until(stored_at + STORE_EVERY).await;
            }
        }
    }

    /// The beginning, as an event. To be called by [`Bus::commit`].
    pub(super) fn started(&self) -> Draft {
        let state = self.lock();
        state
            .draft(EventKind::OperationStarted)
            .data(json!(state.operation))
    }

    /// The end: from now on nothing is told any more. Answers the events that say so, progress that was held back
    /// first. To be called by [`Bus::commit`].
    pub(super) fn finished(&self, end: &Arc<Operation>) -> Vec<Draft> {
        let mut state = self.lock();
        let mut drafts: Vec<Draft> = state.told().into_iter().collect();
        state.operation = Operation::clone(end);
        let mut data = json!(end);
        if let Some(data) = data.as_object_mut()
            && data
                .get("result")
                .is_some_and(|result| result.to_string().len() > MAX_EVENT_RESULT)
        {
            data.remove("result");
        }
        drafts.push(state.draft(EventKind::OperationFinished).data(data));
        state.end(end);
        drafts
    }

    /// The daemon stops, the operation goes on under the next one: followers learn where it stands.
    pub(super) fn suspended(&self) {
        let mut state = self.lock();
        let now = Arc::new(state.operation.clone());
        state.end(&now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The latest progress as an event, and to the followers, unless it was told.
    fn told(&mut self) -> Option<Draft> {
        if self.over || !std::mem::take(&mut self.untold) {
            return None;
        }
        self.told_at = Some(Instant::now());
        let progress = self.operation.progress.clone()?;
        let draft = self
            .draft(EventKind::OperationProgress)
            .data(json!(progress));
        self.followers
            .retain(|queue| queue.push(Update::Progress(progress.clone())));
        Some(draft)
    }

    fn end(&mut self, end: &Arc<Operation>) {
        self.over = true;
        for queue in self.followers.drain(..) {
            queue.end(Arc::clone(end));
        }
    }

    fn draft(&self, kind: EventKind) -> Draft {
        let mut draft = Draft::new(kind).operation(&self.operation.id);
        if let Some(id) = &self.operation.project_id {
            draft = draft.project(id);
        }
        if let Some(id) = &self.operation.task_id {
            draft = draft.task(id);
        }
        draft
    }
}

/// What the work of an operation sees of it.
#[derive(Clone, Debug)]
pub struct OpCx {
    live: Arc<Live>,
    journal: Journal,
}

impl OpCx {
    pub(super) fn new(live: Arc<Live>, journal: Journal) -> Self {
        Self { live, journal }
    }

    /// The operation's id.
    pub fn id(&self) -> &str {
        &self.live.id
    }

    /// Says how far the work is. Cheap: what comes too often is told a little later or replaced.
    pub fn progress(&self, progress: Progress) {
        self.live.progress(progress);
    }

    /// Hands a line of output on, made printable and cut to 8 KiB.
    pub fn log(&self, stream: &str, line: &str) {
        self.live.log(stream, line);
    }

    /// As [`super::Ops::settle`].
    ///
    /// # Errors
    /// `storage_error`: a kill costs the answer.
    pub async fn settle(&self, result: &Value) -> Result<(), Fault> {
        self.journal.settle(&self.live.id, result).await
    }

    /// Fires when the work shall stop.
    pub fn token(&self) -> &CancellationToken {
        &self.live.token
    }

    /// Waits until the work shall stop.
    pub async fn cancelled(&self) {
        self.live.token.cancelled().await;
    }

    /// Refuses to go on if the work shall stop; for places where stopping leaves nothing half done.
    ///
    /// # Errors
    /// `cancelled`.
    pub fn check_cancelled(&self) -> Result<(), Fault> {
        if !self.live.token.is_cancelled() {
            return Ok(());
        }
        let why = if self.live.stopping.load(Ordering::Acquire) {
            "the daemon stops"
        } else {
            "on request"
        };
        Err(Fault::new(
            Kind::Cancelled,
            format!("the operation was cancelled: {why}"),
        ))
    }
}

/// Text for the wire and for terminals. Cut before and after: what is unprintable grows.
fn cut(text: &str, limit: usize) -> String {
    let mut printable = printable_line(&text[..text.floor_char_boundary(limit + 4)]);
    if printable.len() > limit {
        printable.truncate(printable.floor_char_boundary(limit - '…'.len_utf8()));
        printable.push('…');
    }
    printable
}

fn printable(progress: Progress) -> Progress {
    Progress {
        phase: cut(&progress.phase, MAX_TEXT),
        unit: progress.unit.map(|unit| cut(&unit, MAX_TEXT)),
        message: progress.message.map(|message| cut(&message, MAX_TEXT)),
        ..progress
    }
}
