//! All projects and the configuration in force: an immutable snapshot for readers, one task that makes the next one.
//!
//! Files are never trusted to say what changed: any hint leads to a comparison of what is on disk with what is known,
//! by the files' stamps. A file that was touched a moment ago is looked at again before it counts, so that one that
//! is still being written never becomes active.

mod differences;
mod locks;
mod owner;
mod places;
mod reconcile;
mod settle;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use locks::{ReadGuard, WriteGuard};
pub use snapshot::{ProjectEntry, Snapshot};

use crate::events::Bus;
use crate::tasks::Tasks;
use locks::Locks;
use owner::Owner;
use reconcile::Reconciler;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use terok_config::env::Environment;
use terok_config::id::ProjectId;
use terok_config::project::{self, ProjectLoad, Stamp};
use terok_config::resolve::Context;
use terok_proto::daemon::ProjectCounts;
use terok_proto::{Fault, Kind};
use tokio::sync::{mpsc, oneshot};
use watch::Hints;

/// The registry of one daemon.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Shared {
    env: Arc<Environment>,
    current: RwLock<Arc<Snapshot>>,
    locks: Locks,
    deleting: Mutex<HashSet<String>>,
    hints: Arc<Hints>,
    /// Not everything can be watched.
    degraded: AtomicBool,
}

impl Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What callers ask of the owner of the set.
#[derive(Debug)]
enum Request {
    /// Look at everything, however long it takes to settle.
    Reload(oneshot::Sender<()>),
    /// Look at one project that the daemon itself has just written.
    Refresh(String, oneshot::Sender<()>),
}

impl Registry {
    /// Reads everything once and begins to watch.
    ///
    /// # Errors
    /// The first look failed altogether.
    pub async fn start(env: Arc<Environment>, bus: Bus, tasks: Tasks) -> Result<Self, Fault> {
        Self::start_with(env, bus, tasks, watch::MAX_WATCHES).await
    }

    /// As [`Self::start`], with at most that many watches.
    async fn start_with(
        env: Arc<Environment>,
        bus: Bus,
        tasks: Tasks,
        max_watches: usize,
    ) -> Result<Self, Fault> {
        let mut reconciler = Reconciler::new(Arc::clone(&env));
        let (reconciler, first) = tokio::task::spawn_blocking(move || {
            let first = reconciler.first();
            (reconciler, first)
        })
        .await
        .map_err(|e| Fault::internal(format!("reading the projects failed: {e}")))?;
        for project in first.projects.values().filter_map(|entry| entry.broken()) {
            let line = project.error.replace('\n', "\\n");
            tracing::warn!("skipping broken project '{}': {line}", project.id);
        }
        let shared = Arc::new(Shared {
            env,
            current: RwLock::new(Arc::new(first)),
            locks: Locks::default(),
            deleting: Mutex::default(),
            hints: Arc::new(Hints::default()),
            degraded: AtomicBool::new(false),
        });
        let (requests, receiver) = mpsc::channel(64);
        let owner = Owner::new(
            Arc::clone(&shared),
            bus,
            tasks.clone(),
            reconciler,
            max_watches,
        );
        tasks.spawn("registry", owner.run(receiver));
        Ok(Self { shared, requests })
    }

    /// The state in force. Never waits for a writer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot()
    }

    /// Whether some files cannot be watched, so that their changes are seen late.
    pub fn is_degraded(&self) -> bool {
        self.shared.degraded.load(Ordering::Acquire)
    }

    /// A healthy project, by directory name or, where that is unambiguous, by the id its file states.
    ///
    /// # Errors
    /// `project_not_found`, or `invalid_config` with everything that is wrong.
    pub fn project(&self, id: &ProjectId) -> Result<Arc<ProjectEntry>, Fault> {
        let snapshot = self.snapshot();
        let mut entry = snapshot.find(id);
        if self.is_degraded() {
            entry = self.compared(&snapshot, id, entry);
        }
        let entry = entry.ok_or_else(|| project::not_found(&snapshot.paths, id))?;
        entry.project()?;
        Ok(entry)
    }

    /// The entry as its file stands now, where nobody tells of changes.
    fn compared(
        &self,
        snapshot: &Snapshot,
        id: &ProjectId,
        entry: Option<Arc<ProjectEntry>>,
    ) -> Option<Arc<ProjectEntry>> {
        let name = entry.as_ref().map_or(id.as_str(), |entry| entry.dir_name());
        let candidate = project::find(&snapshot.paths, &ProjectId::parse(name).ok()?);
        if let (Some(entry), Some(candidate)) = (&entry, &candidate)
            && entry.load().stamp == Stamp::of(&candidate.yml_path)
            && *entry.root() == *candidate.root
        {
            return Some(Arc::clone(entry));
        }
        // The owner takes the change over and tells of it.
        self.shared.hints.nudge();
        let candidate = candidate?;
        let context = Context {
            global: &snapshot.global,
            identity: &snapshot.identity,
            env: &self.shared.env,
            roster: Some(&snapshot.roster),
        };
        let read = project::load_one(&candidate, context).without_source();
        let mut loads: Vec<ProjectLoad> = snapshot
            .projects
            .values()
            .map(|entry| entry.load().clone())
            .filter(|load| load.dir_name != read.dir_name)
            .collect();
        loads.push(read);
        let load = project::mark_conflicts(&loads).pop()?;
        Some(Arc::new(ProjectEntry::new(load, entry.as_deref())))
    }

    /// Answers once every change made to the files before the call is active and its events are out.
    pub async fn reload(&self) -> ProjectCounts {
        let (done, answered) = oneshot::channel();
        if self.requests.send(Request::Reload(done)).await.is_ok() {
            let _ = answered.await;
        }
        self.snapshot().counts()
    }

    /// Takes over what the daemon itself has just written for a project.
    pub async fn refresh(&self, id: &ProjectId) {
        let (done, answered) = oneshot::channel();
        // The directory may have another name than the project.
        let name = self.snapshot().find(id);
        let name = name.map_or_else(|| id.as_str().to_owned(), |e| e.dir_name().to_owned());
        if self
            .requests
            .send(Request::Refresh(name, done))
            .await
            .is_ok()
        {
            let _ = answered.await;
        }
    }

    /// Keeps others from changing these projects.
    ///
    /// # Errors
    /// `project_busy` after five seconds, and at once for a project that is being deleted.
    pub async fn lock_write(&self, ids: &[ProjectId]) -> Result<WriteGuard, Fault> {
        self.refuse_deleting(ids)?;
        let guard = self.shared.locks.write(ids).await?;
        self.refuse_deleting(ids)?;
        Ok(guard)
    }

    /// Keeps others from changing these projects, while others may read them likewise.
    ///
    /// # Errors
    /// As [`Self::lock_write`].
    pub async fn lock_read(&self, ids: &[ProjectId]) -> Result<ReadGuard, Fault> {
        self.refuse_deleting(ids)?;
        let guard = self.shared.locks.read(ids).await?;
        self.refuse_deleting(ids)?;
        Ok(guard)
    }

    /// Marks a project whose deletion has begun, or ended.
    pub fn set_deleting(&self, id: &ProjectId, deleting: bool) {
        let mut set = self
            .shared
            .deleting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if deleting {
            set.insert(id.as_str().to_owned());
        } else {
            set.remove(id.as_str());
        }
    }

    fn refuse_deleting(&self, ids: &[ProjectId]) -> Result<(), Fault> {
        let set = self
            .shared
            .deleting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match ids.iter().find(|id| set.contains(id.as_str())) {
            Some(id) => Err(Fault::new(
                Kind::ProjectBusy,
                format!("project `{id}` is being deleted"),
            )
            .with("project_id", id.as_str())
            .retry_after_ms(1_000)),
            None => Ok(()),
        }
    }
}
