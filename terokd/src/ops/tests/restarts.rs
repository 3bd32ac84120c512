//! What the next daemon makes of what the last one left.

use super::*;

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
