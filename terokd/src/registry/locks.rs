//! Who may change a project: one lock per id, taken in byte order, waited for a bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use terok_config::id::ProjectId;
use terok_proto::{Fault, Kind};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::Instant;

/// How long a second writer waits, for all its locks together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps others from touching some projects until it is dropped.
#[derive(Debug)]
pub struct WriteGuard(
    #[expect(dead_code, reason = "held, not read")] Vec<OwnedRwLockWriteGuard<()>>,
);

/// Keeps others from changing some projects until it is dropped.
#[derive(Debug)]
pub struct ReadGuard(#[expect(dead_code, reason = "held, not read")] Vec<OwnedRwLockReadGuard<()>>);

/// All locks that somebody holds or waits for.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<String, Weak<RwLock<()>>>>);

impl Locks {
    pub(super) async fn write(&self, ids: &[ProjectId]) -> Result<WriteGuard, Fault> {
        let (mut guards, until) = (Vec::new(), Instant::now() + PATIENCE);
        for (id, lock) in self.ordered(ids) {
            guards.push(patiently(&id, until, lock.write_owned()).await?);
        }
        Ok(WriteGuard(guards))
    }

    pub(super) async fn read(&self, ids: &[ProjectId]) -> Result<ReadGuard, Fault> {
        let (mut guards, until) = (Vec::new(), Instant::now() + PATIENCE);
        for (id, lock) in self.ordered(ids) {
            guards.push(patiently(&id, until, lock.read_owned()).await?);
        }
        Ok(ReadGuard(guards))
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn ordered(&self, ids: &[ProjectId]) -> Vec<(String, Arc<RwLock<()>>)> {
        let mut names: Vec<&str> = ids.iter().map(ProjectId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, lock| lock.strong_count() > 0);
        names
            .into_iter()
            .map(|name| {
                let lock = known.get(name).and_then(Weak::upgrade).unwrap_or_default();
                known.insert(name.to_owned(), Arc::downgrade(&lock));
                (name.to_owned(), lock)
            })
            .collect()
    }
}

async fn patiently<G>(
    id: &str,
    until: Instant,
    guard: impl Future<Output = G>,
) -> Result<G, Fault> {
    tokio::time::timeout_at(until, guard).await.map_err(|_| {
        Fault::new(
            Kind::ProjectBusy,
            format!("project `{id}` is being changed by another call: try again"),
        )
        .with("project_id", id)
        .retry_after_ms(1_000)
    })
}
