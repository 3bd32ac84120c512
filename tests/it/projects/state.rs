//! State, storage and the gate's last commit.

use super::bare_repository;
use serde_json::{Value, json};
use terok_tests::World;

#[test]
fn state_and_storage_are_measured() {
    let world = World::with_project("alpha")
        .file(
            "$DATA/sandbox-live/tasks/alpha/t1/workspace-dangerous/a",
            &"x".repeat(1000),
        )
        .file(
            "$DATA/sandbox-live/tasks/alpha/t1/agent-config/b",
            &"x".repeat(10),
        )
        .file(
            "$DATA/sandbox-live/mounts/_claude-config/c",
            &"x".repeat(100),
        );
    bare_repository(&world, "$DATA/sandbox/gate/alpha.git");
    let daemon = world.start();
    let state = daemon.ok("project.state", json!({"project_id": "alpha"}));
    assert_eq!(
        (
            &state["dockerfiles"],
            &state["images"],
            &state["gate"],
            &state["ssh"]
        ),
        (&json!(false), &json!(false), &json!(true), &json!(false))
    );
    assert_eq!(
        (&state["gate_last_commit"], &state["stale_layers"]),
        (&Value::Null, &json!([]))
    );
    let detail = daemon.ok("project.storage_detail", json!({"project_id": "alpha"}));
    let task = &detail["tasks"][0];
    assert_eq!(
        (
            &task["task_id"],
            &task["workspace_bytes"],
            &task["agent_config_bytes"]
        ),
        (&json!("t1"), &json!(1000), &json!(10))
    );
    assert_eq!(
        (&detail["workspace_bytes"], &detail["total_bytes"]),
        (&json!(1000), &json!(1010))
    );
    match daemon.call("storage.overview", json!({})) {
        Ok(overview) => {
            assert_eq!(overview["projects"][0]["project_id"], "alpha");
            assert_eq!(overview["shared_mounts"][0]["bytes"], 100);
            assert!(overview["gates"][0]["bytes"].as_u64().unwrap() > 0);
        }
        Err(error) => assert_eq!(error.kind(), "podman_unavailable"),
    }
}

#[test]
fn the_last_commit_of_a_gate_is_told() {
    let Some(git) = terok_tests::programs::need("git") else {
        return;
    };
    let world = World::with_project("alpha");
    let gate = world.path("$DATA/sandbox/gate");
    world.mkdirs(&gate);
    let run = |args: &[&str], dir: &std::path::Path| {
        let output = world
            .command(&git)
            .args(["-c", "user.name=Ada", "-c", "user.email=a@example.com"])
            .args(args)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["init", "-q", "-b", "main", "work"], &gate);
    let work = gate.join("work");
    run(
        &["commit", "-q", "--allow-empty", "-m", "first: a subject"],
        &work,
    );
    run(&["clone", "-q", "--bare", "work", "alpha.git"], &gate);
    let hash = run(&["rev-parse", "HEAD"], &work);
    let daemon = world.start();
    let commit =
        daemon.ok("project.state", json!({"project_id": "alpha"}))["gate_last_commit"].clone();
    assert_eq!(
        (&commit["commit_hash"], &commit["commit_message"]),
        (&json!(hash.trim()), &json!("first: a subject")),
        "{commit}"
    );
    assert!(commit["commit_author"].as_str().unwrap().contains("Ada"));
    assert_eq!(
        daemon.ok(
            "project.state",
            json!({"project_id": "alpha", "gate_commit": false})
        )["gate_last_commit"],
        Value::Null
    );
}
