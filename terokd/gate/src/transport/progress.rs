//! gix's tree of progress, flattened to what a caller is told.

use super::watch::Meter;
use crate::{Phase, Progress as Report};
use gix::progress::{Count, Id, MessageLevel, NestedProgress, Progress, Step, StepShared, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Callers hear of progress this often at most.
const PACE: Duration = Duration::from_millis(100);

/// One node of the tree.
pub(super) struct Reporter {
    meter: Meter,
    name: String,
    id: Id,
    max: Option<Step>,
    step: StepShared,
    told: Arc<Told>,
}

/// When the caller was told last, for the whole tree.
struct Told {
    begun: Instant,
    at: AtomicU64,
}

impl Reporter {
    pub(super) fn new(meter: Meter) -> Self {
        Self {
            meter,
            name: String::new(),
            id: gix::progress::UNKNOWN,
            max: None,
            step: Arc::new(AtomicUsize::new(0)),
            told: Arc::new(Told {
                begun: Instant::now(),
                at: AtomicU64::new(0),
            }),
        }
    }

    fn child(&self, name: String, id: Id) -> Self {
        Self {
            meter: self.meter.clone(),
            name,
            id,
            max: None,
            step: Arc::new(AtomicUsize::new(0)),
            told: Arc::clone(&self.told),
        }
    }

    /// The phase that this node counts objects of.
    fn phase(&self) -> Option<Phase> {
        match self.name.as_str() {
            "indexing" => Some(Phase::Receiving),
            "Resolving" => Some(Phase::Resolving),
            _ => None,
        }
    }

    fn tell(&self) {
        let Some(phase) = self.phase() else {
            return;
        };
        let now = u64::try_from(self.told.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.told.at.load(Ordering::Relaxed);
        let done = self.step();
        let first = last == 0;
        let complete = self.max == Some(done);
        if !first && !complete && now.saturating_sub(last) < PACE.as_millis() as u64 {
            return;
        }
        self.told.at.store(now.max(1), Ordering::Relaxed);
        self.meter.control().progress(Report {
            phase,
            objects: done as u64,
            total: self.max.map(|max| max as u64),
            bytes: self.meter.bytes(),
        });
    }
}

impl Count for Reporter {
    fn set(&self, step: Step) {
        self.step.store(step, Ordering::Relaxed);
        self.tell();
    }

    fn step(&self) -> Step {
        self.step.load(Ordering::Relaxed)
    }

    fn inc_by(&self, step: Step) {
        self.step.fetch_add(step, Ordering::Relaxed);
        self.tell();
    }

    fn counter(&self) -> StepShared {
        Arc::clone(&self.step)
    }
}

impl Progress for Reporter {
    fn init(&mut self, max: Option<Step>, _: Option<Unit>) {
        self.max = max;
        self.step.store(0, Ordering::Relaxed);
    }

    fn max(&self) -> Option<Step> {
        self.max
    }

    fn set_max(&mut self, max: Option<Step>) -> Option<Step> {
        std::mem::replace(&mut self.max, max)
    }

    fn set_name(&mut self, name: String) {
        self.name = name;
    }

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn id(&self) -> Id {
        self.id
    }

    fn message(&self, _: MessageLevel, _: String) {}
}

impl NestedProgress for Reporter {
    type SubProgress = Self;

    fn add_child(&mut self, name: impl Into<String>) -> Self {
        self.child(name.into(), gix::progress::UNKNOWN)
    }

    fn add_child_with_id(&mut self, name: impl Into<String>, id: Id) -> Self {
        self.child(name.into(), id)
    }
}
