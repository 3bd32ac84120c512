//! Who looks on while an operation runs: progress, lines, the end.

use super::*;

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
