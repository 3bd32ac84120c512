//! Siblings of projects, and projects of the system.

use super::ONLINE;
use serde_json::json;
use std::fs;
use terok_tests::World;

#[test]
fn a_derived_project_shares_the_gate() {
    let world = World::new()
        .project("src", "# head\nproject:\n  id: src   # mine\n  security_class: online\ngit:\n  upstream_url: 'https://x.example/r'\nagent: {model: x}\ntasks: {root: /srv/tasks}\nimage: {user_snippet_file: snip.df}\n")
        .file("$CONFIG/projects/src/instructions.md", "be nice\n")
        .file("$CONFIG/projects/src/presets/mine.yml", "model: m\n")
        .file("$CONFIG/projects/src/snip.df", "RUN x\n")
        .project("broken", "nonsense: 1\n");
    let daemon = world.start();
    let mut events = daemon.events(json!({"projects": ["new"]}));
    let source = daemon.ok("get_project", json!({"project_id": "src"}));
    let made = daemon.ok(
        "derive_project",
        json!({"source_id": "src", "new_id": "new"}),
    );
    assert_eq!(events.receive()["kind"], "project.added");
    assert_eq!(made["config"]["gate_path"], source["config"]["gate_path"]);
    assert_eq!(made["config"]["agent_config"], json!({}));
    assert!(
        made["dropped"]
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d.as_str().unwrap().contains("tasks.root")),
        "{made}"
    );
    assert_ne!(made["config"]["tasks_root"], source["config"]["tasks_root"]);
    assert!(
        made["warnings"].to_string().contains("snip.df"),
        "a snippet left behind is told: {made}"
    );
    let text = fs::read_to_string(world.path("$CONFIG/projects/new/project.yml")).unwrap();
    assert!(
        text.contains("# head") && text.contains("# mine") && text.contains("id: new"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(world.path("$CONFIG/projects/new/instructions.md")).unwrap(),
        "be nice\n"
    );
    assert!(!world.path("$CONFIG/projects/new/presets").exists());
    let sharing = daemon.ok(
        "find_projects_sharing_gate",
        json!({"gate_path": source["config"]["gate_path"], "exclude_project": "src"}),
    );
    assert_eq!(sharing, json!([["new", "https://x.example/r"]]));
    // A derived project of a derived project still points at the first gate.
    let third = daemon.ok(
        "derive_project",
        json!({"source_id": "new", "new_id": "third", "copy": ["presets", "snippets"]}),
    );
    assert_eq!(third["config"]["gate_path"], source["config"]["gate_path"]);
    let copied = daemon.ok(
        "derive_project",
        json!({"source_id": "src", "new_id": "copied", "copy": ["presets", "snippets"]}),
    );
    assert!(
        world
            .path("$CONFIG/projects/copied/presets/mine.yml")
            .exists()
            && world.path("$CONFIG/projects/copied/snip.df").exists()
    );
    assert_eq!(copied["id"], "copied");

    let derive = |source: &str, new: &str| json!({"source_id": source, "new_id": new});
    daemon.fails("derive_project", derive("src", "new"), "already_exists");
    daemon.fails("derive_project", derive("src", "src"), "already_exists");
    daemon.fails("derive_project", derive("none", "x"), "project_not_found");
    daemon.fails("derive_project", derive("broken", "x"), "invalid_config");
    daemon.fails(
        "derive_project",
        derive("src", "../x"),
        "invalid_project_id",
    );
    daemon.fails(
        "derive_project",
        derive("src", "a-_-b"),
        "invalid_project_id",
    );
    daemon.fails(
        "derive_project",
        json!({"source_id": "src", "new_id": "y", "copy": ["everything"]}),
        "invalid_argument",
    );
    fs::write(world.path("$CONFIG/projects/file"), "").unwrap();
    daemon.fails("derive_project", derive("src", "file"), "already_exists");
    let elsewhere = "project: {id: taken, security_class: online}\n";
    world.write("$CONFIG/projects/elsewhere/project.yml", elsewhere);
    daemon.fails("derive_project", derive("src", "taken"), "already_exists");
    let left: Vec<String> = fs::read_dir(world.path("$CONFIG/projects"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with('.'))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "nothing half-made stays");
}

#[test]
fn a_system_project_is_not_shadowed_by_accident() {
    let world = World::with_project("src")
        .env("TEROK_CONFIG_DIR", "$SYSTEM")
        .file("$SYSTEM/projects/sys/project.yml", ONLINE);
    let daemon = world.start();
    daemon.fails(
        "derive_project",
        json!({"source_id": "src", "new_id": "sys"}),
        "already_exists",
    );
    daemon.ok(
        "derive_project",
        json!({"source_id": "src", "new_id": "sys", "shadow": true}),
    );
    let plan = daemon.ok(
        "delete_project",
        json!({"project_id": "sys", "dry_run": true}),
    );
    assert_eq!(plan["reveals_system_project"], true, "{plan}");
    // Both have the same keys, and who was hidden still needs them.
    daemon.ok("project.provision_ssh_key", json!({"project_id": "sys"}));
    let keys = daemon.ok("vault.list_ssh_keys", json!({}));
    assert_eq!(keys[0]["scopes"], json!(["sys"]), "{keys}");
    let result = daemon.ok("delete_project", json!({"project_id": "sys"}));
    let kept = result["skipped"].to_string();
    assert!(kept.contains("SSH key assignments"), "{result}");
    assert_eq!(daemon.ok("vault.list_ssh_keys", json!({})), keys);
    assert_eq!(
        daemon.ok("get_project", json!({"project_id": "sys"}))["config"]["root"],
        world.path("$SYSTEM/projects/sys").to_str().unwrap()
    );
}
