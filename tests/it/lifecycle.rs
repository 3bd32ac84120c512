//! Deletion and derivation as transactions: killed at every step, and what others may do meanwhile.

mod rules;
mod tree;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Instant;
use terok_tests::programs::checkout;
use terok_tests::{Daemon, Events, World, eventually};
use tree::{Tree, archives, no_leftovers, read_archive};

const ONLINE: &str = "project: {security_class: online}\n";

/// Directories that are the project's own, the one that decides first.
const ROOTS: &[&str] = &[
    "$CONFIG/projects/alpha",
    "$DATA/core/projects/alpha",
    "$DATA/core/build/alpha",
    "$DATA/sandbox-live/tasks/alpha",
    "$DATA/sandbox/gate/alpha.git",
    "$DATA/archive/alpha",
];

/// Where a deletion can be killed before the project's directory is renamed: it is undone.
const UNDONE: &[&str] = &[
    "operation.recorded",
    "delete.planned",
    "delete.journal_written",
    "delete.archive_written",
    "delete.archive_verified",
    "delete.archived",
    "delete.committing",
];

/// Where it can be killed afterwards: it is finished.
const FINISHED: &[&str] = &[
    "delete.renamed_config",
    "delete.renamed_all",
    "delete.leftovers_recorded",
    "delete.removed_one",
    "delete.removed_all",
    "delete.result_recorded",
    "delete.journal_removed",
    "operation.done",
];

const DERIVE: &[&str] = &[
    "derive.staged",
    "derive.written",
    "derive.copied",
    "derive.renaming",
    "derive.renamed",
];

const WRITE: &[&str] = &["file.written"];

/// Two projects, one of them with everything that a project can own.
fn rich_world() -> World {
    let world = World::new()
        .project("alpha", ONLINE)
        .project("bystander", ONLINE)
        .file("$CONFIG/projects/alpha/presets/x.yml", "model: x\n")
        .file("$DATA/core/projects/alpha/tasks/t1.yml", "a: 1\n")
        .file("$DATA/core/build/alpha/L0.Dockerfile", "FROM x\n")
        .file("$DATA/sandbox-live/tasks/alpha/t1/big", "data")
        .file("$DATA/sandbox-live/tasks/bystander/t1/big", "data")
        .file("$DATA/archive/alpha/t0/log", "old\n")
        .file("$DATA/archive/20200101T000000000000Z_other.tar.gz", "mine");
    bare_repository(&world, "$DATA/sandbox/gate/alpha.git");
    bare_repository(&world, "$DATA/sandbox/gate/bystander.git");
    world.link("$CONFIG/projects/alpha/link", "$HOME");
    world
}

fn bare_repository(world: &World, path: &str) {
    world.write(&format!("{path}/HEAD"), "ref: refs/heads/main\n");
    let config = "[core]\n\tbare = true\n\trepositoryformatversion = 0\n";
    world.write(&format!("{path}/config"), config);
    world.mkdirs(&world.path(&format!("{path}/objects")));
    world.mkdirs(&world.path(&format!("{path}/refs")));
}

/// Starts a daemon that dies at `point`.
fn doomed(world: &World, point: &str) -> Daemon {
    world.start_with(|command| {
        command.env("TEROKD_CRASH_AT", point);
    })
}

/// Waits until it has died there.
fn died(mut daemon: Daemon, point: &str) {
    let status = daemon.wait();
    assert_eq!(
        status.signal(),
        Some(6),
        "{point} was not reached: {status}\n{}",
        daemon.log()
    );
}

/// Waits until the restarted daemon has finished what it found.
fn settled(world: &World, daemon: &Daemon) {
    let journals = world.path("$DATA/core/terokd/deletions");
    let left = || -> Vec<_> {
        let dir = fs::read_dir(&journals).into_iter().flatten().flatten();
        dir.map(|entry| entry.path()).collect()
    };
    eventually("deletions are resumed", || {
        let status = daemon.ok("daemon.status", json!({}));
        (status["operations"]["running"] == 0).then_some(())
    });
    assert_eq!(left(), Vec::<PathBuf>::new());
    daemon.ok("daemon.reload", json!({}));
}

/// The only operation about the project, which must have an end.
fn record(daemon: &Daemon, what: &str) -> Value {
    let all = daemon.ok("operation.list", json!({"project_id": "alpha"}));
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 1, "{what}: {all:?}");
    assert!(all[0]["finished_at"].is_string(), "{what}: {all:?}");
    all[0].clone()
}

/// All or nothing; disk, registry and the operation's record agree. True if the project is there.
fn all_or_nothing(world: &World, daemon: &Daemon, before: &Tree, what: &str) -> bool {
    let after = Tree::of(world);
    let is_there = world.path(ROOTS[0]).symlink_metadata().is_ok();
    let operation = record(daemon, what);
    let known = daemon.call("get_project", json!({"project_id": "alpha"}));
    no_leftovers(world, what);
    if is_there {
        assert_eq!(before.difference(&after), Vec::<String>::new(), "{what}");
        assert_eq!(known.expect(what)["id"], "alpha", "{what}");
        assert_eq!(
            (&operation["state"], &operation["error"]["data"]["kind"]),
            (&json!("failed"), &json!("interrupted")),
            "{what}: {operation}"
        );
        assert!(archives(world).is_empty(), "{what}: an archive stayed");
    } else {
        let expected = before.without(world, ROOTS);
        assert_eq!(expected.difference(&after), Vec::<String>::new(), "{what}");
        assert_eq!(known.expect_err(what).kind(), "project_not_found", "{what}");
        let archives = archives(world);
        assert_eq!(archives.len(), 1, "{what}: {archives:?}");
        let archived = read_archive(&archives[0]);
        for (member, text) in [
            ("config/project.yml", ONLINE),
            ("config/presets/x.yml", "model: x\n"),
            ("state/tasks/t1.yml", "a: 1\n"),
            ("build/L0.Dockerfile", "FROM x\n"),
            ("task-archives/t0/log", "old\n"),
        ] {
            let found = archived.get(member).map(String::as_str);
            assert_eq!(found, Some(text), "{what}: {member}");
        }
        assert_eq!(operation["state"], "succeeded", "{what}: {operation}");
        let told = &operation["result"]["archive"];
        assert_eq!(told.as_str(), archives[0].to_str(), "{what}: {operation}");
        let deleted = world.symbolic(&operation["result"]["deleted"]);
        for root in ROOTS.iter().filter(|root| **root != "$DATA/archive/alpha") {
            let list = deleted.as_array().unwrap();
            assert!(
                list.contains(&json!(root)),
                "{what}: {root} is not told: {deleted}"
            );
        }
    }
    daemon.ok("get_project", json!({"project_id": "bystander"}));
    is_there
}

/// What can be done once the daemon is back: delete it now, or use the name again and delete that.
fn a_second_attempt_works(world: &World, daemon: &Daemon, what: &str) {
    if world.path(ROOTS[0]).exists() {
        daemon.ok("delete_project", json!({"project_id": "alpha"}));
        assert!(!world.path(ROOTS[0]).exists(), "{what}");
    }
    let again = json!({"source_id": "bystander", "new_id": "alpha"});
    daemon.ok("derive_project", again);
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
    for archive in archives(world) {
        read_archive(&archive);
    }
    no_leftovers(world, what);
}

/// Kills a deletion at each of the points; afterwards the project must be there, or not.
fn kill_deletions(points: &[&str], there: bool) {
    for point in points {
        let world = rich_world();
        let daemon = doomed(&world, point);
        let before = Tree::of(&world);
        let mut client = daemon.connect();
        client.send("delete_project", json!({"project_id": "alpha"}));
        died(daemon, point);
        let daemon = world.start();
        settled(&world, &daemon);
        let what = format!("killed at {point}");
        assert_eq!(
            all_or_nothing(&world, &daemon, &before, &what),
            there,
            "{what}"
        );
        a_second_attempt_works(&world, &daemon, &what);
    }
}

#[test]
fn a_deletion_killed_before_the_first_rename_is_undone() {
    kill_deletions(UNDONE, true);
}

#[test]
fn a_deletion_killed_after_the_first_rename_is_finished() {
    kill_deletions(FINISHED, false);
}

#[test]
fn a_restart_that_is_killed_itself_is_restarted() {
    for (first, second) in [
        ("delete.renamed_config", "delete.renamed_all"),
        ("delete.renamed_all", "delete.removed_one"),
        ("delete.removed_one", "delete.result_recorded"),
        ("delete.removed_one", "delete.journal_removed"),
        ("delete.removed_all", "operation.done"),
    ] {
        let what = format!("killed at {first}, then at {second}");
        let world = rich_world();
        let daemon = doomed(&world, first);
        let before = Tree::of(&world);
        let mut client = daemon.connect();
        client.send("delete_project", json!({"project_id": "alpha"}));
        died(daemon, first);
        // It may die before it says that it is ready.
        died(
            Daemon::spawn(&world, |command| {
                command.env("TEROKD_CRASH_AT", second);
            }),
            second,
        );
        let daemon = world.start();
        settled(&world, &daemon);
        assert!(!all_or_nothing(&world, &daemon, &before, &what), "{what}");
    }
}

#[test]
fn a_derivation_that_is_killed_is_there_or_not() {
    for point in DERIVE {
        let world = World::new()
            .project("src", "project: {id: src, security_class: online}\n")
            .file("$CONFIG/projects/src/instructions.md", "x\n")
            .file("$CONFIG/projects/src/presets/p.yml", "model: x\n");
        let daemon = doomed(&world, point);
        let before = Tree::of(&world);
        let params = json!({"source_id": "src", "new_id": "new", "copy": ["presets"]});
        daemon.connect().send("derive_project", params.clone());
        died(daemon, point);
        let daemon = world.start();
        settled(&world, &daemon);
        eventually("what was staged is cleared away", || {
            tree::leftovers(&world).is_empty().then_some(())
        });
        let new = world.path("$CONFIG/projects/new");
        let known = daemon.call("get_project", json!({"project_id": "new"}));
        assert_eq!(
            new.exists(),
            *point == "derive.renamed",
            "{point}: there or not"
        );
        if new.exists() {
            assert_eq!(known.expect(point)["id"], "new", "{point}");
            daemon.fails("derive_project", params, "already_exists");
        } else {
            let changed = before.difference(&Tree::of(&world));
            assert_eq!(changed, Vec::<String>::new(), "{point}");
            assert_eq!(known.expect_err(point).kind(), "project_not_found");
            daemon.ok("derive_project", params);
        }
        for path in ["project.yml", "instructions.md", "presets/p.yml"] {
            assert!(new.join(path).exists(), "{point}: {path} is missing");
        }
        let unchanged = Tree::of(&world).without(&world, &["$CONFIG/projects/new"]);
        assert_eq!(before.difference(&unchanged), Vec::<String>::new());
    }
}

#[test]
fn a_write_that_is_killed_leaves_the_old_file_and_nothing_beside_it() {
    for point in WRITE {
        let world = World::with_project("alpha");
        world.write("$HOME/real/project.yml", ONLINE);
        world.link(
            "$CONFIG/projects/linked/project.yml",
            "$HOME/real/project.yml",
        );
        for (id, dir) in [
            ("alpha", "$CONFIG/projects/alpha"),
            ("linked", "$HOME/real"),
        ] {
            let daemon = doomed(&world, point);
            let before = Tree::of(&world);
            let text = "project: {security_class: online, name: new}\n";
            let params = json!({"project_id": id, "text": text});
            daemon.connect().send("project.write_yaml", params.clone());
            died(daemon, point);
            let files = || fs::read_dir(world.path(dir)).unwrap().count();
            assert_eq!(files(), 2, "{id}: the test kills where something is left");
            let daemon = world.start();
            let changed = before.difference(&Tree::of(&world));
            assert_eq!(changed, Vec::<String>::new(), "{id}");
            daemon.ok("project.write_yaml", params);
            assert_eq!(files(), 1, "{id}");
        }
    }
}

#[test]
fn every_point_of_the_sources_is_tried() {
    let mut found = BTreeSet::new();
    let mut open = vec![checkout().join("terokd/src")];
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let points = text.split("crash::point(\"").skip(1);
            found.extend(points.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let tried: BTreeSet<String> = [UNDONE, FINISHED, DERIVE, WRITE]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(found, tried);
}

/// Begins a deletion; returns once it is recorded, with the events from then on.
fn begin_deletion(daemon: &Daemon) -> Events {
    let mut events = daemon.events(json!({"kinds": ["operation.started", "operation.finished"]}));
    let mut client = daemon.connect();
    client.send("delete_project", json!({"project_id": "alpha"}));
    events.next_of("operation.started");
    events
}

#[test]
fn kills_at_any_moment_leave_all_or_nothing() {
    let world = rich_world();
    let daemon = world.start();
    let mut events = begin_deletion(&daemon);
    let begun = Instant::now();
    events.next_of("operation.finished");
    let whole = begun.elapsed();
    for n in 0..30 {
        let world = rich_world();
        let mut daemon = world.start();
        let before = Tree::of(&world);
        let _events = begin_deletion(&daemon);
        // Not a wait for anything: moments spread over the time that a deletion takes.
        std::thread::park_timeout(whole * n / 25);
        daemon.kill9();
        let daemon = world.start();
        settled(&world, &daemon);
        let what = format!("killed {n}/25 on the way");
        all_or_nothing(&world, &daemon, &before, &what);
    }
}
