//! Stopping: what may finish, what is cut short, what is left to the next daemon.

use super::*;

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
