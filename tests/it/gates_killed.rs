//! Gates under `kill -9`: at every step of a sync, an application, a promotion and a restoration. Afterwards the
//! repository is whole, what only the gate had is still reachable, and the next try brings it all up to date.

use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use terok_tests::no_exchange::without_exchange;
use terok_tests::programs::find;
use terok_tests::upstream::Upstream;
use terok_tests::{Daemon, Hold, World, eventually};

/// Steps of a first sync and of one that builds the gate anew.
const MAKING: &[&str] = &[
    "gate.sync.locked",
    "gate.sync.made",
    "gate.sync.fetched",
    "gate.sync.exchanging",
    "gate.sync.exchanged",
    "gate.sync.cache",
];

/// Steps of a sync of a gate that is there.
const UPDATING: &[&str] = &[
    "gate.sync.locked",
    "gate.sync.fetched",
    "gate.sync.ready",
    "gate.sync.refs",
    "gate.sync.head",
    "gate.sync.cache",
];

const PROMOTING: &[&str] = &[
    "gate.promote.fetched",
    "gate.promote.pushed",
    "gate.promote.done",
];

struct Scene {
    world: World,
    upstream: Upstream,
}

impl Scene {
    fn new() -> Option<Self> {
        let world = World::new();
        let upstream = Upstream::new(&world, "origin")?;
        let yaml = format!(
            "git: {{upstream_url: \"{}\", default_branch: main}}\ngatekeeping: {{upstream_polling: {{enabled: false}}}}\n",
            upstream.file_url()
        );
        world.write("$CONFIG/projects/alpha/project.yml", yaml);
        Some(Self { world, upstream })
    }

    fn gate(&self) -> PathBuf {
        self.world.path("$DATA/sandbox/gate/alpha.git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let git = find("git").expect("git");
        let mut command = self.world.command(&git);
        let output = command
            .args([
                "-c",
                "user.name=Agent",
                "-c",
                "user.email=agent@example.org",
            ])
            .arg("-C")
            .arg(self.gate())
            .args(arguments)
            .output()
            .expect("git");
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What an agent does: a commit of its own on a branch of the gate.
    fn agent_commits(&self, branch: &str, on: &str) -> String {
        let tree = self.git(&["rev-parse", &format!("{on}^{{tree}}")]);
        let commit = self.git(&["commit-tree", &tree, "-p", on, "-m", "by an agent"]);
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }

    /// Lets a daemon die at `point` of a call; the call's client sees the connection end.
    fn dies(&self, point: &str, method: &str, params: Value) {
        let mut daemon = self.world.start_with(|command| {
            command.env("TEROKD_CRASH_AT", point);
        });
        let mut client = daemon.connect();
        client.send(method, params);
        let status = daemon.wait();
        assert_eq!(
            status.signal(),
            Some(6),
            "{point} was not reached: {status}\n{}",
            daemon.log()
        );
    }

    /// The next start: everything that was begun has an end, and nothing half-made lies around.
    fn starts_again(&self, point: &str) -> Daemon {
        let daemon = self.world.start();
        eventually("operations end", || {
            let status = daemon.ok("daemon.status", json!({}));
            (status["operations"]["running"] == 0).then_some(())
        });
        for operation in daemon
            .ok("operation.list", json!({}))
            .as_array()
            .expect("a list")
        {
            assert!(operation["finished_at"].is_string(), "{point}: {operation}");
        }
        for entry in std::fs::read_dir(self.world.path("$DATA/sandbox/gate")).expect("a base") {
            let name = entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned();
            assert!(
                !name.contains(".git.reinit-") && !name.contains(".git.trash-"),
                "{point}: {name}"
            );
        }
        daemon
    }

    fn is_whole(&self, point: &str) {
        let said = self.git(&["fsck", "--full", "--no-dangling", "--no-progress"]);
        assert_eq!(said, "", "{point}");
        let lock = |dir: &Path| dir.join("packed-refs.lock").exists();
        assert!(!lock(&self.gate()), "{point}: a lock stayed");
    }

    fn reaches(&self, commit: &str, point: &str) {
        let refs = self.git(&["for-each-ref", "--contains", commit, "--format=%(refname)"]);
        assert_ne!(refs, "", "{point}: {commit} is lost");
    }
}

#[test]
fn a_first_sync_that_is_killed_leaves_no_gate_or_a_whole_one() {
    for point in MAKING {
        let Some(scene) = Scene::new() else { return };
        scene.dies(point, "project.gate.sync", json!({"project_id": "alpha"}));
        if scene.gate().exists() {
            scene.is_whole(point);
        }
        // A sync is resumed: it needs nobody to ask again.
        let daemon = scene.starts_again(point);
        let operations = daemon.ok("operation.list", json!({}));
        assert_eq!(operations[0]["state"], "succeeded", "{point}: {operations}");
        scene.is_whole(point);
        assert_eq!(
            scene.git(&["rev-parse", "main"]),
            scene.upstream.head("main"),
            "{point}"
        );
    }
}

#[test]
fn a_rebuild_that_is_killed_leaves_the_old_gate_or_the_new_one() {
    for point in MAKING {
        let Some(scene) = Scene::new() else { return };
        let daemon = scene.world.start();
        daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
        drop(daemon);
        scene.upstream.commit("main", "more");
        let params = json!({"project_id": "alpha", "force_reinit": true});
        scene.dies(point, "project.gate.sync", params);
        scene.is_whole(point);
        let _daemon = scene.starts_again(point);
        scene.is_whole(point);
        assert_eq!(
            scene.git(&["rev-parse", "main"]),
            scene.upstream.head("main"),
            "{point}"
        );
    }
}

#[test]
fn a_rebuild_that_is_killed_between_two_renames_finds_the_old_gate_again() {
    let point = "gate.sync.aside";
    let Some(scene) = Scene::new() else { return };
    let daemon = scene.world.start();
    daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
    drop(daemon);
    let only_here = scene.agent_commits("agent/work", "main");
    let before = scene.git(&["for-each-ref"]);
    scene.upstream.commit("main", "more");
    let params = json!({"project_id": "alpha", "force_reinit": true});
    without_exchange(|| scene.dies(point, "project.gate.sync", params));
    assert!(!scene.gate().exists(), "there is a moment without a gate");
    // The next start, held before it goes on with what was asked for.
    let Scene { world, upstream } = scene;
    let (world, mut hold) = Hold::at(world, "gate.sync.locked");
    let scene = Scene { world, upstream };
    let daemon = scene.world.start();
    hold.wait();
    scene.is_whole(point);
    assert_eq!(scene.git(&["for-each-ref"]), before);
    scene.reaches(&only_here, point);
    hold.release();
    drop(daemon);
    let daemon = scene.starts_again(point);
    scene.is_whole(point);
    assert_eq!(
        scene.git(&["rev-parse", "main"]),
        scene.upstream.head("main")
    );
    let operations = daemon.ok("operation.list", json!({}));
    assert_eq!(operations[0]["state"], "succeeded", "{operations}");
}

#[test]
fn a_sync_that_is_killed_loses_nothing_and_goes_on() {
    for point in UPDATING {
        let Some(scene) = Scene::new() else { return };
        let daemon = scene.world.start();
        daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
        drop(daemon);
        let only_here = scene.agent_commits("agent/work", "main");
        let on_side = scene.agent_commits("side", "side");
        scene.upstream.commit("main", "more");
        scene.upstream.force_push("side", "another history");
        scene.upstream.commit("new", "a branch");
        scene.dies(point, "project.gate.sync", json!({"project_id": "alpha"}));
        scene.is_whole(point);
        let daemon = scene.starts_again(point);
        scene.is_whole(point);
        assert_eq!(
            scene.git(&["rev-parse", "main"]),
            scene.upstream.head("main"),
            "{point}"
        );
        assert_eq!(
            scene.git(&["rev-parse", "new"]),
            scene.upstream.head("new"),
            "{point}"
        );
        for commit in [&only_here, &on_side] {
            scene.reaches(commit, point);
        }
        let pending = daemon.ok("project.gate.pending", json!({"project_id": "alpha"}));
        assert_eq!(pending[0]["branch"], "side", "{point}: {pending}");
        assert_eq!(
            pending[0]["gate_sha"],
            on_side.as_str(),
            "{point}: {pending}"
        );
    }
}

#[test]
fn what_is_applied_or_restored_is_so_whole_or_not_at_all() {
    for point in [
        "gate.apply.ready",
        "gate.apply.done",
        "gate.restore.ready",
        "gate.restore.done",
    ] {
        let Some(scene) = Scene::new() else { return };
        let daemon = scene.world.start();
        daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
        let mine = scene.agent_commits("side", "side");
        let theirs = scene.upstream.force_push("side", "another history");
        daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
        let op = json!({"branch": "side", "gate_sha": mine});
        let apply = json!({"project_id": "alpha", "ops": [op]});
        if point.starts_with("gate.apply") {
            drop(daemon);
            scene.dies(point, "project.gate.apply_pending", apply);
        } else {
            let applied = daemon.ok("project.gate.apply_pending", apply);
            let backup = applied["applied"][0]["backup_ref"].clone();
            drop(daemon);
            let params = json!({"project_id": "alpha", "ref": backup});
            scene.dies(point, "project.gate.restore_backup", params);
        }
        scene.is_whole(point);
        let _daemon = scene.starts_again(point);
        let now = scene.git(&["rev-parse", "side"]);
        let done = point.ends_with(".done");
        let expected = if point.starts_with("gate.apply") == done {
            &theirs
        } else {
            &mine
        };
        assert_eq!(&now, expected, "{point}");
        for commit in [&mine, &theirs] {
            scene.reaches(commit, point);
        }
    }
}

#[test]
fn a_promotion_that_is_killed_has_happened_or_not() {
    for point in PROMOTING {
        let Some(scene) = Scene::new() else { return };
        let daemon = scene.world.start();
        daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
        drop(daemon);
        let before = scene.upstream.head("main");
        let commit = scene.agent_commits("agent/work", "main");
        let params =
            json!({"project_id": "alpha", "branch": "agent/work", "upstream_branch": "main"});
        scene.dies(point, "project.gate.promote", params.clone());
        let pushed = *point != "gate.promote.fetched";
        let expected = if pushed { &commit } else { &before };
        assert_eq!(&scene.upstream.head("main"), expected, "{point}");
        let daemon = scene.starts_again(point);
        let operations = daemon.ok("operation.list", json!({}));
        assert_eq!(
            operations[0]["error"]["data"]["kind"], "interrupted",
            "{point}: {operations}"
        );
        // Asking again is harmless: it finds the work done, or does it.
        let result = daemon.ok("project.gate.promote", params);
        assert_eq!(result["new"], commit.as_str(), "{point}");
        assert_eq!(scene.upstream.head("main"), commit, "{point}");
        scene.is_whole(point);
    }
}
