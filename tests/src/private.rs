//! Programs in an environment of their own: a private Podman, a private `systemd --user`, another account, another
//! Debian.

use crate::programs::{checkout, skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs the first of some files under `tests/env/podman-test-env` with these options and arguments, in which `DIR`
/// stands for the directory that holds the files. It runs as another user, who may not be able to enter this checkout,
/// so it gets copies. Answers false after a skip, where the environment cannot be set up.
///
/// # Panics
/// It fails, or says that it ran no test.
pub fn in_private(files: &[(&str, PathBuf)], options: &[&str], arguments: &[&str]) -> bool {
    run_in("podman-test-env", files, options, arguments)
}

/// The same under `tests/env/systemd-root`, whose first process is the systemd of another Debian.
///
/// # Panics
/// It fails, or says that it ran no test.
pub fn in_another_debian(files: &[(&str, PathBuf)], options: &[&str], arguments: &[&str]) -> bool {
    run_in("systemd-root", files, options, arguments)
}

fn run_in(
    environment: &str,
    files: &[(&str, PathBuf)],
    options: &[&str],
    arguments: &[&str],
) -> bool {
    let dir = tempfile::Builder::new()
        .prefix("tk-private-")
        .tempdir()
        .expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    for (name, source) in files {
        fs::copy(source, dir.path().join(name)).expect("a copy");
    }
    let place = dir.path().to_str().expect("a printable path");
    let output = Command::new(checkout().join("tests/env").join(environment))
        .args(options)
        .arg("--")
        .arg(dir.path().join(files[0].0))
        .args(arguments.iter().map(|text| text.replace("DIR", place)))
        .env("TEROKD_BIN", dir.path().join("terokd"))
        .env("TEROKCTL_BIN", dir.path().join("terokctl"))
        .env("RUST_BACKTRACE", "0")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.code() == Some(125)
        && std::env::var("TEROKD_REQUIRE_PODMAN").as_deref() != Ok("1")
    {
        skip(
            "private environment",
            &format!("neither Podman nor systemd can be set up apart from the host's: {said}"),
        );
        return false;
    }
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("running 0 tests"), "{said}");
    eprintln!("{said}");
    true
}
