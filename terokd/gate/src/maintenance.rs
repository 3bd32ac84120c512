//! Keeping a gate small: every fetch writes a pack of its own.

use crate::GateSpec;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Packs that a gate may have before they are put together.
const PACKS: usize = 50;
/// Loose objects in one of 256 directories, by which git too guesses how many there are: 6,700 in all.
const LOOSE: usize = 27;

/// Puts packs and loose objects together if there are too many; at low priority, while the gate is locked.
pub(crate) fn after_sync(spec: &GateSpec) {
    let objects = spec.path.join("objects");
    let count = |dir: &str, end: &str| {
        let entries = fs::read_dir(objects.join(dir))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(end))
            .count()
    };
    if count("pack", ".pack") <= PACKS && count("17", "") <= LOOSE {
        return;
    }
    let status = Command::new("nice")
        .args([
            "-n",
            "10",
            "git",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "safe.directory=*",
        ])
        .arg("-C")
        .arg(&spec.path)
        .args(["repack", "--quiet", "-d", "--geometric=2", "--write-midx"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .status();
    match status {
        Ok(status) if status.success() => tracing::debug!(gate = %spec.path.display(), "repacked"),
        Ok(status) => tracing::warn!(gate = %spec.path.display(), %status, "git repack failed"),
        Err(error) => tracing::debug!(gate = %spec.path.display(), %error, "git cannot be run"),
    }
}
