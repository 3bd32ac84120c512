//! How commands end before their work does: signals, a closed pipe, a host in panic.

use super::Desk;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use terok_tests::programs::need;
use terok_tests::{Client, Events, Hold, World, eventually, http};

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
}

/// Waits until the daemon has answered a cancel.
fn cancel_arrives(desk: &Desk) {
    let counter = "terokd_calls_total{method=\"operation.cancel\",outcome=\"ok\"} ";
    eventually("the operation is cancelled", || {
        let metrics = http::request(&desk.0.socket(), "GET", "/metrics", "").body;
        let count = metrics.lines().find_map(|line| line.strip_prefix(counter));
        count.is_some_and(|count| count != "0").then_some(())
    });
}

#[test]
fn an_interrupt_cancels_the_operation_that_is_followed() {
    let (world, mut hold) = Hold::at(World::with_project("alpha"), "delete.archived");
    let desk = Desk::new(world);
    desk.ok(&["daemon", "start"]);
    let wanted = json!({"kinds": ["operation.finished"]});
    let mut events = Events::subscribe(&desk.0.socket(), wanted);
    let child = desk
        .command(&["project", "delete", "alpha", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    hold.wait();
    interrupt(&child);
    cancel_arrives(&desk);
    hold.release();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let end = events.next_of("operation.finished");
    assert_eq!(end["data"]["state"], "cancelled", "{end}");
    assert!(desk.0.path("$CONFIG/projects/alpha/project.yml").exists());
}

/// Stops every thread of the daemon, so that a call stays without an answer until it goes on.
fn stand_still(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    eventually("every thread stands still", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut states =
            tasks.map(|t| fs::read_to_string(t.path().join("stat")).unwrap_or_default());
        let stands = |s: String| s.rsplit(')').next().is_some_and(|r| r.starts_with(" T"));
        states.all(stands).then_some(())
    });
}

/// One mask of signals in a process's status.
fn signals(child: &Child, mask: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(mask));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

#[test]
fn an_interrupt_before_the_operation_is_known_cancels_it_too() {
    let (world, hold) = Hold::at(World::with_project("alpha"), "delete.archived");
    let desk = Desk::new(world);
    desk.ok(&["daemon", "start"]);
    let wanted = json!({"kinds": ["operation.finished"]});
    let mut events = Events::subscribe(&desk.0.socket(), wanted);
    let pid = Pid::from_raw(desk.daemon_pid().unwrap());
    stand_still(pid);
    let child = desk
        .command(&["project", "delete", "alpha", "--yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sigint = 1 << (Signal::SIGINT as u64 - 1);
    eventually("it takes interrupts itself", || {
        (signals(&child, "SigBlk:") & sigint != 0).then_some(())
    });
    interrupt(&child);
    // It has taken the signal and still waits: the call is on its way, and only its answer tells what to cancel.
    eventually("the signal is taken", || {
        (signals(&child, "ShdPnd:") & sigint == 0).then_some(())
    });
    kill(pid, Signal::SIGCONT).unwrap();
    cancel_arrives(&desk);
    hold.release();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let end = events.next_of("operation.finished");
    assert_eq!(end["data"]["state"], "cancelled", "{end}");
    assert!(desk.0.path("$CONFIG/projects/alpha/project.yml").exists());
}

#[test]
fn a_panicked_host_is_told_to_try_again() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    desk.0
        .write("$DATA/core/panic.lock", "2026-03-15T12:00:00Z\n{}\n");
    let error = desk.fails(&["--json", "project", "delete", "alpha", "--yes"], 75);
    let error: Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!(
        (&error["code"], &error["data"]["kind"]),
        (&json!(1402), &json!("panicked"))
    );
    let status: Value = serde_json::from_str(&desk.ok(&["--json", "panic", "status"])).unwrap();
    assert_eq!(status["panicked"], true);
    desk.ok(&["project", "list"]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut world = World::new();
    for n in 0..300 {
        let yaml = format!("project: {{name: \"{}\"}}\n", "x".repeat(900));
        world = world.project(&format!("p{n}"), &yaml);
    }
    let desk = Desk::new(world);
    desk.ok(&["daemon", "start"]);
    // More than a pipe holds, read for one line.
    for args in [
        ["project", "list"].as_slice(),
        &["--flat", "project", "list"],
        &["--json", "project", "list"],
        &["config", "schema", "project"],
    ] {
        let mut child = desk
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn an_event_is_a_line_and_a_closed_pipe_ends_the_watch() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    let args = ["watch", "--snapshot", "--kind", "project.added"];
    let mut child = desk
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("events.snapshot"), "{first}");
    desk.0.write(
        "$CONFIG/projects/beta/project.yml",
        "project: {security_class: online}\n",
    );
    let line = lines.next().unwrap().unwrap();
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!(fields[1..3], ["project.added", "beta"], "{line}");
    drop(lines);
    let status = eventually("the watch ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn fifty_first_calls_leave_one_process() {
    let desk = Desk::new(World::with_project("alpha"));
    let children: Vec<Child> = (0..50)
        .map(|_| {
            desk.command(&["--json", "project", "list"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let program = desk.0.dir().join("bin/terokd");
    let daemons = || -> Vec<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
            .collect()
    };
    let known = desk.daemon_pid().unwrap();
    eventually("only one is left", || (daemons() == [known]).then_some(()));
    // One start, told in the log, and no complaint of a second one.
    let log = fs::read_to_string(desk.0.socket().with_extension("log")).unwrap();
    assert_eq!(log.matches(": ready ").count(), 1, "{log}");
    let answer = Client::connect(&desk.0.socket()).ok("daemon.status", json!({}));
    assert_eq!(answer["pid"], known);
}

#[test]
fn manual_pages_are_clean_to_a_formatter() {
    let desk = Desk::new(World::new());
    let dir = desk.0.path("$HOME/man");
    desk.ok(&["man", dir.to_str().unwrap()]);
    let Some(groff) = need("groff") else { return };
    let mut pages = 0;
    for page in fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
        let output = desk
            .0
            .command(&groff)
            .args(["-man", "-Tutf8", "-ww", "-P-cbou"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", page.display());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty(), "{}: {said}", page.display());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("NAME"), "{}: {text}", page.display());
        pages += 1;
    }
    assert!(pages > 20, "only {pages} pages");
}
