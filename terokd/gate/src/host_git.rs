//! The git program at work on a gate of ours: repacking, cloning. It talks to nobody, and runs nothing of the repository's.

use crate::{Control, GateSpec};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);
/// Kept of what it says.
const SAID: u64 = 64 * 1024;

/// A git command that sees no configuration but the repository's own, and no hooks.
pub(crate) fn git(spec: &GateSpec, arguments: &[&str]) -> Command {
    let mut command = Command::new("nice");
    command
        .args(["-n", "5", "git"])
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(["-c", "protocol.file.allow=always"])
        .args(["-c", "safe.directory=*"])
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments)
        .env_clear()
        .env("PATH", &spec.search_path)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

/// Runs it to its end, or kills it with all it started.
pub(crate) fn run(
    command: &mut Command,
    longest: Duration,
    control: &Control,
) -> Result<(), String> {
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read is not worth a failure; what is too much is read and dropped.
            let _ = stderr.by_ref().take(SAID).read_to_end(&mut text);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let end = Instant::now() + longest;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(format!("git is lost: {error}")),
        }
        if control.cancelled() || Instant::now() >= end {
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            // It may just have ended by itself.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
            return Err(if control.cancelled() {
                "cancelled".to_owned()
            } else {
                "git took too long".to_owned()
            });
        }
        std::thread::sleep(LOOK);
    };
    let said = reader.join().unwrap_or_default();
    if status.success() {
        Ok(())
    } else {
        Err(format!("git failed: {}", crate::clean_message(&said)))
    }
}
