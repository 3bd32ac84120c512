//! What the gate holds that upstream does not, and its way there.

use super::{alpha, gate, of, sync, visible};
use serde_json::{Value, json};
use terok_tests::{GitDaemon, Upstream, World};

#[test]
fn a_review_shows_what_only_the_gate_has() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let server = GitDaemon::start(&world, up.base()).unwrap();
    alpha(&world, &server.url(&up));
    let daemon = world.start();
    daemon.fails("project.gate.review", of("alpha"), "gate_missing");
    sync(&daemon);
    assert_eq!(daemon.ok("project.gate.review", of("alpha")), json!([]));

    let gate = gate(&world, "alpha");
    gate.branch("agent/fix", "main");
    let first = gate.commit_file("agent/fix", "fix", b"1\n2\n3\n");
    let second = gate.commit_file("agent/fix", "one", b"other\n");
    gate.commit("side", "ahead");
    up.commit("main", "theirs");
    let rows = daemon.ok("project.gate.review", of("alpha"));
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    let fix = &rows[0];
    assert_eq!(
        (&fix["branch"], &fix["ahead"]),
        (&json!("agent/fix"), &json!(2)),
        "{rows}"
    );
    let hashes: Vec<&Value> = fix["commits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["commit_hash"])
        .collect();
    assert_eq!(hashes, [&json!(second), &json!(first)]);
    assert_eq!(fix["behind"], 1, "upstream was asked: {rows}");
    assert_eq!(
        (&fix["files_changed"], &fix["insertions"], &fix["deletions"]),
        (&json!(2), &json!(4), &json!(1)),
        "{fix}"
    );
    assert_eq!(
        (&rows[1]["branch"], &rows[1]["ahead"]),
        (&json!("side"), &json!(1))
    );
    assert!(fix["stale"].is_null(), "{fix}");
    let one = daemon.ok(
        "project.gate.review",
        json!({"project_id": "alpha", "branch": "side"}),
    );
    assert_eq!(one, json!([rows[1]]));
    daemon.fails(
        "project.gate.review",
        json!({"project_id": "alpha", "branch": "no-such"}),
        "invalid_argument",
    );

    drop(server);
    let stale = daemon.ok("project.gate.review", of("alpha"));
    assert_eq!(stale[0]["stale"], true, "{stale}");
    assert!(stale[0]["snapshot_at"].is_string(), "{stale}");
    assert_eq!(stale[0]["commits"], rows[0]["commits"]);
}

#[test]
fn a_promotion_creates_and_fast_forwards_only() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    // What a repository would like to run is not run.
    let mark = world.path("$HOME/mark");
    let daemon = world.start();
    sync(&daemon);
    let gate = gate(&world, "alpha");
    world.mkdirs(&gate.path().join("hooks"));
    let hook = gate.path().join("hooks/pre-push");
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.own(&hook);

    gate.branch("agent/fix", "main");
    let fix = gate.commit("agent/fix", "fix");
    let promote = |more: Value| {
        let mut params = json!({"project_id": "alpha", "branch": "agent/fix"});
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        params
    };
    let before = visible(&gate);
    let made = daemon.ok("project.gate.promote", promote(json!({})));
    assert_eq!(
        made,
        json!({"branch": "agent/fix", "old": null, "new": fix})
    );
    assert_eq!(up.head("agent/fix"), fix);
    let main = up.head("main");
    let onto = daemon.ok(
        "project.gate.promote",
        promote(json!({"upstream_branch": "main", "expect_commit": fix})),
    );
    assert_eq!(onto, json!({"branch": "main", "old": main, "new": fix}));
    assert_eq!(up.head("main"), fix);
    assert_eq!(visible(&gate), before, "no head of the gate moves");

    let next = gate.commit("agent/fix", "more");
    let stale = daemon.fails(
        "project.gate.promote",
        promote(json!({"expect_commit": fix})),
        "branch_moved",
    );
    assert!(stale.message.contains("agent/fix"), "{}", stale.message);
    let theirs = up.commit("main", "theirs");
    let apart = daemon.fails(
        "project.gate.promote",
        promote(json!({"upstream_branch": "main"})),
        "push_rejected",
    );
    assert_eq!(
        apart.data["upstream_commit"],
        json!(theirs),
        "{:?}",
        apart.data
    );
    assert_eq!(
        (&apart.data["ahead"], &apart.data["behind"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(up.head("main"), theirs);
    for (branch, kind) in [
        ("no-such", "invalid_argument"),
        ("--all", "invalid_argument"),
    ] {
        let params = json!({"project_id": "alpha", "branch": branch});
        daemon.fails("project.gate.promote", params, kind);
    }

    // Upstream has the last word.
    let hook = up.path().join("hooks/pre-receive");
    world.mkdirs(hook.parent().unwrap());
    std::fs::write(
        &hook,
        "#!/bin/sh\nprintf 'only \\033[31mon Mondays\\n' >&2\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.own(&hook);
    let refused = daemon.fails("project.gate.promote", promote(json!({})), "push_rejected");
    assert!(
        refused.message.contains("on Mondays"),
        "{}",
        refused.message
    );
    assert!(!refused.message.contains('\u{1b}'), "{}", refused.message);
    assert_eq!((up.head("agent/fix"), gate.head("agent/fix")), (fix, next));
    assert!(!mark.exists(), "a hook of the gate ran");
}
