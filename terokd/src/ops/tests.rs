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

#[test]
fn what_a_killed_daemon_ran_is_reported_as_interrupted() {
    let (dir, id) = killed_after(async || {
        let world = world().await;
        let (tell, reached) = oneshot::channel();
        let started = world
            .ops
            .start(spec(), |cx| async move {
                cx.progress(phase("half way"));
                let _ = tell.send(());
                pending().await
            })
            .await
            .unwrap();
        reached.await.unwrap();
        (world.dir, started.id)
    });
    killed_after(async || {
        let (world, left) = daemon(dir).await;
        assert!(left.is_empty());
        let operation = world.ops.get(&id).await.unwrap();
        assert_eq!(operation.state, OperationState::Failed);
        assert!(operation.finished_at.is_some());
        let error = operation.error.clone().unwrap();
        assert_eq!((error.code, error.kind()), (1506, Some("interrupted")));
        assert_eq!(
            world
                .ops
                .list(Some("alpha"), Some(OperationState::Failed))
                .await
                .unwrap(),
            [operation]
        );
        assert_eq!(world.ops.running(), 0);
    });
}

#[test]
fn resumable_work_goes_on_under_its_id() {
    let (dir, begun) = killed_after(async || {
        let world = world().await;
        let started = world.ops.start(resumable(), |_| pending()).await.unwrap();
        (world.dir, world.ops.get(&started.id).await.unwrap())
    });
    let dir = killed_after(async || {
        let (mut world, mut left) = daemon(dir).await;
        assert_eq!(left.len(), 1);
        let left = left.remove(0);
        assert_eq!(
            (left.id.as_str(), left.method.as_str()),
            (begun.id.as_str(), "project.delete")
        );
        assert_eq!(left.params, resumable().params);
        // It counts as running even before somebody resumes it.
        assert_eq!(world.ops.get(&begun.id).await.unwrap(), begun);
        let started = world
            .ops
            .resume(left, |_| async { Ok(json!(2)) })
            .await
            .unwrap();
        assert_eq!(started.id, begun.id);
        assert_eq!(started.done.await.unwrap().get(), "2");
        assert_eq!(world.events_until_finished().await.len(), 2);
        let ended = world.ops.get(&begun.id).await.unwrap();
        assert_eq!(
            (ended.state, &ended.started_at),
            (OperationState::Succeeded, &begun.started_at)
        );
        world.dir
    });
    killed_after(async || assert!(daemon(dir).await.1.is_empty(), "it is resumed once"));
}

#[test]
fn a_full_disk_does_not_keep_the_daemon_down() {
    let (dir, id) = killed_after(async || {
        let world = world().await;
        let started = world.ops.start(spec(), |_| pending()).await.unwrap();
        (world.dir, started.id)
    });
    killed_after(async || {
        let store = Store::open(&dir.path().join("terokd/state.db"))
            .await
            .unwrap();
        sqlx::raw_sql("PRAGMA query_only = ON")
            .execute(&mut *store.writer().await)
            .await
            .unwrap();
        let (ops, _) = Ops::open(store, Bus::new(), Tasks::default())
            .await
            .unwrap();
        assert_eq!(
            ops.get(&id).await.unwrap().error.unwrap().kind(),
            Some("interrupted")
        );
        assert_eq!(
            ops.list(None, None).await.unwrap()[0].state,
            OperationState::Failed
        );
    });
}

#[test]
fn what_nobody_resumes_can_be_given_up() {
    let dir = killed_after(async || {
        let world = world().await;
        world.ops.start(resumable(), |_| pending()).await.unwrap();
        world.dir
    });
    killed_after(async || {
        let (world, left) = daemon(dir).await;
        let left = left.into_iter().next().unwrap();
        let id = left.id.clone();
        world
            .ops
            .give_up(left, &Fault::new(Kind::ProjectNotFound, "gone"))
            .await
            .unwrap();
        let operation = world.ops.get(&id).await.unwrap();
        assert_eq!(operation.error.unwrap().kind(), Some("project_not_found"));
    });
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

#[tokio::test]
async fn draining_waits_for_what_finishes() {
    let world = world().await;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let started = world
        .ops
        .start(spec(), |_| async move {
            wait.notified().await;
            Ok(json!(1))
        })
        .await
        .unwrap();
    let drain = world.ops.drain(Duration::from_secs(600));
    let release = async {
        // Draining has begun: it was polled first.
        let fault = world.ops.start(spec(), |_| pending()).await.unwrap_err();
        assert_eq!(fault.kind, Kind::ShuttingDown);
        go.notify_one();
    };
    tokio::join!(biased; drain, release);
    assert_eq!(
        world.row(&started.id).await.state,
        OperationState::Succeeded
    );
    world.tasks.stop().await;
}

#[tokio::test]
async fn draining_interrupts_what_does_not_finish() {
    let world = world().await;
    let obeys = world.ops.start(spec(), obedient).await.unwrap();
    let stubborn = world.ops.start(spec(), |_| pending()).await.unwrap();
    let patience = Duration::from_millis(1);
    // Long enough for the obedient one: `stubborn` keeps the drain waiting until it is over.
    world
        .ops
        .drain_with(patience, Duration::from_millis(300))
        .await;
    for started in [obeys, stubborn] {
        assert_eq!(started.done.await.unwrap_err().kind, Kind::Interrupted);
        let row = world.row(&started.id).await;
        assert_eq!(
            (row.state, row.error.unwrap().code),
            (OperationState::Failed, 1506)
        );
    }
    world.tasks.stop().await;
}

#[tokio::test]
async fn draining_leaves_resumable_work_to_the_next_daemon() {
    let world = world().await;
    let obeys = world.ops.start(resumable(), obedient).await.unwrap();
    let mut updates = world.ops.subscribe(&obeys.id).await.unwrap();
    world.ops.drain(Duration::ZERO).await;
    assert_eq!(obeys.done.await.unwrap_err().kind, Kind::Interrupted);
    let Some(Update::Operation(last)) = updates.next().await else {
        panic!("no final item")
    };
    assert_eq!(last.state, OperationState::Running);
    assert_eq!(updates.next().await, None);
    world.tasks.stop().await;
    let World {
        dir,
        store,
        bus,
        tasks,
        ops,
        events,
    } = world;
    drop((store, bus, tasks, ops, events));
    let (_world, left) = daemon(dir).await;
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].id.as_str(), &left[0].params),
        (obeys.id.as_str(), &resumable().params)
    );
}

#[tokio::test]
async fn progress_is_told_ten_times_a_second_and_the_last_always() {
    let mut world = world().await;
    let (tell, paused) = oneshot::channel::<()>();
    let started = world
        .ops
        .start(spec(), |cx| async move {
            paused.await.unwrap();
            for n in 1..=1000 {
                cx.progress(Progress {
                    done: Some(n),
                    ..phase("counting")
                });
                tokio::time::advance(Duration::from_millis(1)).await;
            }
            // The work says nothing more, and the last word is still told in time.
            tokio::time::sleep(live::TELL_EVERY).await;
            cx.log("test", "quiet");
            cx.progress(Progress {
                done: Some(1001),
                ..phase("counting")
            });
            Ok(Value::Null)
        })
        .await
        .unwrap();
    tokio::time::pause();
    tell.send(()).unwrap();
    started.done.await.unwrap();
    let events = world.events_until_finished().await;
    let told: Vec<u64> = events
        .iter()
        .filter_map(|e| e.data["done"].as_u64())
        .collect();
    assert!((10..=13).contains(&told.len()), "{told:?}");
    assert_eq!(told.first(), Some(&1));
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    let quiet = events
        .iter()
        .position(|e| e.kind == EventKind::OperationLog)
        .unwrap();
    assert_eq!(events[quiet - 1].data["done"], 1000);
    assert_eq!(told.last(), Some(&1001));
    assert_eq!(
        world.row(&started.id).await.progress.unwrap().done,
        Some(1001)
    );
}

#[tokio::test]
async fn progress_survives_a_crash() {
    let world = world().await;
    let (tell, reached) = oneshot::channel();
    let started = world
        .ops
        .start(spec(), |cx| async move {
            cx.progress(phase("half way"));
            let _ = tell.send(());
            pending().await
        })
        .await
        .unwrap();
    reached.await.unwrap();
    // The reporter writes on its own: this fails by never ending.
    while world.row(&started.id).await.progress != Some(phase("half way")) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_follower_sees_everything_up_to_the_final_state() {
    let world = world().await;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let started = world
        .ops
        .start(spec(), |cx| async move {
            cx.progress(phase("early"));
            wait.notified().await;
            cx.log("stdout", "line");
            Err(Fault::new(Kind::GitError, "broken"))
        })
        .await
        .unwrap();
    tokio::task::yield_now().await;
    let mut updates = world.ops.subscribe(&started.id).await.unwrap();
    let early = updates.next().await.unwrap();
    assert_eq!(json!(early), json!({"progress": {"phase": "early"}}));
    go.notify_one();
    let line = updates.next().await.unwrap();
    assert_eq!(
        json!(line),
        json!({"log": {"stream": "stdout", "line": "line"}})
    );
    let last = updates.next().await.unwrap();
    assert_eq!(
        json!(last)["operation"]["error"]["data"]["kind"],
        "git_error"
    );
    assert_eq!(updates.next().await, None);
    // Whoever comes late gets the end at once.
    let mut late = world.ops.subscribe(&started.id).await.unwrap();
    assert_eq!(late.next().await, Some(last));
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn a_slow_follower_loses_the_oldest_and_never_the_end() {
    let world = world().await;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let started = world
        .ops
        .start(spec(), |cx| async move {
            wait.notified().await;
            for n in 0..20_000 {
                cx.log("stdout", &n.to_string());
            }
            Ok(json!("end"))
        })
        .await
        .unwrap();
    let mut updates = world.ops.subscribe(&started.id).await.unwrap();
    drop(world.ops.subscribe(&started.id).await.unwrap());
    go.notify_one();
    started.done.await.unwrap();
    let Some(Update::Lagged(lost)) = updates.next().await else {
        panic!("no word of the loss")
    };
    let mut seen = 0;
    let end = loop {
        match updates.next().await.unwrap() {
            Update::Log(line) => {
                assert_eq!(line.line, (lost + seen).to_string());
                seen += 1;
            }
            Update::Operation(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lost + seen, 20_000);
    assert!(lost > 1000, "the queue is bounded");
    assert_eq!(end.result, Some(json!("end")));
}

#[tokio::test]
async fn who_comes_back_hears_what_was_logged_meanwhile() {
    let world = world().await;
    let (logged, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&logged), Arc::clone(&go));
    let started = world
        .ops
        .start(spec(), |cx| async move {
            cx.log("stdout", "one");
            cx.log("stderr", "two");
            tell.notify_one();
            wait.notified().await;
            cx.log("stdout", "three");
            Ok(json!("end"))
        })
        .await
        .unwrap();
    drop(world.ops.subscribe(&started.id).await.unwrap());
    logged.notified().await;
    let mut updates = world.ops.subscribe(&started.id).await.unwrap();
    go.notify_one();
    let mut lines = Vec::new();
    while let Some(update) = updates.next().await {
        if let Update::Log(line) = update {
            lines.push(line.line.clone());
        }
    }
    assert_eq!(lines, ["one", "two", "three"]);
}

#[tokio::test]
async fn lines_are_bounded_and_printable() {
    let mut world = world().await;
    let started = world
        .ops
        .start(spec(), |cx| async move {
            cx.log("stdout", &"é".repeat(1 << 20));
            cx.log("stdout", &"\u{202e}".repeat(8 << 10));
            cx.progress(phase(&"\u{7}x".repeat(1 << 20)));
            Ok(Value::Null)
        })
        .await
        .unwrap();
    started.done.await.unwrap();
    for event in world.events_until_finished().await {
        assert!(event.data.to_string().len() < 10 << 10, "{:?}", event.kind);
        assert!(!event.data.to_string().contains(['\u{202e}', '\u{7}']));
    }
}

#[tokio::test]
async fn nothing_starts_that_cannot_be_recorded() {
    let mut world = world().await;
    world.pragma("PRAGMA query_only = ON").await;
    let fault = world
        .ops
        .start(spec(), |_| async { panic!("it started") })
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::StorageError);
    assert!(fault.message.contains("state.db"), "{fault}");
    assert!(fault.data.contains_key("hint"));
    assert_eq!(world.ops.running(), 0);
    world.pragma("PRAGMA query_only = OFF").await;
    world
        .ops
        .start(spec(), |_| async { Ok(json!(1)) })
        .await
        .unwrap()
        .done
        .await
        .unwrap();
    assert_eq!(
        world.events_until_finished().await.len(),
        2,
        "the refused one was not told"
    );
    world.ops.drain(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn a_full_disk_does_not_cost_the_result() {
    let mut world = world().await;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let started = world
        .ops
        .start(spec(), |_| async move {
            wait.notified().await;
            Ok(json!("x".repeat(100_000)))
        })
        .await
        .unwrap();
    world.pragma("PRAGMA max_page_count = 1").await;
    go.notify_one();
    assert_eq!(started.done.await.unwrap().get().len(), 100_002);
    assert_eq!(
        world.row(&started.id).await.state,
        OperationState::Running,
        "the disk was full"
    );
    // Nobody is told the opposite of what the caller was told.
    assert_eq!(
        world.ops.get(&started.id).await.unwrap().state,
        OperationState::Succeeded
    );
    assert_eq!(
        world
            .ops
            .list(None, Some(OperationState::Running))
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        world
            .ops
            .list(None, Some(OperationState::Succeeded))
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        world.events_until_finished().await.last().unwrap().data["state"],
        "succeeded"
    );
    // Once there is room again, the record is put right.
    world.pragma("PRAGMA max_page_count = 1000000").await;
    world
        .ops
        .start(spec(), |_| async { Ok(json!(1)) })
        .await
        .unwrap()
        .done
        .await
        .unwrap();
    world.tasks.stop().await;
    assert_eq!(
        world.row(&started.id).await.state,
        OperationState::Succeeded
    );
    assert!(world.ops.inner.lock().unwritten.is_empty());
}

#[tokio::test]
async fn old_operations_are_forgotten() {
    let world = world().await;
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
                INSERT INTO operations (id, method, resumable, state, started_at, finished_at) \
                SELECT printf('%012x-0', i), 'm', 0, 'succeeded', '2999-01-01T00:00:00.000Z', \
                CASE WHEN i = 1200 THEN '2020-01-01T00:00:00.000Z' ELSE '2999-01-01T00:00:00.000Z' END FROM n";
    world.pragma(rows).await;
    world.pragma("INSERT INTO operations (id, method, resumable, state, started_at) VALUES ('0', 'm', 1, 'running', '')").await;
    let started = world
        .ops
        .start(spec(), |_| async { Ok(json!(1)) })
        .await
        .unwrap();
    started.done.await.unwrap();
    world.tasks.stop().await;
    let kept = world.ops.list(None, None).await.unwrap();
    assert_eq!(
        kept.len(),
        1_000,
        "1,000 finished ones, of which one is too old, and one unfinished"
    );
    assert_eq!(kept[0].id, started.id, "newest first");
    assert_eq!(kept.last().unwrap().id, "0", "the unfinished one stays");
    assert!(
        !kept.iter().any(|op| op.id == format!("{:012x}-0", 1200)),
        "too old"
    );
}

#[tokio::test]
async fn lists_are_bounded() {
    let world = world().await;
    let mut ids = Vec::new();
    for size in [1 << 20, 10] {
        let started = world
            .ops
            .start(spec(), move |_| async move { Ok(json!("x".repeat(size))) })
            .await
            .unwrap();
        started.done.await.unwrap();
        ids.push(started.id);
    }
    let listed = world.ops.list(None, None).await.unwrap();
    assert!(listed[0].result.is_some() && listed[1].result.is_none());
    assert!(world.ops.get(&ids[0]).await.unwrap().result.is_some());
    assert_eq!(world.ops.list(Some("beta"), None).await.unwrap(), []);
}

#[test]
fn what_is_settled_succeeds_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, id) = killed_after(async || {
        let (world, _) = daemon(dir).await;
        let (tell, settled) = oneshot::channel();
        let started = world
            .ops
            .start(resumable(), |cx| async move {
                cx.settle(&json!({"deleted": 1})).await.unwrap();
                let _ = tell.send(());
                pending().await
            })
            .await
            .unwrap();
        settled.await.unwrap();
        assert_eq!(world.row(&started.id).await.state, OperationState::Running);
        (world.dir, started.id)
    });
    killed_after(async || {
        let (world, left) = daemon(dir).await;
        assert!(left.is_empty(), "{left:?}");
        let row = world.row(&id).await;
        assert_eq!(row.state, OperationState::Succeeded);
        assert_eq!(row.result, Some(json!({"deleted": 1})));
        assert!(row.finished_at.is_some() && row.error.is_none());
        // What has an end keeps it.
        world.ops.settle(&id, &json!("other")).await.unwrap();
        assert_eq!(world.row(&id).await.result, Some(json!({"deleted": 1})));
    });
}

#[tokio::test]
async fn parameters_are_kept_only_where_they_are_needed() {
    let world = world().await;
    let once = world
        .ops
        .start(spec(), |_| async { Ok(Value::Null) })
        .await
        .unwrap();
    once.done.await.unwrap();
    let again = world
        .ops
        .start(resumable(), |_| async { Ok(Value::Null) })
        .await
        .unwrap();
    again.done.await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM operations WHERE params IS NOT NULL")
        .fetch_one(&mut *world.store.reader().await)
        .await
        .unwrap();
    assert_eq!(kept, 0);
    assert!(Path::new(world.store.path()).starts_with(world.dir.path()));
}
