//! What the reference left: its mirrors become gates.

use super::*;

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
