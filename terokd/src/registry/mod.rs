//! All projects and the configuration in force: an immutable snapshot for readers, one task that makes the next one.
//!
//! Files are never trusted to say what changed: any hint leads to a comparison of what is on disk with what is known,
//! by the files' stamps. A file that was touched a moment ago is looked at again before it counts, so that one that
//! is still being written never becomes active.

mod locks;
mod reconcile;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

pub use locks::{ReadGuard, WriteGuard};
pub use snapshot::{ProjectEntry, Snapshot};

use crate::events::{Bus, Draft};
use crate::tasks::Tasks;
use locks::Locks;
use reconcile::{Haste, Looked, Reconciler};
use serde_json::json;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use terok_config::env::Environment;
use terok_config::id::ProjectId;
use terok_proto::daemon::ProjectCounts;
use terok_proto::events::EventKind;
use terok_proto::{Fault, Kind};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use watch::Watch;

/// Hints that arrive within this time lead to one look.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A stream of hints is interrupted by a look after this time.
const MAX_DEBOUNCE: Duration = Duration::from_millis(300);

/// How often files are compared where they cannot be watched.
const POLL: Duration = Duration::from_secs(2);

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
        });
        let (requests, receiver) = mpsc::channel(64);
        let owner = Owner {
            shared: Arc::clone(&shared),
            bus,
            reconciler: Some(reconciler),
            stop: tasks.clone(),
        };
        tasks.spawn("registry", owner.run(receiver));
        Ok(Self { shared, requests })
    }

    /// The state in force. Never waits for a writer.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(
            &self
                .shared
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// A healthy project, by directory name or, where that is unambiguous, by the id its file states.
    ///
    /// # Errors
    /// `project_not_found`, or `invalid_config` with everything that is wrong.
    pub fn project(&self, id: &ProjectId) -> Result<Arc<ProjectEntry>, Fault> {
        let snapshot = self.snapshot();
        let entry = snapshot
            .find(id)
            .ok_or_else(|| terok_config::project::not_found(&snapshot.paths, id))?;
        entry.project()?;
        Ok(entry)
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
        if self
            .requests
            .send(Request::Refresh(id.as_str().to_owned(), done))
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

/// The one task that changes the set.
struct Owner {
    shared: Arc<Shared>,
    bus: Bus,
    /// Away while it looks at the disk on a thread that may block.
    reconciler: Option<Reconciler>,
    stop: Tasks,
}

impl Owner {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let hint = Arc::new(Notify::new());
        let mut watch = Watch::new(Arc::clone(&hint));
        self.arm(&mut watch).await;
        // What changed while nothing was watched yet.
        let mut look_at = Some(Instant::now());
        let mut hinted_since: Option<Instant> = None;
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        let stop = self.stop.stopping().clone();
        loop {
            let poll = watch.degraded().then(|| Instant::now() + POLL);
            let due = [look_at, poll].into_iter().flatten().min();
            tokio::select! {
                () = stop.cancelled() => return,
                () = hint.notified() => {
                    let now = Instant::now();
                    let since = *hinted_since.get_or_insert(now);
                    let look = (now + DEBOUNCE).min(since + MAX_DEBOUNCE);
                    look_at = Some(look_at.map_or(look, |at| if at <= now { at } else { look.max(now) }));
                }
                request = requests.recv() => match request {
                    None => return,
                    Some(Request::Reload(done)) => {
                        waiting.push(done);
                        look_at = Some(Instant::now());
                    }
                    Some(Request::Refresh(name, done)) => {
                        let looked = self.look(Haste::Now(name)).await;
                        look_at = look_at.or(looked.again_in.map(|delay| Instant::now() + delay));
                        self.arm(&mut watch).await;
                        let _ = done.send(());
                    }
                },
                () = wait_until(due) => {
                    hinted_since = None;
                    let looked = self.look(Haste::Settle).await;
                    self.arm(&mut watch).await;
                    look_at = looked.again_in.map(|delay| Instant::now() + delay);
                    if look_at.is_none() {
                        waiting.drain(..).for_each(|done| {
                            let _ = done.send(());
                        });
                    }
                }
            }
        }
    }

    /// Compares the disk with what is known and makes the difference public.
    async fn look(&mut self, haste: Haste) -> Looked {
        let Some(mut reconciler) = self.reconciler.take() else {
            return Looked::default();
        };
        let current = Arc::clone(
            &self
                .shared
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let looked = tokio::task::spawn_blocking(move || {
            let looked = reconciler.look(&current, &haste);
            (reconciler, looked)
        })
        .await;
        let mut looked = match looked {
            Ok((reconciler, looked)) => {
                self.reconciler = Some(reconciler);
                looked
            }
            Err(error) => {
                // Cannot happen short of a bug: loading guards itself. Start over with an empty memory.
                tracing::error!(%error, "looking at the projects failed");
                self.reconciler = Some(Reconciler::new(Arc::clone(&self.shared.env)));
                return Looked {
                    again_in: Some(POLL),
                    ..Looked::default()
                };
            }
        };
        if let Some(next) = looked.next.take() {
            let events = std::mem::take(&mut looked.events);
            self.bus.commit(|publisher| {
                *self
                    .shared
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
                for event in events {
                    publisher.publish(event);
                }
            });
        }
        looked
    }

    async fn arm(&mut self, watch: &mut Watch) {
        let current = Arc::clone(
            &self
                .shared
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if let Some(warning) = watch.arm(&current, &self.shared.env) {
            tracing::warn!("{warning}");
            let data = json!({"kind": "watch_degraded", "message": warning});
            self.bus
                .publish(Draft::new(EventKind::DaemonWarning).data(data));
        }
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
