//! The event stream: order, replay, gaps, lag, snapshots, filters (rpc.md §5).

use serde_json::{Value, json};
use std::collections::HashSet;
use terok_tests::{Daemon, Events, World};

const ONLINE: &str = "project: {security_class: online}\n";

fn add(world: &World, id: &str) {
    world.write(&format!("$CONFIG/projects/{id}/project.yml"), ONLINE);
}

/// Makes at least `count` events, cheaply: every planned deletion starts and finishes an operation.
fn make_events(daemon: &Daemon, count: usize) {
    let mut client = daemon.connect();
    for _ in 0..count.div_ceil(100) {
        let ids: Vec<u64> = (0..50)
            .map(|_| {
                client.send(
                    "delete_project",
                    json!({"project_id": "alpha", "dry_run": true}),
                )
            })
            .collect();
        for id in ids {
            client.answer(id).unwrap();
        }
    }
}

#[test]
fn events_are_numbered_without_holes() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    for id in ["b", "c", "d"] {
        add(&world, id);
    }
    let seen = events.until(|e| e["project_id"] == "d");
    let epoch = daemon.ok("daemon.status", json!({}))["epoch"].clone();
    for pair in seen.windows(2) {
        assert_eq!(
            pair[1]["seq"].as_u64().unwrap(),
            pair[0]["seq"].as_u64().unwrap() + 1,
            "{pair:?}"
        );
    }
    for event in &seen {
        assert_eq!(event["epoch"], epoch);
        let at = event["at"].as_str().unwrap();
        assert!(
            at.ends_with('Z') && at.contains('T'),
            "RFC 3339 in UTC: {at}"
        );
    }
    drop(daemon);
    let daemon = world.start();
    assert_ne!(
        daemon.ok("daemon.status", json!({}))["epoch"],
        epoch,
        "every start has its own epoch"
    );
}

#[test]
fn what_was_missed_is_replayed() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut first = daemon.events(json!({}));
    add(&world, "beta");
    let known = first.next_of("project.added");
    add(&world, "gamma");
    let missed = first.next_about("project.added", "gamma");
    let mut late = daemon.events(json!({"since": known["seq"], "epoch": known["epoch"]}));
    assert_eq!(late.next_about("project.added", "gamma"), missed);
    add(&world, "delta");
    assert_eq!(
        late.next_about("project.added", "delta"),
        first.next_about("project.added", "delta")
    );
    let mut filtered =
        daemon.events(json!({"since": 0, "epoch": known["epoch"], "projects": ["delta"]}));
    let event = filtered.receive();
    assert_eq!(
        (&event["kind"], &event["project_id"]),
        (&json!("project.added"), &json!("delta")),
        "{event}"
    );
}

#[test]
fn another_epoch_or_a_future_number_is_a_gap() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let epoch = daemon.ok("daemon.status", json!({}))["epoch"].clone();
    for params in [
        json!({"since": 3, "epoch": "of another start"}),
        json!({"since": 1_000_000, "epoch": epoch}),
    ] {
        let mut events = daemon.events(params);
        let gap = events.receive();
        assert_eq!(gap["kind"], "events.gap", "{gap}");
        assert_eq!(gap["epoch"], epoch);
    }
}

#[test]
fn what_has_left_the_ring_is_a_gap() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut witness = daemon.events(json!({"kinds": ["project.added"]}));
    add(&world, "old");
    let old = witness.next_of("project.added");
    make_events(&daemon, 5000);
    let mut events = daemon.events(json!({"since": old["seq"], "epoch": old["epoch"]}));
    assert_eq!(events.receive()["kind"], "events.gap");
    // What the ring still holds is replayed after the gap, and then it goes on.
    add(&world, "fresh");
    let seen = events.until(|e| e["project_id"] == "fresh" && e["kind"] == "project.added");
    for pair in seen.windows(2) {
        assert_eq!(
            pair[1]["seq"].as_u64().unwrap(),
            pair[0]["seq"].as_u64().unwrap() + 1,
            "{pair:?}"
        );
    }
}

#[test]
fn a_slow_reader_learns_what_it_missed() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut slow = daemon.events(json!({}));
    let begin = daemon.events(json!({"snapshot": true})).receive()["seq"]
        .as_u64()
        .unwrap();
    make_events(&daemon, 8_000);
    add(&world, "last");
    let (mut told, mut expected, mut lagged) = (0, begin + 1, 0);
    loop {
        let event = slow.receive();
        if event["kind"] == "events.lagged" {
            let missed = event["data"]["missed"].as_u64().unwrap();
            assert!(missed > 0);
            (lagged, expected) = (lagged + missed, expected + missed);
            continue;
        }
        assert_eq!(event["seq"].as_u64().unwrap(), expected, "{event}");
        (told, expected) = (told + 1, expected + 1);
        if event["kind"] == "project.added" && event["project_id"] == "last" {
            break;
        }
    }
    assert!(
        lagged > 0,
        "it read {told} events and missed none: the daemon kept everything for it"
    );
}

#[test]
fn a_snapshot_joins_the_stream_without_a_seam() {
    let world = World::with_project("alpha").project("bad", "projecct: 1\n");
    let daemon = world.start();
    let mut events = daemon.events(json!({"snapshot": true}));
    let snapshot = events.receive();
    assert_eq!(snapshot["kind"], "events.snapshot");
    let data = &snapshot["data"];
    assert_eq!(data["projects"], daemon.ok("list_projects", json!({})));
    assert_eq!(
        data["broken"],
        daemon.ok("discover_projects", json!({}))["broken"]
    );
    assert_eq!(
        (&data["tasks"], &data["operations"], &data["panicked"]),
        (&json!([]), &json!([]), &json!(false))
    );
    assert!(data["vault"]["locked"].is_boolean());
    add(&world, "beta");
    let next = events.receive();
    assert_eq!(
        next["seq"].as_u64().unwrap(),
        snapshot["seq"].as_u64().unwrap() + 1
    );
    let mut cut = daemon.events(json!({"snapshot": true, "projects": ["alpha"]}));
    let cut = cut.receive();
    assert_eq!(cut["data"]["projects"].as_array().unwrap().len(), 1);
    assert_eq!(cut["data"]["broken"], json!([]));
}

/// While projects come and go, every snapshot plus the events after it must give the same state.
#[test]
fn snapshots_are_consistent_under_change() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let watchers: Vec<Events> = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..40 {
                add(&world, &format!("p{n}"));
                if n % 3 == 2 {
                    std::fs::remove_dir_all(world.path(&format!("$CONFIG/projects/p{}", n - 1)))
                        .unwrap();
                }
            }
        });
        let mut watchers = Vec::new();
        while !writer.is_finished() {
            watchers.push(daemon.events(json!({"snapshot": true})));
            daemon.ok("daemon.reload", json!({}));
        }
        watchers
    });
    add(&world, "zz-last");
    daemon.ok("daemon.reload", json!({}));
    let listed = daemon.ok("list_projects", json!({}));
    let want: HashSet<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    for mut watcher in watchers {
        let snapshot = watcher.receive();
        let mut have: HashSet<String> = snapshot["data"]["projects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["id"].as_str().unwrap().to_owned())
            .collect();
        loop {
            let event = watcher.receive();
            let id = event["project_id"].as_str().unwrap_or_default().to_owned();
            match event["kind"].as_str().unwrap() {
                "project.added" => assert!(have.insert(id), "added twice: {event}"),
                "project.removed" => assert!(have.remove(&id), "removed twice: {event}"),
                _ => {}
            }
            if event["project_id"] == "zz-last" {
                break;
            }
        }
        assert_eq!(
            have.iter().map(String::as_str).collect::<HashSet<_>>(),
            want
        );
    }
}

#[test]
fn filters_hold_back_everything_else() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut by_project = daemon.events(json!({"projects": ["beta"]}));
    let mut by_kind = daemon.events(json!({"kinds": ["project.broken"]}));
    add(&world, "gamma");
    add(&world, "beta");
    world.write("$CONFIG/projects/alpha/project.yml", "nonsense: 1\n");
    let event = by_project.receive();
    assert_eq!(
        (&event["kind"], &event["project_id"]),
        (&json!("project.added"), &json!("beta"))
    );
    let event = by_kind.receive();
    assert_eq!(
        (&event["kind"], &event["project_id"]),
        (&json!("project.broken"), &json!("alpha"))
    );
    daemon.fails(
        "events.subscribe",
        json!({"kinds": ["no.such"]}),
        "invalid_argument",
    );
}

#[test]
fn an_ended_subscription_is_silent() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({}));
    events.unsubscribe();
    let mut witness = daemon.events(json!({}));
    add(&world, "beta");
    witness.next_of("project.added");
    let id = events.client.send("panic.status", json!({}));
    let next = events.client.message().unwrap();
    assert_eq!(next["id"], id, "nothing comes after the end: {next}");
    let unknown = events
        .client
        .ok("events.unsubscribe", json!({"subscription": "unknown"}));
    assert_eq!(unknown, json!(false));
}

#[test]
fn subscriptions_of_one_connection_are_apart() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut client = daemon.connect();
    let both: HashSet<String> = (0..2)
        .map(|_| {
            client
                .ok("events.subscribe", json!({"kinds": ["project.added"]}))
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(both.len(), 2);
    add(&world, "beta");
    let told: HashSet<String> = (0..2)
        .map(|_| {
            client.notification()["params"]["subscription"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(told, both);
}

#[test]
fn many_watchers_see_the_same() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut watchers: Vec<Events> = (0..50)
        .map(|_| daemon.events(json!({"kinds": ["project.added"]})))
        .collect();
    for n in 0..10 {
        add(&world, &format!("p{n}"));
    }
    let seen: Vec<Vec<Value>> = watchers
        .iter_mut()
        .map(|w| (0..10).map(|_| w.receive()).collect())
        .collect();
    for other in &seen[1..] {
        assert_eq!(other, &seen[0]);
    }
}
