//! The one task that changes the set: it collects hints, looks, makes the difference public, and watches what is new.

use super::places::Places;
use super::reconcile::{Haste, Looked, Reconciler};
use super::snapshot::Snapshot;
use super::watch::{Armed, Hints, Watch};
use super::{Request, Shared};
use crate::events::{Bus, Draft};
use crate::tasks::Tasks;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use terok_config::env::Environment;
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

/// What looks at the disk, on threads that may block.
#[derive(Debug)]
pub(super) struct Eyes {
    reconciler: Reconciler,
    watch: Watch,
}

impl Eyes {
    pub(super) fn new(env: Arc<Environment>, hints: Arc<Hints>, max_watches: usize) -> Self {
        Self {
            reconciler: Reconciler::new(env),
            watch: Watch::new(hints, max_watches),
        }
    }

    /// The state at start.
    pub(super) fn first(&mut self) -> Snapshot {
        self.reconciler.first()
    }
}

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
    /// Away while they look.
    eyes: Option<Eyes>,
    max_watches: usize,
    agenda: Agenda,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        bus: Bus,
        tasks: Tasks,
        eyes: Eyes,
        max_watches: usize,
    ) -> Self {
        Self {
            shared,
            bus,
            tasks,
            eyes: Some(eyes),
            max_watches,
            agenda: Agenda::default(),
        }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let stop = self.tasks.stopping().clone();
        let hints = Arc::clone(&self.shared.hints);
        self.arm().await;
        // What changed while nothing was watched yet.
        self.agenda.look_at(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = hints.heard() => self.agenda.hint(Instant::now()),
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
                        self.arm_if(looked.changed).await;
                    }
                },
                () = wait_until(self.agenda.due()) => self.look_after_hints().await,
            }
        }
    }

    async fn look_after_hints(&mut self) {
        let now = Instant::now();
        let begun = self.agenda.hint.take().map(|(first, _)| first);
        self.agenda.again = None;
        self.agenda.poll = None;
        let hurried = self.agenda.waiting.iter().any(|(until, _)| *until <= now);
        let haste = if hurried {
            Haste::Everything
        } else {
            Haste::Settle
        };
        let looked = self.look(haste, begun).await;
        match looked.again_in {
            Some(delay) => self.agenda.look_at(Instant::now() + delay),
            None => self.agenda.answer(),
        }
        if hurried {
            self.agenda.answer();
        }
        self.arm_if(looked.changed).await;
    }

    /// Compares the disk with what is known and makes the difference public.
    async fn look(&mut self, haste: Haste, begun: Option<Instant>) -> Outcome {
        let current = self.shared.snapshot();
        let hints = Arc::clone(&self.shared.hints);
        let begun = begun.map(Instant::into_std);
        let looked = self
            .blocking(move |eyes| eyes.reconciler.look(&current, &haste, begun, &hints))
            .await;
        let Some(Looked {
            next,
            events,
            again_in,
        }) = looked
        else {
            return Outcome {
                changed: false,
                again_in: Some(POLL),
            };
        };
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

    async fn arm_if(&mut self, changed: bool) {
        let degraded = self.shared.degraded.load(Ordering::Acquire);
        if self.shared.hints.take_structure() || changed || degraded {
            self.arm().await;
        }
    }

    /// Watches what matters for the state in force.
    async fn arm(&mut self) {
        let current = self.shared.snapshot();
        let armed = self
            .blocking(move |eyes| {
                let armed = eyes.watch.arm(Places::of(&current));
                (armed, eyes.watch.degraded())
            })
            .await;
        let Some((Armed { added, warning }, degraded)) = armed else {
            return;
        };
        self.shared.degraded.store(degraded, Ordering::Release);
        let now = Instant::now();
        if added {
            self.agenda.look_at(now);
        }
        self.agenda.poll = degraded.then(|| now + POLL);
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
            let data = json!({"kind": "watch_degraded", "message": warning});
            self.bus
                .publish(Draft::new(EventKind::DaemonWarning).data(data));
        }
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&mut Eyes) -> T + Send + 'static,
    ) -> Option<T> {
        let mut eyes = self.eyes.take()?;
        let looked = tokio::task::spawn_blocking(move || {
            let looked = look(&mut eyes);
            (eyes, looked)
        });
        match looked.await {
            Ok((eyes, looked)) => {
                self.eyes = Some(eyes);
                Some(looked)
            }
            Err(error) => {
                // Cannot happen short of a bug: loading guards itself. Start over with an empty memory.
                tracing::error!(%error, "looking at the projects failed");
                let (env, hints) = (&self.shared.env, &self.shared.hints);
                let eyes = Eyes::new(Arc::clone(env), Arc::clone(hints), self.max_watches);
                self.eyes = Some(eyes);
                self.shared.hints.lose_all();
                self.agenda.look_at(Instant::now() + POLL);
                None
            }
        }
    }
}

/// What a look led to.
struct Outcome {
    changed: bool,
    again_in: Option<Duration>,
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
