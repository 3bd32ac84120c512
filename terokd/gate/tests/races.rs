//! Somebody else is at work in the gate, or somebody died there.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use support::gates::{World, at_point, at_points, fsck, pending_of};
use terok_gate::{
    CRASH_POINTS, Control, SyncOptions, TransportError, apply_pending, backups, restore_backup,
};
use terok_proto::Kind;
use terok_proto::gate::ConfirmedOp;

fn update_ref(repo: &std::path::Path, arguments: &[&str]) {
    let done = std::process::Command::new("git")
        .arg("-C")
        .arg(repo)
        .arg("update-ref")
        .args(arguments)
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn a_push_between_fetch_and_transaction_is_kept_and_only_its_branch_waits() {
    let world = World::synced();
    let mine = world.commit_gate("aside", "agent");
    let theirs = world.commit_up("main", "theirs");
    let side = world.commit_up("side/x", "theirs too");
    let (gate, to) = (world.gate().to_owned(), mine.to_string());
    let result = at_point(
        "gate.sync.ready",
        move || update_ref(&gate, &["refs/heads/main", &to]),
        || world.sync(),
    );
    assert_eq!(world.head("main"), Some(mine));
    assert_eq!(world.head("side/x"), Some(side));
    assert_eq!(result.updated_branches, ["side/x"]);
    assert!(result.notes[0].contains("`main`"), "{:?}", result.notes);
    assert!(result.pending.is_empty());
    // The next one has it all: what upstream last had is still known.
    let result = world.sync();
    let op = pending_of(&result.pending, "main");
    assert_eq!(op.upstream_sha, Some(theirs.to_string()));
    assert!(!op.lossless);
    world.fsck();
}

#[test]
fn pushes_that_create_and_delete_meanwhile_win() {
    let world = World::synced();
    world.commit_up("fresh", "theirs");
    world.commit_up("side/x", "theirs");
    world.commit_up("main", "theirs");
    let mine = world.commit_gate("aside", "agent");
    let (gate, to) = (world.gate().to_owned(), mine.to_string());
    let mut round = 0;
    let result = at_points(
        move |at| {
            if at == "gate.sync.ready" {
                round += 1;
                match round {
                    1 => update_ref(&gate, &["refs/heads/fresh", &to]),
                    2 => update_ref(&gate, &["-d", "refs/heads/side/x"]),
                    _ => {}
                }
            }
        },
        || world.sync(),
    );
    assert_eq!(world.head("fresh"), Some(mine));
    assert_eq!(world.head("side/x"), None);
    assert_eq!(world.head("main"), Some(world.up_head("main")));
    assert_eq!(result.updated_branches, ["main"]);
    assert_eq!(result.notes.len(), 2, "{:?}", result.notes);
    world.fsck();
}

#[test]
fn a_gate_that_never_stands_still_is_an_error_and_keeps_all() {
    let world = World::synced();
    let names: Vec<String> = (0..6).map(|n| format!("b{n}")).collect();
    for name in &names {
        world.commit_up(name, name);
    }
    world.sync();
    for name in &names {
        world.commit_up(name, "more");
    }
    let mine = world.commit_gate("aside", "agent");
    let (gate, to) = (world.gate().to_owned(), mine.to_string());
    let mut left = names.clone();
    let result = at_points(
        move |at| {
            if at == "gate.sync.ready"
                && let Some(name) = left.pop()
            {
                update_ref(&gate, &[&format!("refs/heads/{name}"), &to]);
            }
        },
        || world.try_sync(&SyncOptions::default()).unwrap(),
    );
    assert!(!result.success);
    assert!(result.applied.is_empty() && result.pending.is_empty());
    assert!(
        result.errors[0].contains("try again"),
        "{:?}",
        result.errors
    );
    assert_eq!(world.head("b5"), Some(mine));
    assert!(world.try_sync(&SyncOptions::default()).unwrap().success);
    world.fsck();
}

#[test]
fn a_push_while_a_confirmed_change_is_applied_is_kept() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    world.rewrite_up("main", "instead");
    world.sync();
    let mine = world.commit_gate("aside", "agent");
    let op = ConfirmedOp {
        branch: "main".to_owned(),
        gate_sha: old.to_string(),
    };
    let (gate, to) = (world.gate().to_owned(), mine.to_string());
    let done = at_point(
        "gate.apply.ready",
        move || update_ref(&gate, &["refs/heads/main", &to]),
        || apply_pending(&world.spec, &[op], &Control::new()).unwrap(),
    );
    assert!(done.applied.is_empty());
    assert_eq!(done.refused[0].kind, "branch_moved");
    assert_eq!(world.head("main"), Some(mine));
    assert!(backups(&world.spec).unwrap().is_empty());
}

#[test]
fn a_push_while_a_backup_is_restored_is_backed_up_too() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    world.rewrite_up("main", "instead");
    world.sync();
    let op = ConfirmedOp {
        branch: "main".to_owned(),
        gate_sha: old.to_string(),
    };
    let done = apply_pending(&world.spec, &[op], &Control::new()).unwrap();
    let kept = done.applied[0].backup_ref.clone().unwrap();
    let mine = world.commit_gate("aside", "agent");
    let (gate, to) = (world.gate().to_owned(), mine.to_string());
    let back = at_point(
        "gate.restore.ready",
        move || update_ref(&gate, &["refs/heads/main", &to]),
        || restore_backup(&world.spec, &kept, &Control::new()).unwrap(),
    );
    assert_eq!(back.old, Some(mine.to_string()));
    assert_eq!(world.at(&back.backup_ref.unwrap()), Some(mine));
    assert_eq!(world.head("main"), Some(old));
}

#[test]
fn twenty_syncs_at_once() {
    let world = Arc::new(World::new());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|n| {
                let world = world.clone();
                scope.spawn(move || {
                    world.try_sync(&SyncOptions {
                        force_reinit: n % 7 == 3,
                        ..SyncOptions::default()
                    })
                })
            })
            .collect();
        for run in runs {
            let result = run.join().unwrap().unwrap();
            assert!(result.success, "{result:?}");
        }
    });
    world.fsck();
    assert_eq!(world.head("main"), Some(world.up_head("main")));
    let beside: Vec<_> = std::fs::read_dir(&world.spec.base)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

#[test]
fn syncs_and_pushes_at_once() {
    let world = Arc::new(World::synced());
    let work = world.lab.path("work");
    let clone = |name: &str| {
        let path = work.join(name);
        let gate = world.gate().to_str().unwrap();
        world.lab.git(
            world.lab.dir.path(),
            &["clone", "-q", gate, path.to_str().unwrap()],
        );
        path
    };
    let clones: Vec<_> = (0..4).map(|n| clone(&format!("c{n}"))).collect();
    std::thread::scope(|scope| {
        let pushes: Vec<_> = clones
            .iter()
            .enumerate()
            .map(|(n, path)| {
                let world = world.clone();
                scope.spawn(move || {
                    for round in 0..5 {
                        let text = format!("c{n}r{round}");
                        world
                            .lab
                            .git(path, &["commit", "-q", "--allow-empty", "-m", &text]);
                        world
                            .lab
                            .git(path, &["push", "-q", "origin", &format!("HEAD:agent/{n}")]);
                    }
                })
            })
            .collect();
        for round in 0..8 {
            world.commit_up("main", &format!("up{round}"));
            let result = world.try_sync(&SyncOptions::default()).unwrap();
            assert!(result.success, "{result:?}");
        }
        for push in pushes {
            push.join().unwrap();
        }
    });
    world.sync();
    assert_eq!(world.head("main"), Some(world.up_head("main")));
    for (n, path) in clones.iter().enumerate() {
        let tip = world.lab.rev(path, "HEAD");
        assert_eq!(world.head(&format!("agent/{n}")), Some(tip));
    }
    world.fsck();
}

#[test]
fn a_held_ref_costs_only_its_own_branch() {
    let world = World::synced();
    let main = world.head("main");
    world.commit_up("main", "theirs");
    let side = world.commit_up("side/x", "theirs");
    let lock = world.gate().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let report = world
        .report_by(&world.transport, &SyncOptions::default())
        .unwrap();
    let (result, left) = (report.result, report.left);
    assert!(result.success, "{result:?}");
    assert_eq!(
        (world.head("main"), world.head("side/x")),
        (main, Some(side))
    );
    assert!(result.notes[0].contains("`main`"), "{:?}", result.notes);
    assert_eq!(left, ["main"]);
    assert!(lock.exists(), "it is git's, not ours");
    // One that stays is told of.
    let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(&lock)
        .unwrap()
        .set_modified(hour)
        .unwrap();
    let result = world.try_sync(&SyncOptions::default()).unwrap();
    assert!(
        result.notes[0].contains("main.lock` is there for 60 minutes"),
        "{:?}",
        result.notes
    );
    std::fs::remove_file(&lock).unwrap();
    world.sync();
    assert_eq!(world.head("main"), Some(world.up_head("main")));
}

#[test]
fn a_ref_whose_file_is_torn_is_told_and_not_overwritten() {
    let world = World::synced();
    world.commit_up("main", "more");
    world.sync();
    let main = world.commit_up("main", "theirs");
    let side = world.head("side/x");
    let file = world.gate().join("refs/heads/main");
    std::fs::write(&file, "").unwrap();
    let fault = world.try_sync(&SyncOptions::default()).unwrap_err();
    assert_eq!(fault.kind, Kind::GateCorrupt);
    assert!(fault.message.contains("logs/refs/heads/main"));
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    assert_eq!(world.head("side/x"), side);
    std::fs::remove_file(&file).unwrap();
    world.sync();
    assert_eq!(world.head("main"), Some(main));
}

#[test]
fn a_ref_that_stands_for_another_is_left_alone() {
    let world = World::synced();
    world.lab.git(
        world.gate(),
        &["symbolic-ref", "refs/heads/alias", "refs/heads/main"],
    );
    world.commit_up("alias", "theirs");
    let side = world.commit_up("side/x", "theirs");
    let result = world.sync();
    assert!(result.notes[0].contains("`alias`"), "{:?}", result.notes);
    assert_eq!(world.head("side/x"), Some(side));
    assert_eq!(world.head("alias"), world.head("main"));
}

#[test]
fn another_process_that_holds_the_gate_is_waited_for() {
    let world = World::synced();
    let new = world.commit_up("main", "theirs");
    let lock = world.spec.base.join(".alpha.git.lock");
    let mut holder = std::process::Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo held; read go"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    // Whoever does not want to wait is let go.
    let control = Control::new();
    control.cancel();
    let fault = restore_backup(&world.spec, "refs/terok/backup/x", &control).unwrap_err();
    assert_eq!(fault.kind, Kind::Cancelled);
    // Reading needs no lock.
    assert_eq!(world.pending(), []);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| world.sync());
        drop(holder.stdin.take());
        assert_eq!(run.join().unwrap().updated_branches, ["main"]);
    });
    holder.wait().unwrap();
    assert_eq!(world.head("main"), Some(new));
}

#[test]
fn a_reinit_that_fails_leaves_the_gate_and_one_that_works_replaces_it() {
    let world = World::synced();
    world.commit_gate("agent", "agent");
    let before = world.refs();
    let reinit = SyncOptions {
        force_reinit: true,
        ..SyncOptions::default()
    };
    let away = world.lab.path("away.git");
    std::fs::rename(&world.up, &away).unwrap();
    let result = world.try_sync(&reinit).unwrap();
    assert!(!result.success && !result.created);
    assert_eq!(world.refs(), before);
    let names = |world: &World| {
        let mut names: Vec<_> = std::fs::read_dir(&world.spec.base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&world), [".alpha.git.lock", "alpha.git"]);
    std::fs::rename(&away, &world.up).unwrap();
    let result = world.try_sync(&reinit).unwrap();
    assert!(result.success && result.created);
    assert_eq!(world.head("agent"), None);
    assert_eq!(world.head("main"), Some(world.up_head("main")));
    assert_eq!(names(&world), [".alpha.git.lock", "alpha.git"]);
    world.fsck();
    // What is no gate is not touched without being asked to.
    std::fs::remove_dir_all(world.gate()).unwrap();
    std::fs::create_dir(world.gate()).unwrap();
    std::fs::write(world.gate().join("precious"), "x").unwrap();
    let fault = world.try_sync(&SyncOptions::default()).unwrap_err();
    assert_eq!(fault.kind, Kind::GateCorrupt);
    assert!(fault.message.contains("force_reinit"));
    assert!(world.gate().join("precious").exists());
    assert!(world.try_sync(&reinit).unwrap().created);
}

#[test]
fn a_first_sync_that_fails_leaves_nothing() {
    let world = World::new();
    std::fs::rename(&world.up, world.lab.path("away.git")).unwrap();
    let result = world.try_sync(&SyncOptions::default()).unwrap();
    assert!(!result.success && !result.created, "{result:?}");
    assert!(!world.gate().exists());
    let left = std::fs::read_dir(&world.spec.base).unwrap().count();
    assert_eq!(left, 1, "the lock only");
}

#[test]
fn what_interrupted_work_left_beside_gates_is_cleaned_up() {
    let world = World::synced();
    let base = &world.spec.base;
    let half = base.join(".alpha.git.reinit-0123456789abcdef");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("x"), "x").unwrap();
    let theirs = base.join(".alpha.git.reinit-mine");
    std::fs::create_dir(&theirs).unwrap();
    // An old gate was set aside, and its successor never came.
    let aside = base.join(".beta.git.trash-0123456789abcdef");
    world
        .lab
        .git(base, &["init", "-q", "--bare", aside.to_str().unwrap()]);
    // And one whose successor did.
    let replaced = base.join(".alpha.git.trash-0123456789abcdef");
    world
        .lab
        .git(base, &["init", "-q", "--bare", replaced.to_str().unwrap()]);
    terok_gate::recover(base);
    assert!(!half.exists() && !replaced.exists() && !aside.exists());
    assert!(theirs.exists(), "not made by us");
    assert!(base.join("beta.git/HEAD").exists());
    assert_eq!(world.head("main"), Some(world.up_head("main")));
}

#[test]
fn what_killed_transfers_left_is_cleaned_up_when_it_is_old() {
    let world = World::synced();
    let objects = world.gate().join("objects");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let age = |path: &std::path::Path| {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(old).unwrap();
    };
    let transfer = |name: &str| {
        let dir = objects.join(name);
        std::fs::create_dir_all(dir.join("pack")).unwrap();
        let pack = dir.join("pack/tmp_pack_AbCdEf");
        std::fs::write(&pack, "PACK").unwrap();
        for path in [&pack, &dir.join("pack"), &dir] {
            age(path);
        }
        (dir, pack)
    };
    let dead = ["tmp_objdir-terok-x", "tmp_objdir-incoming-x", "incoming-x"].map(transfer);
    // A pack grows for hours in directories that nothing else happens in.
    let (alive, pack) = transfer("tmp_objdir-incoming-y");
    std::fs::write(&pack, "PACK and more").unwrap();
    let (other, _) = transfer("17");
    terok_gate::recover(&world.spec.base);
    for (dir, _) in dead {
        assert!(!dir.exists(), "{}", dir.display());
    }
    assert!(alive.exists() && pack.exists() && other.exists());
}

#[test]
fn a_gate_that_cannot_be_written_stays_as_it_is() {
    if nix_is_root() {
        // Root may write anywhere; a read-only directory stops nobody.
        let world = World::synced();
        let before = world.refs();
        world.commit_up("main", "theirs");
        // No directory can be made below a file.
        let packs = world.gate().join("objects/pack");
        std::fs::rename(&packs, world.gate().join("objects/aside")).unwrap();
        std::fs::write(&packs, "").unwrap();
        let outcome = world.try_sync(&SyncOptions::default());
        let refused = match outcome {
            Err(fault) => fault.kind == Kind::StorageError || fault.kind == Kind::GateCorrupt,
            Ok(result) => !result.success,
        };
        assert!(refused);
        std::fs::remove_file(&packs).unwrap();
        std::fs::rename(world.gate().join("objects/aside"), &packs).unwrap();
        assert_eq!(world.refs(), before);
        world.sync();
        return;
    }
    let world = World::synced();
    let before = world.refs();
    world.commit_up("main", "theirs");
    let objects = world.gate().join("objects");
    let mode = |mode| {
        std::fs::set_permissions(&objects, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    let fault = world.try_sync(&SyncOptions::default()).unwrap_err();
    mode(0o700);
    assert_eq!(fault.kind, Kind::StorageError);
    assert_eq!(world.refs(), before);
}

fn nix_is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes one change of every kind, so that every point is passed by somebody.
fn everything(world: &World) -> Result<(), terok_proto::Fault> {
    world.try_sync(&SyncOptions {
        backup_retention_days: 30,
        ..SyncOptions::default()
    })?;
    for op in terok_gate::pending(&world.spec)? {
        let confirmed = ConfirmedOp {
            branch: op.branch,
            gate_sha: op.gate_sha,
        };
        apply_pending(&world.spec, &[confirmed], &Control::new())?;
    }
    for backup in backups(&world.spec)? {
        restore_backup(&world.spec, &backup.reference, &Control::new())?;
    }
    let promoted = terok_gate::promote(
        &world.spec,
        &world.upstream(),
        &world.transport,
        &terok_gate::PromoteRequest {
            branch: "agent".to_owned(),
            upstream_branch: None,
            expect_commit: None,
        },
        &terok_gate::Limits::default(),
        &Control::new(),
    );
    match promoted {
        Ok(_) => {}
        Err(fault) if fault.kind == Kind::InvalidArgument => {}
        Err(fault) => return Err(fault),
    }
    world.try_sync(&SyncOptions {
        force_reinit: true,
        ..SyncOptions::default()
    })?;
    Ok(())
}

/// Runs this test binary again as a process that dies at a point.
fn die_at(point: &str, dir: &std::path::Path) -> std::process::ExitStatus {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dies", "--ignored", "--nocapture"])
        .env("GATE_TEST_DIE_AT", point)
        .env("GATE_TEST_DIR", dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

#[test]
#[ignore = "the part of another test that dies"]
fn dies() {
    let Ok(point) = std::env::var("GATE_TEST_DIE_AT") else {
        return;
    };
    let world = World::reopen(std::env::var("GATE_TEST_DIR").unwrap().as_ref());
    if point == ASIDE {
        refuse_exchange();
    }
    at_points(
        move |at| {
            if at == point {
                nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL)
                    .unwrap();
            }
        },
        || everything(&world),
    )
    .unwrap();
}

/// Passed where the file system cannot exchange two names.
const ASIDE: &str = "gate.sync.aside";

/// From now on this thread cannot exchange two names, as on NFS and many others.
fn refuse_exchange() {
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    let exchange = u64::from(nix::libc::RENAME_EXCHANGE);
    let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, exchange);
    let rule = SeccompRule::new(vec![flags.unwrap()]).unwrap();
    let filter = SeccompFilter::new(
        [(nix::libc::SYS_renameat2, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(nix::libc::EINVAL as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn a_process_may_die_at_every_point() {
    for point in CRASH_POINTS {
        let mut world = World::synced();
        world.spec.cache_dir = Some(world.lab.path("cache/alpha"));
        world.commit_gate("agent", "agent");
        world.rewrite_up("main", "instead");
        world.commit_up("side/x", "more");
        world.commit_up("fresh", "fresh");
        let before: Vec<_> = ["main", "agent"].map(|b| world.head(b).unwrap()).into();
        let status = die_at(point, world.lab.dir.path());
        assert!(!status.success(), "`{point}` was never passed");
        if *point == ASIDE {
            // The one moment without a gate.
            assert!(!world.gate().exists());
            terok_gate::recover(&world.spec.base);
        }
        // Whatever was done, nothing of the gate's own is lost unless the gate was to be replaced.
        if !point.contains("exchanged") {
            let reachable = world.lab.git(world.gate(), &["rev-list", "--all"]);
            for id in &before {
                assert!(reachable.contains(&id.to_string()), "{point}: {id} is lost");
            }
        }
        terok_gate::recover(&world.spec.base);
        fsck(&world.lab, world.gate());
        let result = world.try_sync(&SyncOptions::default()).unwrap();
        assert!(result.success, "{point}: {result:?}");
        assert_eq!(result.cache_error, None, "{point}");
        let left: Vec<_> = std::fs::read_dir(&world.spec.base)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.') && name != ".alpha.git.lock")
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{point}");
        fsck(&world.lab, world.gate());
        let cached = world.lab.git(
            &world.lab.path("cache/alpha"),
            &["rev-parse", "refs/remotes/origin/fresh"],
        );
        assert_eq!(cached, world.up_head("fresh").to_string(), "{point}");
    }
}

#[test]
fn a_gate_that_was_set_aside_comes_back_with_the_next_sync() {
    for force_reinit in [false, true] {
        let world = World::synced();
        world.commit_gate("agent", "agent");
        let before = world.refs();
        assert!(!die_at(ASIDE, world.lab.dir.path()).success());
        assert!(!world.gate().exists(), "between two renames");
        // Nobody has cleaned up: another process goes on where that one died.
        world.commit_up("main", "more");
        let options = SyncOptions {
            force_reinit,
            ..SyncOptions::default()
        };
        let result = world.try_sync(&options).unwrap();
        assert!(result.success, "{result:?}");
        assert_eq!(result.created, force_reinit);
        assert_eq!(world.head("main"), Some(world.up_head("main")));
        if !force_reinit {
            let now = world.refs();
            let agent = before.lines().find(|line| line.contains("agent")).unwrap();
            assert!(now.contains(agent), "{now}");
        }
        let left = std::fs::read_dir(&world.spec.base).unwrap().count();
        assert_eq!(left, 2, "the gate and its lock");
        world.fsck();
    }
}

#[test]
fn a_first_sync_may_die_at_every_point() {
    for point in [
        "gate.sync.locked",
        "gate.sync.made",
        "gate.sync.fetched",
        "gate.sync.exchanging",
        "gate.sync.exchanged",
    ] {
        let world = World::new();
        assert!(!die_at(point, world.lab.dir.path()).success());
        assert!(
            !world.gate().exists() || world.head("main") == Some(world.up_head("main")),
            "{point}"
        );
        let result = world.sync();
        assert_eq!(result.created, point != "gate.sync.exchanged");
        world.fsck();
        assert_eq!(std::fs::read_dir(&world.spec.base).unwrap().count(), 2);
    }
}

/// Says one thing and another the next time.
struct Fickle<'a> {
    inner: &'a dyn terok_gate::GitTransport,
    looks: std::sync::atomic::AtomicUsize,
    change: fn(usize, &mut terok_gate::Advertisement),
}

impl terok_gate::GitTransport for Fickle<'_> {
    fn ls_refs(
        &self,
        upstream: &terok_gate::Upstream,
        prefixes: &[&str],
        limits: &terok_gate::Limits,
        control: &Control,
    ) -> Result<terok_gate::Advertisement, TransportError> {
        let mut advertised = self.inner.ls_refs(upstream, prefixes, limits, control)?;
        let look = self
            .looks
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (self.change)(look, &mut advertised);
        Ok(advertised)
    }

    fn fetch(
        &self,
        repository: &std::path::Path,
        upstream: &terok_gate::Upstream,
        wants: &[terok_gate::RemoteRef],
        limits: &terok_gate::Limits,
        control: &Control,
    ) -> Result<terok_gate::FetchReport, TransportError> {
        self.inner
            .fetch(repository, upstream, wants, limits, control)
    }

    fn push(
        &self,
        repository: &std::path::Path,
        upstream: &terok_gate::Upstream,
        commit: gix::ObjectId,
        to: &str,
        lease: Option<gix::ObjectId>,
        limits: &terok_gate::Limits,
        control: &Control,
    ) -> Result<(), terok_gate::PushError> {
        self.inner
            .push(repository, upstream, commit, to, lease, limits, control)
    }
}

fn fickle(
    world: &World,
    change: fn(usize, &mut terok_gate::Advertisement),
) -> Result<terok_proto::gate::GateSyncResult, terok_proto::Fault> {
    let transport = Fickle {
        inner: &world.transport,
        looks: Default::default(),
        change,
    };
    world.sync_by(&transport, &SyncOptions::default())
}

#[test]
fn a_server_that_shows_too_little_once_is_not_believed() {
    let world = World::synced();
    let before = world.refs();
    // Nothing at all, unconfirmed.
    let result = fickle(&world, |_, advertised| {
        advertised.refs.clear();
        advertised.empty_confirmed = false;
    })
    .unwrap();
    assert!(!result.success);
    assert_eq!(world.refs(), before);
    // A branch is missing, and HEAD; the second look has it.
    let result = fickle(&world, |look, advertised| {
        advertised.head = None;
        if look == 0 {
            advertised.refs.retain(|r| r.name != "refs/heads/side/x");
        }
    })
    .unwrap();
    assert!(!result.success, "{result:?}");
    assert_eq!(world.refs(), before);
    // Twice the same is how it is.
    let result = fickle(&world, |_, advertised| {
        advertised.head = None;
        advertised.refs.retain(|r| r.name != "refs/heads/side/x");
    })
    .unwrap();
    assert!(result.success);
    assert_eq!(pending_of(&result.pending, "side/x").branch, "side/x");
}

#[test]
fn names_that_no_repository_can_have_are_left_out() {
    for made in [false, true] {
        let world = World::new();
        if made {
            world.sync();
            world.commit_up("main", "more");
        }
        let result = fickle(&world, |_, advertised| {
            let id = advertised.refs[0].id;
            let names = [
                "refs/heads/main/below",
                "refs/heads/HEAD",
                "refs/heads/..",
                "refs/heads/a..b",
                "refs/heads/\u{1b}[31mred",
                "refs/heads/x.lock",
                "refs/heads/-option",
                "refs/tags/v1/below",
                "refs/tags/../../config",
                "refs/heads/",
                "refs/other/thing",
                "nonsense",
            ];
            let long = format!("refs/heads/{}", "l".repeat(300));
            for name in names.into_iter().chain([long.as_str()]) {
                advertised.refs.push(terok_gate::RemoteRef {
                    name: name.to_owned(),
                    id,
                    peeled: None,
                });
            }
            advertised.refs.sort();
        })
        .unwrap();
        assert!(result.success, "{result:?}");
        assert_eq!(result.notes.len(), 11, "{:?}", result.notes);
        assert!(!result.notes.iter().any(|note| note.contains('\u{1b}')));
        assert_eq!(world.head("main"), Some(world.up_head("main")));
        let names = world
            .lab
            .git(world.gate(), &["for-each-ref", "--format=%(refname)"]);
        assert_eq!(
            names,
            "refs/heads/main\nrefs/heads/side/x\nrefs/tags/v1\nrefs/terok/upstream/main\nrefs/terok/upstream/side/x"
        );
        world.fsck();
    }
}

#[test]
fn a_head_that_is_no_commit_and_a_lie_about_a_tag() {
    let world = World::synced();
    let before = world.refs();
    let result = fickle(&world, |_, advertised| {
        let tag = advertised
            .refs
            .iter()
            .find(|r| r.name == "refs/tags/v1")
            .unwrap()
            .id;
        advertised.refs[0].id = tag;
    })
    .unwrap();
    assert!(!result.success, "{result:?}");
    assert_eq!(world.refs(), before);
    let world = World::new();
    let result = fickle(&world, |_, advertised| {
        for reference in &mut advertised.refs {
            reference.peeled = Some(gix::ObjectId::from_bytes_or_panic(&[7; 20]));
        }
    })
    .unwrap();
    assert!(result.success);
    assert_eq!(
        world.at("refs/tags/v1^{}"),
        Some(world.lab.rev(&world.up, "v1^{}"))
    );
    let shown = world.lab.git(
        world.lab.dir.path(),
        &["ls-remote", "--tags", world.gate().to_str().unwrap()],
    );
    assert!(!shown.contains("0707"), "{shown}");
}
