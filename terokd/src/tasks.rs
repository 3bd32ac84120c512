//! The only place that spawns: every task has a name, is tracked, and is awaited at stop.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A stop that takes longer than this says whom it waits for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The tasks of one daemon.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// How many run, by name.
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// One running task; counts as long as it lives, however it ends.
struct Counted {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Counted {
    fn new(tasks: &Tasks, name: &'static str) -> Self {
        let running = Arc::clone(&tasks.running);
        *running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        Self { name, running }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

impl Tasks {
    /// Starts a tracked task.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Boxed: the runtime's part of a task is large, and so exists once per output, not once per future.
        self.spawn_boxed(name, future.boxed())
    }

    fn spawn_boxed<T>(&self, name: &'static str, future: BoxFuture<'static, T>) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        tracing::trace!(task = name, "starting");
        let counted = Counted::new(self, name);
        self.tracker.spawn(async move {
            let _counted = counted;
            future.await
        })
    }

    /// Fires once the daemon begins to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tells every task to end and waits until they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        let mut ended = std::pin::pin!(self.tracker.wait());
        while tokio::time::timeout(PATIENCE, &mut ended).await.is_err() {
            let running = self
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            tracing::warn!(?running, "waiting for tasks to end");
        }
    }
}
