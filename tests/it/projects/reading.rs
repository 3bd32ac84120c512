//! What is told of projects, and what no id or parameter may be.

use super::zoo;
use serde_json::{Value, json};
use terok_tests::World;

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
                // Whether it has an image is Podman's to say.
                Err(error) if name == "project_image_exists" => {
                    assert_eq!(error.kind(), "podman_unavailable");
                }
                Err(error) => assert!(
                    ["invalid_project_id", "project_not_found"].contains(&error.kind()),
                    "{name}: {error:?}"
                ),
                Ok(result) => panic!("{name} {id:?} answered {result}"),
            }
        }
        // One makes projects, the other one asks for an image and reads no project.
        if !["write_project_yaml", "project_image_exists"].contains(&name) {
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
fn without_podman_images_are_unknown_and_not_none() {
    let world = zoo();
    let daemon = world.start();
    for (method, params) in [
        ("project_image_exists", json!({"project_id": "alpha"})),
        ("list_images", json!({})),
        ("find_orphaned_images", json!({})),
        ("cleanup_images", json!({"dry_run": true})),
        ("remove_images", json!({"images": ["x:l2-cli"]})),
        ("project.build_images", json!({"project_id": "alpha"})),
    ] {
        daemon.fails(method, params, "podman_unavailable");
    }
    let status = daemon.ok("daemon.status", json!({}));
    assert_eq!(status["podman"]["available"], false);
    let error = status["podman"]["error"].as_str().expect("a reason");
    assert!(error.contains("no-podman.sock"), "{error}");
    assert_eq!(daemon.ok("panic.status", json!({}))["panicked"], false);
}

#[test]
fn nobody_waits_for_the_other_end_of_a_pipe() {
    let world = World::with_project("alpha");
    for place in [
        "$CONFIG/config.yml",
        "$CONFIG/terokd.yml",
        "$CONFIG/instructions.md",
        "$CONFIG/projects/alpha/instructions.md",
        "$CONFIG/projects/alpha/presets/mine.yml",
        "$CONFIG/projects/pipe/project.yml",
        "$DATA/core/terokd/deletions/0.json",
        "$DATA/core/projects/alpha/tasks/t1.yml",
        "$DATA/sandbox/gate/tokens.json",
        "$HOME/.gitconfig",
    ] {
        let path = world.path(place);
        world.mkdirs(path.parent().unwrap());
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        world.own(&path);
    }
    let daemon = world.start();
    assert_eq!(daemon.ok("daemon.reload", json!({}))["valid"], 1);
    let problems = daemon.ok("config.problems", json!({}));
    for file in ["/config.yml", "/terokd.yml"] {
        let told = |p: &Value| p["path"].as_str().is_some_and(|path| path.ends_with(file));
        assert!(problems.as_array().unwrap().iter().any(told), "{problems}");
    }
    let alpha = json!({"project_id": "alpha"});
    daemon.ok("project.list_presets", alpha.clone());
    daemon.ok("project.state", alpha.clone());
    let agent = json!({"project_id": "alpha", "provider": "claude"});
    daemon.ok("project.agents.resolve_instructions", agent);
    let plan = json!({"project_id": "alpha", "dry_run": true});
    daemon.ok("delete_project", plan);
}
