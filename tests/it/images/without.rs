//! Images where Podman is missing, hangs or must not be used.

use serde_json::json;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use terok_tests::World;

fn many(count: usize) -> World {
    (0..count).fold(World::new(), |world, n| {
        let yaml = "project: {security_class: online}\nimage: {agents: codex}\n";
        world.project(&format!("p{n}"), yaml)
    })
}

#[test]
fn a_podman_that_hangs_holds_nobody_up() {
    let world = many(100);
    let socket = world.dir().join("hangs.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    world.own(&socket);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let world = world.env("CONTAINER_HOST", &format!("unix://{}", socket.display()));
    let daemon = world.start();
    // One after the other: had each waited, this would take five minutes.
    for n in 0..100 {
        let state = daemon.ok("project.state", json!({"project_id": format!("p{n}")}));
        assert_eq!(state["images"], false);
        let warnings = state["warnings"].to_string();
        assert!(warnings.contains("podman did not"), "{warnings}");
        assert_eq!(state["agents_configured"], json!(["codex"]));
    }
    assert!(asked.load(Ordering::SeqCst) < 20, "{asked:?}");
    daemon.fails("list_images", json!({}), "podman_timeout");
    let status = daemon.ok("daemon.status", json!({}));
    assert_eq!(status["podman"]["available"], false);
    assert_eq!(
        daemon
            .ok("list_projects", json!({}))
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

#[test]
fn a_lockdown_keeps_images_as_they_are() {
    let world = many(1);
    world.write("$DATA/core/panic.lock", "2026-01-01T00:00:00Z\n");
    let daemon = world.start();
    let project = json!({"project_id": "p0"});
    daemon.fails("project.build_images", project.clone(), "panicked");
    daemon.fails("cleanup_images", json!({}), "panicked");
    daemon.fails("remove_images", json!({"images": ["x:l2-cli"]}), "panicked");
    // What only looks or writes files is allowed.
    let dry = json!({"images": ["x:l2-cli"], "dry_run": true});
    assert_eq!(
        daemon.ok("remove_images", dry)["removed"],
        json!(["x:l2-cli"])
    );
    daemon.fails(
        "cleanup_images",
        json!({"dry_run": true}),
        "podman_unavailable",
    );
    daemon.ok("project.generate_dockerfiles", project);
}

#[test]
fn a_project_that_no_image_can_be_named_after_is_not_built() {
    let world = World::with_project("foo-");
    let daemon = world.start();
    let error = daemon.fails(
        "project.build_images",
        json!({"project_id": "foo-"}),
        "invalid_config",
    );
    assert!(error.message.contains("foo-"), "{error:?}");
    assert_eq!(
        daemon.ok("discover_projects", json!({}))["broken"],
        json!([])
    );
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let world = many(1)
        .file("$HOME/ca.pem", "no certificate")
        .file("$CONFIG/terokd.yml", "network: {ca_bundle: ~/ca.pem}\n");
    let daemon = world.start();
    let project = json!({"project_id": "p0"});
    let error = daemon.fails(
        "project.generate_dockerfiles",
        project.clone(),
        "invalid_config",
    );
    assert!(error.message.contains("network.ca_bundle"), "{error:?}");
    let state = daemon.ok("project.state", project.clone());
    assert!(
        state["warnings"].to_string().contains("ca_bundle"),
        "{state}"
    );
    // The file counts as it is when it is asked for.
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    world.write("$HOME/ca.pem", certificate);
    let paths = daemon.ok("project.generate_dockerfiles", project.clone());
    assert!(
        paths["paths"].to_string().contains("ca/terok-ca-0000.crt"),
        "{paths}"
    );
    assert_eq!(
        daemon.ok("project.state", project.clone())["dockerfiles_old"],
        false
    );
    world.write("$HOME/ca.pem", certificate.replace("AAAA", "BBBB"));
    assert_eq!(daemon.ok("project.state", project)["dockerfiles_old"], true);
}
