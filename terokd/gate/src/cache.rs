//! A plain clone of the gate that seeds new tasks. Best effort: its failures never fail a sync.

use crate::{Control, GateSpec, layout};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a clone on this machine may take.
const LONGEST: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

/// Rebuilds the clone if something moved or there is none; true if it did.
pub(crate) fn refresh(spec: &GateSpec, moved: bool, control: &Control) -> Result<bool, String> {
    let Some(cache) = &spec.cache_dir else {
        return Ok(false);
    };
    if !moved && cache.join(".git").is_dir() {
        return Ok(false);
    }
    let has_heads = crate::status::facts_heads(spec) > 0;
    if !has_heads {
        drop_cache(spec);
        return Ok(false);
    }
    let parent = cache.parent().ok_or("it has no place")?;
    layout::private_dir(parent).map_err(|fault| fault.message)?;
    let _lock = lock(cache)?;
    let new = sibling(cache, "new");
    crate::sync::remove(&new);
    let cloned = clone(&spec.path, &new, control);
    if let Err(why) = cloned {
        crate::sync::remove(&new);
        return Err(why);
    }
    let old = sibling(cache, "old");
    crate::sync::remove(&old);
    let had = cache.symlink_metadata().is_ok();
    if had {
        fs::rename(cache, &old)
            .map_err(|error| format!("cannot set the old clone aside: {error}"))?;
    }
    if let Err(error) = fs::rename(&new, cache) {
        crate::sync::remove(&new);
        return Err(format!("cannot put the clone in its place: {error}"));
    }
    crate::sync::remove(&old);
    Ok(true)
}

/// Removes the clone.
pub(crate) fn drop_cache(spec: &GateSpec) {
    if let Some(cache) = &spec.cache_dir
        && cache.symlink_metadata().is_ok()
    {
        crate::sync::remove(cache);
    }
}

fn sibling(cache: &Path, what: &str) -> PathBuf {
    let name = cache.file_name().unwrap_or_default().to_string_lossy();
    cache.with_file_name(format!(".{name}.{what}"))
}

/// Keeps the clone from being copied while it changes.
fn lock(cache: &Path) -> Result<File, String> {
    let path = sibling(cache, "lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("cannot open `{}`: {error}", path.display()))?;
    file.lock()
        .map_err(|error| format!("cannot lock `{}`: {error}", path.display()))?;
    Ok(file)
}

/// A clone with hard links to the gate's objects, which nobody changes. Runs nothing of the repository's.
fn clone(gate: &Path, target: &Path, control: &Control) -> Result<(), String> {
    let mut child = Command::new("git")
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "safe.directory=*",
        ])
        .args([
            "clone",
            "--quiet",
            "--local",
            "--no-recurse-submodules",
            "--",
        ])
        .arg(gate)
        .arg(target)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stderr) = stderr {
            // What it says beyond this is not worth keeping.
            let _ =
                std::io::Read::read_to_end(&mut std::io::Read::take(stderr, 64 * 1024), &mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let end = Instant::now() + LONGEST;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(format!("git is lost: {error}")),
        }
        if control.cancelled() || Instant::now() >= end {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
            return Err(if control.cancelled() {
                "cancelled".to_owned()
            } else {
                "git clone took too long".to_owned()
            });
        }
        std::thread::sleep(LOOK);
    };
    let said = reader.join().unwrap_or_default();
    if !status.success() {
        return Err(format!("git clone failed: {}", crate::clean_message(&said)));
    }
    // A clone whose HEAD leads nowhere would seed empty workspaces.
    if !target.join(".git").is_dir() {
        return Err("git clone made no repository".to_owned());
    }
    Ok(())
}
