//! Editing a `project.yml`, as a whole and in place.

use super::{ONLINE, zoo};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use terok_tests::World;

#[test]
fn agents_are_edited_in_place() {
    let world = World::new().project(
        "alpha",
        "# top\nproject: {security_class: online}\nimage:\n  base_image: 'x:1'   # keep me\n",
    );
    world.write("$HOME/elsewhere.yml", "# linked\nimage: {agents: old}\n");
    world.link("$CONFIG/projects/linked/project.yml", "$HOME/elsewhere.yml");
    let path = world.path("$CONFIG/projects/alpha/project.yml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let daemon = world.start();
    let before = fs::read_to_string(&path).unwrap();
    let told = daemon.ok(
        "set_project_image_agents",
        json!({"project_id": "alpha", "selection": "claude, codex"}),
    );
    assert_eq!(told, path.to_str().unwrap());
    let after = fs::read_to_string(&path).unwrap();
    let gone: Vec<&str> = before
        .lines()
        .filter(|l| !after.lines().any(|a| a == *l))
        .collect();
    assert_eq!(gone, Vec::<&str>::new(), "every old line stays: {after}");
    assert_eq!(after.lines().count(), before.lines().count() + 1, "{after}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(
        daemon.ok("get_project", json!({"project_id": "alpha"}))["config"]["agents"],
        "claude, codex"
    );
    daemon.ok(
        "set_project_image_agents",
        json!({"project_id": "linked", "selection": "all"}),
    );
    assert!(
        world
            .path("$CONFIG/projects/linked/project.yml")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::read_to_string(world.path("$HOME/elsewhere.yml"))
            .unwrap()
            .contains("# linked")
    );
    let error = daemon.fails(
        "set_project_image_agents",
        json!({"project_id": "alpha", "selection": "nobody"}),
        "unknown_agent",
    );
    assert!(error.message.contains("nobody"), "{}", error.message);
    world.write("$CONFIG/projects/list/project.yml", "- a\n- b\n");
    daemon.ok("daemon.reload", json!({}));
    daemon.fails(
        "set_project_image_agents",
        json!({"project_id": "list", "selection": "all"}),
        "invalid_config",
    );
    assert_eq!(
        fs::read_to_string(world.path("$CONFIG/projects/list/project.yml")).unwrap(),
        "- a\n- b\n"
    );
}

#[test]
fn an_edit_keeps_the_id_equal_to_the_directorys_name() {
    let named = |id: &str| format!("project: {{id: {id}, security_class: online}}\n");
    let world = World::new()
        .project("alpha", &named("alpha"))
        .project("beta", &named("beta"))
        .project("old", &named("older"));
    let daemon = world.start();
    let write = |id: &str, text: &str| json!({"project_id": id, "text": text});
    for taken in ["beta", "gamma", "older"] {
        let error = daemon.fails(
            "project.write_yaml",
            write("alpha", &named(taken)),
            "invalid_config",
        );
        assert_eq!(
            error.data["errors"][0]["location"], "project.id",
            "{error:?}"
        );
    }
    let text = fs::read_to_string(world.path("$CONFIG/projects/alpha/project.yml")).unwrap();
    assert_eq!(text, named("alpha"));
    daemon.ok("project.write_yaml", write("alpha", ONLINE));
    // Where they differ already, everything else can still be edited, and the id be put right.
    daemon.ok(
        "project.write_yaml",
        write("old", &format!("{}run: {{memory: 4g}}\n", named("older"))),
    );
    daemon.fails(
        "project.write_yaml",
        write("old", &named("alpha")),
        "invalid_config",
    );
    world.write("$CONFIG/projects/old/project.yml", "a: [\n");
    daemon.ok("daemon.reload", json!({}));
    daemon.fails(
        "project.write_yaml",
        write("old", &named("alpha")),
        "invalid_config",
    );
    daemon.ok("project.write_yaml", write("old", &named("older")));
    daemon.ok("project.write_yaml", write("old", &named("old")));
    daemon.ok("get_project", json!({"project_id": "old"}));
}

#[test]
fn editing_a_file_needs_the_hash_one_has_seen() {
    let world = zoo();
    let daemon = world.start();
    let seen = daemon.ok("project.read_yaml", json!({"project_id": "alpha"}));
    assert_eq!(
        seen["text"],
        fs::read_to_string(seen["path"].as_str().unwrap()).unwrap()
    );
    let write =
        |text: &str, hash: &Value| json!({"project_id": "alpha", "text": text, "base_hash": hash});
    daemon.ok("project.write_yaml", write(ONLINE, &seen["hash"]));
    daemon.fails(
        "project.write_yaml",
        write("{}\n", &seen["hash"]),
        "edit_conflict",
    );
    assert_eq!(
        fs::read_to_string(seen["path"].as_str().unwrap()).unwrap(),
        ONLINE
    );
    daemon.fails(
        "project.write_yaml",
        json!({"project_id": "alpha", "text": "nonsense: 1\n"}),
        "invalid_config",
    );
    daemon.fails(
        "project.write_yaml",
        json!({"project_id": "alpha", "text": "a: [\n"}),
        "invalid_config",
    );
    assert_eq!(
        fs::read_to_string(seen["path"].as_str().unwrap()).unwrap(),
        ONLINE
    );
    // Also of a broken project: that is how an editor repairs it.
    let broken = daemon.ok("project.read_yaml", json!({"project_id": "broken"}));
    assert!(broken["text"].as_str().unwrap().contains("projecct"));
    daemon.ok(
        "project.write_yaml",
        json!({"project_id": "broken", "text": ONLINE, "base_hash": broken["hash"]}),
    );
    daemon.ok("get_project", json!({"project_id": "broken"}));
    // Many editors at once: one wins each round.
    let seen = daemon.ok("project.read_yaml", json!({"project_id": "alpha"}));
    let won: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..10)
            .map(|n| {
                let (daemon, hash) = (&daemon, &seen["hash"]);
                scope.spawn(move || {
                    let text = format!("project: {{security_class: online, name: n{n}}}\n");
                    daemon
                        .connect()
                        .call(
                            "project.write_yaml",
                            json!({"project_id": "alpha", "text": text, "base_hash": hash}),
                        )
                        .is_ok()
                })
            })
            .collect();
        tries
            .into_iter()
            .map(|t| usize::from(t.join().unwrap()))
            .sum()
    });
    assert_eq!(won, 1);
}
