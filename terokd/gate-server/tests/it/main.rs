//! The gate server with the real git on both ends.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod many;
mod protocol;
mod refusals;
mod traffic;
mod unfinished;
mod world;

use nix::unistd::{Pid, setpgid};
use std::path::Path;

/// Not a test: what the hook script of the others runs, as `terokd gate-hook` would.
#[test]
#[ignore = "runs as a hook, below other tests"]
fn hook_child() {
    if std::env::var_os("TEROKD_HOOK_REPORT").is_some() {
        if let Some(pipe) = std::env::var_os("TEST_HOLD").filter(|pipe| Path::new(pipe).exists()) {
            // As the hook does first; and then it takes its time.
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
            std::fs::read(pipe).unwrap();
        }
        assert_eq!(
            terok_gate_server::hook::run(std::env::var_os("TEST_HOOK").as_deref()),
            std::process::ExitCode::SUCCESS
        );
    }
}
