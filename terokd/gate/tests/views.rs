//! Migration of the reference's mirrors, comparison, review, promotion, the clone cache, modes, and size.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use support::gates::{World, at_point, pending_of};
use terok_gate::{
    Advertisement, CliTransport, Control, FetchReport, GateSpec, GitTransport, GixTransport, Lag,
    Limits, PromoteRequest, PushError, Reach, RemoteRef, SyncOptions, TransportError, Upstream,
    compare, compare_with_known, facts, poll, promote, review,
};
use terok_proto::gate::{
    AppliedKind, GateStalenessInfo, PendingReason, PromoteResult, Relation, ReviewRow,
    StalenessErrorKind,
};
use terok_proto::{Fault, Kind};

fn mirrored() -> World {
    let world = World::new();
    world.lab.git(
        &world.up,
        &["update-ref", "refs/pull/1/head", "refs/heads/side/x"],
    );
    world
        .lab
        .git(&world.up, &["update-ref", "refs/notes/commits", "main"]);
    std::fs::create_dir_all(&world.spec.base).unwrap();
    world.lab.git(
        &world.spec.base,
        &[
            "clone",
            "-q",
            "--mirror",
            world.up.to_str().unwrap(),
            "alpha.git",
        ],
    );
    world
}

/// How long each download may take, as those who ask for it say.
#[derive(Default)]
struct Caps(GixTransport, Mutex<Vec<Duration>>);

impl GitTransport for Caps {
    fn ls_refs(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        control: &Control,
    ) -> Result<Advertisement, TransportError> {
        self.0.ls_refs(upstream, prefixes, limits, control)
    }

    fn fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
        limits: &Limits,
        control: &Control,
    ) -> Result<FetchReport, TransportError> {
        self.1.lock().unwrap().push(limits.total);
        self.0.fetch(repository, upstream, wants, limits, control)
    }

    fn push(
        &self,
        repository: &Path,
        upstream: &Upstream,
        commit: gix::ObjectId,
        to: &str,
        lease: Option<gix::ObjectId>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), PushError> {
        self.0
            .push(repository, upstream, commit, to, lease, limits, control)
    }
}

#[test]
fn a_gate_that_is_made_anew_gets_as_long_as_a_first_one() {
    let (world, caps) = (World::new(), Caps::default());
    let asked = |force_reinit| {
        world.commit_up("main", "more");
        let options = SyncOptions {
            force_reinit,
            ..SyncOptions::default()
        };
        assert!(world.sync_by(&caps, &options).unwrap().success);
        caps.1.lock().unwrap().pop().unwrap()
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(asked(false), 6 * hour, "the first");
    assert_eq!(asked(false), hour / 2);
    assert_eq!(asked(true), 6 * hour, "made anew");
    assert_eq!(asked(false), hour / 2);
}

#[test]
fn a_mirror_of_the_reference_becomes_a_gate() {
    let world = mirrored();
    let mine = world.commit_gate("agent", "agent");
    let ahead = world.commit_gate("main", "agent too");
    world
        .lab
        .git(world.gate(), &["update-ref", "refs/mine/thing", "main"]);
    // The first try does not reach upstream: the second one is still a migration.
    let away = world.lab.path("away.git");
    std::fs::rename(&world.up, &away).unwrap();
    assert!(!world.try_sync(&SyncOptions::default()).unwrap().success);
    std::fs::rename(&away, &world.up).unwrap();
    // And so is the one after a sync of some branches only.
    assert!(!world.sync_branches(&["side/x"]).migrated);
    let result = world.sync();
    assert!(result.migrated && !result.created);
    assert!(result.applied.is_empty());
    let op = pending_of(&result.pending, "agent");
    assert_eq!(op.reason, PendingReason::UnknownProvenance);
    assert!(!op.lossless);
    assert_eq!(result.pending.len(), 1);
    assert_eq!(world.head("agent"), Some(mine));
    assert_eq!(world.head("main"), Some(ahead));
    assert_eq!(world.at("refs/pull/1/head"), None);
    assert_eq!(world.at("refs/notes/commits"), None);
    assert!(world.at("refs/mine/thing").is_some(), "not upstream's");
    assert_eq!(
        world.at("refs/terok/upstream/main"),
        Some(world.up_head("main"))
    );
    let config = |key: &str| {
        world
            .lab
            .try_git(world.gate(), &["config", "--local", "--get-all", key])
    };
    assert_eq!(config("remote.origin.mirror"), None);
    assert_eq!(
        config("remote.origin.fetch").as_deref(),
        Some("+refs/heads/*:refs/terok/upstream/*")
    );
    // Once only.
    let result = world.sync();
    assert!(!result.migrated && result.pending.is_empty());
    assert!(
        result
            .gate_only_branches
            .iter()
            .any(|own| own.branch == "agent")
    );
    world.fsck();
}

fn look(world: &World, branch: Option<&str>) -> GateStalenessInfo {
    let upstream = world.upstream();
    compare(
        &world.spec,
        Reach::Upstream(&upstream),
        &world.transport,
        branch,
        &Limits::default(),
        &Control::new(),
    )
    .unwrap()
}

#[test]
fn a_comparison_counts_exactly_and_changes_no_ref() {
    let world = World::synced();
    let before = world.refs();
    let equal = look(&world, None);
    assert_eq!(equal.branch.as_deref(), Some("main"));
    assert_eq!(equal.relation, Relation::Equal);
    assert!(!equal.is_stale);
    assert_eq!(
        (equal.commits_behind, equal.commits_ahead),
        (Some(0), Some(0))
    );
    for n in 0..50 {
        world.commit_up("main", &format!("m{n}"));
    }
    let behind = look(&world, Some("main"));
    assert_eq!(behind.relation, Relation::Behind);
    assert!(behind.is_stale && behind.error.is_none());
    assert_eq!(
        (behind.commits_behind, behind.commits_ahead),
        (Some(50), Some(0))
    );
    assert_eq!(
        behind.upstream_head,
        Some(world.up_head("main").to_string())
    );
    assert_eq!(world.refs(), before);
    world.commit_gate("main", "agent");
    let diverged = look(&world, None);
    assert_eq!(diverged.relation, Relation::Diverged);
    assert_eq!(
        (diverged.commits_behind, diverged.commits_ahead),
        (Some(50), Some(1))
    );
    world.commit_gate("side/x", "agent");
    let ahead = look(&world, Some("side/x"));
    assert_eq!(ahead.relation, Relation::Ahead);
    assert_eq!(
        (ahead.commits_behind, ahead.commits_ahead),
        (Some(0), Some(1))
    );
    // Nobody is asked: what was heard last counts, unless the snapshot is newer.
    let known = compare_with_known(&world.spec, None, |_| false).unwrap();
    assert_eq!(known.relation, Relation::Ahead);
    let known = compare_with_known(&world.spec, Some(&diverged), |_| false).unwrap();
    assert_eq!(known.relation, Relation::Diverged);
    let known = compare_with_known(&world.spec, Some(&diverged), |_| true).unwrap();
    assert_eq!(known.relation, Relation::Ahead);
}

#[test]
fn what_cannot_be_compared_says_why() {
    let mut world = World::synced();
    let kind = |info: &GateStalenessInfo| (info.error_kind.unwrap(), info.error.clone().unwrap());
    let info = look(&world, Some("nothing"));
    assert_eq!(
        kind(&info),
        (
            StalenessErrorKind::BranchMissingInGate,
            "Gate not initialized".to_owned()
        )
    );
    world.commit_gate("agent", "agent");
    let info = look(&world, Some("agent"));
    assert_eq!(
        kind(&info),
        (
            StalenessErrorKind::BranchMissingUpstream,
            "Could not reach upstream".to_owned()
        )
    );
    assert_eq!(info.gate_head, world.head("agent").map(|id| id.to_string()));
    let ask = |world: &World, reach: Reach<'_>| {
        compare(
            &world.spec,
            reach,
            &world.transport,
            None,
            &Limits::default(),
            &Control::new(),
        )
        .unwrap()
    };
    let info = ask(&world, Reach::None);
    assert_eq!(
        kind(&info),
        (
            StalenessErrorKind::NoUpstream,
            "No upstream URL configured".to_owned()
        )
    );
    assert!(info.gate_head.is_some());
    let locked = Fault::new(Kind::VaultLocked, "locked");
    let info = ask(&world, Reach::Refused(&locked));
    assert_eq!(kind(&info).0, StalenessErrorKind::AuthNotConfigured);
    // Without a name it is upstream's default branch.
    world.spec.default_branch = None;
    world
        .lab
        .git(&world.up, &["symbolic-ref", "HEAD", "refs/heads/side/x"]);
    assert_eq!(look(&world, None).branch.as_deref(), Some("side/x"));
    std::fs::rename(&world.up, world.lab.path("away.git")).unwrap();
    let info = look(&world, Some("main"));
    assert_eq!(
        kind(&info),
        (
            StalenessErrorKind::Unreachable,
            "Could not reach upstream".to_owned()
        )
    );
    std::fs::remove_dir_all(world.gate()).unwrap();
    let info = look(&world, Some("main"));
    assert_eq!(kind(&info).0, StalenessErrorKind::GateMissing);
    assert_eq!(compare_with_known(&world.spec, None, |_| false), None);
}

#[test]
fn a_poll_tells_which_branches_lag_behind() {
    let world = World::synced();
    let ask = |branches: &[String]| {
        poll(
            &world.spec,
            Reach::Upstream(&world.upstream()),
            &world.transport,
            Some(branches),
            &Limits::default(),
            &Control::new(),
        )
        .unwrap()
    };
    assert_eq!(ask(&[]).lagging, []);
    let fresh = world.commit_up("fresh", "fresh").to_string();
    let side = world.head("side/x").unwrap().to_string();
    world.put(&world.up, "side/x", None);
    let report = ask(&[]);
    assert_eq!(
        report.lagging,
        [
            lag("fresh", None, Some(&fresh)),
            lag("side/x", Some(&side), None)
        ]
    );
    assert_eq!(report.staleness.relation, Relation::Equal);
    assert_eq!(ask(&["main".to_owned()]).lagging, []);
    assert_eq!(ask(&["side/x".to_owned()]).lagging.len(), 1);

    // What was looked at without being synced is still to be brought; work of an agent's is not.
    let main = ["main".to_owned()];
    let before = world.head("main").unwrap().to_string();
    let moved = world.commit_up("main", "moved").to_string();
    rows(&world, None);
    let behind = [lag("main", Some(&before), Some(&moved))];
    assert_eq!(ask(&main).lagging, behind);
    world.sync();
    world.commit_gate("main", "an agent's");
    assert_eq!(ask(&main).lagging, []);
    let rewritten = world.rewrite_up("main", "another").to_string();
    let lagging = ask(&main).lagging;
    assert_eq!(lagging[0].upstream.as_deref(), Some(rewritten.as_str()));
    world.sync();
    assert_eq!(ask(&main).lagging, lagging, "it waits for a human");
}

fn lag(branch: &str, gate: Option<&str>, upstream: Option<&str>) -> Lag {
    Lag {
        branch: branch.to_owned(),
        gate: gate.map(str::to_owned),
        upstream: upstream.map(str::to_owned),
    }
}

fn rows(world: &World, branch: Option<&str>) -> Vec<ReviewRow> {
    let upstream = world.upstream();
    review(
        &world.spec,
        Some(&upstream),
        &world.transport,
        branch,
        &Limits::default(),
        &Control::new(),
    )
    .unwrap()
}

/// Commits a whole tree of files in a clone and pushes it.
fn work(world: &World, branch: &str, files: &[(&str, &[u8])]) {
    let clone = world.lab.path("work");
    if !clone.exists() {
        world.lab.git(
            world.lab.dir.path(),
            &["clone", "-q", world.gate().to_str().unwrap(), "work"],
        );
    }
    world
        .lab
        .git(&clone, &["checkout", "-q", "-B", branch, "origin/main"]);
    for (name, bytes) in files {
        let path = clone.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    world.lab.git(&clone, &["add", "-A"]);
    world.lab.git(&clone, &["commit", "-q", "-m", "work"]);
    world.lab.git(&clone, &["push", "-q", "origin", branch]);
}

#[test]
fn a_review_shows_what_upstream_lacks() {
    let world = World::synced();
    assert!(rows(&world, None).is_empty());
    work(
        &world,
        "agent/topic",
        &[
            ("one", b"changed\nand more\n"),
            ("new/file", b"a\nb\nc\n"),
            ("image", b"\0\x01\x02binary"),
            // Attributes are data here: they must not decide what counts.
            (".gitattributes", b"* binary diff=evil filter=evil\n"),
        ],
    );
    for n in 0..3 {
        world.commit_up("main", &format!("up{n}"));
    }
    let all = rows(&world, None);
    assert_eq!(all.len(), 1, "{all:?}");
    let row = &all[0];
    assert_eq!(row.branch, "agent/topic");
    assert_eq!((row.ahead, row.behind), (1, 3), "upstream as it is now");
    assert_eq!(row.commits[0].commit_message, "work");
    let git = world.lab.git(
        world.gate(),
        &[
            "-c",
            "core.attributesFile=/dev/null",
            "--attr-source=4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            "diff",
            "--numstat",
            "--no-renames",
            "main...agent/topic",
        ],
    );
    let (mut insertions, mut deletions) = (0, 0);
    for line in git.lines() {
        let mut words = line.split('\t');
        insertions += words.next().unwrap().parse().unwrap_or(0);
        deletions += words.next().unwrap().parse().unwrap_or(0);
    }
    assert_eq!(row.files_changed, git.lines().count() as u64, "{git}");
    assert_eq!(
        (row.insertions, row.deletions),
        (insertions, deletions),
        "{git}"
    );
    assert!(!row.stale && row.snapshot_at.is_none());
    // A branch that diverged is compared with upstream as it is now.
    world.commit_gate("main", "agent");
    let row = rows(&world, Some("main")).remove(0);
    assert_eq!((row.ahead, row.behind), (1, 3));
    // What the review wrote down changes nothing of what a rewrite is.
    let side = world.head("side/x").unwrap();
    world.rewrite_up("side/x", "instead");
    rows(&world, None);
    let op = pending_of(&world.sync().pending, "side/x").clone();
    assert!(op.lossless);
    assert_eq!(op.old_snapshot_sha, Some(side.to_string()));
    let fault = review(
        &world.spec,
        None,
        &world.transport,
        Some("nothing"),
        &Limits::default(),
        &Control::new(),
    )
    .unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
    world.fsck();
}

#[test]
fn a_review_without_upstream_falls_back_and_says_so() {
    let world = World::synced();
    for n in 0..205 {
        world.commit_gate("agent", &format!("a{n}"));
    }
    std::fs::rename(&world.up, world.lab.path("away.git")).unwrap();
    let row = rows(&world, None).remove(0);
    assert!(row.stale);
    assert!(row.snapshot_at.unwrap().starts_with("20"));
    // An unrelated branch, made from nothing.
    assert_eq!(row.ahead, 205);
    assert_eq!(row.commits.len(), 200);
    assert_eq!((row.files_changed, row.insertions), (205, 205));
}

fn push_out(world: &World, request: &PromoteRequest) -> Result<PromoteResult, Fault> {
    promote(
        &world.spec,
        &world.upstream(),
        &world.transport,
        request,
        &Limits::default(),
        &Control::new(),
    )
}

fn request(branch: &str) -> PromoteRequest {
    PromoteRequest {
        branch: branch.to_owned(),
        upstream_branch: None,
        expect_commit: None,
    }
}

#[test]
fn a_promotion_creates_and_moves_forward_and_nothing_else() {
    let world = World::synced();
    work(&world, "topic", &[("t", b"t\n")]);
    let head = world.head("topic").unwrap();
    let refs = |world: &World| world.lab.git(world.gate(), &["for-each-ref", "refs/heads"]);
    let before = refs(&world);
    let done = push_out(&world, &request("topic")).unwrap();
    assert_eq!((done.old, done.new), (None, head.to_string()));
    assert_eq!(world.up_head("topic"), head);
    assert_eq!(world.at("refs/terok/upstream/topic"), Some(head));
    // Again: nothing to do.
    let again = push_out(&world, &request("topic")).unwrap();
    assert_eq!(again.old, Some(head.to_string()));
    // To another branch, forward.
    let old = world.up_head("main");
    let done = push_out(
        &world,
        &PromoteRequest {
            upstream_branch: Some("main".to_owned()),
            expect_commit: Some(head.to_string().to_uppercase()),
            ..request("topic")
        },
    )
    .unwrap();
    assert_eq!(done.old, Some(old.to_string()));
    assert_eq!(world.up_head("main"), head);
    assert_eq!(refs(&world), before, "heads of the gate stay");
    // Not backwards, not sideways.
    let theirs = world.commit_up("main", "theirs");
    world.commit_gate("topic", "agent");
    let fault = push_out(
        &world,
        &PromoteRequest {
            upstream_branch: Some("main".to_owned()),
            ..request("topic")
        },
    )
    .unwrap_err();
    assert_eq!(fault.kind, Kind::PushRejected);
    assert_eq!(fault.data["upstream_commit"], theirs.to_string());
    assert_eq!(
        (&fault.data["ahead"], &fault.data["behind"]),
        (&1.into(), &1.into())
    );
    assert_eq!(world.up_head("main"), theirs);
    let fault = push_out(
        &world,
        &PromoteRequest {
            expect_commit: Some(head.to_string()),
            ..request("topic")
        },
    )
    .unwrap_err();
    assert_eq!(fault.kind, Kind::BranchMoved);
    for wrong in ["nothing", "--force", "a..b"] {
        let fault = push_out(&world, &request(wrong)).unwrap_err();
        assert_eq!(fault.kind, Kind::InvalidArgument, "{wrong}");
    }
    world.fsck();
}

#[test]
fn what_was_reviewed_is_what_goes_out() {
    let world = World::synced();
    let reviewed = world.commit_gate("main", "reviewed");
    let gate = world.gate().to_owned();
    let later = world.commit_gate("aside", "later").to_string();
    // An agent pushes, and upstream runs no hook of the gate.
    let hook = gate.join("hooks/pre-push");
    std::fs::write(&hook, "#!/bin/sh\ntouch \"$0.ran\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    at_point(
        "gate.promote.fetched",
        move || {
            let done = std::process::Command::new("git")
                .arg("-C")
                .arg(gate)
                .args(["update-ref", "refs/heads/main", &later])
                .status()
                .unwrap();
            assert!(done.success());
        },
        || push_out(&world, &request("main")).unwrap(),
    );
    assert_eq!(world.up_head("main"), reviewed);
    assert!(!world.gate().join("hooks/pre-push.ran").exists());
    // Somebody pushes upstream between the look and the push: the lease holds.
    let world = World::synced();
    world.commit_gate("main", "mine");
    let theirs = world.lab.commit(&world.up, "other", "theirs").to_string();
    let up = world.up.clone();
    let to = theirs.clone();
    let outcome = at_point(
        "gate.promote.fetched",
        move || {
            let done = std::process::Command::new("git")
                .arg("-C")
                .arg(up)
                .args(["update-ref", "refs/heads/main", &to])
                .status()
                .unwrap();
            assert!(done.success());
        },
        || push_out(&world, &request("main")),
    );
    assert_eq!(outcome.unwrap_err().kind, Kind::PushRejected);
    assert_eq!(world.up_head("main").to_string(), theirs);
}

#[test]
fn the_cache_follows_the_gate() {
    let mut world = World::new();
    let cache = world.lab.path("cache/alpha");
    world.spec.cache_dir = Some(cache.clone());
    let branch = || world.lab.git(&cache, &["symbolic-ref", "--short", "HEAD"]);
    assert!(world.sync().cache_refreshed);
    assert_eq!(branch(), "main");
    assert!(cache.join("two").is_file());
    assert!(!world.sync().cache_refreshed, "nothing moved");
    // An agent's push counts too.
    world.commit_gate("main", "agent");
    assert!(world.sync().cache_refreshed);
    assert!(cache.join("agent").is_file());
    // LFS pointers are plain files: nobody follows them.
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    let blob = world
        .lab
        .feed(world.gate(), &["hash-object", "-w", "--stdin"], pointer);
    let attributes = world.lab.feed(
        world.gate(),
        &["hash-object", "-w", "--stdin"],
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    let tree = world.lab.feed(
        world.gate(),
        &["mktree"],
        &format!("100644 blob {attributes}\t.gitattributes\n100644 blob {blob}\tbig.bin\n"),
    );
    let commit = world.lab.git(
        world.gate(),
        &["commit-tree", "-m", "lfs", "-p", "refs/heads/main", &tree],
    );
    world
        .lab
        .git(world.gate(), &["update-ref", "refs/heads/main", &commit]);
    assert_eq!(world.sync().cache_error, None);
    assert_eq!(
        std::fs::read_to_string(cache.join("big.bin")).unwrap(),
        pointer
    );
    // The default branch has another name.
    let id = world.up_head("main");
    world.put(&world.up, "trunk", Some(id));
    world
        .lab
        .git(&world.up, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    assert!(world.sync().cache_refreshed);
    assert_eq!(branch(), "trunk");
    assert_eq!(
        world
            .lab
            .git(&cache, &["config", "remote.origin.url"])
            .trim_start_matches("file://"),
        world.gate().to_str().unwrap()
    );
    // It is gone: made again. It cannot be made: told, and the sync is fine.
    std::fs::remove_dir_all(&cache).unwrap();
    assert!(world.sync().cache_refreshed);
    world.spec.cache_dir = Some("/proc/nowhere/alpha".into());
    let result = world.sync();
    assert!(result.cache_error.is_some() && !result.cache_refreshed);
    world.spec.cache_dir = Some(cache.clone());
    let left: Vec<_> = std::fs::read_dir(cache.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let reinit = SyncOptions {
        force_reinit: true,
        ..SyncOptions::default()
    };
    assert!(world.try_sync(&reinit).unwrap().cache_refreshed);
    assert!(!cache.join("agent").exists());
}

fn modes(dir: &Path) -> Vec<String> {
    let mut odd = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        let good: &[u32] = if meta.is_dir() {
            &[0o700]
        } else {
            &[0o600, 0o400]
        };
        if !good.contains(&mode) {
            odd.push(format!("{} {mode:o}", entry.path().display()));
        }
        if meta.is_dir() {
            odd.extend(modes(&entry.path()));
        }
    }
    odd
}

#[test]
fn nobody_else_may_look_into_a_gate() {
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let world = World::new();
    world.sync();
    let first = modes(&world.spec.base);
    world.commit_up("main", "more");
    world.commit_up("fresh", "fresh");
    world.sync();
    let second = modes(&world.spec.base);
    nix::sys::stat::umask(old);
    let base = world.spec.base.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(base, 0o700);
    assert_eq!(first, Vec::<String>::new());
    assert_eq!(second, Vec::<String>::new());
}

#[test]
fn facts_of_a_gate() {
    let world = World::new();
    assert_eq!(facts(&world.spec), terok_gate::Facts::default());
    world.sync();
    let seen = facts(&world.spec);
    assert!(seen.exists);
    assert_eq!(seen.heads, 2);
    assert!(seen.size_bytes.unwrap() > 500);
    assert!(seen.snapshot_at.is_some());
}

#[test]
fn both_transports_make_the_same_gate() {
    let one = World::new();
    let two = World::new();
    let cli = CliTransport::new(two.lab.env.clone());
    one.sync();
    assert!(two.sync_by(&cli, &SyncOptions::default()).unwrap().success);
    assert_eq!(one.refs(), two.refs());
    for world in [&one, &two] {
        world.commit_up("main", "more");
        world.rewrite_up("side/x", "instead");
    }
    let a = one.sync();
    let b = two.sync_by(&cli, &SyncOptions::default()).unwrap();
    assert_eq!((a.applied, a.pending), (b.applied, b.pending));
    assert_eq!(one.refs(), two.refs());
    two.fsck();
}

#[test]
fn a_sync_that_finds_nothing_starts_upload_pack_and_no_more() {
    let world = World::synced();
    let bin = world.lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let log = world.lab.path("started");
    let real = world.lab.env.find_program("git").unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        log.display(),
        real.display()
    );
    for (name, text) in [
        ("git", script.clone()),
        (
            "git-upload-pack",
            script.replace("exec", "exec env -- ").replace(
                &format!("{} \"$@\"", real.display()),
                &format!("{} upload-pack \"$@\"", real.display()),
            ),
        ),
    ] {
        std::fs::write(bin.join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), mode).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let env = terok_gate::HostEnv::new([
        ("PATH", path.as_str()),
        ("HOME", world.lab.dir.path().to_str().unwrap()),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ]);
    let transport = terok_gate::GixTransport::new(env);
    let result = world.sync_by(&transport, &SyncOptions::default()).unwrap();
    assert!(result.success && result.updated_branches.is_empty());
    let started = std::fs::read_to_string(&log).unwrap();
    assert_eq!(started.lines().count(), 1, "{started}");
    assert!(started.contains("up.git"), "{started}");
}

/// Names `count` branches of a repository after its main branch's commit.
fn many(world: &World, repo: &Path, count: usize, at: &str) {
    let mut text = String::new();
    for n in 0..count {
        text.push_str(&format!("create refs/heads/many/{n:05} {at}\n"));
    }
    world.lab.feed(repo, &["update-ref", "--stdin"], &text);
    world.lab.git(repo, &["pack-refs", "--all"]);
}

#[test]
fn ten_thousand_branches() {
    let world = World::new();
    let first = world.up_head("main").to_string();
    many(&world, &world.up, 10_000, &first);
    let result = world.sync();
    assert_eq!(result.applied.len(), 10_002);
    let before = world.refs();
    assert!(world.sync().applied.is_empty());
    assert_eq!(world.refs(), before);
    // All of them move at once, and no file per ref is left.
    let new = world.commit_up("main", "more").to_string();
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("update refs/heads/many/{n:05} {new}\n"));
    }
    world.lab.feed(&world.up, &["update-ref", "--stdin"], &text);
    world.lab.git(&world.up, &["pack-refs", "--all"]);
    let result = world.sync();
    assert_eq!(result.applied.len(), 10_001);
    assert!(
        result
            .applied
            .iter()
            .all(|update| update.kind == AppliedKind::FastForward)
    );
    assert!(!world.gate().join("refs/heads/many").exists());
    // And all of them go.
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("delete refs/heads/many/{n:05}\n"));
    }
    world.lab.feed(&world.up, &["update-ref", "--stdin"], &text);
    let result = world.sync();
    assert_eq!(result.pending.len(), 10_000);
    assert!(result.pending.iter().all(|op| op.lossless));
    world.fsck();
}

#[test]
fn a_thousand_branches_that_went_their_own_way() {
    let world = World::new();
    for n in 0..300 {
        world.commit_up("main", &format!("m{n}"));
    }
    let start = world.up_head("main~200").to_string();
    many(&world, &world.up, 1000, &start);
    world.sync();
    // The gate's are all one commit ahead, upstream's another one.
    let mine = world.commit_gate("many/00000", "agent").to_string();
    let theirs = world.commit_up("many/00000", "theirs").to_string();
    for (repo, to) in [(world.gate(), &mine), (world.up.as_path(), &theirs)] {
        let mut text = String::new();
        for n in 1..1000 {
            text.push_str(&format!("update refs/heads/many/{n:05} {to}\n"));
        }
        world.lab.feed(repo, &["update-ref", "--stdin"], &text);
    }
    let result = world.sync();
    assert_eq!(result.pending.len(), 1000);
    assert!(
        result
            .pending
            .iter()
            .all(|op| op.gate_only_commits == Some(1))
    );
}

#[test]
fn an_upstream_with_other_object_ids_is_refused() {
    let world = World::new();
    let other = world.lab.path("other.git");
    world.lab.git(
        world.lab.dir.path(),
        &[
            "init",
            "-q",
            "--bare",
            "--object-format=sha256",
            other.to_str().unwrap(),
        ],
    );
    let upstream: Upstream = support::lab::at(other.to_str().unwrap());
    let spec: GateSpec = world.spec.clone();
    let outcome = terok_gate::sync(
        &spec,
        Some(&upstream),
        &world.transport,
        &SyncOptions::default(),
        &Limits::default(),
        &Control::new(),
    );
    assert_eq!(outcome.unwrap_err().kind, Kind::GateUnsupportedObjectFormat);
    assert!(!world.gate().exists());
}

fn packs(world: &World) -> usize {
    std::fs::read_dir(world.gate().join("objects/pack"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".pack")
        })
        .count()
}

#[test]
fn a_gate_stays_small_and_keeps_what_no_ref_reaches() {
    let world = World::synced();
    for n in 0..55 {
        world.commit_up("main", &format!("n{n}"));
        world.sync();
        assert!(packs(&world) <= 51);
    }
    world.commit_gate("gone", "gone");
    let gone = world.head("gone").unwrap().to_string();
    world.put(world.gate(), "gone", None);
    let mark = world.gate().join("terok-repacked");
    let weeks = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 24 * 3600);
    std::fs::File::options()
        .write(true)
        .open(&mark)
        .unwrap()
        .set_modified(weeks)
        .unwrap();
    world.commit_up("main", "last");
    world.sync();
    assert_eq!(packs(&world), 1);
    assert!(mark.metadata().unwrap().modified().unwrap() > weeks);
    world.lab.git(world.gate(), &["cat-file", "-e", &gone]);
    assert_eq!(look(&world, None).relation, Relation::Equal);
    world.fsck();
}

#[test]
fn many_refs_of_their_own_become_one_file() {
    let world = World::synced();
    let at = world.head("main").unwrap().to_string();
    let mut text = String::new();
    for n in 0..1200 {
        text.push_str(&format!("create refs/heads/agent/{n} {at}\n"));
    }
    world
        .lab
        .feed(world.gate(), &["update-ref", "--stdin"], &text);
    let before = world.refs();
    world.sync();
    assert_eq!(world.refs(), before);
    assert!(!world.gate().join("refs/heads/agent").exists());
}

#[test]
fn a_gate_that_is_not_there_is_not_waited_for() {
    let world = World::new();
    let control = Control::new();
    for fault in [
        terok_gate::pending(&world.spec).unwrap_err(),
        terok_gate::backups(&world.spec).unwrap_err(),
        terok_gate::apply_pending(&world.spec, &[], &control).unwrap_err(),
        terok_gate::restore_backup(&world.spec, "refs/terok/backup/x", &control).unwrap_err(),
        terok_gate::prune_backups(&world.spec, 1, &control).unwrap_err(),
        push_out(&world, &request("main")).unwrap_err(),
    ] {
        assert_eq!(fault.kind, Kind::GateMissing);
    }
    assert!(!world.spec.base.exists());
    assert_eq!(terok_gate::last_commit(&world.spec), None);
}

/// Opens a directory and all in it to everybody, as the umask of the reference may have.
fn open_up(dir: &Path) {
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => open_up(&entry.path()),
            kind if kind.is_file() => set(&entry.path(), 0o644),
            _ => {}
        }
    }
    set(dir, 0o755);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_the_reference_left_open_is_closed() {
    let mut world = mirrored();
    let outside = world.lab.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let link = world.gate().join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    open_up(&outside);
    open_up(&world.spec.base);
    world.sync();
    assert_eq!(mode(&world.spec.base), 0o700);
    assert_eq!(mode(world.gate()), 0o700);
    assert_eq!(mode(&outside), 0o755, "behind a link");
    std::fs::remove_file(link).unwrap();
    assert_eq!(modes(world.gate()), Vec::<String>::new());
    // Also where there is nothing to fetch, and without an upstream.
    open_up(&world.spec.base);
    assert!(world.sync().applied.is_empty());
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o700, 0o700));
    assert_eq!(modes(world.gate()), Vec::<String>::new());
    open_up(&world.spec.base);
    world.spec.upstream_url = None;
    world.sync();
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o700, 0o700));
    // A gate at a place of the user's: the gate is ours, what it is in is not.
    let place = world.lab.path("mine");
    std::fs::create_dir(&place).unwrap();
    std::fs::rename(world.gate(), place.join("x.git")).unwrap();
    world.spec.path = place.join("x.git");
    open_up(&place);
    world.sync();
    assert_eq!((mode(&place), mode(world.gate())), (0o755, 0o700));
}

#[test]
fn what_belongs_to_somebody_else_stays_as_open_as_it_is() {
    let world = World::synced();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    open_up(&world.spec.base);
    std::os::unix::fs::chown(&world.spec.base, Some(12345), None).unwrap();
    world.sync();
    assert_eq!((mode(&world.spec.base), mode(world.gate())), (0o755, 0o700));
}

/// An agent that may push refs of any kind could show one history and send another.
#[test]
fn a_replaced_object_deceives_nobody() {
    let world = World::synced();
    let before = world.head("main").unwrap();
    let gate = world.gate();
    // What a human sees of a branch is what is in it.
    let agent = world.commit_gate("agent", "agent");
    let innocent = world.commit_gate("innocent", "innocent");
    let [agent_id, innocent_id] = [agent, innocent].map(|id| id.to_string());
    world.lab.git(gate, &["replace", &agent_id, &innocent_id]);
    let [row] = rows(&world, Some("agent")).try_into().unwrap();
    assert_eq!(row.commits[0].commit_message, "agent");
    world.lab.git(gate, &["replace", "-d", &agent_id]);
    // A branch that does not contain upstream's is not pushed over it.
    let parent = format!("{before}^");
    world.lab.git(gate, &["branch", "old", &parent]);
    let old = world.commit_gate("old", "old").to_string();
    let onto = before.to_string();
    world.lab.git(gate, &["replace", "--graft", &old, &onto]);
    for (name, transport) in world.lab.transports() {
        let fault = promote(
            &world.spec,
            &world.upstream(),
            &*transport,
            &PromoteRequest {
                branch: "old".into(),
                upstream_branch: Some("main".into()),
                expect_commit: None,
            },
            &Limits::default(),
            &Control::new(),
        )
        .unwrap_err();
        assert_eq!(fault.kind, Kind::PushRejected, "{name}");
        assert_eq!(world.up_head("main"), before, "{name}");
    }
    // And a head is not moved to where its commits are not.
    let instead = world.rewrite_up("main", "instead").to_string();
    let up = world.up.to_str().unwrap();
    world.lab.git(gate, &["fetch", "-q", up, "main"]);
    world
        .lab
        .git(gate, &["replace", "--graft", &instead, &onto]);
    let result = world.sync();
    assert_eq!(result.applied, []);
    assert!(pending_of(&result.pending, "main").lossless);
    assert_eq!(world.head("main"), Some(before));
}

/// Ten million files in eight trees.
#[test]
fn a_tree_that_multiplies_is_looked_at_for_a_while_and_not_checked_out() {
    let mut world = World::synced();
    world.spec.cache_dir = Some(world.lab.path("cache/alpha"));
    assert!(world.sync().cache_refreshed);
    let gate = world.gate();
    let blob = world.lab.feed(gate, &["hash-object", "-w", "--stdin"], "x");
    let mut tree = (0..10)
        .map(|n| format!("100644 blob {blob}\t{n}\n"))
        .collect::<String>();
    for _ in 0..6 {
        let below = world.lab.feed(gate, &["mktree"], &tree);
        tree = (0..10)
            .map(|n| format!("040000 tree {below}\t{n}\n"))
            .collect();
    }
    let tree = world.lab.feed(gate, &["mktree"], &tree);
    let commit = ["commit-tree", "-m", "many", "-p", "main", &tree];
    let commit = world.lab.git(gate, &commit);
    world
        .lab
        .git(gate, &["update-ref", "refs/heads/main", &commit]);
    let [row] = rows(&world, Some("main")).try_into().unwrap();
    assert_eq!(row.ahead, 1);
    assert_eq!(row.files_changed, 500_000, "{row:?}");
    let result = world.try_sync(&SyncOptions::default()).unwrap();
    assert!(result.success && !result.cache_refreshed, "{result:?}");
    let why = result.cache_error.unwrap();
    assert!(why.contains("10000000 files"), "{why}");
    assert!(
        world.lab.path("cache/alpha/one").is_file(),
        "the old one stays"
    );
}
