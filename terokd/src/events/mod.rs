//! The event stream: one sequence, a ring of what came last, and readers who can never slow it down.
//!
//! Owns order. A change of state and the events that tell it are one step under the bus's lock ([`Bus::commit`]),
//! so a snapshot taken there has nothing between itself and the next event. Knows nothing of what events mean.

#[cfg(test)]
mod tests;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terok_proto::events::{Event, EventKind};
use tokio::sync::watch;

/// How many events can be replayed.
pub const RING: usize = 4096;

/// How much text the ring may hold. Details come from files and containers, so their number alone is no limit.
pub const RING_BYTES: usize = 16 << 20;

/// The stream of one daemon.
#[derive(Clone)]
pub struct Bus(Arc<Shared>);

struct Shared {
    epoch: String,
    ring: Mutex<Ring>,
    /// The latest sequence number: what readers wait for.
    latest: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    seq: u64,
    events: VecDeque<Arc<Published>>,
    /// Length of their texts together.
    bytes: usize,
}

impl Ring {
    /// Keeps the event, and as many of those before it as there is room for. What goes is a gap or a lag to those
    /// who had not read it.
    fn push(&mut self, event: Arc<Published>) {
        self.bytes += event.raw.get().len();
        self.events.push_back(event);
        while self.events.len() > RING || (self.bytes > RING_BYTES && self.events.len() > 1) {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.raw.get().len();
        }
    }
}

/// An event as it was published, with its text.
#[derive(Debug)]
pub struct Published {
    /// The event.
    pub event: Event,
    /// Its JSON, serialised once for all readers.
    pub raw: Box<RawValue>,
}

/// An event about to be published.
#[derive(Clone, Debug)]
pub struct Draft {
    kind: EventKind,
    project_id: Option<String>,
    task_id: Option<String>,
    operation_id: Option<String>,
    data: Value,
}

impl Draft {
    /// An event of that kind, about nothing yet.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            project_id: None,
            task_id: None,
            operation_id: None,
            data: json!({}),
        }
    }

    /// What kind of thing it tells.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The project it is about.
    #[must_use]
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.project_id = Some(id.into());
        self
    }

    /// The task it is about.
    #[must_use]
    pub fn task(mut self, id: impl Into<String>) -> Self {
        self.task_id = Some(id.into());
        self
    }

    /// The operation it is about.
    #[must_use]
    pub fn operation(mut self, id: impl Into<String>) -> Self {
        self.operation_id = Some(id.into());
        self
    }

    /// Its details.
    #[must_use]
    pub fn data(mut self, data: impl Into<Value>) -> Self {
        self.data = data.into();
        self
    }
}

/// What a reader wants; absent means everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only events about these projects.
    pub projects: Option<HashSet<String>>,
    /// Only these kinds.
    pub kinds: Option<HashSet<EventKind>>,
}

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        self.kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&event.kind))
            && self
                .projects
                .as_ref()
                .is_none_or(|ids| event.project_id.as_ref().is_some_and(|id| ids.contains(id)))
    }
}

/// Where a reader begins.
pub enum Start {
    /// With the next event.
    Now,
    /// After that event of that epoch.
    Since {
        /// Epoch of `seq`.
        epoch: String,
        /// The last event that the reader knows.
        seq: u64,
    },
    /// With the state, computed while nothing can be published.
    Snapshot(Box<dyn FnOnce() -> Value + Send>),
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("Now"),
            Self::Since { epoch, seq } => f
                .debug_struct("Since")
                .field("epoch", epoch)
                .field("seq", seq)
                .finish(),
            Self::Snapshot(_) => f.write_str("Snapshot"),
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("epoch", &self.0.epoch)
            .field("seq", &self.seq())
            .finish()
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

/// Publishes events within one step.
pub struct Publisher<'a> {
    epoch: &'a str,
    ring: MutexGuard<'a, Ring>,
}

impl fmt::Debug for Publisher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher<'_> {
    /// Appends an event and answers its sequence number.
    pub fn publish(&mut self, draft: Draft) -> u64 {
        self.ring.seq += 1;
        let event = published(self.epoch, self.ring.seq, draft);
        self.ring.push(event);
        self.ring.seq
    }
}

fn published(epoch: &str, seq: u64, draft: Draft) -> Arc<Published> {
    let event = Event {
        epoch: epoch.to_owned(),
        seq,
        at: jiff::Timestamp::now().to_string(),
        kind: draft.kind,
        project_id: draft.project_id,
        task_id: draft.task_id,
        operation_id: draft.operation_id,
        data: draft.data,
    };
    let raw = to_raw_value(&event).unwrap_or_else(|_| RawValue::NULL.to_owned());
    Arc::new(Published { event, raw })
}

impl Bus {
    /// A stream with an epoch of its own.
    pub fn new() -> Self {
        let latest = watch::Sender::new(0);
        Self(Arc::new(Shared {
            epoch: random_hex(),
            ring: Mutex::default(),
            latest,
        }))
    }

    /// The epoch: random per start.
    pub fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// The latest sequence number.
    pub fn seq(&self) -> u64 {
        self.ring().seq
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes one event.
    pub fn publish(&self, draft: Draft) -> u64 {
        self.commit(|publisher| publisher.publish(draft))
    }

    /// Changes state and publishes what it means, as one step towards every reader. The closure must be quick and
    /// must not use the bus.
    pub fn commit<T>(&self, change: impl FnOnce(&mut Publisher<'_>) -> T) -> T {
        let mut publisher = Publisher {
            epoch: &self.0.epoch,
            ring: self.ring(),
        };
        let result = change(&mut publisher);
        let seq = publisher.ring.seq;
        drop(publisher);
        self.0.latest.send_if_modified(|latest| {
            let newer = seq > *latest;
            *latest = (*latest).max(seq);
            newer
        });
        result
    }

    /// A reader from there on.
    pub fn subscribe(&self, filter: Filter, start: Start) -> Subscription {
        let latest = self.0.latest.subscribe();
        let ring = self.ring();
        let now = ring.seq;
        let told = |kind, data| Some(published(&self.0.epoch, now, Draft::new(kind).data(data)));
        let (position, first) = match start {
            Start::Now => (now, None),
            Start::Snapshot(state) => (now, told(EventKind::Snapshot, state())),
            Start::Since { epoch, seq } => {
                let oldest = now - ring.events.len() as u64;
                if epoch == self.0.epoch && (oldest..=now).contains(&seq) {
                    (seq, None)
                } else {
                    // What came before the ring is lost; the ring itself need not be.
                    let position = if epoch == self.0.epoch && seq < oldest {
                        oldest
                    } else {
                        now
                    };
                    let reason = if epoch == self.0.epoch {
                        "expired"
                    } else {
                        "epoch"
                    };
                    (
                        position,
                        told(
                            EventKind::Gap,
                            json!({"reason": reason, "since": seq, "resumes_after": position}),
                        ),
                    )
                }
            }
        };
        drop(ring);
        Subscription {
            bus: self.clone(),
            filter,
            position,
            first,
            latest,
        }
    }
}

/// One reader. Its place in the ring is all it owns, so it costs nothing however slow it is.
#[derive(Debug)]
pub struct Subscription {
    bus: Bus,
    filter: Filter,
    /// The last event that was looked at.
    position: u64,
    first: Option<Arc<Published>>,
    latest: watch::Receiver<u64>,
}

impl Subscription {
    /// The next event that the filter wants. A reader that fell out of the ring is told how much it missed.
    pub async fn next(&mut self) -> Option<Arc<Published>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            self.latest.borrow_and_update();
            if let Some(event) = self.poll_ring() {
                return Some(event);
            }
            self.latest.changed().await.ok()?;
        }
    }

    fn poll_ring(&mut self) -> Option<Arc<Published>> {
        let shared = Arc::clone(&self.bus.0);
        let ring = shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.seq - ring.events.len() as u64;
        if self.position < oldest {
            let missed = oldest - self.position;
            self.position = oldest;
            return Some(published(
                &shared.epoch,
                oldest,
                Draft::new(EventKind::Lagged).data(json!({"missed": missed})),
            ));
        }
        let skip = usize::try_from(self.position - oldest).unwrap_or(usize::MAX);
        for event in ring.events.iter().skip(skip) {
            self.position = event.event.seq;
            if self.filter.wants(&event.event) {
                return Some(Arc::clone(event));
            }
        }
        None
    }
}

/// Sixteen random bytes, or what comes nearest where the system has none.
pub fn random_hex() -> String {
    use std::io::Read;
    let mut bytes = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        bytes[..8].copy_from_slice(&now[..8]);
        bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
