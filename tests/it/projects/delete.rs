//! Deleting: what is archived, what goes, what stays.

use super::{ONLINE, bare_repository, zoo};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use terok_tests::World;

#[test]
fn a_deleted_project_is_archived_first() {
    let world = World::with_project("alpha")
        .file("$CONFIG/projects/alpha/presets/x.yml", "model: x\n")
        .file("$DATA/core/projects/alpha/tasks/t1.yml", "a: 1\n")
        .file("$DATA/core/build/alpha/L0.Dockerfile", "FROM x\n")
        .file(
            "$DATA/sandbox-live/tasks/alpha/t1/workspace-dangerous/big",
            "data",
        )
        .file("$DATA/archive/alpha/old.log", "old\n")
        .project("bystander", ONLINE);
    world.mkdirs(&world.path("$CONFIG/projects/alpha/empty"));
    world.link("$CONFIG/projects/alpha/dangling", "/no/such/place");
    bare_repository(&world, "$DATA/sandbox/gate/alpha.git");
    let daemon = world.start();
    let mut events = daemon.events(json!({"projects": ["alpha"], "kinds": ["project.removed"]}));
    let plan = daemon.ok(
        "delete_project",
        json!({"project_id": "alpha", "dry_run": true}),
    );
    assert!(
        world.path("$CONFIG/projects/alpha").exists() && plan["archive"].is_null()
            || plan["archive"].is_string()
    );
    let result = daemon.ok("delete_project", json!({"project_id": "alpha"}));
    events.receive();
    let deleted: Vec<String> = world
        .symbolic(&result["deleted"])
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_str().unwrap().to_owned())
        .collect();
    for path in [
        "$DATA/sandbox-live/tasks/alpha",
        "$DATA/core/projects/alpha",
        "$DATA/core/build/alpha",
        "$DATA/sandbox/gate/alpha.git",
        "$CONFIG/projects/alpha",
    ] {
        assert!(
            deleted.contains(&path.to_owned()),
            "{path} is not told: {deleted:?}"
        );
        assert!(!world.path(path).exists(), "{path} is still there");
    }
    assert!(
        !world.path("$DATA/archive/alpha").exists(),
        "what is in the archive now need not stay twice"
    );
    assert!(
        world
            .path("$CONFIG/projects/bystander/project.yml")
            .exists()
    );
    let archive = std::path::PathBuf::from(result["archive"].as_str().unwrap());
    assert_eq!(
        fs::metadata(&archive).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let listed = std::process::Command::new("tar")
        .arg("-tzf")
        .arg(&archive)
        .output()
        .unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    let members: Vec<&str> = listed.lines().map(|l| l.trim_end_matches('/')).collect();
    assert_eq!(members[0], "MANIFEST.json");
    for member in [
        "config/project.yml",
        "config/presets/x.yml",
        "config/empty",
        "config/dangling",
        "state/tasks/t1.yml",
        "task-archives/old.log",
        "build/L0.Dockerfile",
    ] {
        assert!(
            members.contains(&member),
            "{member} is not in the archive: {members:?}"
        );
    }
    assert!(!listed.contains("big"), "workspaces are not archived");
    let manifest = std::process::Command::new("tar")
        .arg("-xzOf")
        .arg(&archive)
        .arg("MANIFEST.json")
        .output()
        .unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    assert_eq!(manifest["id"], "alpha", "{manifest}");
    daemon.fails(
        "get_project",
        json!({"project_id": "alpha"}),
        "project_not_found",
    );
    daemon.fails(
        "delete_project",
        json!({"project_id": "alpha"}),
        "project_not_found",
    );
}

#[test]
fn deleting_spares_what_others_need() {
    let world = World::new()
        .project("alpha", "project: {security_class: online}\ngate: {path: $DATA/sandbox/gate/shared.git}\n".replace("$DATA", "~/.local/share/terok").as_str())
        .project("sibling", "nonsense: 1\ngate: {path: ~/.local/share/terok/sandbox/gate/shared.git}\n")
        .project("outside", "project: {security_class: online}\ntasks: {root: ~/precious}\ngate: {path: ~/repo.git}\n")
        .project("greedy", "project: {security_class: online}\ntasks: {root: ~/.local/share/terok/core}\n")
        .file("$HOME/precious/x", "x");
    bare_repository(&world, "$DATA/sandbox/gate/shared.git");
    bare_repository(&world, "$HOME/repo.git");
    let daemon = world.start();
    let result = daemon.ok("delete_project", json!({"project_id": "alpha"}));
    assert!(
        world.path("$DATA/sandbox/gate/shared.git/HEAD").exists(),
        "a broken sibling still shares it: {result}"
    );
    assert!(
        result["skipped"].to_string().contains("sibling"),
        "{result}"
    );
    let result = daemon.ok("delete_project", json!({"project_id": "outside"}));
    assert!(world.path("$HOME/precious/x").exists() && world.path("$HOME/repo.git/HEAD").exists());
    assert_eq!(
        result["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s.as_str().unwrap().contains("outside managed storage"))
            .count(),
        2,
        "{result}"
    );
    daemon.ok("delete_project", json!({"project_id": "greedy"}));
    assert!(
        world.path("$DATA/core/terokd/state.db").exists(),
        "a managed root itself is never removed"
    );
    daemon.ok("list_projects", json!({}));
}

#[test]
fn deleting_follows_no_links() {
    let world = World::new()
        .file("$HOME/real/project.yml", ONLINE)
        .file("$HOME/real/notes", "mine");
    world.link("$CONFIG/projects/linked", "$HOME/real");
    let outside = world.write("$HOME/outside/keep", "keep");
    world.write("$DATA/sandbox-live/tasks/linked/t/x", "x");
    world.link("$DATA/sandbox-live/tasks/linked/t/link", "$HOME/outside");
    let daemon = world.start();
    daemon.ok("delete_project", json!({"project_id": "linked"}));
    let archive = fs::metadata(world.path("$DATA/archive")).unwrap();
    assert_eq!(archive.permissions().mode() & 0o777, 0o700);
    assert!(outside.exists());
    assert!(
        world.path("$HOME/real/notes").exists(),
        "only the link is ours"
    );
    assert!(
        !world.path("$CONFIG/projects/linked").exists()
            && !world.path("$DATA/sandbox-live/tasks/linked").exists()
    );
}

#[test]
fn deleting_needs_permission_before_it_begins() {
    let mut world = World::with_project("alpha");
    world.write("$DATA/core/projects/alpha/tasks/t.yml", "a: 1\n");
    world.mode_at_start("$CONFIG/projects", 0o555);
    let daemon = world.start();
    let error = daemon
        .call("delete_project", json!({"project_id": "alpha"}))
        .expect_err("must not begin");
    assert!(
        ["permission_denied", "storage_error"].contains(&error.kind()),
        "{error:?}"
    );
    assert!(world.path("$DATA/core/projects/alpha/tasks/t.yml").exists());
    fs::set_permissions(
        world.path("$CONFIG/projects"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
}

#[test]
fn without_an_archive_nothing_is_removed() {
    let mut world = World::with_project("alpha");
    world.mkdirs(&world.path("$DATA/archive"));
    world.mode_at_start("$DATA/archive", 0o500);
    let daemon = world.start();
    daemon.fails(
        "delete_project",
        json!({"project_id": "alpha"}),
        "archive_failed",
    );
    daemon.ok("get_project", json!({"project_id": "alpha"}));
    let unreadable = world.write("$CONFIG/projects/alpha/secret", "x");
    fs::set_permissions(
        world.path("$DATA/archive"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fs::set_permissions(unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    daemon.fails(
        "delete_project",
        json!({"project_id": "alpha"}),
        "archive_failed",
    );
    let left = fs::read_dir(world.path("$DATA/archive")).unwrap().count();
    assert_eq!(left, 0, "no half-made archive stays");
    daemon.ok("get_project", json!({"project_id": "alpha"}));
}

#[test]
fn a_broken_project_cannot_be_deleted() {
    let world = zoo();
    let daemon = world.start();
    daemon.fails(
        "delete_project",
        json!({"project_id": "broken"}),
        "invalid_config",
    );
    assert!(world.path("$CONFIG/projects/broken/project.yml").exists());
}

#[test]
fn a_deletion_is_nothing_to_warn_of() {
    let world = World::with_project("alpha").project("beta", ONLINE);
    let mut daemon = world.start();
    daemon.ok("delete_project", json!({"project_id": "alpha"}));
    fs::remove_dir_all(world.path("$CONFIG/projects/beta")).unwrap();
    assert_eq!(daemon.ok("daemon.reload", json!({}))["valid"], 0);
    assert!(daemon.terminate().success());
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}
