//! Work that several callers may want at once: one run for all who want the same, one at a time on one thing.

use crate::tasks::Tasks;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terok_proto::{Fault, Kind};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// Tells runs under one key apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

type Run<T> = Shared<BoxFuture<'static, Result<T, Fault>>>;

/// Runs under way, by what was asked.
#[derive(Debug)]
pub struct Flights<K, T> {
    /// What the runs are, for whoever waits for tasks to end.
    name: &'static str,
    running: Arc<Mutex<HashMap<K, Flight<T>>>>,
}

#[derive(Debug)]
struct Flight<T> {
    run: Run<T>,
    number: u64,
    /// Ends the run.
    stop: CancellationToken,
    /// Who waits for it; the last one to leave ends it.
    waiting: usize,
}

impl<K, T> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            running: Arc::clone(&self.running),
        }
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// No runs yet, which will be called so.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            running: Arc::default(),
        }
    }

    /// Joins the run that was asked for with the same key, or begins one in a task of its own.
    ///
    /// # Errors
    /// The run failed, or `withdrawn` came first.
    pub async fn join<F>(
        &self,
        tasks: &Tasks,
        key: K,
        withdrawn: impl Future<Output = ()>,
        begin: impl FnOnce(CancellationToken) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let run = {
            let mut running = self.running();
            match running.get_mut(&key) {
                // What somebody is stopping is of no use to others.
                Some(flight) if !flight.stop.is_cancelled() => {
                    flight.waiting += 1;
                    flight.run.clone()
                }
                _ => {
                    let stop = tasks.stopping().child_token();
                    let number = NEXT.fetch_add(1, Ordering::Relaxed);
                    let (flights, own) = (self.clone(), key.clone());
                    let work = begin(stop.clone());
                    let task = tasks.spawn(self.name, async move {
                        let outcome = work.await;
                        flights.over(&own, number);
                        outcome
                    });
                    let name = self.name;
                    let run = async move {
                        task.await.unwrap_or_else(|_| {
                            Err(Fault::internal(format!(
                                "work on a {name} ended in a panic"
                            )))
                        })
                    }
                    .boxed()
                    .shared();
                    let flight = Flight {
                        run: run.clone(),
                        number,
                        stop,
                        waiting: 1,
                    };
                    running.insert(key.clone(), flight);
                    run
                }
            }
        };
        tokio::select! {
            biased;
            outcome = run.clone() => outcome,
            () = withdrawn => {
                if self.leave(&key, &run) {
                    // What it had done in time counts.
                    return run.await;
                }
                Err(Fault::new(Kind::Cancelled, "the work was withdrawn; others still wait for it"))
            }
        }
    }

    /// Takes one who waits away; true if nobody is left, so the run was told to stop.
    fn leave(&self, key: &K, run: &Run<T>) -> bool {
        let mut running = self.running();
        let Some(flight) = running.get_mut(key).filter(|flight| flight.run.ptr_eq(run)) else {
            return true;
        };
        flight.waiting = flight.waiting.saturating_sub(1);
        if flight.waiting == 0 {
            flight.stop.cancel();
        }
        flight.waiting == 0
    }

    /// The run has ended; one that was begun since then under the same key stays.
    fn over(&self, key: &K, number: u64) {
        let mut running = self.running();
        if running
            .get(key)
            .is_some_and(|flight| flight.number == number)
        {
            running.remove(key);
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lock per key: work on one thing happens one after the other.
#[derive(Debug)]
pub struct Locks<K> {
    locks: Mutex<HashMap<K, Arc<AsyncMutex<()>>>>,
}

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> Locks<K> {
    /// Waits until the thing is nobody else's.
    pub async fn lock(&self, key: impl Into<K>) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds or waits for a lock has a clone of it.
            if locks.len() > 64 {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            Arc::clone(locks.entry(key.into()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::AtomicU32;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn those_who_want_the_same_share_a_run() {
        let (flights, tasks) = (Flights::<&str, u32>::new("test"), Tasks::default());
        let (runs, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            flights.join(&tasks, "a", pending(), move |_| async move {
                go.notified().await;
                Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
            })
        };
        let (one, two, ()) = tokio::join!(ask(), ask(), async { go.notify_one() });
        assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
        go.notify_one();
        assert_eq!(ask().await.unwrap(), 2, "a later one runs again");
    }

    #[tokio::test]
    async fn the_last_to_leave_ends_the_run() {
        let (flights, tasks) = (Flights::<&str, u32>::new("test"), Tasks::default());
        let leave = [Notify::new(), Notify::new()];
        let begun = AtomicU32::new(0);
        let ask = |n: usize| {
            flights.join(&tasks, "a", leave[n].notified(), |stop| {
                begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    stop.cancelled().await;
                    Err(Fault::new(Kind::Cancelled, "stopped"))
                }
            })
        };
        let order = async {
            leave[0].notify_one();
            leave[1].notify_one();
        };
        let (one, two, ()) = tokio::join!(ask(0), ask(1), order);
        let (one, two) = (one.unwrap_err(), two.unwrap_err());
        assert_eq!((one.kind, two.kind), (Kind::Cancelled, Kind::Cancelled));
        assert_eq!(begun.into_inner(), 1);
        let stopped = [&one, &two]
            .iter()
            .filter(|fault| fault.message == "stopped")
            .count();
        assert_eq!(
            stopped, 1,
            "who leaves first leaves alone: {one:?}, {two:?}"
        );
    }

    #[tokio::test]
    async fn a_thing_is_held_by_one() {
        let locks = Locks::<&str>::default();
        let held = locks.lock("/a").await;
        assert!(locks.lock("/a").now_or_never().is_none());
        assert!(locks.lock("/b").now_or_never().is_some());
        drop(held);
        assert!(locks.lock("/a").now_or_never().is_some());
    }
}
