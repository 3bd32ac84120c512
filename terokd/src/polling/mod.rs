//! Watches every gate's upstream, with no client connected.
//!
//! Owns when each gate is polled, what its subscribers are told and what is remembered over restarts. Asks through
//! [`Upstreams`], so it knows nothing of git, keys or repositories, and its time can be simulated.

mod entry;
mod memory;
mod schedule;
mod targets;
#[cfg(test)]
mod tests;

pub use entry::{Outcome, Synced};
pub use memory::Row;
pub use schedule::Failure;
pub use targets::{Target, target_of};

use crate::events::{Bus, Draft, Filter, Start};
use crate::panic;
use crate::registry::Registry;
use crate::store::Store;
use crate::tasks::Tasks;
use entry::Told;
use futures_util::future::BoxFuture;
use memory::Memory;
use schedule::{Due, Schedule, Settled};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terok_config::env::Environment;
use terok_proto::Fault;
use terok_proto::daemon::PollingSummary;
use terok_proto::events::EventKind;
use terok_proto::gate::{GateStalenessInfo, PollState};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// A sleeping machine stops the monotonic clock: at least this often somebody looks whether it slept.
const LOOK: Duration = Duration::from_secs(60);
/// So long the times of polls that found nothing new wait to be written together.
const ASIDE: Duration = Duration::from_secs(1);

/// Talks to upstreams on behalf of the scheduler.
pub trait Upstreams: std::fmt::Debug + Send + Sync + 'static {
    /// Asks upstream how current the gate is.
    fn poll(&self, target: Arc<Target>) -> BoxFuture<'static, Outcome>;

    /// Brings these branches of the gate up to date, all of them if none is named.
    fn sync(
        &self,
        target: Arc<Target>,
        branches: Vec<String>,
    ) -> BoxFuture<'static, Result<Synced, Fault>>;

    /// How long the machine has slept since it was started.
    fn slept(&self) -> Duration;
}

/// The scheduler.
#[derive(Clone, Debug)]
pub struct Polling {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    schedule: Mutex<Schedule>,
    wake: Notify,
    upstreams: Arc<dyn Upstreams>,
    env: Arc<Environment>,
    registry: Registry,
    bus: Bus,
    tasks: Tasks,
    memory: Memory,
}

impl Polling {
    /// Starts watching.
    ///
    /// # Errors
    /// What was remembered cannot be read.
    pub async fn start(
        upstreams: Arc<dyn Upstreams>,
        env: Arc<Environment>,
        registry: Registry,
        bus: Bus,
        tasks: Tasks,
        store: Store,
    ) -> Result<Self, Fault> {
        let memory = Memory::new(store);
        let remembered = memory.load().await?;
        let schedule = Schedule::new(remembered, random_seed(), upstreams.slept());
        let polling = Self {
            inner: Arc::new(Inner {
                schedule: Mutex::new(schedule),
                wake: Notify::new(),
                upstreams,
                env,
                registry,
                bus,
                tasks: tasks.clone(),
                memory,
            }),
        };
        polling.reconfigure();
        tasks.spawn("polling", polling.clone().run());
        tasks.spawn("polling projects", polling.clone().follow_projects());
        Ok(polling)
    }

    /// How each gate is polled, by path; of one gate if its path is given.
    pub fn status(&self, gate: Option<&Path>) -> Vec<PollState> {
        self.schedule().status(gate, Instant::now())
    }

    /// How many projects are polled and when the next poll is due.
    pub fn summary(&self) -> PollingSummary {
        self.schedule().summary(Instant::now())
    }

    /// Everything on the schedule.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.schedule().targets()
    }

    /// What is remembered of one gate, whether it is polled or not.
    pub fn last_known(&self, gate: &Path) -> Option<Row> {
        self.schedule().last_known(gate)
    }

    /// Remembers how a sync of the gate ended, whoever asked for it.
    pub async fn note_sync(&self, gate: &Path, error: Option<String>) {
        let row = self.schedule().amend(gate, |row| {
            if error.is_none() {
                row.last_sync_at = Some(jiff::Timestamp::now().to_string());
            }
            row.last_sync_error = error;
        });
        self.save(gate, &row).await;
    }

    /// Forgets a gate that is gone.
    pub async fn forget(&self, gate: &Path) {
        self.reconfigure();
        self.schedule().drop_remembered(gate);
        if let Err(fault) = self.inner.memory.forget(gate).await {
            tracing::warn!(gate = %gate.display(), "cannot forget a gate: {fault}");
        }
    }

    /// Polls these gates now, beside the schedule; answers what was found, in order.
    pub async fn poll_now(&self, targets: Vec<Arc<Target>>) -> Vec<GateStalenessInfo> {
        let mut waiting = Vec::new();
        {
            let mut schedule = self.schedule();
            let alone = targets.len() == 1;
            for target in targets {
                let (tell, told) = oneshot::channel();
                let polled = schedule.poll_now(&target.gate_path, alone, Instant::now(), tell);
                waiting.push((target, polled.then_some(told)));
            }
        }
        self.inner.wake.notify_one();
        let mut found = Vec::with_capacity(waiting.len());
        for (target, told) in waiting {
            let answer = match told {
                Some(told) => told.await.ok(),
                None => None,
            };
            found.push(match answer {
                Some(staleness) => staleness,
                // Not on the schedule, or it left it meanwhile.
                None => self.inner.upstreams.poll(target).await.staleness,
            });
        }
        found
    }

    /// Takes over how current a gate is after something happened to it. That is no poll: upstream was not asked.
    pub async fn observe(&self, gate: &Path, staleness: &GateStalenessInfo) {
        let settled = {
            let mut schedule = self.schedule();
            let settled = schedule.observe(gate, staleness);
            self.tell_all(gate, &settled);
            settled
        };
        self.remember(gate, settled.row, settled.news).await;
    }

    /// Forgets failures, so that what failed is tried again soon; of one gate if its path is given.
    pub fn forget_failures(&self, gate: Option<&Path>) {
        self.schedule().forget_failures(gate, Instant::now());
        self.inner.wake.notify_one();
    }

    /// Takes the projects and limits as they are now.
    pub fn reconfigure(&self) {
        let snapshot = self.inner.registry.snapshot();
        let env = &self.inner.env;
        let targets = targets::all(&snapshot, |path| env.normalise(path));
        let limits = snapshot.global.terokd.polling.clone();
        self.schedule().reconfigure(targets, limits, Instant::now());
        self.inner.wake.notify_one();
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.inner
            .schedule
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        loop {
            let (due, next) = {
                let slept = self.inner.upstreams.slept();
                let panicked = panic::is_engaged(&self.inner.registry.snapshot().paths);
                let mut schedule = self.schedule();
                schedule.pause(panicked, Instant::now());
                schedule.notice_sleep(slept, Instant::now());
                schedule.take_due(Instant::now())
            };
            for due in due {
                self.inner.tasks.spawn("poll", self.clone().poll(due));
            }
            let look = Instant::now() + LOOK;
            let idle = self.schedule().is_empty();
            let next = next.map_or((!idle).then_some(look), |next| Some(next.min(look)));
            tokio::select! {
                () = until(next) => {}
                () = self.inner.wake.notified() => {}
                () = self.inner.tasks.stopping().cancelled() => return,
            }
        }
    }

    /// Every change of a project or of the configuration changes what is polled.
    async fn follow_projects(self) {
        let kinds = [
            EventKind::ProjectAdded,
            EventKind::ProjectChanged,
            EventKind::ProjectBroken,
            EventKind::ProjectRemoved,
            EventKind::ConfigChanged,
            EventKind::VaultUnlocked,
        ];
        let filter = Filter {
            projects: None,
            kinds: Some(kinds.into_iter().collect()),
        };
        let mut events = self.inner.bus.subscribe(filter, Start::Now);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    // What failed for want of a key may work now.
                    Some(event) if event.event.kind == EventKind::VaultUnlocked => self.forget_failures(None),
                    Some(_) => self.reconfigure(),
                },
                () = self.inner.tasks.stopping().cancelled() => return,
            }
        }
    }

    async fn poll(self, due: Due) {
        let stopping = self.inner.tasks.stopping().clone();
        let gate = due.target.gate_path.clone();
        // Keeps its slot for as long as it runs, however it ends.
        let slot = Slot {
            polling: self.clone(),
            gate: gate.clone(),
        };
        let outcome = tokio::select! {
            outcome = self.inner.upstreams.poll(Arc::clone(&due.target)) => outcome,
            () = stopping.cancelled() => return,
        };
        let wanted = self.settle(&gate, outcome).await;
        if let Some(branches) = wanted {
            self.auto_sync(&due.target, branches).await;
        }
        drop(slot);
    }

    /// Notes what was found, tells subscribers, and answers the branches that are to be synced, if any.
    async fn settle(&self, gate: &Path, outcome: Outcome) -> Option<Vec<String>> {
        let settled = {
            let mut schedule = self.schedule();
            let settled = schedule.settle(gate, outcome, Instant::now());
            self.tell_all(gate, &settled);
            settled
        };
        tracing::debug!(gate = %gate.display(), events = settled.told.len(), "polled");
        self.remember(gate, settled.row, settled.news).await;
        settled.auto_sync
    }

    async fn remember(&self, gate: &Path, row: Option<Row>, news: bool) {
        match row {
            Some(row) if news => self.save(gate, &row).await,
            Some(row) => self.save_soon(gate, row),
            None => {}
        }
    }

    /// Saves what may be lost without harm, with others, and before the daemon stops.
    fn save_soon(&self, gate: &Path, row: Row) {
        if !self.inner.memory.put_aside(gate, row) {
            return;
        }
        let polling = self.clone();
        self.inner.tasks.spawn("poll states", async move {
            tokio::select! {
                () = tokio::time::sleep(ASIDE) => {}
                () = polling.inner.tasks.stopping().cancelled() => {}
            }
            if let Err(fault) = polling.inner.memory.write_aside().await {
                tracing::warn!("cannot remember polls: {fault}");
            }
        });
    }

    async fn save(&self, gate: &Path, row: &Row) {
        if let Err(fault) = self.inner.memory.save(gate, row).await {
            tracing::warn!(gate = %gate.display(), "cannot remember a poll: {fault}");
        }
    }

    async fn auto_sync(&self, target: &Arc<Target>, branches: Vec<String>) {
        let gate = target.gate_path.clone();
        let projects = target.project_ids.clone();
        self.tell(&gate, &projects, &Told::AutoSyncStarted(branches.clone()));
        let synced = self
            .inner
            .upstreams
            .sync(Arc::clone(target), branches)
            .await;
        if let Err(fault) = &synced {
            tracing::warn!(gate = %gate.display(), "auto-sync failed: {fault}");
        }
        let synced = synced.unwrap_or_default();
        self.schedule().auto_synced(&gate, &synced, Instant::now());
    }

    /// In the order in which things happened: the schedule is held meanwhile.
    fn tell_all(&self, gate: &Path, settled: &Settled) {
        for told in &settled.told {
            self.tell(gate, &settled.projects, told);
        }
    }

    fn tell(&self, gate: &Path, projects: &[String], told: &Told) {
        let gate = gate.to_string_lossy();
        let (kind, data) = match told {
            Told::Stale(staleness) => (
                EventKind::GateStale,
                json!({"staleness": staleness, "gate_path": gate}),
            ),
            Told::Current(staleness) => (
                EventKind::GateCurrent,
                json!({"staleness": staleness, "gate_path": gate}),
            ),
            Told::AutoSyncStarted(branches) => (
                EventKind::GateAutoSyncStarted,
                json!({"gate_path": gate, "branches": branches}),
            ),
            Told::Failed {
                error,
                kind,
                next_poll_at,
            } => (
                EventKind::GatePollFailed,
                json!({"gate_path": gate, "error": error, "error_kind": kind, "next_poll_at": next_poll_at}),
            ),
        };
        for project in projects {
            self.inner.bus.publish(
                Draft::new(kind)
                    .project(project.as_str())
                    .data(data.clone()),
            );
        }
    }
}

/// The right to poll one gate.
struct Slot {
    polling: Polling,
    gate: PathBuf,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.polling.schedule().finished(&self.gate, Instant::now());
        self.polling.inner.wake.notify_one();
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn random_seed() -> u64 {
    u64::from_str_radix(&crate::events::random_hex()[..16], 16).unwrap_or(0x9e37_79b9_7f4a_7c15)
}
