//! What a deletion waits for, refuses, and keeps others from.

use super::tree::{Tree, archives, no_leftovers};
use super::{ROOTS, rich_world};
use serde_json::{Value, json};
use terok_tests::{Daemon, Hold, World, eventually};

/// A world in which deletions stop between the archive and the first rename.
fn held_world() -> (World, Hold) {
    Hold::at(rich_world(), "delete.archived")
}

/// Starts a deletion, and returns once it is held there.
fn archiving(daemon: &Daemon, hold: &mut Hold) -> Value {
    let mut events = daemon.events(json!({"kinds": ["operation.progress"]}));
    let params = json!({"project_id": "alpha", "detach": true});
    let id = daemon.ok("delete_project", params)["operation_id"].clone();
    let progress = events.receive();
    assert_eq!(
        (&progress["operation_id"], &progress["data"]["phase"]),
        (&id, &json!("archiving"))
    );
    hold.wait();
    id
}

fn ended(daemon: &Daemon, id: &Value) -> Value {
    eventually("the operation ends", || {
        let operation = daemon.ok("operation.get", json!({"id": id}));
        operation["finished_at"].is_string().then_some(operation)
    })
}

#[test]
fn a_cancel_before_the_first_rename_leaves_everything() {
    let (world, mut hold) = held_world();
    let daemon = world.start();
    let before = Tree::of(&world);
    let id = archiving(&daemon, &mut hold);
    daemon.ok("operation.cancel", json!({"id": id}));
    hold.release();
    let operation = ended(&daemon, &id);
    assert_eq!(
        (&operation["state"], &operation["error"]["data"]["kind"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{operation}"
    );
    assert_eq!(before.difference(&Tree::of(&world)), Vec::<String>::new());
    assert!(archives(&world).is_empty());
    no_leftovers(&world, "cancelled");
    // It is as it was in the registry too, and can be deleted after all.
    daemon.ok("get_project", json!({"project_id": "alpha"}));
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
    assert!(!world.path(ROOTS[0]).exists());
}

#[test]
fn a_project_that_is_being_deleted_is_busy() {
    let (world, mut hold) = held_world();
    let daemon = world.start();
    let id = archiving(&daemon, &mut hold);
    for (method, params) in [
        ("delete_project", json!({"project_id": "alpha"})),
        (
            "set_project_image_agents",
            json!({"project_id": "alpha", "selection": "claude"}),
        ),
        (
            "project.write_yaml",
            json!({"project_id": "alpha", "text": "project: {security_class: gatekeeping}\n"}),
        ),
        (
            "write_project_yaml",
            json!({"project_id": "alpha", "rendered": "x: 1\n", "overwrite": true}),
        ),
        (
            "derive_project",
            json!({"source_id": "alpha", "new_id": "twin"}),
        ),
    ] {
        daemon.fails(method, params, "project_busy");
    }
    // Whoever only looks may; others are not concerned.
    daemon.ok("get_project", json!({"project_id": "alpha"}));
    daemon.ok(
        "set_project_image_agents",
        json!({"project_id": "bystander", "selection": "claude"}),
    );
    daemon.ok("operation.cancel", json!({"id": id}));
    hold.release();
    assert_eq!(ended(&daemon, &id)["state"], "cancelled");
    daemon.ok(
        "set_project_image_agents",
        json!({"project_id": "alpha", "selection": "claude"}),
    );
}

#[test]
fn a_detached_deletion_is_followed_to_its_result() {
    let (world, mut hold) = held_world();
    let daemon = world.start();
    let id = archiving(&daemon, &mut hold);
    let mut client = daemon.connect();
    let subscription = client.ok("operation.subscribe", json!({"id": id}));
    hold.release();
    let mut phases = Vec::new();
    let last = loop {
        let update = client.notification();
        assert_eq!(update["method"], "operation.update", "{update}");
        assert_eq!(update["params"]["subscription"], subscription, "{update}");
        let item = update["params"]["result"].clone();
        let text = item.to_string();
        phases.extend(
            ["archiving", "removing"]
                .into_iter()
                .filter(|phase| text.contains(phase)),
        );
        if text.contains("finished_at") {
            break item;
        }
    };
    assert!(
        phases.contains(&"removing"),
        "no progress came: {phases:?}, {last}"
    );
    let operation = ended(&daemon, &id);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(
        last.to_string()
            .contains(operation["result"]["archive"].as_str().unwrap()),
        "the last update has the result: {last}"
    );
}

#[test]
fn a_panicked_host_deletes_nothing() {
    let world = rich_world();
    let daemon = world.start();
    let before = Tree::of(&world);
    let lock = world.write(
        "$DATA/core/panic.lock",
        "2026-03-15T12:00:00Z\n{\"reason\": \"drill\"}\n",
    );
    let status = daemon.ok("panic.status", json!({}));
    assert_eq!(
        (&status["panicked"], &status["reason"]),
        (&json!(true), &json!("drill"))
    );
    let refused = daemon.fails("delete_project", json!({"project_id": "alpha"}), "panicked");
    assert!(refused.message.contains("kill switch"), "{refused:?}");
    // The plan harms nobody.
    let plan = json!({"project_id": "alpha", "dry_run": true});
    daemon.ok("delete_project", plan);
    std::fs::remove_file(lock).unwrap();
    assert_eq!(before.difference(&Tree::of(&world)), Vec::<String>::new());
    no_leftovers(&world, "panicked");
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
}

#[test]
fn a_gate_of_a_broken_sibling_survives_a_killed_deletion() {
    let gate = "gate: {path: ~/.local/share/terok/sandbox/gate/alpha.git}\n";
    let world = rich_world().project("sibling", &format!("nonsense: 1\n{gate}"));
    for point in ["delete.renamed_config", "delete.removed_all"] {
        let daemon = super::doomed(&world, point);
        let mut client = daemon.connect();
        client.send("delete_project", json!({"project_id": "alpha"}));
        super::died(daemon, point);
        let daemon = world.start();
        super::settled(&world, &daemon);
        assert!(!world.path(ROOTS[0]).exists(), "{point}");
        assert!(
            world.path("$DATA/sandbox/gate/alpha.git/HEAD").exists(),
            "{point}: the sibling's gate is gone"
        );
        daemon.ok(
            "derive_project",
            json!({"source_id": "bystander", "new_id": "alpha"}),
        );
        world.write(
            "$CONFIG/projects/alpha/project.yml",
            format!("project: {{security_class: online}}\n{gate}"),
        );
        daemon.ok("daemon.reload", json!({}));
    }
}

#[test]
fn of_a_linked_root_only_the_link_goes() {
    let world = World::new().file(
        "$HOME/real/project.yml",
        "project: {security_class: online}\n",
    );
    world.write("$HOME/real/notes", "mine");
    world.link("$CONFIG/projects/alpha", "$HOME/real");
    for point in ["delete.committing", "delete.renamed_config"] {
        let daemon = super::doomed(&world, point);
        let before = Tree::of(&world);
        let mut client = daemon.connect();
        client.send("delete_project", json!({"project_id": "alpha"}));
        super::died(daemon, point);
        let daemon = world.start();
        super::settled(&world, &daemon);
        let gone: &[&str] = match point {
            "delete.committing" => &[],
            _ => &ROOTS[..1],
        };
        let expected = before.without(&world, gone);
        let after = Tree::of(&world);
        assert_eq!(
            expected.difference(&after),
            Vec::<String>::new(),
            "{point}: only the link may go"
        );
        no_leftovers(&world, point);
    }
}

#[test]
fn without_room_for_the_archive_nothing_begins() {
    let world = World::with_project("alpha");
    let config = world.path("$CONFIG/projects/alpha");
    let stat = nix::sys::statvfs::statvfs(&config).unwrap();
    let free = stat.blocks_free() * stat.fragment_size();
    // It takes no room itself, but its archive might.
    let large = world.write("$CONFIG/projects/alpha/large", "");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&large)
        .unwrap();
    file.set_len(free + (1 << 40)).unwrap();
    let daemon = world.start();
    let params = json!({"project_id": "alpha"});
    let fault = daemon.fails("delete_project", params.clone(), "archive_failed");
    let number = |name: &str| fault.data[name].as_u64().unwrap();
    assert!(
        number("needed_bytes") > number("available_bytes"),
        "{fault:?}"
    );
    assert!(fault.message.contains("nothing was removed"), "{fault:?}");
    assert!(!world.path("$DATA/archive").exists());
    daemon.ok("get_project", params.clone());
    file.set_len(10).unwrap();
    no_leftovers(&world, "too large");
    daemon.ok("delete_project", params);
    assert!(!config.exists());
}
