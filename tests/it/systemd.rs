//! The units in `systemd/`, with a real `systemd --user`.

use nix::sys::signal::Signal;
use serde_json::json;
use std::os::unix::net::{UnixDatagram, UnixStream};
use terok_tests::private::in_private;
use terok_tests::programs::{account, checkout, need, skip, terokctl, terokd};
use terok_tests::{Daemon, PATIENCE, World, eventually};

#[test]
fn units_work_with_a_real_manager() {
    with_manager("systemd-suite", &["--no-podman"]);
}

#[test]
fn containers_outlive_the_daemon() {
    with_manager("containers-suite", &["--base-image", "--no-service"]);
}

/// Runs a script of `tests/env` under a manager of its own.
fn with_manager(suite: &str, options: &[&str]) {
    if account().is_none() {
        return skip("root", "a private `systemd --user` needs mounts of its own");
    }
    if need("systemctl").is_none() {
        return;
    }
    let (env, units) = (checkout().join("tests/env"), checkout().join("systemd"));
    let files = [
        (suite, env.join(suite)),
        ("terokd", terokd()),
        ("terokctl", terokctl()),
        ("terokd.service", units.join("terokd.service")),
        ("terokd.socket", units.join("terokd.socket")),
        ("terokd-gate.socket", units.join("terokd-gate.socket")),
    ];
    let options = [&["--systemd-user"], options].concat();
    in_private(&files, &options, &["DIR"]);
}

#[test]
fn a_manager_that_does_not_read_holds_nobody_up() {
    let world = World::with_project("alpha");
    let path = world.dir().join("full");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    world.own(&path);
    let other = UnixDatagram::unbound().unwrap();
    other.connect(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"X_NOISE=1\n").is_ok() {}
    let mut daemon = Daemon::spawn(&world, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    eventually("it accepts", || UnixStream::connect(world.socket()).ok());
    for agents in ["claude", "codex", "all"] {
        daemon.ok("daemon.reload", json!({}));
        let selection = json!({"project_id": "alpha", "selection": agents});
        daemon.ok("set_project_image_agents", selection);
    }
    // What waited is not lost, and comes in order.
    let mut buffer = [0; 4096];
    let mut next = |line: &str| loop {
        let length = manager.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        if text.lines().any(|l| l == line) {
            return;
        }
    };
    next("READY=1");
    next("RELOADING=1");
    next("READY=1");
    daemon.signal(Signal::SIGTERM);
    next("STOPPING=1");
    assert!(daemon.wait().success());
}
