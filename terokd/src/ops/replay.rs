//! Repeated calls: the same `request_id` within ten minutes joins or replays the first call.
//!
//! Owns the answers that may still be asked for, bounded in number and in bytes. They live in memory: a restart of
//! the daemon forgets them.

use crate::tasks::Tasks;
use crate::telemetry::panicked;
use futures_util::FutureExt;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terok_proto::{Fault, Kind};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long an answer can be asked for again.
const KEPT: Duration = Duration::from_secs(600);
/// How many calls are remembered.
const MAX_CALLS: usize = 4_096;
/// How many bytes of answers are remembered.
const MAX_BYTES: usize = 8 << 20;
/// How long a `request_id` may be, in characters.
const MAX_ID: usize = 64;

type Answer = Result<Box<RawValue>, Fault>;

/// Answers by `request_id`.
#[derive(Clone, Debug)]
pub struct Replay {
    tasks: Tasks,
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    by_id: HashMap<String, Call>,
    /// The finished ones, oldest first.
    finished: VecDeque<Finished>,
    bytes: usize,
}

#[derive(Debug)]
struct Call {
    /// Of method and parameters: they may be large, and only equality matters.
    digest: [u8; 32],
    answer: watch::Receiver<Option<Arc<Answer>>>,
}

#[derive(Debug)]
struct Finished {
    id: String,
    at: Instant,
    bytes: usize,
}

impl Replay {
    /// Remembers nothing yet.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            calls: Arc::default(),
        }
    }

    /// Answers what the first call under `request_id` answers; runs `call` if this is the first. It runs to its end
    /// even if nobody waits for it any more.
    ///
    /// # Errors
    /// The call's own fault; `invalid_argument` for an id that is too long or belongs to another call.
    pub async fn run<F>(
        &self,
        method: &'static str,
        request_id: &str,
        params: &str,
        call: F,
    ) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        if request_id.is_empty() || request_id.chars().count() > MAX_ID {
            return Err(Fault::invalid_argument(format!(
                "`request_id` must have 1 to {MAX_ID} characters"
            )));
        }
        let mut digest = Sha256::new();
        digest.update(method);
        digest.update([0]);
        digest.update(params);
        let mut answer = self.join(method, request_id, digest.finalize().into(), call)?;
        let answer = match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        answer.map_or_else(
            || {
                Err(Fault::new(
                    Kind::ShuttingDown,
                    "the daemon stopped during the call: try again in a moment",
                )
                .retry_after_ms(2_000))
            },
            |answer| answer.as_ref().clone(),
        )
    }

    /// The first call's answer, now or later.
    fn join<F>(
        &self,
        method: &'static str,
        id: &str,
        digest: [u8; 32],
        call: F,
    ) -> Result<watch::Receiver<Option<Arc<Answer>>>, Fault>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut calls = self.lock();
        calls.expire();
        if let Some(known) = calls.by_id.get(id) {
            if known.digest != digest {
                return Err(Fault::invalid_argument(
                    "this `request_id` was used for another call a moment ago",
                )
                .hint("use a new `request_id` for every call that is not a repetition"));
            }
            // A task that was thrown away has no answer and will have none: then this call is the first.
            if known.answer.has_changed().is_ok() || known.answer.borrow().is_some() {
                return Ok(known.answer.clone());
            }
        }
        if calls.by_id.len() >= MAX_CALLS && !calls.forget_oldest() {
            return Err(Fault::new(
                Kind::Overloaded,
                "too many calls are under way: try again in a moment",
            )
            .retry_after_ms(1_000));
        }
        let (tell, answer) = watch::channel(None);
        calls.by_id.insert(
            id.to_owned(),
            Call {
                digest,
                answer: answer.clone(),
            },
        );
        drop(calls);
        let (replay, id) = (self.clone(), id.to_owned());
        // The guard runs inside the task: on the thread that panicked.
        let call = AssertUnwindSafe(call).catch_unwind().map(move |end| {
            let answer = end.unwrap_or_else(|panic| Err(panicked(method, panic.as_ref())));
            // The answer is there before the call counts as finished, so that no joiner finds neither.
            let bytes = size(&answer);
            tell.send_replace(Some(Arc::new(answer)));
            replay.lock().finish(id, bytes);
        });
        self.tasks.spawn(method, call);
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn finish(&mut self, id: String, bytes: usize) {
        self.bytes += bytes;
        self.finished.push_back(Finished {
            id,
            at: Instant::now(),
            bytes,
        });
        while self.bytes > MAX_BYTES && self.finished.len() > 1 {
            self.forget_oldest();
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while self
            .finished
            .front()
            .is_some_and(|call| now.duration_since(call.at) >= KEPT)
        {
            self.forget_oldest();
        }
    }

    /// Forgets the call that finished first; false if none has.
    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.finished.pop_front() else {
            return false;
        };
        self.by_id.remove(&oldest.id);
        self.bytes -= oldest.bytes;
        true
    }
}

fn size(answer: &Answer) -> usize {
    match answer {
        Ok(raw) => raw.get().len(),
        Err(fault) => {
            fault.message.len() + serde_json::to_vec(&fault.data).map_or(0, |data| data.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// A call that counts its runs and answers their number.
    fn counting(runs: &Arc<AtomicUsize>) -> impl Future<Output = Answer> + Send + use<> {
        let runs = Arc::clone(runs);
        async move { Ok(raw(&(runs.fetch_add(1, Ordering::SeqCst) + 1).to_string())) }
    }

    #[tokio::test]
    async fn fifty_callers_run_it_once() {
        let (replay, runs, go) = (
            Replay::new(Tasks::default()),
            Arc::default(),
            Arc::new(Notify::new()),
        );
        let calls = (0..50).map(|_| {
            let (count, go) = (counting(&runs), Arc::clone(&go));
            replay.run("m", "id", "{}", async move {
                go.notified().await;
                count.await
            })
        });
        let all = futures_util::future::join_all(calls);
        go.notify_one();
        for answer in all.await {
            assert_eq!(answer.unwrap().get(), "1");
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(
            replay
                .run("m", "id", "{}", counting(&runs))
                .await
                .unwrap()
                .get(),
            "1"
        );
    }

    #[tokio::test]
    async fn it_goes_on_when_the_first_caller_leaves() {
        let (replay, runs, go) = (
            Replay::new(Tasks::default()),
            Arc::default(),
            Arc::new(Notify::new()),
        );
        let first = {
            let (count, go) = (counting(&runs), Arc::clone(&go));
            replay.run("m", "id", "{}", async move {
                go.notified().await;
                count.await
            })
        };
        assert!(
            first.now_or_never().is_none(),
            "the first caller left while it ran"
        );
        go.notify_one();
        assert_eq!(
            replay
                .run("m", "id", "{}", counting(&runs))
                .await
                .unwrap()
                .get(),
            "1"
        );
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn faults_and_panics_are_replayed() {
        let (replay, runs) = (Replay::new(Tasks::default()), Arc::default());
        let fault = Fault::new(Kind::ProjectBusy, "busy").with("project_id", "a");
        let failing = fault.clone();
        for _ in 0..2 {
            let failing = failing.clone();
            assert_eq!(
                replay
                    .run("m", "f", "{}", async move { Err(failing) })
                    .await
                    .unwrap_err(),
                fault
            );
        }
        assert_eq!(
            replay
                .run("m", "f", "{}", counting(&runs))
                .await
                .unwrap_err(),
            fault
        );
        let first = replay
            .run("m", "p", "{}", async { panic!("oh") })
            .await
            .unwrap_err();
        assert_eq!(first.kind, Kind::Internal);
        assert_eq!(
            replay
                .run("m", "p", "{}", counting(&runs))
                .await
                .unwrap_err(),
            first
        );
        assert_eq!(runs.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn another_call_under_the_same_id_is_refused() {
        let (replay, runs) = (Replay::new(Tasks::default()), Arc::default());
        replay.run("m", "id", "{}", counting(&runs)).await.unwrap();
        for (method, params) in [("m", "{\"a\":1}"), ("n", "{}")] {
            let fault = replay
                .run(method, "id", params, counting(&runs))
                .await
                .unwrap_err();
            assert_eq!(fault.kind, Kind::InvalidArgument);
        }
        let long = "é".repeat(65);
        assert_eq!(
            replay
                .run("m", &long, "", counting(&runs))
                .await
                .unwrap_err()
                .kind,
            Kind::InvalidArgument
        );
        replay
            .run("m", &long[2..], "", counting(&runs))
            .await
            .unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_after_ten_minutes() {
        let (replay, runs) = (Replay::new(Tasks::default()), Arc::default());
        replay.run("m", "id", "{}", counting(&runs)).await.unwrap();
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(
            replay
                .run("m", "id", "{}", counting(&runs))
                .await
                .unwrap()
                .get(),
            "1"
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            replay
                .run("m", "id", "other", counting(&runs))
                .await
                .unwrap()
                .get(),
            "2"
        );
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (replay, runs) = (Replay::new(Tasks::default()), Arc::default());
        for n in 0..MAX_CALLS + 10 {
            replay
                .run("m", &n.to_string(), "{}", counting(&runs))
                .await
                .unwrap();
        }
        assert_eq!(replay.lock().by_id.len(), MAX_CALLS);
        let big = format!("\"{}\"", "x".repeat(MAX_BYTES / 2));
        for n in 0..3 {
            let big = raw(&big);
            replay
                .run("m", &format!("big {n}"), "{}", async move { Ok(big) })
                .await
                .unwrap();
        }
        let calls = replay.lock();
        assert!(
            calls.bytes <= MAX_BYTES && calls.by_id.len() == calls.finished.len(),
            "{}",
            calls.bytes
        );
        assert!(calls.by_id.contains_key("big 2"), "the newest stays");
    }

    #[tokio::test]
    async fn too_many_unfinished_calls_are_refused() {
        let replay = Replay::new(Tasks::default());
        for n in 0..MAX_CALLS {
            assert!(
                replay
                    .run("m", &n.to_string(), "{}", std::future::pending())
                    .now_or_never()
                    .is_none()
            );
        }
        let fault = replay
            .run("m", "more", "{}", std::future::pending())
            .await
            .unwrap_err();
        assert_eq!(fault.kind, Kind::Overloaded);
    }
}
