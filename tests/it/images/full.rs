//! All layers on a real distribution, with its package manager, and an agent from npm.

mod rpm;

use super::real::{make, podman, start};
use serde_json::{Value, json};
use std::fs;
use terok_tests::{Daemon, World};

const BASE: &str = "localhost/terok-test-debian:1";

fn yaml(agents: &str) -> String {
    format!(
        "project: {{security_class: online}}\nimage: {{base_image: '{BASE}', family: deb, agents: {agents}, user_snippet_inline: 'RUN echo hi > /snippet'}}\n"
    )
}

/// A base with a user of its own, as Ubuntu's has, and with what GitHub would be asked for.
fn base() {
    let base = std::env::var("TEROK_TEST_BASE_IMAGE").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("yq"),
        "#!/bin/sh\necho yq version v4.52.4\n",
    )
    .unwrap();
    let place = "/opt/releases/mikefarah/yq/releases/download/v4.52.4";
    let dockerfile = format!(
        "FROM {base}\nCOPY yq {place}/yq_linux_amd64\nCOPY yq {place}/yq_linux_arm64\nENV TEROK_RELEASES=file:///opt/releases\n\
         RUN useradd --uid 1000 --create-home somebody && echo somebody:100000:65536 > /etc/subuid\n"
    );
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    podman(&[
        "build",
        "-q",
        "--pull=never",
        "-t",
        BASE,
        dir.path().to_str().unwrap(),
    ]);
}

/// Waits for a detached build, however long it takes.
fn build(daemon: &Daemon, params: Value) -> Value {
    let mut params = params;
    params["detach"] = json!(true);
    let operation = daemon.ok("project.build_images", params)["operation_id"].clone();
    loop {
        // Each log line shows that it goes on; silence for longer than the deadline of a read is a failure.
        let now = daemon.ok("operation.get", json!({"id": operation}));
        if now["state"] == "running" {
            std::thread::sleep(std::time::Duration::from_millis(200));
            continue;
        }
        assert_eq!(now["state"], "succeeded", "{now:#}");
        return now["result"].clone();
    }
}

fn layers(result: &Value) -> Vec<(&str, bool)> {
    let images = result["images"].as_array().unwrap().iter();
    images
        .map(|i| (i["layer"].as_str().unwrap(), i["cached"].as_bool().unwrap()))
        .collect()
}

fn run(project: &str, command: &str) -> String {
    let image = format!("localhost/{project}:l2-cli");
    podman(&[
        "run",
        "--rm",
        "--pull=never",
        "--network=none",
        &image,
        "bash",
        "-lc",
        command,
    ])
}

/// Its ssh server takes its configuration, and its start script comes to an end.
fn can_be_reached(project: &str) {
    for (command, expected) in [
        (
            "sudo mkdir -p /run/sshd && sudo /usr/sbin/sshd -t && echo fine",
            "fine",
        ),
        (
            "init-ssh-and-repo.sh </dev/null | tail -1",
            ">> init complete",
        ),
    ] {
        assert_eq!(run(project, command), expected, "{command}");
    }
}

/// What agents and their users find inside.
fn is_complete(project: &str) {
    let is =
        |command: &str, expected: &str| assert_eq!(run(project, command), expected, "{command}");
    is(
        "id -un; id -u; pwd; sudo id -u; cat /etc/subuid; stat -c %a ~/.ssh /workspace; cat /snippet",
        "dev\n1000\n/workspace\n0\ndev:100000:65536\n700\n777\nhi",
    );
    is("codex --version | cut -d' ' -f1", "codex-cli");
    is(
        "cat /etc/terok/installed.env",
        "TEROK_INSTALLED_AGENTS=codex",
    );
    is(
        "jq -r '.codex | test(\"^[0-9]\")' /etc/terok/versions.json",
        "true",
    );
    is("type -t gh", "function");
    can_be_reached(project);
    is(
        "for tool in uv ast-grep fd python pipx rg; do $tool --version >/dev/null || echo no $tool; done",
        "",
    );
    is(
        "node --version | cut -d. -f1; hilfe | grep -c Codex",
        "v22\n1",
    );
}

fn state(daemon: &Daemon, project: &str) -> Value {
    daemon.ok("project.state", json!({"project_id": project}))
}

#[test]
#[ignore = "needs podman-test-env"]
fn an_agent_is_installed_and_runs() {
    base();
    let world = World::new()
        .project("alpha", &yaml("codex"))
        .project("beta", &yaml("codex"));
    // Machines behind a proxy that opens connections have its certificates among their own.
    if let Ok(bundle) = std::env::var("SSL_CERT_FILE") {
        world.write(
            "$CONFIG/terokd.yml",
            format!("network: {{ca_bundle: '{bundle}'}}\n"),
        );
    }
    let daemon = start(&world);
    assert_eq!(
        state(&daemon, "alpha")["missing_layers"],
        json!(["l0", "l1", "l2"])
    );

    // Two projects on one base at the same time: the layers below are built once.
    let mut events = daemon.events(json!({"kinds": ["image.built"]}));
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| build(&daemon, json!({"project_id": "beta"})));
        (
            build(&daemon, json!({"project_id": "alpha"})),
            other.join().unwrap(),
        )
    });
    assert_eq!(layers(&one), layers(&two));
    assert_eq!(
        layers(&one).iter().map(|l| l.0).collect::<Vec<_>>(),
        ["l0", "l1", "l2-cli"]
    );
    let built: Vec<String> = (0..4)
        .map(|_| {
            events.receive()["data"]["layer"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(built[..2], ["l0", "l1"]);
    assert_eq!(built[2..], ["l2-cli", "l2-cli"]);
    assert_eq!(
        (&one["still_stale"], &one["warnings"]),
        (&json!([]), &json!([]))
    );

    is_complete("alpha");
    let after = state(&daemon, "alpha");
    assert_eq!(
        (
            &after["stale_layers"],
            &after["images_old"],
            &after["missing_layers"],
            &after["agents_installed"]
        ),
        (&json!([]), &json!(false), &json!([]), &json!(["codex"]))
    );
    let manifest = world.path("$DATA/core/build/alpha/build_manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert!(
        manifest["agents_versions"]["codex"].is_string(),
        "{manifest}"
    );

    // Only the project's layer again, and from the cache.
    assert_eq!(
        layers(&build(&daemon, json!({"project_id": "alpha"}))),
        [("l2-cli", true)]
    );

    // Another selection: another agent layer, on the same base layer.
    world.write("$CONFIG/projects/alpha/project.yml", yaml("'codex,-codex'"));
    daemon.ok("daemon.reload", json!({}));
    let changed = state(&daemon, "alpha");
    assert_eq!(
        (&changed["dockerfiles_old"], &changed["missing_layers"]),
        (&json!(true), &json!(["l1"]))
    );
    daemon.ok(
        "project.generate_dockerfiles",
        json!({"project_id": "alpha"}),
    );
    assert_eq!(state(&daemon, "alpha")["stale_layers"], json!(["l1"]));
    let rebuilt = build(&daemon, json!({"project_id": "alpha"}));
    assert_eq!(
        layers(&rebuilt),
        [("l0", true), ("l1", false), ("l2-cli", false)]
    );
    assert_eq!(state(&daemon, "alpha")["stale_layers"], json!([]));
    assert_eq!(state(&daemon, "alpha")["agents_installed"], json!([]));
    assert_eq!(
        state(&daemon, "beta")["stale_layers"],
        json!([]),
        "others are not touched"
    );

    // A selection for one build is not what is configured.
    let once = build(&daemon, json!({"project_id": "alpha", "agents": "codex"}));
    assert_eq!(layers(&once), [("l2-cli", true)], "as it was built before");
    assert_eq!(once["still_stale"], json!(["l1"]), "{once}");
    let known = state(&daemon, "alpha");
    assert_eq!(
        (&known["stale_layers"], &known["agents_installed"]),
        (&json!(["l1"]), &json!(["codex"]))
    );
    build(&daemon, json!({"project_id": "alpha"}));
    assert_eq!(state(&daemon, "alpha")["stale_layers"], json!([]));

    // An agent of the user's own, and what becomes of images when its file changes.
    let toy = |version: &str| {
        format!("binary: toy\ninstall: {{run_as_dev: 'RUN echo {version} > /home/dev/toy'}}\n")
    };
    world.write("$CONFIG/agent/agents/toy.yaml", toy("one"));
    world.write("$CONFIG/projects/alpha/project.yml", yaml("toy"));
    daemon.ok("daemon.reload", json!({}));
    let own = build(&daemon, json!({"project_id": "alpha"}));
    assert_eq!(layers(&own)[..2], [("l0", true), ("l1", false)]);
    assert_eq!(run("alpha", "cat ~/toy"), "one");
    world.write("$CONFIG/agent/agents/toy.yaml", toy("two"));
    daemon.ok("daemon.reload", json!({}));
    let as_it_was = build(&daemon, json!({"project_id": "alpha"}));
    assert_eq!(as_it_was["still_stale"], json!(["l1"]), "{as_it_was}");
    assert_eq!(run("alpha", "cat ~/toy"), "one");
    let anew = build(
        &daemon,
        json!({"project_id": "alpha", "rebuild_stale": true}),
    );
    assert_eq!(
        layers(&anew),
        [("l0", true), ("l1", false), ("l2-cli", false)]
    );
    assert_eq!(
        (&anew["still_stale"], run("alpha", "cat ~/toy").as_str()),
        (&json!([]), "two")
    );
    let refreshed = build(
        &daemon,
        json!({"project_id": "alpha", "refresh_agents": true}),
    );
    assert_eq!(
        layers(&refreshed),
        [("l0", true), ("l1", false), ("l2-cli", false)]
    );
    let manifest = world.path("$DATA/core/build/alpha/build_manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert!(
        manifest["l1"]["agents_refreshed_at"].is_string(),
        "{manifest}"
    );

    // An agent layer that stayed behind when others built the base layer anew.
    let l1 = "localhost/terok-l1-cli:localhost-terok-test-debian-1-codex";
    make(l1, &format!("FROM {l1}\nLABEL terokd.l0_hash=older\n"));
    let behind = build(&daemon, json!({"project_id": "beta"}));
    assert_eq!(
        (&layers(&behind)[..], &behind["still_stale"]),
        (&[("l2-cli", false)][..], &json!(["l0"])),
        "{behind}"
    );
    let anew = build(
        &daemon,
        json!({"project_id": "beta", "rebuild_stale": true}),
    );
    assert_eq!(
        (layers(&anew)[0], &anew["still_stale"]),
        (("l0", true), &json!([])),
        "{anew}"
    );

    // Another base: everything.
    let other = yaml("codex").replace(BASE, "localhost/terok-test-debian:2");
    podman(&["tag", BASE, "localhost/terok-test-debian:2"]);
    world.write("$CONFIG/projects/alpha/project.yml", other);
    daemon.ok("daemon.reload", json!({}));
    daemon.ok(
        "project.generate_dockerfiles",
        json!({"project_id": "alpha"}),
    );
    let moved = state(&daemon, "alpha");
    assert_eq!(
        (&moved["stale_layers"], &moved["missing_layers"]),
        (&json!(["l0", "l1"]), &json!(["l0", "l1"])),
        "{moved}"
    );
    let overview = daemon.ok("storage.overview", json!({}));
    let unused = overview["unused_base_images"].as_array().unwrap();
    assert_eq!(
        unused.iter().map(|image| &image["tag"]).collect::<Vec<_>>(),
        [&json!("localhost-terok-test-debian-1-empty")],
        "the manifest still names the others: {overview}"
    );

    // A proxy's password reaches the build and stays out of the image.
    let yml = world.path("$CONFIG/terokd.yml");
    let before = fs::read_to_string(&yml).unwrap_or_else(|_| "network: {}\n".to_owned());
    let proxy = "network: {proxy: {http: 'http://user:s3cr3t@127.0.0.1:9'}, ";
    world.write("$CONFIG/terokd.yml", before.replace("network: {", proxy));
    world.write(
        "$CONFIG/projects/beta/project.yml",
        yaml("codex").replace("echo hi", "echo $http_proxy | md5sum"),
    );
    daemon.ok("daemon.reload", json!({}));
    let proxied = build(&daemon, json!({"project_id": "beta"}));
    assert_eq!(layers(&proxied), [("l2-cli", false)]);
    assert!(
        proxied["warnings"][0]
            .as_str()
            .unwrap()
            .contains("loopback"),
        "{proxied}"
    );
    assert_ne!(
        run("beta", "cat /snippet"),
        "68b329da9893e34099c7d8ad5cb9c940  -",
        "no proxy was seen"
    );
    for record in [
        &["history", "--no-trunc", "localhost/beta:l2-cli"][..],
        &["image", "inspect", "localhost/beta:l2-cli"],
    ] {
        let text = podman(record);
        assert!(text.contains("codex") && !text.contains("s3cr3t"), "{text}");
    }
}
