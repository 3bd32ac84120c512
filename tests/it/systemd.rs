//! The units in `systemd/`, with a real `systemd --user`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use terok_tests::programs::{account, checkout, need, skip, terokctl, terokd};

#[test]
fn units_work_with_a_real_manager() {
    if account().is_none() {
        return skip("root", "a private `systemd --user` needs mounts of its own");
    }
    if need("systemctl").is_none() {
        return;
    }
    // The manager runs as another user, who may not be able to enter this checkout.
    let dir = tempfile::Builder::new()
        .prefix("tk-systemd-")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let env = checkout().join("tests/env");
    let units = checkout().join("systemd");
    for (name, source) in [
        ("terokd", terokd()),
        ("terokctl", terokctl()),
        ("systemd-suite", env.join("systemd-suite")),
        ("terokd.service", units.join("terokd.service")),
        ("terokd.socket", units.join("terokd.socket")),
    ] {
        fs::copy(source, dir.path().join(name)).unwrap();
    }
    let output = Command::new(env.join("podman-test-env"))
        .args(["--systemd-user", "--no-podman", "--"])
        .arg(dir.path().join("systemd-suite"))
        .arg(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.code() == Some(125) {
        return skip(
            "systemd",
            &format!("no private `systemd --user` can be started here: {said}"),
        );
    }
    assert!(output.status.success(), "{said}");
    eprintln!("{said}");
}
