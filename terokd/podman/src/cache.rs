//! One list of Podman's, kept for as long as nothing says that it changed.
//!
//! An epoch is raised by whatever may have changed the list; a list counts for the epoch in which it was asked for. It
//! is never handed out without having been asked for in the present epoch, and, while nobody listens to events, not
//! unless it was asked for just now.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use terok_proto::Fault;
use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Cache<T> {
    state: Mutex<State<T>>,
    /// Raised whenever a list differs from the one before.
    generation: watch::Sender<u64>,
}

#[derive(Debug)]
struct State<T> {
    epoch: u64,
    /// How many requests have ended.
    runs: u64,
    /// Whether somebody would tell if the list changed.
    live: bool,
    last: Option<Outcome<T>>,
    /// The newest list that could be had, for comparison.
    known: Option<Arc<T>>,
    /// The request that is under way.
    running: Option<Running>,
    read: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    began: Instant,
    /// Closed when it has ended.
    ended: watch::Receiver<()>,
}

#[derive(Debug)]
struct Outcome<T> {
    result: Result<Arc<T>, Fault>,
    epoch: u64,
    began: Instant,
    ended: Instant,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                epoch: 0,
                runs: 0,
                live: false,
                last: None,
                known: None,
                running: None,
                read: None,
            }),
            generation: watch::Sender::new(0),
        }
    }
}

impl<T: PartialEq + Send + Sync + 'static> Cache<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The list may have changed.
    pub(crate) fn stale(&self) {
        self.state().epoch += 1;
    }

    /// Events are heard from now on, those since that moment included: a list asked for before it does not count.
    pub(crate) fn heard(&self, since: Instant) {
        let mut state = self.state();
        state.live = true;
        let present = state.epoch;
        let last = state.last.as_ref().filter(|last| last.epoch == present);
        let last = last.map(|last| last.began);
        let running = state.running.as_ref().map(|running| running.began);
        if last.into_iter().chain(running).any(|began| began < since) {
            state.epoch += 1;
        }
    }

    /// Events are not heard any more; what was known before does not count.
    pub(crate) fn deaf(&self) {
        let mut state = self.state();
        state.live = false;
        state.epoch += 1;
    }

    /// Whether anybody has wanted it lately.
    pub(crate) fn wanted(&self, within: Duration) -> bool {
        self.generation.receiver_count() > 0
            || self
                .state()
                .read
                .is_some_and(|read| read.elapsed() < within)
    }

    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The list: at once if it is known, else by joining the request under way, else by asking. A failure answers all
    /// who come within `hold` after it.
    pub(crate) async fn get<F, R>(
        self: &Arc<Self>,
        max_age: Duration,
        hold: Duration,
        ask: F,
    ) -> Result<Arc<T>, Fault>
    where
        F: Fn() -> R,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        self.state().read = Some(Instant::now());
        self.fetch(max_age, hold, ask).await
    }

    /// The same without counting as a reader.
    pub(crate) async fn fetch<F, R>(
        self: &Arc<Self>,
        max_age: Duration,
        hold: Duration,
        ask: F,
    ) -> Result<Arc<T>, Fault>
    where
        F: Fn() -> R,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let (wanted, seen) = {
            let state = self.state();
            (state.epoch, state.runs)
        };
        loop {
            let mut ended = {
                let mut state = self.state();
                if let Some(last) = &state.last {
                    let age = last.began.elapsed();
                    let joined = state.runs > seen && last.epoch >= wanted;
                    let stands = last.epoch == state.epoch
                        && match last.result {
                            Ok(_) => state.live && age < max_age,
                            Err(_) => last.ended.elapsed() < hold,
                        };
                    if joined || stands {
                        let result = last.result.clone();
                        // Those who keep reading never wait because of its age.
                        if stands && result.is_ok() && age > max_age / 2 {
                            self.running(&mut state, &ask);
                        }
                        return result;
                    }
                }
                self.running(&mut state, &ask)
            };
            // It never changes; it is closed.
            let _ = ended.changed().await;
        }
    }

    /// The request that is under way, sent if there is none.
    fn running<F, R>(self: &Arc<Self>, state: &mut State<T>, ask: F) -> watch::Receiver<()>
    where
        F: FnOnce() -> R,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        if let Some(running) = &state.running {
            return running.ended.clone();
        }
        let (done, ended) = watch::channel(());
        let began = Instant::now();
        state.running = Some(Running {
            began,
            ended: ended.clone(),
        });
        let run = Run {
            cache: Arc::clone(self),
            epoch: state.epoch,
            began,
            _done: done,
        };
        // In a task of its own: whoever asked first may go, the others still wait.
        tokio::spawn(run.finish(ask()));
        ended
    }
}

/// A request under way. However it ends, those who wait are told.
struct Run<T: PartialEq + Send + Sync + 'static> {
    cache: Arc<Cache<T>>,
    epoch: u64,
    began: Instant,
    _done: watch::Sender<()>,
}

impl<T: PartialEq + Send + Sync + 'static> Run<T> {
    async fn finish(self, ask: impl Future<Output = Result<T, Fault>>) {
        let result = ask.await.map(Arc::new);
        let mut state = self.cache.state();
        let mut changed = false;
        if let Ok(list) = &result {
            changed = state.known.as_ref() != Some(list);
            state.known = Some(Arc::clone(list));
        }
        state.runs += 1;
        state.last = Some(Outcome {
            result,
            epoch: self.epoch,
            began: self.began,
            ended: Instant::now(),
        });
        drop(state);
        if changed {
            self.cache
                .generation
                .send_modify(|generation| *generation += 1);
        }
    }
}

impl<T: PartialEq + Send + Sync + 'static> Drop for Run<T> {
    fn drop(&mut self) {
        self.cache.state().running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use terok_proto::Kind;

    const LONG: Duration = Duration::from_secs(60);
    const HOLD: Duration = Duration::from_secs(2);

    /// Counts requests; each takes a second and answers with its number.
    #[derive(Clone, Default)]
    struct Podman(Arc<AtomicU32>);

    impl Podman {
        fn asked(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        fn ask(&self) -> impl Future<Output = Result<u32, Fault>> + Send + 'static {
            let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if number == 13 {
                    Err(Fault::new(Kind::PodmanTimeout, "slow"))
                } else {
                    Ok(number)
                }
            }
        }

        async fn read(&self, cache: &Arc<Cache<u32>>) -> Result<u32, Kind> {
            cache
                .get(LONG, HOLD, || self.ask())
                .await
                .map(|list| *list)
                .map_err(|fault| fault.kind)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_readers_are_one_request() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        let readers: Vec<_> = (0..1000)
            .map(|_| {
                let (podman, cache) = (podman.clone(), Arc::clone(&cache));
                tokio::spawn(async move { podman.read(&cache).await })
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), Ok(1));
        }
        assert_eq!(podman.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_nothing_is_remembered() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        for expected in 1..5 {
            assert_eq!(podman.read(&cache).await, Ok(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_events_it_is_remembered_until_one_comes_or_it_is_old() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        cache.heard(Instant::now());
        for _ in 0..100 {
            assert_eq!(podman.read(&cache).await, Ok(1));
        }
        cache.stale();
        assert_eq!(podman.read(&cache).await, Ok(2));
        tokio::time::advance(LONG).await;
        assert_eq!(podman.read(&cache).await, Ok(3));
        cache.deaf();
        assert_eq!(podman.read(&cache).await, Ok(4));
        assert_eq!(podman.read(&cache).await, Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_keeps_reading_does_not_wait_for_an_old_list() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        cache.heard(Instant::now());
        assert_eq!(podman.read(&cache).await, Ok(1));
        let half = LONG / 2;
        for (pause, expected, asked) in [
            (half, 1, 2),
            (Duration::from_secs(2), 2, 2),
            (half, 2, 3),
            (Duration::ZERO, 2, 3),
        ] {
            tokio::time::sleep(pause).await;
            let begin = Instant::now();
            assert_eq!(podman.read(&cache).await, Ok(expected));
            assert_eq!(begin.elapsed(), Duration::ZERO);
            assert_eq!(podman.asked(), asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_counts_if_all_events_since_it_was_asked_for_are_heard() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        let before = Instant::now();
        assert_eq!(podman.read(&cache).await, Ok(1));
        cache.heard(before);
        assert_eq!(podman.read(&cache).await, Ok(1));

        cache.deaf();
        assert_eq!(podman.read(&cache).await, Ok(2));
        cache.heard(Instant::now());
        assert_eq!(podman.read(&cache).await, Ok(3));

        // The same while it is under way.
        for (margin, again) in [(Duration::ZERO, 0), (Duration::from_millis(1), 1)] {
            cache.deaf();
            let asked = podman.asked();
            let since = Instant::now() + margin;
            let early = tokio::spawn({
                let (podman, cache) = (podman.clone(), Arc::clone(&cache));
                async move { podman.read(&cache).await }
            });
            tokio::time::sleep(Duration::from_millis(500)).await;
            cache.heard(since);
            assert_eq!(early.await.unwrap(), Ok(asked + 1));
            assert_eq!(podman.read(&cache).await, Ok(asked + 1 + again));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_asked_for_before_a_change_is_not_the_answer_after_it() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        cache.heard(Instant::now());
        let early = tokio::spawn({
            let (podman, cache) = (podman.clone(), Arc::clone(&cache));
            async move { podman.read(&cache).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        cache.stale();
        assert_eq!(podman.read(&cache).await, Ok(2));
        assert_eq!(early.await.unwrap(), Ok(1));
        assert_eq!(podman.read(&cache).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_takes_nothing_from_the_others() {
        let (podman, cache) = (Podman::default(), Arc::new(Cache::default()));
        let first = tokio::spawn({
            let (podman, cache) = (podman.clone(), Arc::clone(&cache));
            async move { podman.read(&cache).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        first.abort();
        assert_eq!(podman.read(&cache).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_answers_for_a_while_and_not_after_a_change() {
        let podman = Podman(Arc::new(AtomicU32::new(12)));
        let cache = Arc::new(Cache::default());
        for _ in 0..10 {
            assert_eq!(podman.read(&cache).await, Err(Kind::PodmanTimeout));
        }
        assert_eq!(podman.asked(), 13);
        tokio::time::advance(HOLD).await;
        assert_eq!(podman.read(&cache).await, Ok(14));

        podman.0.store(12, Ordering::SeqCst);
        assert_eq!(podman.read(&cache).await, Err(Kind::PodmanTimeout));
        cache.stale();
        assert_eq!(podman.read(&cache).await, Ok(14));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_different_list_is_a_new_generation() {
        let cache = Arc::new(Cache::default());
        let mut generation = cache.generation();
        for (value, expected) in [(7, 1), (7, 1), (8, 2), (8, 2), (7, 3)] {
            cache
                .get(LONG, HOLD, move || async move { Ok::<u32, Fault>(value) })
                .await
                .unwrap();
            assert_eq!(*generation.borrow_and_update(), expected);
        }
    }
}
