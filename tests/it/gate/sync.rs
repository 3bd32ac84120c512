//! Syncs over file and git addresses, and what they leave alone.

use super::{alpha, assert_whole, gate, of, project, refused, sync, visible};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use terok_tests::proxy::Manner;
use terok_tests::{GitDaemon, Proxy, Upstream, World, eventually};

#[test]
fn a_gate_is_made_and_follows() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let server = GitDaemon::start(&world, up.base()).unwrap();
    for (n, url) in [up.file_url(), server.url(&up)].iter().enumerate() {
        let backends = ["gix", "cli"];
        for backend in backends {
            let world = World::new().file(
                "$CONFIG/terokd.yml",
                &format!("git: {{backend: {backend}}}\n"),
            );
            // Everybody's account owns what the other world made.
            alpha(&world, url);
            let daemon = world.start();
            let mut events = daemon.events(json!({"kinds": ["gate.synced"]}));
            let made = sync(&daemon);
            let gate = gate(&world, "alpha");
            assert_eq!(made["created"], true, "{n} {backend}: {made}");
            assert_eq!(made["path"], json!(gate.path().to_str()));
            assert_eq!(made["upstream_url"], json!(url));
            assert_eq!(made["updated_branches"], json!(["main", "side"]));
            assert_eq!(visible(&gate), visible(&up));
            assert_eq!(gate.git(&["symbolic-ref", "HEAD"]), "refs/heads/main");
            assert_whole(&gate);
            assert_eq!(gate.path().metadata().unwrap().mode() & 0o777, 0o700);
            let told = events.next_about("gate.synced", "alpha");
            assert_eq!(told["data"]["result"]["created"], true, "{told}");

            let again = sync(&daemon);
            assert_eq!(
                (&again["created"], &again["applied"]),
                (&json!(false), &json!([]))
            );

            let old = up.head("main");
            let new = up.commit("main", &format!("more {n} {backend}"));
            let topic = format!("topic/{n}-{backend}");
            up.branch(&topic, "side");
            up.tag(&format!("t-{n}-{backend}"), "main");
            let moved = sync(&daemon);
            let applied = json!([
                {"branch": "main", "kind": "fast_forward", "old": old, "new": new},
                {"branch": topic, "kind": "create", "old": null, "new": up.head("side")},
            ]);
            assert_eq!(moved["applied"], applied, "{moved}");
            assert_eq!(visible(&gate), visible(&up));
            assert_whole(&gate);
            let last = daemon.ok("project.gate.last_commit", of("alpha"));
            assert_eq!(last["commit_hash"], json!(new));
            let status = daemon.ok("project.gate.status", of("alpha"));
            assert_eq!(status["exists"], true);
            assert_eq!(status["last_error"], Value::Null, "{status}");
            assert!(status["last_sync_at"].is_string(), "{status}");
            up.delete(&topic);
        }
    }
}

#[test]
fn a_gate_without_upstream_is_local() {
    let world = World::new().project("alpha", "project: {security_class: gatekeeping}\n");
    let daemon = world.start();
    let made = sync(&daemon);
    assert_eq!(
        (
            &made["created"],
            &made["upstream_url"],
            &made["updated_branches"]
        ),
        (&json!(true), &Value::Null, &json!([]))
    );
    let gate = gate(&world, "alpha");
    let pushed = gate.commit("main", "agent");
    assert_eq!(sync(&daemon)["created"], false);
    assert_eq!(gate.head("main"), pushed);
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error_kind"], "no_upstream", "{compared}");
}

#[test]
fn work_of_agents_survives_syncs() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    sync(&daemon);
    let gate = gate(&world, "alpha");
    let (branch, main) = (
        gate.commit("agent/fix", "fix"),
        gate.commit("main", "agent"),
    );
    for _ in 0..3 {
        let synced = sync(&daemon);
        assert_eq!(synced["pending"], json!([]), "{synced}");
        let own = json!([
            {"branch": "agent/fix", "ahead": null},
            {"branch": "main", "ahead": 1},
        ]);
        assert_eq!(synced["gate_only_branches"], own, "{synced}");
    }
    let ahead = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(ahead["relation"], "ahead", "{ahead}");
    // Upstream goes on elsewhere: a human decides.
    up.commit("main", "theirs");
    let apart = sync(&daemon);
    assert_eq!(apart["applied"], json!([]), "{apart}");
    let pending = &apart["pending"][0];
    assert_eq!(pending["branch"], "main");
    assert_eq!(pending["kind"], "force_update");
    assert_eq!(
        (&pending["lossless"], &pending["gate_only_commits"]),
        (&json!(false), &json!(1))
    );
    assert_eq!((gate.head("agent/fix"), gate.head("main")), (branch, main));
    let diverged = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(diverged["relation"], "diverged", "{diverged}");
    assert_eq!(
        (&diverged["commits_ahead"], &diverged["commits_behind"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn a_renamed_default_branch_leaves_a_clone_with_files() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    world.write(
        "$CONFIG/projects/alpha/project.yml",
        project(&up.file_url()).replace(", default_branch: main", ""),
    );
    let daemon = world.start();
    sync(&daemon);
    up.rename("main", "trunk");
    up.default_branch("trunk");
    sync(&daemon);
    let gate = gate(&world, "alpha");
    assert_eq!(gate.git(&["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    let clone = world.path("$HOME/clone");
    gate.git(&["clone", "-q", ".", clone.to_str().unwrap()]);
    assert!(clone.join("one").is_file());
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(
        (&compared["branch"], &compared["relation"]),
        (&json!("trunk"), &json!("equal"))
    );
}

#[test]
fn only_the_branches_that_are_asked_for() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    up.big_blob("big", 500_000);
    let server = GitDaemon::start(&world, up.base()).unwrap();
    let proxy = Proxy::start(server.address());
    alpha(&world, &format!("git://{}/up.git", proxy.address()));
    let daemon = world.start();
    let some = json!({"project_id": "alpha", "branches": ["side", "side"]});
    let synced = daemon.ok("project.gate.sync", some);
    assert_eq!(synced["updated_branches"], json!(["side"]), "{synced}");
    assert!(proxy.down() < 100_000, "{}", proxy.down());
    let gate = gate(&world, "alpha");
    assert_eq!((gate.find("main"), gate.find("big")), (None, None));
    for bad in ["refs/heads/main", "a..b", "-x", "a*", ""] {
        let params = json!({"project_id": "alpha", "branches": [bad]});
        daemon.fails("project.gate.sync", params, "invalid_argument");
    }
    let branches = daemon.ok(
        "project.gate.sync_branches",
        json!({"project_id": "alpha", "branches": ["main"]}),
    );
    assert_eq!(branches["updated_branches"], json!(["main"]), "{branches}");
    let all = daemon.ok(
        "project.gate.sync",
        json!({"project_id": "alpha", "branches": []}),
    );
    assert_eq!(all["updated_branches"], json!(["big"]), "{all}");
    assert_eq!(visible(&gate), visible(&up));
}

#[test]
fn many_who_want_the_same_share_one_fetch() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let server = GitDaemon::start(&world, up.base()).unwrap();
    let proxy = Proxy::start(server.address());
    alpha(&world, &format!("git://{}/up.git", proxy.address()));
    let daemon = world.start();
    sync(&daemon);
    up.commit("main", "once");
    let before = proxy.connections();
    sync(&daemon);
    let one = proxy.connections() - before;
    let before = proxy.connections();
    up.commit("main", "more");
    proxy.set(Manner::Hang { after: 0 });
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| daemon.connect().ok("project.gate.sync", of("alpha"))))
            .collect();
        proxy.wait_hanging();
        eventually("all have come", || {
            let all = daemon.ok("operation.list", json!({}));
            let running = all.as_array().unwrap().iter();
            (running.filter(|o| o["state"] == "running").count() == 20).then_some(())
        });
        proxy.set(Manner::Forward);
        for call in calls {
            let result = call.join().unwrap();
            assert_eq!(result["updated_branches"], json!(["main"]), "{result}");
        }
    });
    assert_eq!(proxy.connections() - before, one);
}

#[test]
fn what_the_configuration_forbids_is_an_error() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let off = format!("{}gate: {{enabled: false}}\n", project(&up.file_url()));
    let off = off.replace("gatekeeping}", "online}");
    let world = world
        .project("off", &off)
        .project(
            "one",
            &format!(
                "{}gate: {{path: $HOME/shared.git}}\n",
                project("https://a.example/r")
            )
            .replace("$HOME", world_home(&up)),
        )
        .project(
            "two",
            &format!(
                "{}gate: {{path: $HOME/shared.git}}\n",
                project("https://b.example/r")
            )
            .replace("$HOME", world_home(&up)),
        );
    world.mkdirs(&world.path("$DATA/sandbox/gate/alpha.git"));
    world.write("$DATA/sandbox/gate/alpha.git/notes", "not a repository");
    let daemon = world.start();
    let off = daemon.fails("project.gate.sync", of("off"), "gate_disabled");
    assert!(off.message.contains("gate.enabled"), "{}", off.message);
    let conflict = daemon.fails("project.gate.sync", of("one"), "gate_conflict");
    assert!(conflict.message.contains("two"), "{}", conflict.message);
    let corrupt = daemon.fails("project.gate.sync", of("alpha"), "gate_corrupt");
    assert!(
        corrupt.message.contains("force_reinit"),
        "{}",
        corrupt.message
    );
    daemon.fails("project.gate.sync", of("nobody"), "project_not_found");
    let again = json!({"project_id": "alpha", "force_reinit": true});
    let made = daemon.ok("project.gate.sync", again);
    assert_eq!(
        (&made["created"], &made["success"]),
        (&json!(true), &json!(true)),
        "{made}"
    );
    assert_eq!(visible(&gate(&world, "alpha")), visible(&up));
}

/// The home that an upstream lies in.
fn world_home(up: &Upstream) -> &str {
    up.base().parent().unwrap().to_str().unwrap()
}

#[test]
fn addresses_that_would_run_something_are_refused() {
    let world = World::new();
    let mark = world.path("$HOME/mark");
    let urls = [
        format!("ext::sh -c touch% {}", mark.display()),
        "--upload-pack=touch mark".to_owned(),
        "ssh://-oProxyCommand=touch%20mark/r".to_owned(),
        "fd::17/x".to_owned(),
    ];
    for (n, url) in urls.iter().enumerate() {
        world.write(&format!("$CONFIG/projects/p{n}/project.yml"), project(url));
    }
    let daemon = world.start();
    for (n, url) in urls.iter().enumerate() {
        let answer = daemon.call("project.gate.sync", of(&format!("p{n}")));
        let error = answer.expect_err(url);
        assert!(
            ["invalid_url", "invalid_config"].contains(&error.kind()),
            "{url}: {error:?}"
        );
    }
    assert!(!mark.exists() && !world.path("$HOME/mark").exists());
}

#[test]
fn an_upstream_that_is_away_costs_nothing() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let server = GitDaemon::start(&world, up.base()).unwrap();
    let url = server.url(&up);
    alpha(&world, &url);
    let daemon = world.start();
    sync(&daemon);
    let gate = gate(&world, "alpha");
    let (before, mine) = (visible(&gate), gate.commit("agent", "mine"));
    drop(server);
    let mut events = daemon.events(json!({"kinds": ["gate.sync_failed"]}));
    let why = refused(&daemon);
    assert!(why.contains("cannot reach upstream"), "{why}");
    let told = events.next_about("gate.sync_failed", "alpha");
    assert_eq!(told["data"]["errors"], json!([why]), "{told}");
    // Not even a new beginning loses what is there.
    let again = json!({"project_id": "alpha", "force_reinit": true});
    let failed = daemon.ok("project.gate.sync", again);
    assert_eq!(failed["success"], false, "{failed}");
    assert_eq!(gate.head("agent"), mine);
    gate.delete("agent");
    assert_eq!(visible(&gate), before);
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error"], "Could not reach upstream");
    assert_eq!(compared["error_kind"], "unreachable", "{compared}");
    let status = daemon.ok("project.gate.status", of("alpha"));
    assert!(status["last_error"].is_string(), "{status}");

    // A gate that was never there does not begin to be.
    world.write("$CONFIG/projects/beta/project.yml", project(&url));
    daemon.ok("daemon.reload", json!({}));
    let failed = daemon.ok("project.gate.sync", of("beta"));
    assert_eq!(
        (&failed["success"], &failed["created"]),
        (&json!(false), &json!(false)),
        "{failed}"
    );
    assert!(!world.path("$DATA/sandbox/gate/beta.git").exists());
    let left: Vec<_> = std::fs::read_dir(world.path("$DATA/sandbox/gate"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("reinit") || name.contains("trash"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
