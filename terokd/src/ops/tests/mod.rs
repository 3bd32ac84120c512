//! Operations as their callers see them: begun, told, cancelled, ended.

mod draining;
mod followers;
mod journal;
mod restarts;

use super::*;
use crate::events::{Filter, Start, Subscription};
use crate::telemetry;
use serde_json::json;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use terok_proto::events::{Event, EventKind};
use terok_proto::ops::Progress;
use tokio::sync::{Notify, oneshot};

struct World {
    dir: TempDir,
    store: Store,
    bus: Bus,
    tasks: Tasks,
    ops: Ops,
    events: Subscription,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (world, left) = daemon(dir).await;
    assert!(left.is_empty());
    world
}

/// A daemon over what another one may have left in `dir`.
async fn daemon(dir: TempDir) -> (World, Vec<Resumable>) {
    let store = Store::open(&dir.path().join("terokd/state.db"))
        .await
        .unwrap();
    let (bus, tasks) = (Bus::new(), Tasks::default());
    let events = bus.subscribe(Filter::default(), Start::Now);
    let (ops, left) = Ops::open(store.clone(), bus.clone(), tasks.clone())
        .await
        .unwrap();
    (
        World {
            dir,
            store,
            bus,
            tasks,
            ops,
            events,
        },
        left,
    )
}

/// Runs `life` as a daemon that is then killed: its tasks vanish wherever they are.
fn killed_after<T>(life: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(life())
}

impl World {
    async fn event(&mut self) -> Event {
        self.events.next().await.unwrap().event.clone()
    }

    async fn events_until_finished(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            all.push(self.event().await);
            if all.last().unwrap().kind == EventKind::OperationFinished {
                return all;
            }
        }
    }

    async fn pragma(&self, pragma: &'static str) {
        sqlx::raw_sql(pragma)
            .execute(&mut *self.store.writer().await)
            .await
            .unwrap();
    }

    /// What the record says, whatever memory says.
    async fn row(&self, id: &str) -> Operation {
        self.ops.inner.journal.get(id).await.unwrap().unwrap()
    }
}

fn spec() -> OpSpec {
    OpSpec {
        method: "project.delete",
        project_id: Some("alpha".into()),
        task_id: None,
        params: json!({"project_id": "alpha", "secret": "s3cr3t"}),
        resumable: false,
    }
}

fn resumable() -> OpSpec {
    OpSpec {
        resumable: true,
        ..spec()
    }
}

fn phase(phase: &str) -> Progress {
    Progress {
        phase: phase.into(),
        ..Progress::default()
    }
}

async fn obedient(cx: OpCx) -> Result<Value, Fault> {
    cx.cancelled().await;
    cx.check_cancelled()?;
    Ok(json!("not reached"))
}

#[tokio::test]
async fn a_life_is_recorded_and_told() {
    let mut world = world().await;
    let started = world
        .ops
        .start(spec(), |cx| async move {
            cx.progress(phase("looking"));
            cx.log("stdout", "one\u{1b}[31m");
            cx.progress(phase("removing"));
            Ok(json!({"id": cx.id()}))
        })
        .await
        .unwrap();
    let raw = started.done.await.unwrap();
    assert_eq!(raw.get(), json!({"id": started.id}).to_string());

    let events = world.events_until_finished().await;
    let kinds: Vec<EventKind> = events.iter().map(|e| e.kind).collect();
    use EventKind::{OperationFinished, OperationLog, OperationProgress, OperationStarted};
    assert_eq!(
        kinds,
        [
            OperationStarted,
            OperationProgress,
            OperationLog,
            OperationProgress,
            OperationFinished
        ]
    );
    for event in &events {
        assert_eq!(event.operation_id.as_ref(), Some(&started.id));
        assert_eq!(event.project_id.as_deref(), Some("alpha"));
    }
    let begun: Operation = serde_json::from_value(events[0].data.clone()).unwrap();
    assert_eq!(
        (begun.state, begun.method.as_str()),
        (OperationState::Running, "project.delete")
    );
    assert_eq!(events[1].data, json!({"phase": "looking"}));
    assert_eq!(
        events[2].data,
        json!({"stream": "stdout", "line": "one\\x1b[31m"})
    );
    assert_eq!(
        events[3].data,
        json!({"phase": "removing"}),
        "the last progress is told before the end"
    );

    let told: Operation = serde_json::from_value(events[4].data.clone()).unwrap();
    assert_eq!(told.state, OperationState::Succeeded);
    assert_eq!(told.progress, Some(phase("removing")));
    assert_eq!(told, world.ops.get(&started.id).await.unwrap());
    assert_eq!(vec![told], world.ops.list(None, None).await.unwrap());
    assert_eq!(world.ops.running(), 0);
}

#[tokio::test]
async fn state_and_event_change_together() {
    let world = world().await;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let started = world
        .ops
        .start(spec(), |_| async move {
            wait.notified().await;
            Ok(Value::Null)
        })
        .await
        .unwrap();
    let look = || {
        let ops = world.ops.clone();
        let state = Start::Snapshot(Box::new(move || json!(ops.running_now())));
        world.bus.subscribe(Filter::default(), state)
    };
    let mut before = look();
    assert_eq!(
        before.next().await.unwrap().event.data[0]["id"],
        *started.id
    );
    go.notify_one();
    started.done.await.unwrap();
    assert_eq!(
        before.next().await.unwrap().event.kind,
        EventKind::OperationFinished
    );
    assert_eq!(look().next().await.unwrap().event.data, json!([]));
}

#[tokio::test]
async fn cancelling_is_a_request() {
    let world = world().await;
    let obeys = world.ops.start(spec(), obedient).await.unwrap();
    let answered = world.ops.cancel(&obeys.id).await.unwrap();
    assert_eq!(answered.state, OperationState::Running);
    assert_eq!(obeys.done.await.unwrap_err().kind, Kind::Cancelled);
    let ended = world.ops.get(&obeys.id).await.unwrap();
    assert_eq!(ended.state, OperationState::Cancelled);
    assert_eq!(ended.error.as_ref().unwrap().kind(), Some("cancelled"));
    assert_eq!(
        world.ops.cancel(&obeys.id).await.unwrap(),
        ended,
        "a finished one is answered unchanged"
    );

    let too_late = world
        .ops
        .start(spec(), |cx| async move {
            cx.cancelled().await;
            Ok(json!("done"))
        })
        .await
        .unwrap();
    world.ops.cancel(&too_late.id).await.unwrap();
    assert_eq!(too_late.done.await.unwrap().get(), "\"done\"");
    assert_eq!(
        world.ops.get(&too_late.id).await.unwrap().state,
        OperationState::Succeeded
    );

    for unknown in ["", "nope", "\u{1b}'; DROP TABLE operations"] {
        assert_eq!(
            world.ops.cancel(unknown).await.unwrap_err().kind,
            Kind::OperationNotFound
        );
        assert_eq!(
            world.ops.get(unknown).await.unwrap_err().kind,
            Kind::OperationNotFound
        );
        assert_eq!(
            world.ops.subscribe(unknown).await.unwrap_err().kind,
            Kind::OperationNotFound
        );
    }
}

#[tokio::test]
async fn a_panic_costs_one_operation() {
    telemetry::init(&telemetry::Logging::default());
    let world = world().await;
    let started = world
        .ops
        .start(spec(), |_| async { panic!("secret detail") })
        .await
        .unwrap();
    let fault = started.done.await.unwrap_err();
    assert_eq!(fault.kind, Kind::Internal);
    assert!(!fault.message.contains("secret"));
    let id = fault.data["error_id"].as_str().unwrap();
    assert!(
        id.starts_with("panic-") && fault.message.contains(id),
        "{fault:?}"
    );
    let ended = world.ops.get(&started.id).await.unwrap();
    assert_eq!(
        (ended.state, ended.error.unwrap().code),
        (OperationState::Failed, -32603)
    );
    assert_eq!(world.ops.running(), 0);
    // Also when the work panics before its first await.
    let started = world
        .ops
        .start(spec(), |_| -> futures_util::future::Ready<_> {
            panic!("at once")
        })
        .await
        .unwrap();
    assert_eq!(started.done.await.unwrap_err().kind, Kind::Internal);
}

#[tokio::test]
async fn a_caller_that_leaves_changes_nothing() {
    use futures_util::FutureExt;
    let mut world = world().await;
    let start = world.ops.start(spec(), |_| async { Ok(json!(1)) });
    assert!(
        start.now_or_never().is_none(),
        "the caller left before the record was written"
    );
    let events = world.events_until_finished().await;
    assert_eq!(events.last().unwrap().data["state"], "succeeded");
}

#[tokio::test]
async fn operations_under_way_are_bounded() {
    let world = world().await;
    let mut started = Vec::new();
    for _ in 0..run::MAX_ACTIVE {
        started.push(world.ops.start(spec(), obedient).await.unwrap());
    }
    let fault = world.ops.start(spec(), obedient).await.unwrap_err();
    assert_eq!(fault.kind, Kind::Overloaded);
    assert!(fault.data.contains_key("retry_after_ms"));
    let one = started.pop().unwrap();
    world.ops.cancel(&one.id).await.unwrap();
    one.done.await.unwrap_err();
    let mut active = world.ops.inner.active.subscribe();
    active.wait_for(|n| *n < run::MAX_ACTIVE).await.unwrap();
    world.ops.start(spec(), obedient).await.unwrap();
}
