//! From questions to a `project.yml`.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use terok_tests::World;

#[test]
fn the_wizard_makes_a_project() {
    let world = World::new();
    let daemon = world.start();
    let questions = daemon.ok("questions", json!({}));
    let keys: Vec<&str> = questions
        .as_array()
        .unwrap()
        .iter()
        .map(|q| q["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "security_class",
            "base",
            "project_id",
            "upstream_url",
            "default_branch",
            "user_snippet"
        ]
    );
    let agents = daemon.ok("agents_question", json!({}));
    assert_eq!(
        (&agents["key"], &agents["kind"], &agents["required"]),
        (&json!("agents"), &json!("multichoice"), &json!(true))
    );
    assert!(
        agents["choices"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c[0] == "claude"),
        "{agents}"
    );
    assert!(
        agents["choices"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c[0] != "gh"),
        "tools are not offered: {agents}"
    );
    let ask = |question: Value, raw: &str| {
        daemon.ok("validate_answer", json!({"question": question, "raw": raw}))
    };
    assert_eq!(
        ask(json!("project_id"), "  My Project! ")["value"],
        "my-project"
    );
    assert_eq!(
        ask(json!("security_class"), "Online")["error"],
        "Select security mode must be one of: gatekeeping, online"
    );
    assert!(
        ask(json!("project_id"), "a__-b")["error"].is_string(),
        "no image could have that name"
    );
    assert!(
        ask(json!("agents"), "nobody")["error"]
            .as_str()
            .unwrap()
            .contains("nobody")
    );
    // A whole question that is not ours is judged by itself.
    let own = json!({"key": "colour", "kind": "choice", "prompt": "Colour", "choices": [["r", "Red"], ["g", "Green"]], "required": true});
    assert_eq!(ask(own.clone(), " r ")["value"], "r");
    assert_eq!(ask(own, "blue")["error"], "Colour must be one of: g, r");
    daemon.fails(
        "validate_answer",
        json!({"question": "no_such", "raw": "x"}),
        "invalid_argument",
    );

    let mut values = json!({"project_id": "orion", "security_class": "gatekeeping", "base": "nvidia",
        "upstream_url": "https://forge.example/lab/orion.git", "default_branch": "trunk",
        "user_snippet": "  RUN echo \"$HOME\"  # keep\nRUN true", "agents": "all,-vibe"});
    let text = daemon.ok("render_project_yaml", json!({"values": values}));
    let path = daemon.ok(
        "write_project_yaml",
        json!({"project_id": "orion", "rendered": text}),
    );
    assert_eq!(
        path,
        world
            .path("$CONFIG/projects/orion/project.yml")
            .to_str()
            .unwrap()
    );
    assert_eq!(
        fs::read_to_string(path.as_str().unwrap()).unwrap(),
        text.as_str().unwrap()
    );
    assert_eq!(
        fs::metadata(path.as_str().unwrap()).unwrap().mode() & 0o777,
        0o644
    );
    // Our own write is there for the next call, without waiting for the watcher.
    let project = daemon.ok("get_project", json!({"project_id": "orion"}));
    let config = &project["config"];
    assert_eq!(project["gpu"], true);
    assert_eq!(
        config["snippet_inline"].as_str().unwrap().trim_end(),
        values["user_snippet"].as_str().unwrap()
    );
    assert_eq!(
        (&config["agents"], &config["default_branch"]),
        (&json!("all,-vibe"), &json!("trunk"))
    );
    assert_eq!(config["upstream_polling_interval_minutes"], 5);
    // An existing file is left alone unless told otherwise.
    assert_eq!(
        daemon.ok(
            "write_project_yaml",
            json!({"project_id": "orion", "rendered": "x: 1\n"})
        ),
        path
    );
    assert_eq!(
        daemon.ok("get_project", json!({"project_id": "orion"})),
        project
    );
    daemon.ok(
        "write_project_yaml",
        json!({"project_id": "orion", "rendered": "draft: 1\n", "overwrite": true}),
    );
    daemon.fails(
        "get_project",
        json!({"project_id": "orion"}),
        "invalid_config",
    );
    assert!(
        !daemon
            .ok("config.problems", json!({}))
            .as_array()
            .unwrap()
            .is_empty()
    );

    // A project of that id may stand in a directory of another name, since just now.
    world.write(
        "$CONFIG/projects/elsewhere/project.yml",
        "project: {id: taken, security_class: online}\n",
    );
    let taken = json!({"project_id": "taken", "rendered": "project: {}\n"});
    daemon.fails("write_project_yaml", taken, "already_exists");
    daemon.ok("get_project", json!({"project_id": "taken"}));

    let huge = json!({"project_id": "huge", "rendered": "#".repeat((1 << 20) + 1)});
    daemon.fails("write_project_yaml", huge, "invalid_argument");
    assert!(!world.path("$CONFIG/projects/huge").exists());
    for id in ["../../x", "a__-b", "my-", "terok-l0x", &"a".repeat(65)] {
        daemon.fails(
            "write_project_yaml",
            json!({"project_id": id, "rendered": ""}),
            "invalid_project_id",
        );
    }
    for (key, value) in [
        ("base", json!("beos")),
        ("security_class", json!("root")),
        ("upstream_url", json!("x\ny: 1")),
    ] {
        let mut bad = values.clone();
        bad[key] = value;
        daemon.fails(
            "render_project_yaml",
            json!({"values": bad}),
            "invalid_argument",
        );
    }
    values.as_object_mut().unwrap().remove("base");
    let error = daemon.fails(
        "render_project_yaml",
        json!({"values": values}),
        "invalid_argument",
    );
    assert!(error.message.contains("base"), "{}", error.message);
}

#[test]
fn rendered_values_read_back_as_they_were() {
    let world = World::new();
    let daemon = world.start();
    let hostile = [
        "\"", "' # x", "a: b", "{x}", "\\n", "${HOME}", "\u{a0}ä", "%YAML", "- x", "&a *a", "yes",
        "12", "~", "!tag",
    ];
    for (n, text) in hostile.iter().enumerate() {
        for class in ["online", "gatekeeping"] {
            for snippet in ["", "RUN x", "   indented first", "# c\n\n\tTAB\n  - y: 1\n"] {
                let id = format!("p{n}");
                let values = json!({"project_id": id, "security_class": class, "base": "ubuntu", "upstream_url": text,
                    "default_branch": text, "user_snippet": snippet, "agents": ""});
                let yaml = daemon.ok("render_project_yaml", json!({"values": values}));
                daemon.ok(
                    "write_project_yaml",
                    json!({"project_id": id, "rendered": yaml, "overwrite": true}),
                );
                let config = daemon.ok("load_project", json!({"project_id": id}));
                assert_eq!(config["upstream_url"], *text, "{yaml}");
                assert_eq!(config["default_branch"], *text, "{yaml}");
                assert_eq!(
                    config["snippet_inline"]
                        .as_str()
                        .unwrap_or_default()
                        .trim_end(),
                    snippet.trim_end(),
                    "{yaml}"
                );
            }
        }
    }
}
