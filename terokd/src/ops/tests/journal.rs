//! What is written down, and what happens when it cannot be.

use super::*;

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
