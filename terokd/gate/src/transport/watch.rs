//! The guard of one call: ends it when the caller, a limit or silence says so.
//!
//! A thread looks every few milliseconds and, when it is time, runs what was registered to break the call's blocking
//! operations: kill a process group, shut a socket down. Only time spent waiting for upstream counts as silence.

use crate::{Control, TransportError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);
/// Below this rate, for half the time that silence may last, a transfer counts as stuck.
const SLOWEST: u64 = 1024;

type Breaker = Box<dyn Fn() + Send>;

pub(super) struct Watch {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    control: Control,
    begun: Instant,
    bounds: Mutex<Bounds>,
    /// Milliseconds since `begun` of the last sign of life while waiting, or `NOT_WAITING`.
    waiting_since: AtomicU64,
    /// Tells gix to stop.
    flag: AtomicBool,
    bytes: AtomicU64,
    /// More bytes than this end the call.
    most: AtomicU64,
    pace: Mutex<Pace>,
    state: Mutex<State>,
    wake: Condvar,
}

/// How long the present part of the call may last.
#[derive(Clone, Copy)]
struct Bounds {
    since: Instant,
    total: Duration,
    inactivity: Option<Duration>,
}

#[derive(Default)]
struct State {
    over: bool,
    reason: Option<TransportError>,
    breakers: Vec<Breaker>,
}

/// How much came in how much waiting, since the last look.
#[derive(Default)]
struct Pace {
    on: bool,
    waited: Duration,
    bytes: u64,
}

const NOT_WAITING: u64 = u64::MAX;

impl Watch {
    /// Guards a call from now on. Without `inactivity`, only `total` ends it.
    pub(super) fn start(
        control: &Control,
        total: Duration,
        inactivity: Option<Duration>,
    ) -> Result<Self, TransportError> {
        control.check()?;
        let inner = Arc::new(Inner {
            control: control.clone(),
            begun: Instant::now(),
            bounds: Mutex::new(Bounds {
                since: Instant::now(),
                total,
                inactivity,
            }),
            waiting_since: AtomicU64::new(NOT_WAITING),
            flag: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
            pace: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let watcher = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("gate-watch".into())
            .spawn(move || watcher.run())
            .map_err(|error| TransportError::storage(&format!("cannot start a thread: {error}")))?;
        Ok(Self {
            inner,
            thread: Some(thread),
        })
    }

    /// A handle for readers and writers.
    pub(super) fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.inner))
    }

    /// What gix looks at between its steps.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.inner.flag
    }

    /// Registers what breaks a blocking operation. Runs at once if it is already time.
    pub(super) fn on_stop(&self, breaker: impl Fn() + Send + 'static) {
        let mut state = self.inner.state();
        if state.reason.is_some() {
            drop(state);
            breaker();
        } else {
            state.breakers.push(Box::new(breaker));
        }
    }

    /// Why the call was ended, if it was.
    pub(super) fn stopped(&self) -> Option<TransportError> {
        self.inner.state().reason.clone()
    }

    /// The call goes on to a part with other limits.
    pub(super) fn next_part(&self, total: Duration, inactivity: Option<Duration>) {
        let since = Instant::now();
        let mut bounds = self
            .inner
            .bounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *bounds = Bounds {
            since,
            total,
            inactivity,
        };
        self.inner.most.store(u64::MAX, Ordering::Relaxed);
    }

    /// Ends the call when it receives more than this.
    pub(super) fn at_most(&self, bytes: u64) {
        self.inner.most.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.state().over = true;
        self.inner.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; a panic in it was logged by the hook.
            thread.join().ok();
        }
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.over {
            if let Some(reason) = self.time_to_stop() {
                self.stop(state, reason);
                return;
            }
            state = self
                .wake
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn stop(&self, mut state: std::sync::MutexGuard<'_, State>, reason: TransportError) {
        state.reason.get_or_insert(reason);
        self.flag.store(true, Ordering::Relaxed);
        let breakers = std::mem::take(&mut state.breakers);
        drop(state);
        for breaker in breakers {
            breaker();
        }
    }

    fn time_to_stop(&self) -> Option<TransportError> {
        if let Err(reason) = self.control.check() {
            return Some(reason);
        }
        let bounds = self.bounds();
        if bounds.since.elapsed() > bounds.total {
            return Some(TransportError::timeout(&format!(
                "not done after {} s",
                bounds.total.as_secs()
            )));
        }
        let limit = bounds.inactivity?;
        let since = self.waiting_since.load(Ordering::Relaxed);
        (since != NOT_WAITING && self.now().saturating_sub(since) > millis(limit))
            .then(|| TransportError::timeout(&format!("silent for {} s", limit.as_secs())))
    }

    fn bounds(&self) -> Bounds {
        *self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.begun.elapsed())
    }
}

/// Where the parts of a call that wait for upstream say so.
#[derive(Clone)]
pub(super) struct Meter(Arc<Inner>);

impl Meter {
    /// Waiting begins, or a sign of life restarts it.
    pub(super) fn waiting(&self) {
        self.0.waiting_since.store(self.0.now(), Ordering::Relaxed);
    }

    /// Waiting is over; `bytes` came.
    pub(super) fn done(&self, bytes: usize) {
        let since = self.0.waiting_since.swap(NOT_WAITING, Ordering::Relaxed);
        let before = self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before.saturating_add(bytes as u64) > self.0.most.load(Ordering::Relaxed) {
            let reason = TransportError::protocol("it sends more than a list of refs can be");
            self.0.stop(self.0.state(), reason);
        }
        if since != NOT_WAITING {
            let waited = Duration::from_millis(self.0.now().saturating_sub(since));
            self.judge_pace(waited, bytes as u64);
        }
    }

    /// From here on the pack's data flows: what trickles is stuck.
    pub(super) fn expect_pace(&self) {
        self.0
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .on = true;
    }

    /// Whether the call was ended.
    pub(super) fn stopped(&self) -> Option<TransportError> {
        self.0.state().reason.clone()
    }

    /// Fails once the call was ended.
    pub(super) fn check(&self) -> std::io::Result<()> {
        if self.0.flag.load(Ordering::Relaxed) {
            Err(std::io::Error::other("the call was ended"))
        } else {
            Ok(())
        }
    }

    /// The caller's handle.
    pub(super) fn control(&self) -> &Control {
        &self.0.control
    }

    /// Bytes received so far.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn judge_pace(&self, waited: Duration, bytes: u64) {
        let Some(window) = self.0.bounds().inactivity.map(|limit| limit / 2) else {
            return;
        };
        let mut pace = self.0.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if !pace.on {
            return;
        }
        pace.waited += waited;
        pace.bytes += bytes;
        if pace.waited < window {
            return;
        }
        let stuck = u128::from(pace.bytes) * 1000 < u128::from(SLOWEST) * pace.waited.as_millis();
        pace.waited = Duration::ZERO;
        pace.bytes = 0;
        drop(pace);
        if stuck {
            let reason = TransportError::timeout(&format!(
                "less than {SLOWEST} bytes a second for {} s",
                window.as_secs()
            ));
            self.0.stop(self.0.state(), reason);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}
