//! The one task that changes the set: it collects hints, looks, makes the difference public, and has what is new
//! watched.

use super::reconcile::{Haste, Looked, Reconciler};
use super::watch::{Armed, Sentry};
use super::{Request, Shared};
use crate::events::{Bus, Draft};
use crate::tasks::Tasks;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use terok_proto::events::EventKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Hints that arrive within this time lead to one look.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A stream of hints is interrupted by a look after this time.
const MAX_DEBOUNCE: Duration = Duration::from_millis(300);

/// How often files are compared where they cannot be watched.
const POLL: Duration = Duration::from_secs(2);

/// After this time a reload takes even files that somebody keeps writing to as they stand.
const RELOAD_PATIENCE: Duration = Duration::from_millis(900);

/// What is due when.
#[derive(Debug, Default)]
struct Agenda {
    /// The first hint that nobody has looked after, and when somebody will.
    hint: Option<(Instant, Instant)>,
    /// Something was about to settle, or new watches were set.
    again: Option<Instant>,
    /// Where watching is incomplete.
    poll: Option<Instant>,
    /// Who waits for a reload, and until when.
    waiting: Vec<(Instant, oneshot::Sender<()>)>,
}

impl Agenda {
    fn hint(&mut self, now: Instant) {
        let first = self.hint.map_or(now, |(first, _)| first);
        self.hint = Some((first, (now + DEBOUNCE).min(first + MAX_DEBOUNCE)));
    }

    fn look_at(&mut self, at: Instant) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }

    fn due(&self) -> Option<Instant> {
        let hint = self.hint.map(|(_, at)| at);
        let patience = self.waiting.iter().map(|(until, _)| *until).min();
        [hint, self.again, self.poll, patience]
            .into_iter()
            .flatten()
            .min()
    }

    fn answer(&mut self) {
        for (_, done) in self.waiting.drain(..) {
            let _ = done.send(());
        }
    }
}

/// The owner of the set.
pub(super) struct Owner {
    shared: Arc<Shared>,
    bus: Bus,
    tasks: Tasks,
    /// Away while it looks at the disk on a thread that may block.
    reconciler: Option<Reconciler>,
    sentry: Option<Sentry>,
    max_watches: usize,
    agenda: Agenda,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        bus: Bus,
        tasks: Tasks,
        reconciler: Reconciler,
        max_watches: usize,
    ) -> Self {
        Self {
            shared,
            bus,
            tasks,
            reconciler: Some(reconciler),
            sentry: None,
            max_watches,
            agenda: Agenda::default(),
        }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let stop = self.tasks.stopping().clone();
        let hints = Arc::clone(&self.shared.hints);
        self.arm();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = hints.heard() => self.agenda.hint(Instant::now()),
                report = report(&mut self.sentry) => self.take_over(report),
                request = requests.recv() => match request {
                    None => return,
                    Some(Request::Reload(done)) => {
                        let now = Instant::now();
                        self.agenda.waiting.push((now + RELOAD_PATIENCE, done));
                        self.agenda.look_at(now);
                    }
                    Some(Request::Refresh(name, done)) => {
                        let looked = self.look(Haste::Ours(name), None).await;
                        let _ = done.send(());
                        if let Some(delay) = looked.again_in {
                            self.agenda.look_at(Instant::now() + delay);
                        }
                        self.arm_if(looked.changed);
                    }
                },
                () = wait_until(self.agenda.due()) => self.look_around().await,
            }
        }
    }

    async fn look_around(&mut self) {
        let now = Instant::now();
        let begun = self.agenda.hint.take().map(|(first, _)| first);
        self.agenda.again = None;
        let hurried = self.agenda.waiting.iter().any(|(until, _)| *until <= now);
        let haste = if hurried {
            Haste::Everything
        } else {
            Haste::Settle
        };
        let looked = self.look(haste, begun).await;
        if let Some(delay) = looked.again_in {
            self.agenda.look_at(Instant::now() + delay);
        }
        if looked.again_in.is_none() || hurried {
            self.agenda.answer();
        }
        self.arm_if(looked.changed);
        self.plan_poll();
    }

    /// Compares the disk with what is known and makes the difference public.
    async fn look(&mut self, haste: Haste, begun: Option<Instant>) -> Outcome {
        let Some(mut reconciler) = self.reconciler.take() else {
            return Outcome::failed();
        };
        let current = self.shared.snapshot();
        let hints = Arc::clone(&self.shared.hints);
        let begun = begun.map(Instant::into_std);
        let looked = tokio::task::spawn_blocking(move || {
            let looked = reconciler.look(&current, &haste, begun, &hints);
            (reconciler, looked)
        });
        let looked = match looked.await {
            Ok((reconciler, looked)) => {
                self.reconciler = Some(reconciler);
                looked
            }
            Err(error) => {
                // Cannot happen short of a bug: loading guards itself. Start over with an empty memory.
                tracing::error!(%error, "looking at the projects failed");
                self.reconciler = Some(Reconciler::new(Arc::clone(&self.shared.env)));
                return Outcome::failed();
            }
        };
        let Looked {
            next,
            events,
            again_in,
        } = looked;
        let changed = next.is_some();
        if let Some(next) = next.map(Arc::new) {
            self.bus.commit(|publisher| {
                *self
                    .shared
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = next;
                for event in events {
                    publisher.publish(event);
                }
            });
        }
        Outcome { changed, again_in }
    }

    fn arm_if(&mut self, changed: bool) {
        if self.shared.hints.take_structure() || changed || self.is_degraded() {
            self.arm();
        }
    }

    /// Has everything watched that matters for the state in force.
    fn arm(&mut self) {
        if self.sentry.is_none() {
            self.sentry = Sentry::start(Arc::clone(&self.shared.hints), self.max_watches);
        }
        match &mut self.sentry {
            Some(sentry) => sentry.arm(&self.shared.snapshot()),
            None => self.shared.degraded.store(true, Ordering::Release),
        }
        self.plan_poll();
    }

    /// Takes note of what is watched now.
    fn take_over(&mut self, report: Option<(Armed, bool)>) {
        let Some((armed, wanted)) = report else {
            // Its thread died, and every watch with it.
            self.sentry = None;
            self.shared.hints.lose_all();
            self.shared.degraded.store(true, Ordering::Release);
            self.agenda.look_at(Instant::now() + POLL);
            return;
        };
        self.shared
            .degraded
            .store(armed.degraded, Ordering::Release);
        if armed.added {
            self.agenda.look_at(Instant::now());
        }
        if wanted || armed.raced {
            self.arm();
        }
        self.plan_poll();
        if let Some(warning) = armed.warning {
            tracing::warn!("{warning}");
            let data = json!({"kind": "watch_degraded", "message": warning});
            self.bus
                .publish(Draft::new(EventKind::DaemonWarning).data(data));
        }
    }

    /// Where hints are missing, files are compared from time to time.
    fn plan_poll(&mut self) {
        let unheard = self.is_degraded() || self.sentry.as_ref().is_none_or(Sentry::is_busy);
        self.agenda.poll = unheard.then(|| Instant::now() + POLL);
    }

    fn is_degraded(&self) -> bool {
        self.shared.degraded.load(Ordering::Acquire)
    }
}

async fn report(sentry: &mut Option<Sentry>) -> Option<(Armed, bool)> {
    match sentry {
        Some(sentry) => sentry.report().await,
        None => std::future::pending().await,
    }
}

/// What a look led to.
struct Outcome {
    changed: bool,
    again_in: Option<Duration>,
}

impl Outcome {
    fn failed() -> Self {
        Self {
            changed: false,
            again_in: Some(POLL),
        }
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
