//! Configuration, hostile files, reloads, texts for humans.

use super::zoo;
use serde_json::{Value, json};
use terok_tests::{Daemon, World};

#[test]
fn configuration_is_explained() {
    let world = zoo().file(
        "$CONFIG/config.yml",
        "run: {memory: 4g}\ncredentials: {passphrase: hunter2}\n",
    );
    let daemon = world.start();
    let resolved = daemon.ok("config.resolve", json!({"project_id": "alpha"}));
    let gpus = &resolved["values"]["run.gpus"];
    assert_eq!(
        (&gpus["value"], &gpus["origin"], &gpus["line"]),
        (&json!("all"), &json!("project"), &json!(4)),
        "{gpus}"
    );
    let memory = &resolved["values"]["run.memory"];
    assert_eq!(
        (&memory["value"], &memory["origin"], &memory["line"]),
        (&json!("4g"), &json!("user"), &json!(1)),
        "{memory}"
    );
    assert_eq!(
        daemon.ok("config.resolve", json!({}))["values"]["rpc.max_batch"]["value"],
        100
    );
    let everything = format!(
        "{}{}",
        daemon.ok("config.resolve", json!({})),
        daemon.ok("config.problems", json!({}))
    );
    assert!(!everything.contains("hunter2"), "a secret is never told");
    assert!(everything.contains("<set>"));
    let problems = daemon.ok("config.problems", json!({}));
    for (project, location) in [
        ("broken", "projecct"),
        ("broken", "run.hooks.x"),
        ("unparsable", ""),
    ] {
        assert!(
            problems
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["project_id"] == project && p["location"] == location),
            "{project} {location}: {problems}"
        );
    }
    for kind in ["project", "global", "terokd"] {
        let schema = daemon.ok("config.schema", json!({"kind": kind}));
        assert!(schema["properties"].is_object(), "{kind}");
        assert_eq!(
            daemon.ok("config.validate", json!({"kind": kind, "text": "{}\n"})),
            json!([])
        );
        let problems = daemon.ok(
            "config.validate",
            json!({"kind": kind, "text": "no_such: 1\n"}),
        );
        assert_eq!(
            (
                &problems[0]["code"],
                &problems[0]["line"],
                &problems[0]["path"]
            ),
            (&json!("unknown_key"), &json!(1), &Value::Null)
        );
    }
    let hint = daemon.ok(
        "config.validate",
        json!({"kind": "global", "text": "rpc: {max_batch: 5}\n"}),
    );
    assert!(hint.to_string().contains("terokd.yml"), "{hint}");
    daemon.fails(
        "config.validate",
        json!({"kind": "nonsense", "text": ""}),
        "invalid_params",
    );
}

#[test]
fn hostile_files_stay_text() {
    let hostile = "\"\\e[2J\\u202e evil\": 1\n";
    let world = World::new()
        .project("alpha", hostile)
        .project("bomb", &bomb())
        .project("deep", &"[".repeat(5000));
    world.write("$CONFIG/projects/binary/project.yml", b"\xff\xfe\x00\x01");
    world.write("$CONFIG/projects/huge/project.yml", vec![b'#'; 2 << 20]);
    let daemon = world.start();
    let found = daemon.ok("discover_projects", json!({}));
    assert_eq!(found["projects"], json!([]));
    for broken in found["broken"].as_array().unwrap() {
        let text = broken["error"].as_str().unwrap();
        assert!(
            !text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t'),
            "{broken}"
        );
        let id = broken["id"].as_str().unwrap();
        daemon.fails("get_project", json!({"project_id": id}), "invalid_config");
    }
    assert_eq!(found["broken"].as_array().unwrap().len(), 5);
}

/// Aliases that would expand to 9^9 nodes.
fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..9 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(",");
        text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    text
}

#[test]
fn a_reload_tells_the_counts() {
    let world = zoo();
    let daemon: Daemon = world.start();
    assert_eq!(
        daemon.ok("daemon.reload", json!({})),
        json!({"valid": 2, "broken": 2})
    );
    let paths = daemon.ok("daemon.paths", json!({}));
    assert_eq!(paths["exists"]["user_projects_dir"], true);
    assert_eq!(paths["sources"]["state_root"], "default");
    assert_eq!(
        paths["terokd_dir"],
        world.path("$DATA/core/terokd").to_str().unwrap()
    );
}

#[test]
fn texts_for_humans_are_rendered() {
    let world = World::new();
    let daemon = world.start();
    let key = json!({"key_id": 7, "key_type": "ed25519", "fingerprint": "SHA256:abc", "comment": "tk-main:x", "public_line": "ssh-ed25519 AAAA tk-main:x"});
    let text = daemon.ok("summarize_ssh_init", json!({"result": key}));
    for part in [
        "7",
        "ed25519",
        "SHA256:abc",
        "tk-main:x",
        "\n  ssh-ed25519 AAAA tk-main:x",
    ] {
        assert!(text.as_str().unwrap().contains(part), "{text}");
    }
    daemon.fails(
        "summarize_ssh_init",
        json!({"result": {}}),
        "invalid_params",
    );
    daemon.ok("format_panic_report", json!({"result": {}}));
}
