//! Presets and the agents of a project.

use serde_json::{Value, json};
use terok_tests::World;

#[test]
fn presets_come_in_three_tiers() {
    let world = World::with_project("alpha")
        .file("$CONFIG/projects/alpha/presets/mine.yaml", "model: p\n")
        .file("$CONFIG/projects/alpha/presets/bad.yml", "- a\n")
        .file("$CONFIG/projects/alpha/presets/.hidden.yml", "model: h\n")
        .file("$CONFIG/core/presets/mine.yml", "model: g\n")
        .file(
            "$CONFIG/core/presets/other.yml",
            "model: o\nsubagents: [{file: a.md}]\n",
        )
        .file("$CONFIG/config.yml", "agent: {model: global, x: 1}\n");
    let daemon = world.start();
    let listed = daemon.ok("project.list_presets", json!({"project_id": "alpha"}));
    let rows: Vec<(&str, &str)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["source"].as_str().unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            (".hidden", "project"),
            ("bad", "project"),
            ("mine", "project"),
            ("other", "global"),
            ("review", "bundled"),
            ("solo", "bundled"),
            ("team", "bundled")
        ]
    );
    assert!(listed[1]["error"].is_string() && listed[2]["error"].is_null());
    let load = |name: &str| json!({"project_id": "alpha", "name": name});
    assert_eq!(
        daemon.ok("project.load_preset", load("mine"))["data"],
        json!({"model": "p"})
    );
    let file = world.path("$CONFIG/core/presets/a.md");
    assert_eq!(
        daemon.ok("project.load_preset", load("other"))["data"]["subagents"][0]["file"],
        file.to_str().unwrap()
    );
    assert_eq!(
        daemon.ok("project.load_preset", load("solo"))["data"]["max_turns"],
        25
    );
    let error = daemon.fails("project.load_preset", load("none"), "preset_not_found");
    assert!(
        error.message.contains("solo"),
        "the available ones are named: {}",
        error.message
    );
    daemon.fails("project.load_preset", load("bad"), "invalid_config");
    daemon.fails("project.load_preset", load("../../config"), "invalid_name");
    let resolve = |extra: Value| {
        let mut params = json!({"project_id": "alpha"});
        params
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        daemon.ok("project.agents.resolve_config", params)
    };
    assert_eq!(resolve(json!({})), json!({"model": "global", "x": 1}));
    assert_eq!(
        resolve(json!({"preset": "mine"})),
        json!({"model": "p", "x": 1})
    );
    assert_eq!(
        resolve(json!({"preset": "mine", "cli_overrides": {"model": "cli", "x": null}})),
        json!({"model": "cli"})
    );
}

#[test]
fn agents_are_resolved() {
    let world = World::new()
        .project(
            "alpha",
            "project: {security_class: online}\ndefault_agent: codex\n",
        )
        .project(
            "red",
            "project: {security_class: online}\nimage: {base_image: 'fedora:44', agents: claude}\n",
        )
        .project(
            "blue",
            "project: {security_class: online}\nimage: {agents: 'claude,glab'}\n",
        );
    let daemon = world.start();
    let roster = daemon.ok("agents.list", json!({}));
    assert!(
        roster
            .as_array()
            .unwrap()
            .iter()
            .any(|a| a["name"] == "claude" && a["is_agent"] == true)
    );
    assert_eq!(
        daemon.ok(
            "project.agents.get_provider",
            json!({"project_id": "alpha"})
        )["name"],
        "codex"
    );
    assert_eq!(
        daemon.ok(
            "project.agents.get_provider",
            json!({"project_id": "alpha", "name": "claude"})
        )["binary"],
        "claude"
    );
    daemon.fails(
        "project.agents.get_provider",
        json!({"project_id": "alpha", "name": "nobody"}),
        "unknown_provider",
    );
    let text = daemon.ok(
        "project.agents.resolve_instructions",
        json!({"project_id": "alpha", "provider": "claude"}),
    );
    assert!(text.is_string());
    // What is said of the image fits it, before it is built too.
    let told = |id: &str| {
        let params = json!({"project_id": id, "provider": "claude"});
        let text = daemon.ok("project.agents.resolve_instructions", params);
        ["apt-get", "dnf", "glab"].map(|word| text.as_str().unwrap().contains(word))
    };
    assert_eq!(told("red"), [false, true, false]);
    assert_eq!(told("blue"), [true, false, true]);
    daemon.fails(
        "project.agents.resolve_instructions",
        json!({"project_id": "alpha", "provider": "nobody"}),
        "unknown_provider",
    );
    let all = daemon.ok("agents.parse_selection", json!({"selection": ""}));
    let without = daemon.ok("agents.parse_selection", json!({"selection": "ALL, -vibe"}));
    assert_eq!(
        all.as_array().unwrap().len(),
        without.as_array().unwrap().len() + 1
    );
    assert_eq!(
        daemon.ok(
            "agents.parse_selection",
            json!({"selection": "claude,-claude"})
        ),
        json!([])
    );
    daemon.fails(
        "agents.parse_selection",
        json!({"selection": "-nobody"}),
        "unknown_agent",
    );
}
