//! From a save to its event, from the start to readiness, and `terokctl` as a whole process.

use crate::{Measurement, Samples, millis, world};
use serde_json::json;
use std::process::Stdio;
use std::time::Instant;
use terok_tests::{World, programs};

pub(crate) fn measure() -> Vec<Measurement> {
    let mut out = Vec::new();
    for (projects, runs) in [(1, 9), (200, 9), (1_000, 9)] {
        let world = world(projects);
        // Once unmeasured, so that every run finds the same files in the cache.
        drop(world.start());
        let ready = Samples::take(runs, || {
            let begin = Instant::now();
            let daemon = world.start();
            let took = begin.elapsed();
            drop(daemon);
            took
        });
        let name = format!("ready_{projects}_projects_p50");
        out.push(match projects {
            1_000 => Measurement::at_most(name, millis(ready.p50()), "ms", 150.0),
            _ => Measurement::figure(name, millis(ready.p50()), "ms"),
        });
    }
    let world = world(1_000);
    let daemon = world.start();
    let mut events = daemon.events(json!({"kinds": ["project.changed"]}));
    daemon.ok("daemon.reload", json!({}));
    let mut n = 0;
    let saved = Samples::take(30, || {
        n += 1;
        let text = format!("{}default_login: l{n}\n", crate::project(7));
        let begin = Instant::now();
        world.write_by_rename("$CONFIG/projects/proj-0007/project.yml", &text);
        events.next_of("project.changed");
        begin.elapsed()
    });
    out.push(Measurement::at_most(
        "save_to_event_p50",
        millis(saved.p50()),
        "ms",
        1_000.0,
    ));
    out.push(Measurement::at_most(
        "save_to_event_p99",
        millis(saved.p99()),
        "ms",
        1_000.0,
    ));
    let listed = listed(&world, 100);
    out.push(Measurement::figure(
        "terokctl_list_1000_p50",
        millis(listed.p50()),
        "ms",
    ));
    drop(events);
    drop(daemon);
    let world = crate::world(10);
    let _daemon = world.start();
    let listed = self::listed(&world, 200);
    out.push(Measurement::at_most(
        "terokctl_list_p50",
        millis(listed.p50()),
        "ms",
        8.0,
    ));
    out.push(Measurement::figure(
        "terokctl_list_p99",
        millis(listed.p99()),
        "ms",
    ));
    out
}

/// `terokctl project list` as a whole process.
fn listed(world: &World, n: usize) -> Samples {
    let program = programs::terokctl();
    Samples::take(n, || {
        let mut command = world.command(&program);
        command
            .args(["--no-autostart", "project", "list"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let begin = Instant::now();
        let status = command.status().expect("terokctl runs");
        let took = begin.elapsed();
        assert!(status.success(), "{status}");
        took
    })
}
