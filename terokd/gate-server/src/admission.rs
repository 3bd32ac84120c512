//! How many children may run: so many in all, so many of one task, and how many requests may wait for one.

use crate::config::Limits;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out permits, first come, first served.
#[derive(Debug)]
pub(crate) struct Admission {
    all: Arc<Semaphore>,
    tasks: Mutex<HashMap<(String, String), Weak<Task>>>,
    per_task: usize,
    waiting: usize,
    wait: Duration,
}

#[derive(Debug)]
struct Task {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// The right to run one child; ends when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _task: Arc<Task>,
    _mine: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.children)),
            tasks: Mutex::default(),
            per_task: limits.children_per_task,
            waiting: limits.waiting_per_task,
            wait: limits.wait,
        }
    }

    /// Waits for a permit; none if too many wait already, or if it takes too long.
    pub(crate) async fn enter(&self, scope: &str, task_id: &str) -> Option<Permit> {
        let task = self.task(scope, task_id);
        let permit = {
            let _place = task.waiting.try_acquire().ok()?;
            let both = async {
                // The task's own first: whoever is over its share does not hold up the others.
                let mine = Arc::clone(&task.running).acquire_owned().await.ok()?;
                let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
                Some((mine, all))
            };
            tokio::time::timeout(self.wait, both).await.ok()??
        };
        Some(Permit {
            _task: task,
            _mine: permit.0,
            _all: permit.1,
        })
    }

    fn task(&self, scope: &str, task_id: &str) -> Arc<Task> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (scope.to_owned(), task_id.to_owned());
        if let Some(task) = tasks.get(&key).and_then(Weak::upgrade) {
            return task;
        }
        tasks.retain(|_, task| task.strong_count() > 0);
        let task = Arc::new(Task {
            running: Arc::new(Semaphore::new(self.per_task)),
            waiting: Semaphore::new(self.waiting),
        });
        tasks.insert(key, Arc::downgrade(&task));
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(children: usize, per_task: usize, waiting: usize) -> Admission {
        Admission::new(&Limits {
            children,
            children_per_task: per_task,
            waiting_per_task: waiting,
            ..Limits::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_does_not_take_everything() {
        let admission = admission(3, 2, 8);
        let one = admission.enter("a", "t").await.unwrap();
        let _two = admission.enter("a", "t").await.unwrap();
        // Paused time: the wait ends as soon as nothing else can happen.
        assert!(admission.enter("a", "t").await.is_none());
        let _other = admission.enter("a", "u").await.unwrap();
        assert!(admission.enter("b", "t").await.is_none());
        drop(one);
        assert!(admission.enter("a", "t").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end_and_nothing_is_kept() {
        let admission = admission(1, 1, 1);
        let held = admission.enter("a", "t").await.unwrap();
        let waiting = admission.enter("a", "t");
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no permit"),
            refused = admission.enter("a", "t") => assert!(refused.is_none()),
        }
        drop(held);
        drop(waiting.await.unwrap());
        drop(admission.enter("b", "t").await.unwrap());
        drop(admission.enter("c", "t").await.unwrap());
        assert!(admission.tasks.lock().unwrap().len() <= 1);
    }
}
