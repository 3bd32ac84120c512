//! The kill switch, as far as this version has it: whether it is engaged, what that forbids, and its report.

use std::path::Path;
use terok_config::paths::Paths;
use terok_proto::daemon::PanicStatus;
use terok_proto::error::printable_line;
use terok_proto::panic::PanicResult;
use terok_proto::{Fault, Kind};

/// A lock file is read that far.
const MAX_LOCK: usize = 64 * 1024;

/// Whether the kill switch is engaged. Anything at the lock's path means yes, and so does not being able to look.
pub fn status(paths: &Paths) -> PanicStatus {
    let lock = paths.core_state_dir.join("panic.lock");
    match lock.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => PanicStatus {
            panicked: false,
            since: None,
            reason: None,
        },
        Err(error) => PanicStatus {
            panicked: true,
            since: None,
            reason: Some(printable_line(&format!(
                "cannot look at `{}`: {error}",
                lock.display()
            ))),
        },
        Ok(_) => engaged(&lock),
    }
}

fn engaged(lock: &Path) -> PanicStatus {
    let text = read_start(lock).unwrap_or_default();
    let mut lines = text.lines();
    let since = lines
        .next()
        .map(str::trim)
        .filter(|line| line.parse::<jiff::Timestamp>().is_ok());
    let detail = lines
        .next()
        .and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let reason = detail
        .as_ref()
        .and_then(|detail| detail.get("reason")?.as_str())
        .map(printable_line);
    PanicStatus {
        panicked: true,
        since: since.map(str::to_owned),
        reason,
    }
}

fn read_start(lock: &Path) -> Option<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(lock)
        .ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOCK as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Fails while the kill switch is engaged.
/// Whether the kill switch is engaged.
pub fn is_engaged(paths: &Paths) -> bool {
    status(paths).panicked
}

/// Fails while the kill switch is engaged.
///
/// # Errors
/// `panicked`
pub fn refuse_while_panicked(paths: &Paths, what: &str) -> Result<(), Fault> {
    let status = status(paths);
    if !status.panicked {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Panicked,
        format!("{what} is refused while the kill switch is engaged; clear it first"),
    )
    .with("since", status.since)
    .with("reason", status.reason))
}

/// The result of a lockdown for humans (`panic.md` §5).
pub fn report(result: &PanicResult) -> String {
    let mut lines = vec![format!("Containers found: {}", result.total_running)];
    let raised = result.shields_raised.len();
    lines.push(if result.shield_bypassed {
        "Shields: BYPASSED (firewall protection disabled)".to_owned()
    } else if result.shield_errors.is_empty() {
        format!("Shields raised: {raised}")
    } else {
        format!(
            "Shields raised: {raised} ({} failed)",
            result.shield_errors.len()
        )
    });
    lines.push(format!(
        "Vault: {}",
        if result.vault_stopped {
            "locked + stopped"
        } else {
            "FAILED"
        }
    ));
    lines.push(format!(
        "Gate:  {}",
        if result.gate_stopped {
            "stopped"
        } else {
            "FAILED"
        }
    ));
    if !result.containers_stopped.is_empty() {
        lines.push(format!(
            "Containers killed: {}",
            result.containers_stopped.len()
        ));
    }
    if !result.frozen.is_empty() {
        lines.push(format!("Containers frozen: {}", result.frozen.len()));
    }
    let errors = errors(result);
    if !errors.is_empty() {
        lines.push(String::new());
        lines.push("Errors:".to_owned());
        lines.extend(errors);
    }
    lines.join("\n")
}

fn errors(result: &PanicResult) -> Vec<String> {
    let pairs = |label: &'static str, pairs: &[(String, String)]| -> Vec<String> {
        let line = |(name, message): &(String, String)| {
            format!("  {label} {}: {}", blank(name), blank(message))
        };
        pairs.iter().map(line).collect()
    };
    let single = |label: &'static str, message: Option<&String>| {
        message.map(|message| format!("  {label}: {}", blank(message)))
    };
    let mut out = pairs("shield", &result.shield_errors);
    out.extend(pairs("freeze", &result.freeze_errors));
    out.extend(single("vault", result.vault_error.as_ref()));
    out.extend(single("gate", result.gate_error.as_ref()));
    out.extend(pairs("kill", &result.container_stop_errors));
    out.extend(
        result
            .discovery_errors
            .iter()
            .filter_map(|message| single("discovery", Some(message))),
    );
    out.extend(single("lock", result.lock_error.as_ref()));
    out
}

/// Each control character becomes one blank; what else could steer a terminal is made visible.
fn blank(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    printable_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_have_their_places() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let result = PanicResult {
            frozen: vec!["a".into()],
            containers_stopped: vec!["b".into()],
            freeze_errors: vec![pair("f", "no\ncgroup")],
            shield_errors: vec![pair("s", "x")],
            container_stop_errors: vec![pair("k", "y")],
            discovery_errors: vec!["d".into()],
            lock_error: Some("l".into()),
            ..PanicResult::default()
        };
        assert_eq!(
            report(&result),
            "Containers found: 0\nShields raised: 0 (1 failed)\nVault: FAILED\nGate:  FAILED\nContainers killed: 1\n\
             Containers frozen: 1\n\nErrors:\n  shield s: x\n  freeze f: no cgroup\n  kill k: y\n  discovery: d\n  lock: l"
        );
    }

    #[test]
    fn anything_at_the_path_means_panicked() {
        let dir = tempfile::tempdir().unwrap();
        let env = terok_config::env::Environment::new([("A", "b")], dir.path());
        let paths = Paths::new(&env, &Default::default());
        assert!(!status(&paths).panicked);
        refuse_while_panicked(&paths, "this").unwrap();
        std::fs::create_dir_all(&paths.core_state_dir).unwrap();
        let lock = paths.core_state_dir.join("panic.lock");
        std::os::unix::fs::symlink("nowhere", &lock).unwrap();
        assert!(status(&paths).panicked);
        std::fs::remove_file(&lock).unwrap();
        let text = "2026-03-01T09:20:11.204518+00:00\n{\"v\":1,\"reason\":\"user\"}\n";
        std::fs::write(&lock, text).unwrap();
        let found = status(&paths);
        assert_eq!(
            found.since.as_deref(),
            Some("2026-03-01T09:20:11.204518+00:00")
        );
        assert_eq!(found.reason.as_deref(), Some("user"));
        let fault = refuse_while_panicked(&paths, "this").unwrap_err();
        assert_eq!(
            (fault.kind, fault.data["reason"].as_str()),
            (Kind::Panicked, Some("user"))
        );
    }
}
