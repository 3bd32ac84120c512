//! Images through the daemon, with a real Podman that `tests/env/podman-test-env` sets up.

mod ctl;
mod full;
mod real;
mod without;

use std::path::Path;
use std::process::Command;
use terok_tests::private::in_private;
use terok_tests::programs::{account, skip, terokctl, terokd};

/// Runs the ignored tests below `module` where there is a Podman; the options choose it.
fn in_podman(module: &str, options: &[&str]) {
    let itself = std::env::current_exe().unwrap();
    let files = [
        ("it", itself),
        ("terokd", terokd()),
        ("terokctl", terokctl()),
    ];
    let filter = format!("images::{module}::");
    // Two distributions at once would leave nothing of a small machine to the other tests.
    let threads = if module == "full" { "1" } else { "2" };
    in_private(
        &files,
        options,
        &[&filter, "--ignored", "--test-threads", threads],
    );
}

#[test]
fn images_are_built_known_and_cleaned_up() {
    in_podman("real::here", &["--base-image", "--no-service"]);
}

#[test]
fn terokctl_shows_builds_and_removes_images() {
    in_podman("ctl", &["--base-image", "--no-service"]);
}

#[test]
fn a_full_disk_costs_a_build_and_nothing_else() {
    if account().is_none() {
        return skip("root", "a small file system has to be mounted");
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs"])
        .arg(dir.path())
        .status()
        .unwrap();
    if !mounted.success() {
        return skip("mount", "no file system can be mounted here");
    }
    let unmount = Unmount(dir.path());
    let place = dir.path().to_str().unwrap();
    in_podman(
        "real::on_a_small_disk",
        &["--base-image", "--no-service", "--persist", place],
    );
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// The same with the Podman of another Debian, by root, where one is at hand.
#[test]
fn a_newer_podman_does_the_same() {
    let Some(root) = std::env::var_os("TEROK_TEST_PODMAN_ROOT") else {
        return skip(
            "Podman 5",
            "TEROK_TEST_PODMAN_ROOT names no directory with a Debian that has one",
        );
    };
    let root = root.to_str().expect("a printable path");
    in_podman(
        "real::here",
        &["--podman-root", root, "--base-image", "--no-service"],
    );
}

/// A distribution, its packages and an agent from npm: takes minutes and the network.
#[test]
fn every_layer_is_really_built() {
    in_podman("full", &["--base-image=debian", "--no-service"]);
}
