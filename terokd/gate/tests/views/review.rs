//! What a human sees of a gate, and what he sends on.

use super::*;

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
