//! Runs the tests of `real` where there is a Podman: in a private one that `tests/env/podman-test-env` sets up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use terok_tests::programs::{checkout, skip};

#[test]
fn real_podman() {
    // It runs as another user, who may not be able to enter this checkout.
    let dir = tempfile::Builder::new()
        .prefix("tk-podman-")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(checkout().join("tests/env/podman-test-env"))
        .args(["--base-image", "--"])
        .arg(&program)
        .args(["--ignored", "--test-threads", "2"])
        .env("RUST_BACKTRACE", "0")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.code() == Some(125)
        && std::env::var("TEROKD_REQUIRE_PODMAN").as_deref() != Ok("1")
    {
        return skip(
            "Podman",
            &format!("no private Podman can be set up here: {said}"),
        );
    }
    assert!(output.status.success(), "{said}");
    eprintln!("{said}");
}
