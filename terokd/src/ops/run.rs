//! Starting an operation and seeing it through.

use super::live::{Live, OpCx};
use super::{Inner, OpSpec, Ops, Resumable, ended, interrupted};
use crate::crash;
use crate::telemetry::panicked;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use terok_proto::ops::{Operation, OperationState};
use terok_proto::{Fault, Kind};
use tokio::sync::oneshot;
use tracing::Instrument;

/// What an operation does, and what it answers.
pub type Work = Box<dyn FnOnce(OpCx) -> BoxFuture<'static, Result<Value, Fault>> + Send>;

type Answer = Result<Box<RawValue>, Fault>;

/// An operation that was started. It goes on whether or not anybody waits.
#[derive(Debug)]
pub struct Started {
    /// Its id.
    pub id: String,
    /// What the method answers once the work is done.
    pub done: Done,
}

/// Waits for the end of an operation.
pub struct Done(oneshot::Receiver<Answer>);

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").finish_non_exhaustive()
    }
}

impl Future for Done {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.0
            .poll_unpin(cx)
            .map(|end| end.unwrap_or_else(|_| Err(interrupted())))
    }
}

/// Operations on their way at a time; clients can start more without waiting.
pub(super) const MAX_ACTIVE: u64 = 1_024;

/// One of [`Inner::active`], for as long as it lives.
#[derive(Debug)]
struct Active(Arc<Inner>);

impl Active {
    /// Refused once the daemon drains, and while `most` are on their way.
    fn new(inner: &Arc<Inner>, most: u64) -> Result<Self, Fault> {
        let state = inner.lock();
        if *inner.active.borrow() >= most {
            return Err(Fault::new(
                Kind::Overloaded,
                format!("{most} operations are running: wait for some to finish"),
            )
            .retry_after_ms(1_000));
        }
        if state.draining {
            return Err(Fault::new(
                Kind::ShuttingDown,
                "the daemon is shutting down: try again in a moment",
            )
            .retry_after_ms(2_000));
        }
        // Counted while the lock is held: whoever drains afterwards waits for this one.
        inner.active.send_modify(|n| *n += 1);
        drop(state);
        Ok(Self(Arc::clone(inner)))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.send_modify(|n| *n -= 1);
    }
}

impl Ops {
    /// Records an operation and starts its work.
    ///
    /// # Errors
    /// `storage_error`: it could not be recorded, and nothing was done. `shutting_down`.
    pub async fn start<F, Fut>(&self, spec: OpSpec, work: F) -> Result<Started, Fault>
    where
        F: FnOnce(OpCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Value, Fault>> + Send + 'static,
    {
        let operation = Operation {
            id: self.inner.ids.next(),
            method: spec.method.to_owned(),
            project_id: spec.project_id,
            task_id: spec.task_id,
            state: OperationState::Running,
            started_at: super::rfc3339(jiff::Timestamp::now()),
            finished_at: None,
            progress: None,
            result: None,
            error: None,
        };
        self.spawn(
            spec.method,
            operation,
            spec.resumable,
            Some(spec.params),
            Box::new(move |cx| work(cx).boxed()),
        )
        .await
    }

    /// Goes on with an operation of the last daemon, under the same id.
    ///
    /// # Errors
    /// `shutting_down`.
    pub async fn resume<F, Fut>(&self, left: Resumable, work: F) -> Result<Started, Fault>
    where
        F: FnOnce(OpCx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Value, Fault>> + Send + 'static,
    {
        tracing::info!(operation = left.id, method = left.method, "resuming");
        let work = Box::new(move |cx| work(cx).boxed());
        self.spawn("resumed operation", left.operation, true, None, work)
            .await
    }

    /// Everything from the record on happens in the task: a caller that leaves leaves nothing half started.
    async fn spawn(
        &self,
        name: &'static str,
        operation: Operation,
        resumable: bool,
        record: Option<Value>,
        work: Work,
    ) -> Result<Started, Fault> {
        let inner = Arc::clone(&self.inner);
        // What the last daemon left was counted by it.
        let most = if record.is_some() {
            MAX_ACTIVE
        } else {
            u64::MAX
        };
        let active = Active::new(&inner, most)?;
        let id = operation.id.clone();
        let span = tracing::info_span!("operation", id, method = operation.method);
        let (tell_begun, begun) = oneshot::channel();
        let (tell_end, done) = oneshot::channel();
        let task = async move {
            if let Some(params) = record
                && let Err(fault) = inner.journal.begin(&operation, &params, resumable).await
            {
                drop(active);
                // The caller may have left.
                let _ = tell_begun.send(Err(fault));
                return;
            }
            crash::point("operation.recorded");
            let live = inner.begin(operation, resumable);
            let _ = tell_begun.send(Ok(()));
            let (end, answer) = inner.see_through(&live, work).await;
            inner.finish(&live, end).await;
            let _ = tell_end.send(answer);
            drop(active);
            inner.tidy().await;
        };
        self.inner.tasks.spawn(name, task.instrument(span));
        begun.await.unwrap_or_else(|_| Err(interrupted()))?;
        Ok(Started {
            id,
            done: Done(done),
        })
    }
}

impl Inner {
    fn begin(&self, operation: Operation, resumable: bool) -> Arc<Live> {
        let live = Arc::new(Live::new(operation, resumable, self.bus.clone()));
        self.bus.commit(|publisher| {
            self.lock()
                .running
                .insert(live.id.clone(), Arc::clone(&live));
            publisher.publish(live.started());
        });
        live
    }

    /// Runs the work until it ends or is taken away. No end means that it goes on under the next daemon.
    async fn see_through(&self, live: &Arc<Live>, work: Work) -> (Option<Operation>, Answer) {
        let cx = OpCx::new(Arc::clone(live), self.journal.clone());
        let work = AssertUnwindSafe(async move { work(cx).await }).catch_unwind();
        let store = async |progress| {
            if let Err(fault) = self.journal.progress(&live.id, &progress).await {
                tracing::debug!(%fault, "progress is not recorded");
            }
        };
        let outcome = tokio::select! {
            biased;
            end = work => end.unwrap_or_else(|panic| {
                Err(panicked(&live.operation().method, panic.as_ref()))
            }),
            () = live.abandon.cancelled() => Err(Fault::new(Kind::Cancelled, "the daemon stops")),
            () = live.report() => Err(Fault::internal("reporting ended")),
            () = live.record(store) => Err(Fault::internal("recording ended")),
        };
        let left = live.stopping.load(Ordering::Acquire);
        let outcome = match outcome {
            Err(fault) if left && live.resumable => {
                tracing::info!(%fault, "goes on after the restart");
                let fault = Fault::new(
                    Kind::Interrupted,
                    "the daemon stops; the operation goes on when it is back",
                )
                .with("operation_id", live.id.as_str());
                return (None, Err(fault));
            }
            Err(fault) if left && fault.kind == Kind::Cancelled => Err(interrupted()),
            other => other,
        };
        let end = ended(live.operation(), outcome.as_ref());
        let answer = outcome.and_then(|value| {
            to_raw_value(&value)
                .map_err(|e| Fault::internal(format!("cannot serialise the result: {e}")))
        });
        (Some(end), answer)
    }

    /// Records the end, then tells it.
    async fn finish(&self, live: &Arc<Live>, end: Option<Operation>) {
        let Some(end) = end else {
            // The record says running, which is what the next daemon goes by.
            self.lock().running.remove(&live.id);
            live.suspended();
            return;
        };
        let end = Arc::new(end);
        crash::point("operation.done");
        let written = self.journal.finish(&end).await;
        if let Err(fault) = &written {
            tracing::warn!(%fault, "the end of an operation is not recorded");
        }
        self.bus.commit(|publisher| {
            {
                let mut state = self.lock();
                if written.is_err() {
                    state.keep_unwritten(Arc::clone(&end));
                }
                state.running.remove(&live.id);
            }
            for draft in live.finished(&end) {
                publisher.publish(draft);
            }
        });
        match &end.error {
            None => tracing::info!("finished"),
            Some(error) => tracing::info!(error = error.message, kind = error.kind(), "ended"),
        }
    }

    /// Makes up for what could not be recorded, and forgets what is old.
    async fn tidy(&self) {
        loop {
            let Some(oldest) = self.lock().unwritten.front().cloned() else {
                break;
            };
            if self.journal.finish(&oldest).await.is_err() {
                break;
            }
            self.lock().unwritten.retain(|op| op.id != oldest.id);
        }
        if let Err(fault) = self.journal.prune().await {
            tracing::debug!(%fault, "old operations are not removed");
        }
    }
}
