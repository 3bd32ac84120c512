//! `kill -9` at every step of delete and derive: after a restart a project is fully there or fully gone.

use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use terok_tests::programs::checkout;
use terok_tests::{Daemon, World, eventually};

const ONLINE: &str = "project: {security_class: online}\n";

/// Everything that belongs to the project, and one file in each.
const BELONGINGS: &[&str] = &[
    "$CONFIG/projects/alpha/project.yml",
    "$CONFIG/projects/alpha/presets/x.yml",
    "$DATA/core/projects/alpha/tasks/t1.yml",
    "$DATA/core/build/alpha/L0.Dockerfile",
    "$DATA/sandbox-live/tasks/alpha/t1/workspace-dangerous/big",
    "$DATA/sandbox/gate/alpha.git/HEAD",
];

fn rich_world() -> World {
    let world = World::new()
        .project("alpha", ONLINE)
        .project("bystander", ONLINE);
    for path in &BELONGINGS[1..5] {
        world.write(path, "model: x\n");
    }
    world.write(
        "$DATA/sandbox/gate/alpha.git/HEAD",
        "ref: refs/heads/main\n",
    );
    world.write(
        "$DATA/sandbox/gate/alpha.git/config",
        "[core]\n\tbare = true\n\trepositoryformatversion = 0\n",
    );
    world.mkdirs(&world.path("$DATA/sandbox/gate/alpha.git/objects"));
    world.mkdirs(&world.path("$DATA/sandbox/gate/alpha.git/refs"));
    world
}

/// Names of the points that the sources declare, so that a new one cannot be forgotten here.
fn crash_points(prefix: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![checkout().join("terokd/src")];
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.split("crash::point(\"").skip(1) {
                found.insert(rest.split('"').next().unwrap().to_owned());
            }
        }
    }
    let found: Vec<String> = found
        .into_iter()
        .filter(|p| p.starts_with(prefix))
        .collect();
    assert!(!found.is_empty(), "no point begins with {prefix}");
    found
}

/// Waits until the restarted daemon has finished what it found.
fn settled(world: &World, daemon: &Daemon) {
    let journals = world.path("$DATA/core/terokd/deletions");
    eventually("deletions are resumed", || {
        let left = fs::read_dir(&journals)
            .map(|dir| dir.flatten().count())
            .unwrap_or(0);
        let running = daemon.ok("daemon.status", json!({}))["operations"]["running"].as_u64();
        (left == 0 && running == Some(0)).then_some(())
    });
    daemon.ok("daemon.reload", json!({}));
}

/// Names below a directory that only a half-done deletion or derivation leaves.
fn leftovers(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.contains(".deleting-") || name.ends_with(".partial") || name.starts_with('.') {
            found.push(entry.path().display().to_string());
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

fn no_leftovers(world: &World, what: &str) {
    for dir in ["$CONFIG", "$DATA"] {
        let left = leftovers(&world.path(dir));
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

/// All or nothing, and the daemon agrees with the disk. True if the project is there.
fn all_or_nothing(world: &World, daemon: &Daemon, what: &str) -> bool {
    let there: Vec<&&str> = BELONGINGS
        .iter()
        .filter(|p| world.path(p).exists())
        .collect();
    let known = daemon
        .connect()
        .unchecked("get_project", json!({"project_id": "alpha"}));
    if there.is_empty() {
        assert_eq!(known.expect_err(what).kind(), "project_not_found", "{what}");
    } else {
        assert_eq!(
            there.len(),
            BELONGINGS.len(),
            "{what}: only these are left: {there:?}"
        );
        known.expect(what);
    }
    no_leftovers(world, what);
    daemon.ok("get_project", json!({"project_id": "bystander"}));
    let running = daemon.ok("operation.list", json!({"state": "running"}));
    assert_eq!(running, json!([]), "{what}");
    !there.is_empty()
}

fn archives(world: &World) -> Vec<std::path::PathBuf> {
    let dir = fs::read_dir(world.path("$DATA/archive"))
        .into_iter()
        .flatten()
        .flatten();
    dir.map(|e| e.path())
        .filter(|p| p.to_str().unwrap().ends_with("_alpha.tar.gz"))
        .collect()
}

fn recover(world: &World, what: &str) {
    let daemon = world.start();
    settled(world, &daemon);
    if all_or_nothing(world, &daemon, what) {
        daemon.ok("delete_project", json!({"project_id": "alpha"}));
        assert!(!world.path("$CONFIG/projects/alpha").exists(), "{what}");
    }
    let archives = archives(world);
    assert!(!archives.is_empty(), "{what}: gone without an archive");
    for archive in archives {
        let tested = std::process::Command::new("tar")
            .arg("-tzf")
            .arg(&archive)
            .output()
            .unwrap();
        assert!(
            tested.status.success(),
            "{what}: {} is damaged",
            archive.display()
        );
    }
    // The name is free again.
    daemon.ok(
        "derive_project",
        json!({"source_id": "bystander", "new_id": "alpha"}),
    );
}

#[test]
fn a_deletion_that_is_killed_is_finished_or_undone() {
    let mut points = crash_points("delete.");
    points.extend(crash_points("operation."));
    for point in points {
        let world = rich_world();
        let mut daemon = world.start_with(|command| {
            command.env("TEROKD_CRASH_AT", &point);
        });
        daemon
            .connect()
            .send("delete_project", json!({"project_id": "alpha"}));
        let crashed = eventually("the daemon dies or finishes", || {
            if daemon.try_wait().is_some() {
                return Some(true);
            }
            let operations = terok_tests::Client::connect(daemon.socket());
            drop(operations);
            (!world.path("$CONFIG/projects/alpha").exists()
                && leftovers(&world.path("$DATA")).is_empty())
            .then_some(false)
        });
        if crashed {
            daemon.forgive();
        } else {
            // A point behind the visible end: it may still come.
            daemon.kill9();
        }
        drop(daemon);
        recover(&world, &format!("killed at {point}"));
    }
}

#[test]
fn a_derivation_that_is_killed_is_there_or_not() {
    for point in crash_points("derive.") {
        let world = World::new()
            .project("src", "project: {id: src, security_class: online}\n")
            .file("$CONFIG/projects/src/instructions.md", "x\n")
            .file("$CONFIG/projects/src/presets/p.yml", "model: x\n");
        let mut daemon = world.start_with(|command| {
            command.env("TEROKD_CRASH_AT", &point);
        });
        let params = json!({"source_id": "src", "new_id": "new", "copy": ["presets"]});
        daemon.connect().send("derive_project", params.clone());
        let status = daemon.wait();
        assert!(!status.success(), "{point} was not reached");
        drop(daemon);
        let daemon = world.start();
        daemon.ok("daemon.reload", json!({}));
        match daemon.call("derive_project", params) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), "already_exists", "{point}: {error:?}"),
        }
        for path in ["project.yml", "instructions.md", "presets/p.yml"] {
            assert!(
                world.path(&format!("$CONFIG/projects/new/{path}")).exists(),
                "{point}: {path} is missing"
            );
        }
        assert_eq!(
            daemon.ok("get_project", json!({"project_id": "new"}))["id"],
            "new"
        );
        eventually("what was staged is cleared away", || {
            leftovers(&world.path("$CONFIG")).is_empty().then_some(())
        });
    }
}

#[test]
fn kills_at_any_moment_leave_all_or_nothing() {
    for moment in 0..8 {
        let world = rich_world();
        for n in 0..200 {
            world.write(
                &format!("$CONFIG/projects/alpha/files/f{n}"),
                "x".repeat(3000),
            );
        }
        let mut daemon = world.start();
        let mut events = daemon.events(json!({"projects": ["alpha"]}));
        daemon
            .connect()
            .send("delete_project", json!({"project_id": "alpha"}));
        for _ in 0..moment {
            if events.receive()["kind"] == "operation.finished" {
                break;
            }
        }
        daemon.kill9();
        drop(daemon);
        let daemon = world.start();
        settled(&world, &daemon);
        all_or_nothing(&world, &daemon, &format!("killed after event {moment}"));
    }
}

#[test]
fn an_interrupted_operation_is_told_as_what_it_was() {
    let world = rich_world();
    let mut daemon = world.start_with(|command| {
        command.env("TEROKD_CRASH_AT", "delete.committing");
    });
    let id = daemon.ok(
        "delete_project",
        json!({"project_id": "alpha", "detach": true}),
    )["operation_id"]
        .clone();
    daemon.wait();
    drop(daemon);
    let daemon = world.start();
    settled(&world, &daemon);
    let operation = daemon.ok("operation.get", json!({"id": id}));
    let gone = !world.path("$CONFIG/projects/alpha").exists();
    match operation["state"].as_str().unwrap() {
        "succeeded" => assert!(gone, "{operation}"),
        "failed" => {
            assert_eq!(
                operation["error"]["data"]["kind"], "interrupted",
                "{operation}"
            );
            assert!(!gone, "{operation}");
        }
        other => panic!("{other}: {operation}"),
    }
}
