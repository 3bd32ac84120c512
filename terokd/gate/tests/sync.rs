//! What a sync does to a gate: each row of the classification, HEAD, tags, names that collide, and what upstream may
//! come up with.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use support::gates::{World, pending_of};
use terok_gate::{Control, SyncOptions, apply_pending, backups, last_commit, restore_backup};
use terok_proto::Kind;
use terok_proto::gate::{AppliedKind, BackupReason, ConfirmedOp, PendingKind, PendingReason};

fn confirmed(branch: &str, at: impl ToString) -> ConfirmedOp {
    ConfirmedOp {
        branch: branch.to_owned(),
        gate_sha: at.to_string(),
    }
}

fn applied(result: &terok_proto::gate::GateSyncResult) -> Vec<(&str, AppliedKind)> {
    result
        .applied
        .iter()
        .map(|update| (update.branch.as_str(), update.kind))
        .collect()
}

#[test]
fn the_first_sync_makes_a_gate_and_the_second_does_nothing() {
    let world = World::new();
    let first = world.sync();
    assert!(first.created);
    assert_eq!(
        applied(&first),
        [
            ("main", AppliedKind::Create),
            ("side/x", AppliedKind::Create)
        ]
    );
    assert_eq!(first.updated_branches, ["main", "side/x"]);
    for (gate, up) in [
        ("refs/heads/main", "refs/heads/main"),
        ("refs/heads/side/x", "refs/heads/side/x"),
        ("refs/terok/upstream/main", "refs/heads/main"),
        ("refs/terok/upstream/side/x", "refs/heads/side/x"),
        ("refs/tags/v1", "refs/tags/v1"),
    ] {
        assert_eq!(world.at(gate), Some(world.lab.rev(&world.up, up)), "{gate}");
    }
    assert_eq!(world.default_head(), "refs/heads/main");
    assert_eq!(
        last_commit(&world.spec).unwrap().commit_hash,
        world.up_head("main").to_string()
    );
    world.fsck();
    let before = support::lab::listing(world.gate());
    let second = world.sync();
    assert!(!second.created && second.updated_branches.is_empty());
    assert!(second.notes.is_empty() && second.pending.is_empty());
    assert_eq!(support::lab::listing(world.gate()), before);
}

#[test]
fn a_head_behind_upstream_is_moved_forward() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    let new = world.commit_up("main", "more");
    let result = world.sync();
    assert_eq!(applied(&result), [("main", AppliedKind::FastForward)]);
    assert_eq!(result.applied[0].old, Some(old.to_string()));
    assert_eq!(result.applied[0].new, new.to_string());
    assert_eq!(world.head("main"), Some(new));
    world.fsck();
}

#[test]
fn a_head_ahead_of_upstream_is_left_alone() {
    let world = World::synced();
    let mine = world.commit_gate("main", "agent");
    for _ in 0..3 {
        let result = world.sync();
        assert!(result.applied.is_empty() && result.pending.is_empty());
        assert_eq!(result.gate_only_branches.len(), 1);
        assert_eq!(result.gate_only_branches[0].branch, "main");
        assert_eq!(result.gate_only_branches[0].ahead, Some(1));
    }
    assert_eq!(world.head("main"), Some(mine));
}

#[test]
fn a_branch_of_the_gates_own_is_left_alone() {
    let world = World::synced();
    let mine = world.commit_gate("agent/topic", "agent");
    for _ in 0..3 {
        let result = world.sync();
        assert!(result.applied.is_empty() && result.pending.is_empty());
        assert_eq!(result.gate_only_branches[0].branch, "agent/topic");
        assert_eq!(result.gate_only_branches[0].ahead, None);
    }
    assert_eq!(world.head("agent/topic"), Some(mine));
}

#[test]
fn a_rewrite_upstream_waits_and_loses_nothing_if_the_gate_had_no_work() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    let new = world.rewrite_up("main", "instead");
    for _ in 0..2 {
        let result = world.sync();
        assert!(result.applied.is_empty());
        let op = pending_of(&result.pending, "main");
        assert_eq!(op.kind, PendingKind::ForceUpdate);
        assert_eq!(op.reason, PendingReason::UpstreamRewrite);
        assert_eq!(op.gate_sha, old.to_string());
        assert_eq!(op.upstream_sha, Some(new.to_string()));
        assert_eq!(op.old_snapshot_sha, Some(old.to_string()));
        assert!(op.lossless);
        assert_eq!(op.gate_only_commits, Some(0));
        assert_eq!(world.pending(), result.pending);
        assert_eq!(world.head("main"), Some(old));
        assert_eq!(world.at("refs/terok/attic/main"), Some(old));
    }
    // A second rewrite does not make it forget the first.
    let newer = world.rewrite_up("main", "instead again");
    let op = pending_of(&world.sync().pending, "main").clone();
    assert!(op.lossless);
    assert_eq!(op.upstream_sha, Some(newer.to_string()));

    let done = apply_pending(&world.spec, &[confirmed("main", old)], &Control::new()).unwrap();
    assert!(done.refused.is_empty(), "{done:?}");
    assert_eq!(done.applied[0].new, Some(newer.to_string()));
    assert_eq!(world.head("main"), Some(newer));
    assert_eq!(world.at("refs/terok/attic/main"), None);
    let kept = backups(&world.spec).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        Some(&kept[0].reference),
        done.applied[0].backup_ref.as_ref()
    );
    assert_eq!(kept[0].commit, old.to_string());
    assert_eq!(kept[0].branch, "main");
    assert_eq!(kept[0].reason, BackupReason::Sync);
    assert!(world.pending().is_empty() && world.sync().pending.is_empty());
    world.fsck();
}

#[test]
fn a_rewrite_upstream_over_work_of_the_gates_is_lossy() {
    let world = World::synced();
    let base = world.head("main").unwrap();
    world.commit_gate("main", "agent one");
    let mine = world.commit_gate("main", "agent two");
    world.rewrite_up("main", "instead");
    let op = pending_of(&world.sync().pending, "main").clone();
    assert!(!op.lossless);
    assert_eq!(op.gate_only_commits, Some(2));
    assert_eq!(op.old_snapshot_sha, Some(base.to_string()));
    assert_eq!(world.head("main"), Some(mine));
    assert_eq!(world.pending(), [op]);
    // Even who wants everything applied that loses nothing does not get this.
    let options = SyncOptions {
        auto_apply_lossless: true,
        ..SyncOptions::default()
    };
    assert_eq!(world.try_sync(&options).unwrap().pending.len(), 1);
    assert_eq!(world.head("main"), Some(mine));
}

#[test]
fn a_branch_deleted_upstream_waits() {
    let world = World::synced();
    let old = world.head("side/x").unwrap();
    world.put(&world.up, "side/x", None);
    for _ in 0..2 {
        let result = world.sync();
        let op = pending_of(&result.pending, "side/x");
        assert_eq!(op.kind, PendingKind::Delete);
        assert_eq!(op.reason, PendingReason::UpstreamDelete);
        assert!(op.lossless && op.upstream_sha.is_none());
        assert_eq!(world.pending(), result.pending);
        assert_eq!(world.at("refs/terok/upstream/side/x"), None);
    }
    // It comes back upstream: nothing waits any more.
    world.put(&world.up, "side/x", Some(old));
    let result = world.sync();
    assert!(result.pending.is_empty() && result.applied.is_empty());
    assert_eq!(world.at("refs/terok/attic/side/x"), None);

    world.put(&world.up, "side/x", None);
    world.sync();
    let mine = world.commit_gate("side/x", "agent");
    let op = pending_of(&world.sync().pending, "side/x").clone();
    assert!(!op.lossless);
    assert_eq!(op.gate_only_commits, Some(1));
    let done = apply_pending(&world.spec, &[confirmed("side/x", mine)], &Control::new()).unwrap();
    assert_eq!(done.applied[0].new, None);
    assert_eq!(world.head("side/x"), None);
    let kept = done.applied[0].backup_ref.clone().unwrap();
    assert_eq!(world.at(&kept), Some(mine));
    // And back from there.
    let back = restore_backup(&world.spec, &kept, &Control::new()).unwrap();
    assert_eq!((back.old, back.backup_ref), (None, None));
    assert_eq!(world.head("side/x"), Some(mine));
    // By now it is the gate's own.
    let result = world.sync();
    assert!(result.pending.is_empty());
    assert_eq!(result.gate_only_branches[0].branch, "side/x");
    world.fsck();
}

#[test]
fn what_is_lossless_is_applied_at_once_if_that_is_wanted() {
    let world = World::synced();
    let (main, side) = (world.head("main").unwrap(), world.head("side/x").unwrap());
    let new = world.rewrite_up("main", "instead");
    world.put(&world.up, "side/x", None);
    let options = SyncOptions {
        auto_apply_lossless: true,
        backup_retention_days: 30,
        ..SyncOptions::default()
    };
    let result = world.try_sync(&options).unwrap();
    assert!(result.success && result.pending.is_empty(), "{result:?}");
    assert_eq!(
        (world.head("main"), world.head("side/x")),
        (Some(new), None)
    );
    let mut kept: Vec<_> = backups(&world.spec)
        .unwrap()
        .into_iter()
        .map(|backup| (backup.branch, backup.commit))
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [
            ("main".to_owned(), main.to_string()),
            ("side/x".to_owned(), side.to_string())
        ]
    );
    assert_eq!(result.notes.len(), 2, "{:?}", result.notes);
    world.fsck();
}

#[test]
fn confirmations_are_checked_against_what_is_there() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    let side = world.head("side/x").unwrap();
    world.rewrite_up("main", "instead");
    world.put(&world.up, "side/x", None);
    world.sync();
    let mine = world.commit_gate("main", "agent");
    let ops = [
        confirmed("main", old),
        confirmed("side/x", side),
        confirmed("nothing", old),
    ];
    let done = apply_pending(&world.spec, &ops, &Control::new()).unwrap();
    assert_eq!(done.applied.len(), 1);
    assert_eq!(done.applied[0].branch, "side/x");
    let refused: Vec<_> = done
        .refused
        .iter()
        .map(|refused| (refused.branch.as_str(), refused.kind.as_str()))
        .collect();
    assert_eq!(
        refused,
        [("main", "branch_moved"), ("nothing", "branch_moved")]
    );
    assert_eq!(world.head("main"), Some(mine));
    // A branch where nothing waits.
    world.put(world.gate(), "calm", Some(mine));
    let done = apply_pending(&world.spec, &[confirmed("calm", mine)], &Control::new()).unwrap();
    assert_eq!(done.refused[0].kind, "invalid_argument");
}

#[test]
fn restoring_keeps_what_it_replaces() {
    let world = World::synced();
    let old = world.head("main").unwrap();
    let new = world.rewrite_up("main", "instead");
    world.sync();
    let done = apply_pending(&world.spec, &[confirmed("main", old)], &Control::new()).unwrap();
    let first = done.applied[0].backup_ref.clone().unwrap();
    let back = restore_backup(&world.spec, &first, &Control::new()).unwrap();
    assert_eq!(world.head("main"), Some(old));
    let second = back.backup_ref.unwrap();
    assert_eq!(world.at(&second), Some(new));
    let all = backups(&world.spec).unwrap();
    assert_eq!(all.len(), 2);
    let reason = |name: &str| {
        all.iter()
            .find(|backup| backup.reference == name)
            .unwrap()
            .reason
    };
    assert_eq!(reason(&first), BackupReason::Sync);
    assert_eq!(reason(&second), BackupReason::Restore);
    // Reasons outlive what git does to tidy up.
    world.lab.git(world.gate(), &["pack-refs", "--all"]);
    world.lab.git(world.gate(), &["reflog", "expire", "--all"]);
    world.lab.git(world.gate(), &["gc", "--quiet"]);
    assert_eq!(backups(&world.spec).unwrap(), all);
    // Restoring where the branch is already changes nothing.
    let again = restore_backup(&world.spec, &first, &Control::new()).unwrap();
    assert_eq!((again.old, again.backup_ref), (Some(old.to_string()), None));
    for unknown in [
        "refs/terok/backup/main/nothing",
        "refs/heads/main",
        "refs/terok/backup/../../heads/main",
        "",
    ] {
        let fault = restore_backup(&world.spec, unknown, &Control::new()).unwrap_err();
        assert_eq!(fault.kind, Kind::BackupNotFound, "{unknown}");
    }
    let pruned = terok_gate::prune_backups(&world.spec, 1, &Control::new()).unwrap();
    assert!(pruned.pruned.is_empty());
    let pruned = terok_gate::prune_backups(&world.spec, 0, &Control::new()).unwrap();
    assert_eq!(pruned.pruned.len(), 2);
    assert!(backups(&world.spec).unwrap().is_empty());
    world.fsck();
}

#[test]
fn old_backups_go_with_a_sync() {
    let world = World::synced();
    let id = world.head("main").unwrap().to_string();
    let old = format!("refs/terok/backup/main/20200101T000000Z-{}", &id[..12]);
    let odd = "refs/terok/backup/main/by-hand".to_owned();
    let young = format!(
        "refs/terok/backup/a/b/{}-{}",
        jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"),
        &id[..12]
    );
    for name in [&old, &odd, &young] {
        world.lab.git(world.gate(), &["update-ref", name, &id]);
    }
    let listed = backups(&world.spec).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].branch, "a/b");
    assert_eq!(listed[1].at, "2020-01-01T00:00:00Z");
    assert_eq!(listed[1].reason, BackupReason::Unknown);
    let options = |days| SyncOptions {
        backup_retention_days: days,
        ..SyncOptions::default()
    };
    world.try_sync(&options(0)).unwrap();
    assert!(world.at(&old).is_some(), "0 means for ever");
    world.try_sync(&options(30)).unwrap();
    assert!(world.at(&old).is_none());
    assert!(world.at(&young).is_some() && world.at(&odd).is_some());
}

#[test]
fn a_renamed_default_branch_is_followed() {
    let world = World::synced();
    let id = world.up_head("main");
    world.put(&world.up, "trunk", Some(id));
    world.put(&world.up, "main", None);
    world
        .lab
        .git(&world.up, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let result = world.sync();
    assert_eq!(applied(&result), [("trunk", AppliedKind::Create)]);
    assert_eq!(world.default_head(), "refs/heads/trunk");
    let op = pending_of(&result.pending, "main");
    assert!(op.lossless);
    world.lab.git(
        world.lab.dir.path(),
        &["clone", "-q", world.gate().to_str().unwrap(), "clone"],
    );
    assert!(world.lab.path("clone/two").is_file());
    let ops = [confirmed("main", id)];
    apply_pending(&world.spec, &ops, &Control::new()).unwrap();
    assert_eq!(world.head("main"), None);
    assert_eq!(world.default_head(), "refs/heads/trunk");
    assert!(world.sync().success);
}

#[test]
fn a_head_that_leads_nowhere_is_an_error_only_if_there_are_branches() {
    let mut world = World::empty();
    let result = world.sync();
    assert!(result.created && result.applied.is_empty());
    assert_eq!(world.default_head(), "refs/heads/main");
    assert_eq!(last_commit(&world.spec), None);
    // Upstream's unborn branch is what HEAD should be born as.
    world
        .lab
        .git(&world.up, &["symbolic-ref", "HEAD", "refs/heads/later"]);
    world.sync();
    assert_eq!(world.default_head(), "refs/heads/later");
    world.spec.default_branch = None;
    world.commit_up("a", "a");
    world.commit_up("b", "b");
    let result = world.try_sync(&SyncOptions::default()).unwrap();
    assert!(!result.success);
    assert!(result.errors[0].contains("HEAD"), "{:?}", result.errors);
    assert_eq!(applied(&result).len(), 2);
    world.spec.default_branch = Some("b".to_owned());
    assert!(world.sync().success);
    assert_eq!(world.default_head(), "refs/heads/b");
    world.fsck();
}

#[test]
fn an_upstream_that_lost_everything_takes_nothing_along() {
    let world = World::synced();
    let before = (world.head("main"), world.head("side/x"));
    for branch in ["main", "side/x"] {
        world.put(&world.up, branch, None);
    }
    world.lab.git(&world.up, &["tag", "-d", "v1"]);
    let result = world.try_sync(&SyncOptions::default()).unwrap();
    assert_eq!((world.head("main"), world.head("side/x")), before);
    if result.success {
        assert_eq!(result.pending.len(), 2);
    }
    assert!(world.at("refs/tags/v1").is_some());
}

#[test]
fn tags_come_and_stay() {
    let world = World::synced();
    let v1 = world.at("refs/tags/v1");
    world.lab.git(&world.up, &["tag", "v2", "main"]);
    world.lab.git(
        &world.up,
        &["tag", "-f", "-a", "-m", "moved", "v1", "side/x"],
    );
    let result = world.sync();
    assert_eq!(world.at("refs/tags/v2"), Some(world.up_head("main")));
    assert_eq!(world.at("refs/tags/v1"), v1);
    assert_eq!(result.notes.len(), 1);
    assert!(result.notes[0].contains("`v1`"), "{:?}", result.notes);
    world.lab.git(&world.up, &["tag", "-d", "v2"]);
    world.sync();
    assert!(world.at("refs/tags/v2").is_some());
    // A tag of a commit that no branch has.
    let lone = world.commit_up("gone", "lone");
    world.lab.git(&world.up, &["tag", "lone", "gone"]);
    world.put(&world.up, "gone", None);
    world.sync();
    assert_eq!(world.at("refs/tags/lone"), Some(lone));
    world.fsck();
}

#[test]
fn only_named_branches_are_touched() {
    let world = World::synced();
    world.commit_up("main", "more");
    let side = world.commit_up("side/x", "more");
    let fresh = world.commit_up("fresh", "fresh");
    world.lab.git(&world.up, &["tag", "v9", "main"]);
    let main = world.head("main");
    let result = world.sync_branches(&["side/x", "side/x", "fresh"]);
    assert!(result.success, "{result:?}");
    assert_eq!(
        applied(&result),
        [
            ("fresh", AppliedKind::Create),
            ("side/x", AppliedKind::FastForward)
        ]
    );
    assert_eq!(world.head("side/x"), Some(side));
    assert_eq!(world.head("fresh"), Some(fresh));
    assert_eq!(world.head("main"), main);
    assert_eq!(world.at("refs/terok/upstream/main"), main);
    assert_eq!(world.at("refs/tags/v9"), None);
    // The objects of the others did not come either.
    let theirs = world.up_head("main").to_string();
    assert!(
        world
            .lab
            .try_git(world.gate(), &["cat-file", "-e", &theirs])
            .is_none()
    );
    world.put(&world.up, "fresh", None);
    let result = world.sync_branches(&["fresh"]);
    assert_eq!(
        pending_of(&result.pending, "fresh").gate_sha,
        fresh.to_string()
    );
    assert_eq!(world.at("refs/terok/upstream/side/x"), Some(side));
    for wrong in [
        "",
        "HEAD",
        "-x",
        "a..b",
        "refs/heads/main",
        "a*",
        "a b",
        "a\nb",
        ".a",
        "a.lock",
        "a/",
        "@{",
    ] {
        let fault = world
            .try_sync(&SyncOptions {
                branches: vec![wrong.to_owned()],
                ..SyncOptions::default()
            })
            .unwrap_err();
        assert_eq!(fault.kind, Kind::InvalidArgument, "{wrong:?}");
    }
    let many = (0..501).map(|n| format!("b{n}")).collect();
    let fault = world
        .try_sync(&SyncOptions {
            branches: many,
            ..SyncOptions::default()
        })
        .unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
}

#[test]
fn a_name_that_becomes_a_directory_and_back() {
    let world = World::synced();
    let a = world.commit_up("a", "a");
    world.sync();
    // Upstream: `a` becomes `a/b`.
    world.put(&world.up, "a", None);
    let ab = world.commit_up("a/b", "ab");
    let result = world.sync();
    assert!(applied(&result).is_empty());
    assert!(result.notes[0].contains("`a/b`"), "{:?}", result.notes);
    let op = pending_of(&result.pending, "a");
    assert!(op.lossless, "{op:?}");
    assert_eq!(world.at("refs/terok/upstream/a/b"), Some(ab));
    assert_eq!(world.at("refs/terok/attic/a"), Some(a));
    assert_eq!(world.sync().pending.len(), 1);
    apply_pending(&world.spec, &[confirmed("a", a)], &Control::new()).unwrap();
    let result = world.sync();
    assert_eq!(applied(&result), [("a/b", AppliedKind::Create)]);
    // The old one cannot come back now, and says so.
    let kept = backups(&world.spec).unwrap()[0].reference.clone();
    let fault = restore_backup(&world.spec, &kept, &Control::new()).unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
    // And back: `a/b` becomes `a`.
    world.put(&world.up, "a/b", None);
    world.put(&world.up, "a", Some(a));
    let result = world.sync();
    assert!(pending_of(&result.pending, "a/b").lossless);
    apply_pending(&world.spec, &[confirmed("a/b", ab)], &Control::new()).unwrap();
    world.sync();
    assert_eq!((world.head("a"), world.head("a/b")), (Some(a), None));
    world.fsck();
}

#[test]
fn names_of_packed_refs_collide_as_well() {
    let world = World::synced();
    world.commit_gate("x", "agent");
    world.lab.git(world.gate(), &["pack-refs", "--all"]);
    world.commit_up("x/y", "theirs");
    let result = world.sync();
    assert!(result.notes[0].contains("`x/y`"), "{:?}", result.notes);
    assert_eq!(world.head("x/y"), None);
    // Asked for alone, what upstream's new name leaves no room for is found to be gone.
    let up = world.commit_up("z", "z");
    world.sync();
    world.put(&world.up, "z", None);
    world.commit_up("z/z", "zz");
    let result = world.sync_branches(&["z/z"]);
    assert!(result.success, "{result:?}");
    assert!(pending_of(&result.pending, "z").lossless);
    assert_eq!(world.head("z"), Some(up));
    world.fsck();
}

#[test]
fn names_that_differ_in_case_live_side_by_side() {
    let world = World::synced();
    let (a, b) = (
        world.commit_up("Case", "one"),
        world.commit_up("case", "two"),
    );
    world.sync();
    assert_eq!((world.head("Case"), world.head("case")), (Some(a), Some(b)));
}

#[test]
fn a_changed_url_is_written_down_and_what_else_the_configuration_says_stays() {
    let mut world = World::synced();
    let config = world.gate().join("config");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str("[pack]\n\tthreads = 1 # mine\n[receive]\n\tfsckObjects = false\n");
    std::fs::write(&config, text).unwrap();
    let moved = world.lab.path("moved.git");
    std::fs::rename(&world.up, &moved).unwrap();
    world.up = moved;
    world.spec.upstream_url =
        Some(terok_gate::GateUrl::parse(&support::lab::file_url(&world.up)).unwrap());
    let result = world.sync();
    assert!(!result.migrated && !result.created);
    let get = |key: &str| {
        world
            .lab
            .git(world.gate(), &["config", "--local", "--get-all", key])
    };
    assert_eq!(get("remote.origin.url"), support::lab::file_url(&world.up));
    for (key, value) in [
        ("remote.origin.fetch", "+refs/heads/*:refs/terok/upstream/*"),
        ("pack.threads", "1"),
        ("receive.fsckObjects", "true"),
        ("transfer.hideRefs", "refs/terok"),
        ("core.logAllRefUpdates", "always"),
        ("core.bare", "true"),
        ("uploadpack.allowFilter", "true"),
        ("gc.auto", "0"),
    ] {
        assert_eq!(get(key), value, "{key}");
    }
    // The upstream goes away altogether.
    world.spec.upstream_url = None;
    world.sync();
    assert_eq!(
        world
            .lab
            .try_git(world.gate(), &["config", "remote.origin.url"]),
        None
    );
    world.fsck();
}

#[test]
fn a_gate_without_upstream() {
    let mut world = World::empty();
    world.spec.upstream_url = None;
    world.spec.default_branch = Some("trunk".to_owned());
    let result = world.sync();
    assert!(result.created && result.upstream_url.is_none());
    assert!(result.updated_branches.is_empty());
    assert_eq!(world.default_head(), "refs/heads/trunk");
    let again = world.sync();
    assert!(!again.created && again.success);
    let mine = world.commit_gate("trunk", "agent");
    assert!(world.sync().updated_branches.is_empty());
    assert_eq!(world.head("trunk"), Some(mine));
    world.fsck();
}
