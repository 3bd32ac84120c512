//! Long work: detaching, joining, cancelling, and honesty after a restart (rpc.md §3.2).

use serde_json::{Value, json};
use terok_tests::{Daemon, World, eventually};

const ONLINE: &str = "project: {security_class: online}\n";

fn finished(daemon: &Daemon, id: &Value) -> Value {
    eventually("the operation ends", || {
        let operation = daemon.ok("operation.get", json!({"id": id}));
        ["succeeded", "failed", "cancelled"]
            .iter()
            .any(|s| operation["state"] == *s)
            .then_some(operation)
    })
}

#[test]
fn an_operation_answers_with_its_methods_result() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["operation.started", "operation.finished"]}));
    let result = daemon.ok("delete_project", json!({"project_id": "alpha"}));
    let started = events.next_of("operation.started");
    let ended = events.next_of("operation.finished");
    assert_eq!(started["operation_id"], ended["operation_id"]);
    assert_eq!(
        (&started["project_id"], &started["data"]["method"]),
        (&json!("alpha"), &json!("delete_project"))
    );
    assert_eq!(
        (&ended["data"]["state"], &ended["data"]["result"]),
        (&json!("succeeded"), &result)
    );
    let kept = daemon.ok("operation.get", json!({"id": started["operation_id"]}));
    assert_eq!(kept, ended["data"]);
    assert!(kept["finished_at"].as_str() >= kept["started_at"].as_str());
}

#[test]
fn a_detached_operation_answers_at_once() {
    let world = World::with_project("alpha").project("beta", ONLINE);
    let daemon = world.start();
    let id = daemon.ok(
        "delete_project",
        json!({"project_id": "alpha", "detach": true}),
    )["operation_id"]
        .clone();
    let operation = finished(&daemon, &id);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(operation["result"]["archive"].is_string(), "{operation}");
    daemon.fails(
        "get_project",
        json!({"project_id": "alpha"}),
        "project_not_found",
    );
    // A detached failure is a failed operation, or is told at once; it is never lost.
    match daemon.call(
        "delete_project",
        json!({"project_id": "no-such", "detach": true}),
    ) {
        Ok(detached) => {
            let operation = finished(&daemon, &detached["operation_id"]);
            assert_eq!(
                operation["error"]["data"]["kind"], "project_not_found",
                "{operation}"
            );
        }
        Err(error) => assert_eq!(error.kind(), "project_not_found"),
    }
}

#[test]
fn a_disconnect_cancels_nothing() {
    let world = World::with_project("alpha");
    for n in 0..300 {
        world.write(&format!("$CONFIG/projects/alpha/f{n}"), "x".repeat(2000));
    }
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["operation.finished"]}));
    let mut client = daemon.connect();
    client.send("delete_project", json!({"project_id": "alpha"}));
    drop(client);
    assert_eq!(events.receive()["data"]["state"], "succeeded");
    assert!(!world.path("$CONFIG/projects/alpha").exists());
}

#[test]
fn the_same_request_id_replays() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let call = json!({"project_id": "alpha", "request_id": "r-1"});
    let first = daemon.ok("delete_project", call.clone());
    assert_eq!(
        daemon.ok("delete_project", call),
        first,
        "the second call must not look for the project again"
    );
    daemon.fails(
        "delete_project",
        json!({"project_id": "other", "request_id": "r-1"}),
        "invalid_argument",
    );
    // Side by side: one of them does the work.
    world.write("$CONFIG/projects/beta/project.yml", ONLINE);
    daemon.ok("daemon.reload", json!({}));
    let params = json!({"source_id": "beta", "new_id": "gamma", "request_id": "r-2"});
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| daemon.connect().ok("derive_project", params.clone())))
            .collect();
        calls.into_iter().map(|c| c.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    let too_long = "x".repeat(65);
    daemon.fails(
        "derive_project",
        json!({"source_id": "beta", "new_id": "delta", "request_id": too_long}),
        "invalid_argument",
    );
}

#[test]
fn a_replayed_failure_is_the_same_failure() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let call = json!({"source_id": "alpha", "new_id": "Bad", "request_id": "r"});
    let first = daemon.fails("derive_project", call.clone(), "invalid_project_id");
    assert_eq!(
        daemon.fails("derive_project", call, "invalid_project_id"),
        first
    );
}

#[test]
fn request_ids_are_for_what_changes_something() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    daemon.fails(
        "list_projects",
        json!({"request_id": "r"}),
        "invalid_params",
    );
    daemon.fails(
        "derive_project",
        json!({"source_id": "alpha", "new_id": "b", "detach": true}),
        "invalid_params",
    );
    daemon.fails(
        "delete_project",
        json!({"project_id": "alpha", "detach": "yes"}),
        "invalid_params",
    );
}

#[test]
fn operations_can_be_followed() {
    let world = World::with_project("alpha");
    for n in 0..500 {
        world.write(&format!("$CONFIG/projects/alpha/f{n}"), "x".repeat(2000));
    }
    let daemon = world.start();
    let mut client = daemon.connect();
    let id = client.ok(
        "delete_project",
        json!({"project_id": "alpha", "detach": true}),
    )["operation_id"]
        .clone();
    let subscription = client.ok("operation.subscribe", json!({"id": id}));
    loop {
        let update = client.notification();
        assert_eq!(update["method"], "operation.update");
        assert_eq!(update["params"]["subscription"], subscription);
        if update.to_string().contains("succeeded") {
            break;
        }
    }
    client.fails(
        "operation.subscribe",
        json!({"id": "no-such"}),
        "operation_not_found",
    );
}

#[test]
fn operations_are_listed_newest_first() {
    let world = World::with_project("alpha").project("beta", ONLINE);
    let daemon = world.start();
    for id in ["alpha", "beta", "alpha"] {
        daemon.ok("delete_project", json!({"project_id": id, "dry_run": true}));
    }
    let all = daemon.ok("operation.list", json!({}));
    let projects: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["project_id"].as_str().unwrap())
        .collect();
    assert_eq!(projects, ["alpha", "beta", "alpha"]);
    assert_eq!(
        daemon
            .ok("operation.list", json!({"project_id": "beta"}))
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        daemon.ok("operation.list", json!({"state": "failed"})),
        json!([])
    );
    daemon.fails(
        "operation.list",
        json!({"state": "nonsense"}),
        "invalid_params",
    );
    daemon.fails(
        "operation.get",
        json!({"id": "no-such"}),
        "operation_not_found",
    );
    daemon.fails(
        "operation.cancel",
        json!({"id": "../../etc"}),
        "operation_not_found",
    );
}

#[test]
fn a_cancel_ends_an_operation_or_comes_too_late() {
    let world = World::with_project("alpha");
    for n in 0..2000 {
        world.write(
            &format!("$CONFIG/projects/alpha/d{}/f{n}", n % 20),
            "x".repeat(4000),
        );
    }
    let daemon = world.start();
    let id = daemon.ok(
        "delete_project",
        json!({"project_id": "alpha", "detach": true}),
    )["operation_id"]
        .clone();
    daemon.ok("operation.cancel", json!({"id": id}));
    let operation = finished(&daemon, &id);
    match operation["state"].as_str().unwrap() {
        "cancelled" => {
            assert_eq!(
                operation["error"]["data"]["kind"], "cancelled",
                "{operation}"
            );
            daemon.ok("get_project", json!({"project_id": "alpha"}));
            assert!(world.path("$CONFIG/projects/alpha/d0/f0").exists());
        }
        "succeeded" => assert!(!world.path("$CONFIG/projects/alpha").exists()),
        other => panic!("{other}: {operation}"),
    }
    // Cancelling what is over changes nothing.
    assert_eq!(daemon.ok("operation.cancel", json!({"id": id})), operation);
}

#[test]
fn a_cancel_request_of_an_editor_reaches_the_call() {
    let world = World::with_project("alpha");
    for n in 0..2000 {
        world.write(
            &format!("$CONFIG/projects/alpha/d{}/f{n}", n % 20),
            "x".repeat(4000),
        );
    }
    let daemon = world.start();
    let mut client = daemon.connect_lsp();
    let id = client.send("delete_project", json!({"project_id": "alpha"}));
    let cancel = json!({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id}});
    terok_tests::transport::Transport::send(&mut client.transport, &cancel.to_string());
    match client.answer(id) {
        Ok(_) => assert!(!world.path("$CONFIG/projects/alpha").exists()),
        Err(error) => {
            assert_eq!(error.kind(), "cancelled");
            assert!(world.path("$CONFIG/projects/alpha/project.yml").exists());
        }
    }
}

#[test]
fn what_names_no_project_leaves_no_operation() {
    let world = World::new();
    let daemon = world.start();
    for method in [
        "delete_project",
        "project.delete",
        "project.build_images",
        "project.generate_dockerfiles",
        "project.gate.sync",
        "polling.poll_now",
    ] {
        let params = json!({"project_id": "../x".repeat(1000)});
        daemon.fails(method, params, "invalid_project_id");
    }
    assert_eq!(daemon.ok("operation.list", json!({})), json!([]));
}

#[test]
fn records_survive_a_restart() {
    let world = World::with_project("alpha");
    let mut daemon = world.start();
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
    let before = daemon.ok("operation.list", json!({}));
    daemon.kill9();
    let daemon = world.start();
    assert_eq!(daemon.ok("operation.list", json!({})), before);
    let state = world.path("$DATA/core/terokd");
    let mode = |p: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&p.metadata().unwrap().permissions()) & 0o777
    };
    assert_eq!(
        (mode(&state), mode(&state.join("state.db"))),
        (0o700, 0o600)
    );
}

#[test]
fn a_damaged_journal_does_not_stop_the_daemon_from_saying_so() {
    let world = World::with_project("alpha").file(
        "$DATA/core/terokd/state.db",
        "this is not a database at all, but it is long enough to be looked at",
    );
    let mut daemon = Daemon::spawn(&world, |_| {});
    match daemon.wait_ready() {
        Ok(()) => {
            daemon.ok("list_projects", json!({}));
        }
        Err(status) => {
            daemon.forgive();
            assert_eq!(status.code(), Some(1), "{}", daemon.log());
            assert!(daemon.log().contains("state.db"), "{}", daemon.log());
        }
    }
}
