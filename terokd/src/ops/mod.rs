//! Long work: operations that survive their caller, and as records the daemon.
//!
//! Owns the life of an operation: recorded before it begins, told as events while it runs, recorded and told when it
//! ends. Owns the answers to repeated calls. Knows nothing of what the work does, nor of who asked for it.
//!
//! Order at the end: row, then state and event in one step, then the answer to whoever waits. So nobody is told of
//! something that a restart would deny.

mod id;
mod journal;
mod live;
mod replay;
mod run;
#[cfg(test)]
mod tests;
mod updates;

pub use live::OpCx;
pub use replay::Replay;
pub use run::{Started, Work};
pub use updates::{LogLine, Update, Updates};

use crate::events::Bus;
use crate::store::Store;
use crate::tasks::Tasks;
use id::Ids;
use journal::{Journal, Wanted, not_found, rfc3339};
use live::Live;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terok_proto::ops::{Operation, OperationState};
use terok_proto::{Fault, Kind};
use tokio::sync::watch;

/// How many ends that could not be recorded are remembered.
const MAX_UNWRITTEN: usize = 64;
/// How long cancelled work may take to leave when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// What starts an operation.
#[derive(Clone, Debug)]
pub struct OpSpec {
    /// The method that asks for it.
    pub method: &'static str,
    /// The project it works on.
    pub project_id: Option<String>,
    /// The task it works on.
    pub task_id: Option<String>,
    /// What a resumed run needs to know; recorded only if `resumable`.
    pub params: Value,
    /// After a restart it goes on instead of being reported as interrupted.
    pub resumable: bool,
}

/// An operation that the last daemon left behind and that goes on: pass it to [`Ops::resume`] or [`Ops::give_up`].
#[derive(Clone, Debug)]
pub struct Resumable {
    /// Its id, which stays.
    pub id: String,
    /// The method that started it.
    pub method: String,
    /// With which parameters.
    pub params: Value,
    operation: Operation,
}

/// All operations of one daemon.
#[derive(Clone, Debug)]
pub struct Ops {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    bus: Bus,
    tasks: Tasks,
    ids: Ids,
    /// How many are on their way: from before the first record until after the last.
    active: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, Arc<Live>>,
    /// Finished, but the record says otherwise: the disk was full. Oldest first.
    unwritten: VecDeque<Arc<Operation>>,
    /// No more starts.
    draining: bool,
}

impl State {
    fn keep_unwritten(&mut self, end: Arc<Operation>) {
        if self.unwritten.len() >= MAX_UNWRITTEN {
            self.unwritten.pop_front();
        }
        self.unwritten.push_back(end);
    }
}

impl Ops {
    /// Opens the record. What the last daemon left unfinished has succeeded if it was settled; else it is answered if
    /// it goes on, or reported as interrupted.
    ///
    /// # Errors
    /// `storage_error`.
    pub async fn open(
        store: Store,
        bus: Bus,
        tasks: Tasks,
    ) -> Result<(Self, Vec<Resumable>), Fault> {
        let journal = Journal::new(store);
        let ids = Ids::after(journal.greatest_id().await?.as_deref());
        let (mut resumable, mut state) = (Vec::new(), State::default());
        for left in journal.unfinished().await? {
            if let Some(result) = left.operation.result.clone() {
                // It was settled: only the word of it is missing.
                let end = ended(left.operation, Ok(&result));
                if let Err(fault) = journal.finish(&end).await {
                    tracing::warn!(%fault, "the end of an operation is not recorded");
                    state.keep_unwritten(Arc::new(end));
                }
            } else if left.resumable {
                resumable.push(Resumable {
                    id: left.operation.id.clone(),
                    method: left.operation.method.clone(),
                    params: left.params,
                    operation: left.operation,
                });
            } else {
                tracing::warn!(
                    operation = left.operation.id,
                    method = left.operation.method,
                    "was interrupted"
                );
                let end = ended(left.operation, Err(&interrupted()));
                if let Err(fault) = journal.finish(&end).await {
                    tracing::warn!(%fault, "the end of an operation is not recorded");
                    state.keep_unwritten(Arc::new(end));
                }
            }
        }
        let inner = Inner {
            journal,
            bus,
            tasks,
            ids,
            active: watch::Sender::new(0),
            state: Mutex::new(state),
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            resumable,
        ))
    }

    /// Reports an operation that cannot go on as failed.
    ///
    /// # Errors
    /// `storage_error`: the end is known, but not to the next daemon.
    pub async fn give_up(&self, left: Resumable, fault: &Fault) -> Result<(), Fault> {
        let end = ended(left.operation, Err(fault));
        let written = self.inner.journal.finish(&end).await;
        if written.is_err() {
            self.inner.lock().keep_unwritten(Arc::new(end));
        }
        written
    }

    /// Records what an operation will answer, before the last trace of its work goes: from then on a daemon that is
    /// killed leaves an operation that has succeeded.
    ///
    /// # Errors
    /// `storage_error`: a kill costs the answer.
    pub async fn settle(&self, id: &str, result: &Value) -> Result<(), Fault> {
        self.inner.journal.settle(id, result).await
    }

    /// How many run.
    pub fn running(&self) -> u64 {
        self.inner.lock().running.len() as u64
    }

    /// Those that run, newest first. Touches neither disk nor bus: it may be called while nothing can be published.
    pub fn running_now(&self) -> Vec<Operation> {
        self.inner
            .lock()
            .running
            .values()
            .rev()
            .map(|live| live.operation())
            .collect()
    }

    /// Those of a project, in a state, newest first. Large results are left out; [`Ops::get`] has them.
    ///
    /// # Errors
    /// `storage_error`.
    pub async fn list(
        &self,
        project_id: Option<&str>,
        state: Option<OperationState>,
    ) -> Result<Vec<Operation>, Fault> {
        let wanted = Wanted { project_id, state };
        // Memory first: what ends meanwhile is then found in the record.
        let mut known: HashMap<String, Operation> = {
            let state = self.inner.lock();
            let unwritten = state.unwritten.iter().map(|op| Operation::clone(op));
            let running = state.running.values().map(|live| live.operation());
            unwritten
                .chain(running)
                .map(|op| (op.id.clone(), op))
                .collect()
        };
        let mut operations = self.inner.journal.list(wanted).await?;
        for row in &mut operations {
            let known = known.remove(&row.id);
            if !row.state.is_final()
                && let Some(known) = known
            {
                *row = known;
            }
        }
        operations.extend(known.into_values());
        operations.retain(|op| wanted.shows(op));
        operations.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        Ok(operations)
    }

    /// One operation.
    ///
    /// # Errors
    /// `operation_not_found`, `storage_error`.
    pub async fn get(&self, id: &str) -> Result<Operation, Fault> {
        if let Some(known) = self.inner.in_memory(id) {
            return Ok(known);
        }
        self.inner
            .journal
            .get(id)
            .await?
            .ok_or_else(|| not_found(id))
    }

    /// Asks an operation to stop and answers it as it is then; one that has ended is answered unchanged.
    ///
    /// # Errors
    /// `operation_not_found`, `storage_error`.
    pub async fn cancel(&self, id: &str) -> Result<Operation, Fault> {
        let live = self.inner.lock().running.get(id).cloned();
        let Some(live) = live else {
            return self.get(id).await;
        };
        live.token.cancel();
        tracing::info!(operation = id, "cancelling");
        Ok(live.operation())
    }

    /// What happens to an operation from now on, up to its final state; only that if it has ended.
    ///
    /// # Errors
    /// `operation_not_found`, `storage_error`.
    pub async fn subscribe(&self, id: &str) -> Result<Updates, Fault> {
        let live = self.inner.lock().running.get(id).cloned();
        if let Some(queue) = live.and_then(|live| live.follow()) {
            return Ok(Updates::following(queue));
        }
        Ok(Updates::finished(Arc::new(self.get(id).await?)))
    }

    /// Lets operations finish for so long, then asks those that run to stop, and finally takes the work away. Nothing
    /// starts any more. What did not finish is recorded as interrupted, or goes on under the next daemon.
    pub async fn drain(&self, patience: Duration) {
        self.drain_with(patience, GRACE).await;
    }

    async fn drain_with(&self, patience: Duration, grace: Duration) {
        self.inner.lock().draining = true;
        let mut active = self.inner.active.subscribe();
        let mut idle = async |limit| {
            tokio::time::timeout(limit, active.wait_for(|n| *n == 0))
                .await
                .is_ok()
        };
        if idle(patience).await {
            return;
        }
        let left: Vec<Arc<Live>> = self.inner.lock().running.values().cloned().collect();
        for live in &left {
            tracing::warn!(
                operation = live.id,
                resumable = live.resumable,
                "does not finish in time"
            );
            live.stopping.store(true, Ordering::Release);
            live.token.cancel();
        }
        if idle(grace).await {
            return;
        }
        for live in &left {
            live.abandon.cancel();
        }
        if !idle(grace).await {
            tracing::warn!("the ends of some operations could not be recorded");
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_memory(&self, id: &str) -> Option<Operation> {
        let state = self.lock();
        if let Some(live) = state.running.get(id) {
            return Some(live.operation());
        }
        state
            .unwritten
            .iter()
            .find(|op| op.id == id)
            .map(|op| Operation::clone(op))
    }
}

/// `operation` with its end.
fn ended(mut operation: Operation, end: Result<&Value, &Fault>) -> Operation {
    operation.finished_at = Some(rfc3339(jiff::Timestamp::now()));
    operation.state = match end {
        Ok(_) => OperationState::Succeeded,
        Err(fault) if fault.kind == Kind::Cancelled => OperationState::Cancelled,
        Err(_) => OperationState::Failed,
    };
    operation.result = end.ok().cloned();
    operation.error = end.err().map(Fault::to_object);
    operation
}

fn interrupted() -> Fault {
    Fault::new(
        Kind::Interrupted,
        "the daemon stopped before the operation finished",
    )
    .hint("start it again")
}
