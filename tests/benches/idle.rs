//! What a daemon costs that has nothing to do.

use crate::{Measurement, world};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use terok_tests::Daemon;

/// How long the daemon is watched doing nothing.
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) fn measure() -> Vec<Measurement> {
    let world = world(1_000);
    let daemon = world.start();
    daemon.ok("list_projects", json!({}));
    daemon.ok("daemon.reload", json!({}));
    let before = wakeups(&daemon);
    std::thread::sleep(WATCHED);
    // Threads that ended meanwhile, or began, had something to do.
    let woken: u64 = wakeups(&daemon)
        .iter()
        .filter_map(|(thread, now)| Some(now - before.get(thread)?))
        .sum();
    let resident = daemon.proc_status("VmRSS").unwrap_or_default() as f64 / 1024.0;
    vec![
        Measurement::at_most("idle_memory_1000_projects", resident, "MiB", 25.0),
        Measurement::figure("idle_wakeups", woken as f64 / WATCHED.as_secs_f64(), "1/s"),
        Measurement::at_most(
            "idle_children",
            daemon.children().len() as f64,
            "processes",
            0.0,
        ),
    ]
}

/// How often each thread of the daemon has gone to sleep so far.
fn wakeups(daemon: &Daemon) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("the daemon runs");
    tasks
        .flatten()
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((
                task.file_name().to_string_lossy().into_owned(),
                line.trim().parse().ok()?,
            ))
        })
        .collect()
}
