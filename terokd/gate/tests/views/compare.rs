//! How current a gate is.

use super::*;

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
