//! A disk that is full, or cannot be written: the gate stays as it was, and says why.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::path::Path;
use std::process::Command;
use support::gates::World;
use terok_gate::{Control, SyncOptions, apply_pending};
use terok_proto::Kind;
use terok_proto::gate::ConfirmedOp;

/// Runs a part of this test binary where the gate base is a small file system of its own.
fn on_a_small_disk(world: &World, part: &str) {
    let base = &world.spec.base;
    std::fs::create_dir_all(base).unwrap();
    let script = "mount -t tmpfs -o size=1m,mode=0700 none \"$1\" && exec \"$2\" --exact \"$3\" --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(base)
        .arg(std::env::current_exe().unwrap())
        .arg(part)
        .env("GATE_TEST_DIR", world.lab.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {said}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(said.contains("the end was reached"), "{said}");
}

fn inside() -> Option<World> {
    let dir = std::env::var_os("GATE_TEST_DIR")?;
    let mut world = World::reopen(Path::new(&dir));
    world.spec.cache_dir = None;
    Some(world)
}

/// Fills the disk but for so many bytes.
fn fill(base: &Path, leave: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(base.join("filler")).unwrap();
    while file.write_all(&[7; 1024]).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(leave)).unwrap();
}

#[test]
fn a_full_disk() {
    on_a_small_disk(&World::new(), "full");
}

#[test]
#[ignore = "a part of another test"]
fn full() {
    let Some(world) = inside() else { return };
    let base = world.spec.base.clone();
    let free = |base: &Path| std::fs::remove_file(base.join("filler")).unwrap();
    // Not even a first sync.
    for leave in [0, 4096, 16384] {
        fill(&base, leave);
        let outcome = world.try_sync(&SyncOptions::default());
        free(&base);
        if !world.gate().exists() {
            assert_eq!(outcome.unwrap_err().kind, Kind::StorageError, "{leave}");
            let left: Vec<_> = std::fs::read_dir(&base).unwrap().collect();
            assert!(left.len() <= 1, "{left:?}");
        } else {
            assert!(outcome.unwrap().success);
            std::fs::remove_dir_all(world.gate()).unwrap();
        }
    }
    world.sync();
    let mut refused = 0;
    for (n, leave) in [0, 4096, 8192, 12288, 16384, 24576, 32768, 65536]
        .into_iter()
        .enumerate()
    {
        world.commit_up("main", &format!("m{n}"));
        world.commit_up(&format!("fresh{n}"), "fresh");
        world.rewrite_up("side/x", &format!("s{n}"));
        let before = world.refs();
        fill(&base, leave);
        let outcome = world.try_sync(&SyncOptions::default());
        let after = world.refs();
        free(&base);
        match outcome {
            Ok(result) => assert!(result.success, "{leave}: {result:?}"),
            Err(fault) => {
                refused += 1;
                assert_eq!(fault.kind, Kind::StorageError, "{leave}: {fault:?}");
                // Ref by ref it is the old or the new.
                for line in after.lines() {
                    let new =
                        line.contains("main") || line.contains("fresh") || line.contains("side/x");
                    assert!(before.contains(line) || new, "{leave}: {line}");
                }
            }
        }
        let side = world.head("side/x").unwrap();
        world.sync();
        world.fsck();
        assert_eq!(world.head("main"), Some(world.up_head("main")));
        assert_eq!(world.head("side/x"), Some(side));
    }
    assert!(refused >= 2, "{refused}");
    let side = world.head("side/x").unwrap().to_string();
    fill(&base, 0);
    let op = ConfirmedOp {
        branch: "side/x".to_owned(),
        gate_sha: side.clone(),
    };
    let outcome = apply_pending(&world.spec, &[op], &Control::new());
    free(&base);
    assert_eq!(outcome.unwrap_err().kind, Kind::StorageError);
    assert_eq!(world.head("side/x").unwrap().to_string(), side);
    world.fsck();
    eprintln!("the end was reached");
}

#[test]
fn a_disk_that_cannot_be_written() {
    on_a_small_disk(&World::new(), "read_only");
}

#[test]
#[ignore = "a part of another test"]
fn read_only() {
    let Some(world) = inside() else { return };
    world.sync();
    let before = world.refs();
    world.commit_up("main", "more");
    let mount = |how: &str| {
        let done = Command::new("mount")
            .args(["-o", how])
            .arg(&world.spec.base)
            .status()
            .unwrap();
        assert!(done.success());
    };
    mount("remount,ro");
    let outcome = world.try_sync(&SyncOptions::default());
    // Reading works.
    assert_eq!(world.pending(), []);
    assert!(terok_gate::last_commit(&world.spec).is_some());
    assert_eq!(world.refs(), before);
    mount("remount,rw");
    assert_eq!(outcome.unwrap_err().kind, Kind::StorageError);
    world.sync();
    assert_eq!(world.head("main"), Some(world.up_head("main")));
    eprintln!("the end was reached");
}
