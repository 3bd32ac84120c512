//! Another process works on the gate, and does not come to an end or does.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::gates::{World, at_point};
use terok_gate::{Control, Limits, PromoteRequest, SyncOptions};
use terok_proto::gate::ConfirmedOp;
use terok_proto::{Fault, Kind};

/// Guards against hanging; nothing waits for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// This test binary again, at work on the gate until its input ends.
fn holder(world: &World) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds", "--ignored", "--nocapture"])
        .env("GATE_TEST_DIR", world.lab.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().ends_with("it is mine")));
    child
}

#[test]
#[ignore = "the part of another test that holds the gate"]
fn holds() {
    let Ok(dir) = std::env::var("GATE_TEST_DIR") else {
        return;
    };
    let world = World::reopen(dir.as_ref());
    let hold = || {
        writeln!(std::io::stdout(), "it is mine").unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    };
    at_point("gate.sync.locked", hold, || world.sync());
}

fn sync(world: &World, control: &Control) -> Result<(), Fault> {
    let synced = terok_gate::sync(
        &world.spec,
        Some(&world.upstream()),
        &world.transport,
        &SyncOptions::default(),
        &Limits::default(),
        control,
    );
    synced.map(|report| assert!(report.result.success, "{report:?}"))
}

fn lock_of(world: &World) -> PathBuf {
    world.spec.base.join(".alpha.git.lock")
}

#[test]
fn whoever_waits_too_long_is_told_who_is_at_work() {
    let world = World::synced();
    world.commit_gate("agent", "agent");
    let before = world.refs();
    let mut child = holder(&world);
    let control = Control::new().with_patience(Duration::from_millis(100));
    let op = ConfirmedOp {
        branch: "main".to_owned(),
        gate_sha: world.head("main").unwrap().to_string(),
    };
    let request = PromoteRequest {
        branch: "agent".to_owned(),
        upstream_branch: None,
        expect_commit: None,
    };
    let backup = "refs/terok/backup/main/20260101T000000Z-0123456789ab";
    let outcomes = [
        ("sync", sync(&world, &control)),
        (
            "apply",
            terok_gate::apply_pending(&world.spec, &[op], &control).map(|_| ()),
        ),
        (
            "restore",
            terok_gate::restore_backup(&world.spec, backup, &control).map(|_| ()),
        ),
        (
            "prune",
            terok_gate::prune_backups(&world.spec, 1, &control).map(|_| ()),
        ),
        (
            "promote",
            terok_gate::promote(
                &world.spec,
                &world.upstream(),
                &world.transport,
                &request,
                &Limits::default(),
                &control,
            )
            .map(|_| ()),
        ),
    ];
    for (what, outcome) in outcomes {
        let fault = outcome.expect_err(what);
        assert_eq!(fault.kind, Kind::GateBusy, "{what}: {fault:?}");
        assert!(fault.data["retry_after_ms"].is_u64(), "{what}: {fault:?}");
        assert_eq!(fault.data["pid"], child.id(), "{what}: {fault:?}");
        let named = format!("(process {})", child.id());
        assert!(fault.message.contains(&named), "{what}: {fault:?}");
    }
    assert_eq!(world.refs(), before);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    sync(&world, &control).unwrap();
}

#[test]
fn a_note_of_somebody_who_is_gone_is_not_believed() {
    let world = World::synced();
    let lock = std::fs::File::options()
        .read(true)
        .write(true)
        .open(lock_of(&world))
        .unwrap();
    lock.lock().unwrap();
    std::fs::write(lock_of(&world), "1\n").unwrap();
    let control = Control::new().with_patience(Duration::ZERO);
    let fault = sync(&world, &control).unwrap_err();
    assert_eq!(fault.data["pid"], std::process::id(), "{fault:?}");
}

/// Whether this process has the file open.
fn is_open(file: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.map(|entry| std::fs::read_link(entry.path()))
        .any(|target| target.is_ok_and(|target| target == file))
}

#[test]
fn work_goes_on_when_the_gate_is_free_again() {
    let world = World::synced();
    world.commit_up("main", "more");
    let mut child = holder(&world);
    let lock = lock_of(&world).canonicalize().unwrap();
    let control = Control::new().with_patience(PATIENCE);
    let withdrawn = Control::new().with_patience(PATIENCE);
    std::thread::scope(|scope| {
        let leaves = scope.spawn(|| sync(&world, &withdrawn));
        let waits = scope.spawn(|| sync(&world, &control));
        while !is_open(&lock) {
            std::thread::yield_now();
        }
        withdrawn.cancel();
        assert_eq!(leaves.join().unwrap().unwrap_err().kind, Kind::Cancelled);
        while !is_open(&lock) {
            std::thread::yield_now();
        }
        assert!(!waits.is_finished());
        drop(child.stdin.take());
        waits.join().unwrap().unwrap();
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(world.head("main"), Some(world.up_head("main")));
}
