//! Every catalog method of this stage: what it answers, and that it fails with a documented kind (rpc.md §4, projects.md).

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use terok_tests::{Daemon, World};

const ONLINE: &str = "project: {security_class: online}\n";

/// One of everything: healthy, broken, unreadable as YAML, gated with an upstream.
fn zoo() -> World {
    World::new()
        .project(
            "alpha",
            "project:\n  security_class: online   # public\n  name: Alpha\nrun: {gpus: all}\n",
        )
        .project(
            "gated",
            "git: {upstream_url: 'git@forge.example:lab/orion.git'}\nshared_dir: true\n",
        )
        .project("broken", "projecct: {}\nrun: {hooks: {x: 1}}\n")
        .project("unparsable", "a: [\n")
}

#[test]
fn projects_are_listed_and_found() {
    let world = zoo();
    let daemon = world.start();
    let listed = daemon.ok("list_projects", json!({}));
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["alpha", "gated"]);
    let alpha = &listed[0];
    assert_eq!(
        *alpha,
        daemon.ok("get_project", json!({"project_id": "alpha"}))
    );
    assert_eq!(
        (&alpha["display_name"], &alpha["gpu"]),
        (&json!("Alpha"), &json!(true))
    );
    assert_eq!(listed[1]["needs_ssh_key_registration"], true);
    assert_eq!(
        listed[1]["config"]["shared_dir"],
        listed[1]["config"]["tasks_root"]
            .as_str()
            .unwrap()
            .to_owned()
            + "/_shared"
    );
    let found = daemon.ok("discover_projects", json!({}));
    assert_eq!(
        found["projects"],
        json!([listed[0]["config"], listed[1]["config"]])
    );
    let broken: Vec<&str> = found["broken"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_str().unwrap())
        .collect();
    assert_eq!(broken, ["broken", "unparsable"]);
    let text = found["broken"][0]["error"].as_str().unwrap();
    assert!(
        text.contains("projecct") && text.contains("run → hooks → x"),
        "all problems at once: {text}"
    );
    for id in ["alpha", "broken", "unparsable"] {
        assert_eq!(
            daemon.ok("require_project_exists", json!({"project_id": id})),
            Value::Null
        );
    }
}

#[test]
fn a_broken_project_says_what_and_where() {
    let world = zoo();
    let daemon = world.start();
    for method in [
        "get_project",
        "load_project",
        "project.state",
        "project.list_presets",
        "project.agents.resolve_config",
    ] {
        let error = daemon.fails(method, json!({"project_id": "broken"}), "invalid_config");
        assert_eq!(error.code, 1105);
        let locations: Vec<&str> = error.data["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["location"].as_str().unwrap())
            .collect();
        assert_eq!(
            locations,
            ["run.hooks.x", "projecct"],
            "{method}: known sections first, unknown keys after them"
        );
        assert_eq!(
            error.data["path"],
            world
                .path("$CONFIG/projects/broken/project.yml")
                .to_str()
                .unwrap()
        );
        let first = &error.data["errors"][1];
        assert_eq!(
            (&first["line"], &first["code"], &first["severity"]),
            (&json!(1), &json!("unknown_key"), &json!("error"))
        );
        assert_eq!(first["suggestion"], "project", "{first}");
        assert_eq!(error.data["errors"][0]["line"], 2);
    }
}

/// Every method that takes a project, with ids that are none.
#[test]
fn ids_that_are_none_are_refused_everywhere() {
    let world = zoo();
    let daemon = world.start();
    let document = daemon.ok("rpc.discover", json!({}));
    let mut tried = 0;
    for method in document["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        let params = method["params"].as_array().unwrap();
        if !params
            .iter()
            .any(|p| p["name"] == "project_id" && p["required"] == true)
        {
            continue;
        }
        let mut example = json!({});
        for param in method["examples"][0]["params"].as_array().unwrap() {
            example[param["name"].as_str().unwrap()] = param["value"].clone();
        }
        for id in [
            "../alpha",
            "",
            "Alpha",
            "a/b",
            "-a",
            "a\nb",
            "a\0b",
            "/etc/passwd",
            "ä",
            &"a".repeat(5000),
        ] {
            tried += 1;
            example["project_id"] = json!(id);
            match daemon.call(name, example.clone()) {
                Err(error) if id.len() < 5000 => assert_eq!(
                    error.kind(),
                    "invalid_project_id",
                    "{name} {id:?}: {error:?}"
                ),
                Err(error) => assert!(
                    ["invalid_project_id", "project_not_found"].contains(&error.kind()),
                    "{name}: {error:?}"
                ),
                Ok(result) => panic!("{name} {id:?} answered {result}"),
            }
        }
        if name != "write_project_yaml" {
            example["project_id"] = json!("no-such-project");
            let error = daemon.call(name, example).expect_err(name);
            assert_eq!(error.kind(), "project_not_found", "{name}: {error:?}");
            assert!(
                error.message.contains("no-such-project"),
                "{name}: {}",
                error.message
            );
        }
    }
    assert!(
        tried > 100,
        "only {tried} calls: the description lacks methods"
    );
    assert!(!world.path("$CONFIG/alpha").exists());
}

/// Parameters of every wrong type for every method: typed errors, never a crash.
#[test]
fn nonsense_for_every_method_is_a_typed_error() {
    let world = zoo();
    let daemon = world.start();
    let document = daemon.ok("rpc.discover", json!({}));
    let nonsense = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("\u{0}\u{1b}[2J\u{202e}"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"key": "x", "kind": "text"}),
        json!("x".repeat(100_000)),
        json!(["alpha", 7]),
        json!({"a": {"b": [null]}}),
    ];
    for method in document["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        if name == "daemon.shutdown" {
            continue;
        }
        for param in method["params"].as_array().unwrap() {
            for value in &nonsense {
                let mut call = json!({});
                for example in method["examples"][0]["params"].as_array().unwrap() {
                    call[example["name"].as_str().unwrap()] = example["value"].clone();
                }
                call[param["name"].as_str().unwrap()] = value.clone();
                // Schema, kind and message are checked by the client itself.
                let _ = daemon.connect().call(name, call);
            }
        }
    }
    daemon.ok("daemon.status", json!({}));
}

#[test]
fn what_later_stages_bring_says_so_today() {
    let world = zoo();
    let daemon = world.start();
    for (method, params) in [
        ("project_image_exists", json!({"project_id": "alpha"})),
        ("list_images", json!({})),
        ("find_orphaned_images", json!({})),
        ("cleanup_images", json!({"dry_run": true})),
        ("remove_images", json!({"images": ["x"], "dry_run": true})),
    ] {
        daemon.fails(method, params, "podman_unavailable");
    }
    assert_eq!(daemon.ok("panic.status", json!({}))["panicked"], false);
}

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
    daemon.ok("delete_project", json!({"project_id": "sys"}));
    assert_eq!(
        daemon.ok("get_project", json!({"project_id": "sys"}))["config"]["root"],
        world.path("$SYSTEM/projects/sys").to_str().unwrap()
    );
}

/// Files of a bare repository, as far as the daemon looks.
fn bare_repository(world: &World, path: &str) {
    world.write(&format!("{path}/HEAD"), "ref: refs/heads/main\n");
    world.write(
        &format!("{path}/config"),
        "[core]\n\tbare = true\n\trepositoryformatversion = 0\n",
    );
    world.mkdirs(&world.path(&format!("{path}/objects")));
    world.mkdirs(&world.path(&format!("{path}/refs")));
}

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
    let world = World::new().project(
        "alpha",
        "project: {security_class: online}\ndefault_agent: codex\n",
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
