//! Changes of upstream's that wait for a human, and heads that are kept.

use super::{alpha, assert_whole, gate, of, sync};
use serde_json::{Value, json};
use terok_tests::{Daemon, Upstream, World};

fn confirm(daemon: &Daemon, pending: &Value) -> Value {
    let op = json!({"branch": pending["branch"], "gate_sha": pending["gate_sha"]});
    daemon.ok(
        "project.gate.apply_pending",
        json!({"project_id": "alpha", "ops": [op]}),
    )
}

#[test]
fn rewrites_and_deletions_wait_until_confirmed() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    sync(&daemon);
    let gate = gate(&world, "alpha");
    let (main, side) = (gate.head("main"), gate.head("side"));
    let new = up.force_push("main", "rewritten");
    up.delete("side");

    let mut events = daemon.events(json!({"kinds": ["gate.pending"]}));
    let synced = sync(&daemon);
    assert_eq!(synced["applied"], json!([]), "{synced}");
    let expected = json!([
        {"branch": "main", "kind": "force_update", "reason": "upstream_rewrite", "gate_sha": main,
         "upstream_sha": new, "old_snapshot_sha": main, "lossless": true, "gate_only_commits": 0},
        {"branch": "side", "kind": "delete", "reason": "upstream_delete", "gate_sha": side,
         "upstream_sha": null, "old_snapshot_sha": side, "lossless": true, "gate_only_commits": 0},
    ]);
    let pending = daemon.ok("project.gate.pending", of("alpha"));
    assert_eq!(pending, synced["pending"]);
    for (found, wanted) in pending
        .as_array()
        .unwrap()
        .iter()
        .zip(expected.as_array().unwrap())
    {
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&found[key], value, "{key}: {found}");
        }
    }
    assert_eq!(pending.as_array().unwrap().len(), 2);
    let told = events.next_about("gate.pending", "alpha");
    assert_eq!(told["data"]["pending"], pending);
    // It is still so after the next sync and after a restart.
    assert_eq!(sync(&daemon)["pending"], pending);
    drop(daemon);
    let daemon = world.start();
    assert_eq!(daemon.ok("project.gate.pending", of("alpha")), pending);
    assert_eq!(
        (gate.head("main"), gate.head("side")),
        (main.clone(), side.clone())
    );

    let done = confirm(&daemon, &pending[0]);
    assert_eq!(done["refused"], json!([]), "{done}");
    let moved = &done["applied"][0];
    assert_eq!((&moved["old"], &moved["new"]), (&json!(main), &json!(new)));
    assert_eq!(gate.head("main"), new);
    assert_eq!(gate.head(moved["backup_ref"].as_str().unwrap()), main);
    let done = confirm(&daemon, &pending[1]);
    assert_eq!(done["applied"][0]["new"], Value::Null, "{done}");
    assert_eq!(gate.find("refs/heads/side"), None);
    assert_eq!(daemon.ok("project.gate.pending", of("alpha")), json!([]));
    assert_eq!(sync(&daemon)["pending"], json!([]));
    assert_whole(&gate);

    // Twice is once.
    let again = confirm(&daemon, &pending[1]);
    assert_eq!(again["refused"][0]["kind"], "branch_moved", "{again}");
    let settled = json!({"branch": "main", "gate_sha": new});
    let again = confirm(&daemon, &settled);
    assert_eq!(again["refused"][0]["kind"], "invalid_argument", "{again}");
}

#[test]
fn a_branch_that_moved_is_not_touched() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    sync(&daemon);
    up.force_push("main", "rewritten");
    up.force_push("side", "rewritten too");
    let shown = sync(&daemon)["pending"].clone();
    let gate = gate(&world, "alpha");
    let pushed = gate.commit("main", "agent's last push");
    let ops: Vec<Value> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|p| json!({"branch": p["branch"], "gate_sha": p["gate_sha"]}))
        .collect();
    let done = daemon.ok(
        "project.gate.apply_pending",
        json!({"project_id": "alpha", "ops": ops}),
    );
    assert_eq!(done["refused"][0]["branch"], "main", "{done}");
    assert_eq!(done["refused"][0]["kind"], "branch_moved", "{done}");
    assert_eq!(done["applied"][0]["branch"], "side", "{done}");
    assert_eq!(gate.head("main"), pushed);
    assert_eq!(gate.head("side"), up.head("side"));
    let now = daemon.ok("project.gate.pending", of("alpha"));
    assert_eq!(now[0]["gate_sha"], json!(pushed), "{now}");
    assert_eq!(now[0]["lossless"], false, "{now}");
    assert_eq!(now[0]["gate_only_commits"], 1, "{now}");
}

#[test]
fn kept_heads_are_listed_restored_and_pruned() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    alpha(&world, &up.file_url());
    let daemon = world.start();
    daemon.fails("project.gate.backups", of("alpha"), "gate_missing");
    sync(&daemon);
    assert_eq!(daemon.ok("project.gate.backups", of("alpha")), json!([]));
    let gate = gate(&world, "alpha");
    let lost = gate.commit("main", "agent's");
    up.force_push("main", "rewritten");
    let pending = sync(&daemon)["pending"].clone();
    confirm(&daemon, &pending[0]);

    let kept = daemon.ok("project.gate.backups", of("alpha"));
    assert_eq!(kept.as_array().unwrap().len(), 1);
    assert_eq!(kept[0]["branch"], "main");
    assert_eq!(
        (&kept[0]["commit"], &kept[0]["reason"]),
        (&json!(lost), &json!("sync")),
        "{kept}"
    );
    assert!(kept[0]["at"].as_str().unwrap().ends_with('Z'), "{kept}");

    let restore = |name: &Value| json!({"project_id": "alpha", "ref": name});
    let none = json!("refs/terok/backup/main/20200101T000000Z-000000000000");
    daemon.fails(
        "project.gate.restore_backup",
        restore(&none),
        "backup_not_found",
    );
    daemon.fails(
        "project.gate.restore_backup",
        restore(&json!("refs/heads/side")),
        "backup_not_found",
    );
    let back = daemon.ok("project.gate.restore_backup", restore(&kept[0]["ref"]));
    assert_eq!(
        (&back["branch"], &back["new"]),
        (&json!("main"), &json!(lost)),
        "{back}"
    );
    assert_eq!(gate.head("main"), lost);
    let kept = daemon.ok("project.gate.backups", of("alpha"));
    let reasons: Vec<&Value> = kept
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["reason"])
        .collect();
    assert!(reasons.contains(&&json!("restore")), "{kept}");
    assert_eq!(kept.as_array().unwrap().len(), 2, "{kept}");

    // None is old; with no days all are.
    let none = daemon.ok("project.gate.prune_backups", of("alpha"));
    assert_eq!(none["pruned"], json!([]));
    let all = json!({"project_id": "alpha", "older_than_days": 0});
    let pruned = daemon.ok("project.gate.prune_backups", all);
    assert_eq!(pruned["pruned"].as_array().unwrap().len(), 2, "{pruned}");
    assert_eq!(daemon.ok("project.gate.backups", of("alpha")), json!([]));
    assert_eq!(gate.head("main"), lost);
}
