//! Upstreams that hang, break off or dawdle, and calls that are withdrawn meanwhile.

use super::{alpha, assert_whole, gate, of, project, refused, sync, visible};
use serde_json::{Value, json};
use terok_tests::http_git::Answer;
use terok_tests::proxy::Manner;
use terok_tests::{Daemon, GitDaemon, Hold, HttpGit, Proxy, Sshd, Upstream, World, eventually};

/// Begins a sync that nobody waits for; its operation.
fn begin(daemon: &Daemon, id: &str) -> Value {
    let params = json!({"project_id": id, "detach": true});
    daemon.ok("project.gate.sync", params)["operation_id"].clone()
}

/// Cancels an operation and waits until it has ended so.
fn cancel(daemon: &Daemon, id: &Value) {
    daemon.ok("operation.cancel", json!({"id": id}));
    let operation = eventually("the operation ends", || {
        let operation = daemon.ok("operation.get", json!({"id": id}));
        (operation["state"] != "running").then_some(operation)
    });
    assert_eq!(operation["state"], "cancelled", "{operation}");
}

/// No gate, and nothing of one that was begun.
fn assert_no_gate(world: &World, id: &str) {
    let base = world.path("$DATA/sandbox/gate");
    let names = std::fs::read_dir(base).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(id) && !name.ends_with(".lock"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_first_sync_that_hangs_can_be_withdrawn() {
    for backend in ["gix", "cli"] {
        let world = World::new().file(
            "$CONFIG/terokd.yml",
            &format!("git: {{backend: {backend}}}\n"),
        );
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        up.big_blob("main", 400_000);
        let (http, server) = (
            HttpGit::start(&world, up.base()).unwrap(),
            GitDaemon::start(&world, up.base()).unwrap(),
        );
        let proxy = Proxy::start(server.address());
        alpha(&world, &http.url(&up));
        world.write(
            "$CONFIG/projects/beta/project.yml",
            project(&format!("git://{}/up.git", proxy.address())),
        );
        let daemon = world.start();
        for answer in [Answer::Hang, Answer::Stall(5)] {
            http.answer(answer);
            http.requests();
            let id = begin(&daemon, "alpha");
            http.wait_request("up.git");
            cancel(&daemon, &id);
            http.wait_idle();
            assert_no_gate(&world, "alpha");
        }
        // Before its first word, and in the middle of a pack.
        for after in [0, 100_000] {
            proxy.set(Manner::Hang { after });
            let id = begin(&daemon, "beta");
            proxy.wait_hanging();
            cancel(&daemon, &id);
            proxy.wait_idle();
            assert_no_gate(&world, "beta");
        }
        // The daemon is none the worse for it.
        http.answer(Answer::Honest);
        proxy.set(Manner::Forward);
        sync(&daemon);
        let synced = daemon.ok("project.gate.sync", of("beta"));
        assert_eq!(synced["success"], true, "{synced}");
        for id in ["alpha", "beta"] {
            assert_eq!(visible(&gate(&world, id)), visible(&up));
            assert_whole(&gate(&world, id));
        }
        assert_eq!(daemon.children(), Vec::<u32>::new(), "no child stays");
    }
}

#[test]
fn an_ssh_upstream_that_hangs_can_be_withdrawn() {
    for backend in ["gix", "cli"] {
        let world = World::new().file(
            "$CONFIG/terokd.yml",
            &format!("git: {{backend: {backend}}}\n"),
        );
        let (Some(up), Some(sshd)) = (Upstream::new(&world, "up"), Sshd::start(&world)) else {
            return;
        };
        let proxy = Proxy::start(sshd.address());
        alpha(&world, &sshd.url_at(proxy.port(), &up));
        let daemon = world.start();
        daemon.ok("vault.provision", json!({"tier": "config"}));
        let key = daemon.ok("project.provision_ssh_key", of("alpha"));
        sshd.accept(key["public_line"].as_str().unwrap());
        for after in [0, 2000] {
            proxy.set(Manner::Hang { after });
            let id = begin(&daemon, "alpha");
            proxy.wait_hanging();
            cancel(&daemon, &id);
            proxy.wait_idle();
            assert_no_gate(&world, "alpha");
            eventually("no child stays", || {
                daemon.children().is_empty().then_some(())
            });
        }
        proxy.set(Manner::Forward);
        sync(&daemon);
        assert_eq!(visible(&gate(&world, "alpha")), visible(&up));
    }
}

#[test]
fn a_pack_that_breaks_off_changes_nothing() {
    for backend in ["gix", "cli"] {
        let world = World::new().file(
            "$CONFIG/terokd.yml",
            &format!("git: {{backend: {backend}}}\n"),
        );
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        let server = GitDaemon::start(&world, up.base()).unwrap();
        let proxy = Proxy::start(server.address());
        alpha(&world, &format!("git://{}/up.git", proxy.address()));
        let daemon = world.start();
        sync(&daemon);
        let gate = gate(&world, "alpha");
        let before = visible(&gate);
        up.big_blob("main", 400_000);
        for after in [0, 20, 500, 50_000, 390_000] {
            proxy.set(Manner::Cut { after });
            let why = refused(&daemon);
            assert!(!why.contains("panic"), "{why}");
            assert_eq!(visible(&gate), before, "{backend}, cut after {after}");
        }
        assert_whole(&gate);
        proxy.set(Manner::Slow { rate: 2_000_000 });
        sync(&daemon);
        assert_eq!(visible(&gate), visible(&up));
        assert_whole(&gate);
    }
}

#[test]
fn a_hanging_sync_blocks_no_other_gate_and_no_stop() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let server = GitDaemon::start(&world, up.base()).unwrap();
    let proxy = Proxy::start(server.address());
    alpha(&world, &up.file_url());
    let hanging = format!("git://{}/up.git", proxy.address());
    world.write("$CONFIG/projects/beta/project.yml", project(&hanging));
    let mut daemon = world.start();
    proxy.set(Manner::Hang { after: 0 });
    begin(&daemon, "beta");
    proxy.wait_hanging();
    sync(&daemon);
    daemon.ok("project.gate.status", of("beta"));
    daemon.ok("project.state", of("beta"));
    assert!(daemon.terminate().success(), "{}", daemon.log());
    proxy.wait_idle();
    assert_no_gate(&world, "beta");
    drop(daemon);

    // What was under way is not forgotten, and works when upstream does.
    proxy.set(Manner::Forward);
    let daemon = world.start();
    let synced = daemon.ok("project.gate.sync", of("beta"));
    assert_eq!(synced["success"], true, "{synced}");
}

#[test]
fn a_daemon_that_is_killed_leaves_no_half_gate() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    up.big_blob("main", 400_000);
    let server = GitDaemon::start(&world, up.base()).unwrap();
    let proxy = Proxy::start(server.address());
    alpha(&world, &format!("git://{}/up.git", proxy.address()));
    let mut daemon = world.start();
    proxy.set(Manner::Hang { after: 100_000 });
    begin(&daemon, "alpha");
    proxy.wait_hanging();
    daemon.kill9();
    assert!(!world.path("$DATA/sandbox/gate/alpha.git").exists());
    proxy.set(Manner::Forward);
    let daemon = world.start();
    assert_eq!(sync(&daemon)["created"], true);
    assert_eq!(visible(&gate(&world, "alpha")), visible(&up));
    // And nothing of the first try stays beside it.
    let base = std::fs::read_dir(world.path("$DATA/sandbox/gate")).unwrap();
    let names: Vec<_> = base
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("reinit") || name.contains("trash") || name.contains("tmp"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// The operation as it ended.
fn ended(daemon: &Daemon, id: &Value) -> Value {
    eventually("the operation ends", || {
        let operation = daemon.ok("operation.get", json!({"id": id}));
        operation["finished_at"].is_string().then_some(operation)
    })
}

#[test]
fn nobody_waits_for_the_clone_that_seeds_tasks_but_a_deletion() {
    let (world, mut hold) = Hold::at(World::new(), "gate.sync.cache");
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    let syncing = begin(&daemon, "alpha");
    hold.wait();
    let cache = world.path("$DATA/sandbox/clone-cache/alpha");
    assert!(!cache.exists());
    // Each of these wants the gate for itself.
    let gate = gate(&world, "alpha");
    gate.branch("agent", "main");
    let mine = gate.commit("agent", "mine");
    let rows = daemon.ok("project.gate.review", of("alpha"));
    assert_eq!(rows[0]["branch"], "agent", "{rows}");
    let promote = json!({"project_id": "alpha", "branch": "agent"});
    daemon.ok("project.gate.promote", promote);
    assert_eq!(up.head("agent"), mine);
    daemon.ok("project.gate.prune_backups", of("alpha"));
    // What is being made would come back.
    let mut events = daemon.events(json!({"kinds": ["operation.started", "project.removed"]}));
    let deletion = json!({"project_id": "alpha", "detach": true});
    let deleting = daemon.ok("delete_project", deletion)["operation_id"].clone();
    events.next_of("operation.started");
    hold.release();
    let synced = ended(&daemon, &syncing);
    assert_eq!(synced["state"], "succeeded", "{synced}");
    let deleted = ended(&daemon, &deleting);
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    events.next_about("project.removed", "alpha");
    assert!(!cache.exists() && !gate.path().exists());
}

#[test]
fn a_sync_that_waited_for_a_deletion_makes_no_gate() {
    let (world, mut hold) = Hold::at(World::new(), "delete.archived");
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    sync(&daemon);
    let deletion = json!({"project_id": "alpha", "detach": true});
    let deleting = daemon.ok("delete_project", deletion)["operation_id"].clone();
    hold.wait();
    let mut events = daemon.events(json!({"kinds": ["operation.started"]}));
    let syncing = begin(&daemon, "alpha");
    events.next_of("operation.started");
    hold.release();
    let deleted = ended(&daemon, &deleting);
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    let refused = ended(&daemon, &syncing);
    assert_eq!(
        refused["error"]["data"]["kind"], "project_not_found",
        "{refused}"
    );
    assert_no_gate(&world, "alpha");
    assert!(!world.path("$DATA/sandbox/clone-cache/alpha").exists());
}
