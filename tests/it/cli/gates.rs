//! Gates on the command line: sync, comparison, review, promotion, and what waits for a human (gate.md §2.6).

use super::Desk;
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use terok_tests::programs::find;
use terok_tests::{Upstream, World};

/// A project whose upstream is a real repository on this host.
fn desk(settings: &str) -> Option<(Desk, Upstream)> {
    let world = World::new();
    let upstream = Upstream::new(&world, "orion")?;
    world.write(
        "$CONFIG/projects/alpha/project.yml",
        yaml(&upstream.file_url(), settings),
    );
    Some((Desk::new(world), upstream))
}

fn yaml(upstream: &str, settings: &str) -> String {
    format!(
        "project: {{security_class: online}}\ngit: {{upstream_url: \"{upstream}\", default_branch: main}}\n{settings}"
    )
}

impl Desk {
    /// The gate's directory.
    fn gate(&self) -> PathBuf {
        PathBuf::from(self.ok(&["gate", "path", "alpha"]).trim_end())
    }

    /// Commits to a branch of the gate, as an agent's push would.
    fn commit_in_gate(&self, branch: &str, parent: &str, subject: &str) -> String {
        let git = |args: &[&str]| {
            let mut command = self.0.command(&find("git").unwrap());
            command.arg("--git-dir").arg(self.gate()).args(args);
            for who in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{who}_NAME"), "Agent");
                command.env(format!("GIT_{who}_EMAIL"), "agent@example.com");
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let tree = format!("{parent}^{{tree}}");
        let commit = git(&["commit-tree", &tree, "-p", parent, "-m", subject]);
        git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }
}

#[test]
fn a_gate_is_made_kept_current_reviewed_and_promoted() {
    let Some((desk, upstream)) = desk("") else {
        return;
    };
    let path = desk.gate();
    let line = desk.ok(&["gate", "sync", "alpha"]);
    assert_eq!(line.lines().count(), 1, "{line}");
    let start = format!(
        "Gate ready at {} (upstream: {}; created: yes",
        path.display(),
        upstream.file_url()
    );
    assert!(line.starts_with(&start), "{line}");
    assert!(path.join("HEAD").exists());
    assert_eq!(desk.ok(&["gate", "compare", "alpha"]), "main: up to date\n");
    let status = desk.ok(&["gate", "status", "alpha"]);
    assert!(
        status.contains("exists\tyes\n") && status.contains("refs\t2\n"),
        "{status}"
    );

    upstream.commit("main", "four");
    let compared = desk.ok(&["gate", "compare", "alpha", "--branch", "main"]);
    assert!(compared.starts_with("main: behind ("), "{compared}");
    let polled = desk.ok(&["gate", "poll", "alpha"]);
    assert!(polled.starts_with("main\tbehind ("), "{polled}");
    let polling = desk.ok(&["gate", "polling", "alpha"]);
    assert!(polling.starts_with("alpha\tlocal\tbehind ("), "{polling}");
    let line = desk.ok(&["gate", "sync", "alpha", "--branch", "main"]);
    assert!(line.contains("created: no"), "{line}");
    assert_eq!(desk.ok(&["gate", "review", "alpha"]), "");

    let commit = desk.commit_in_gate("agent/fix", "main", "a fix");
    assert_eq!(
        desk.ok(&["gate", "review", "alpha"]),
        format!("agent/fix\t1\t0\t0\t0\t0\t{commit}\n")
    );
    let other = upstream.head("side");
    let error = desk.fails(
        &["gate", "promote", "alpha", "agent/fix", "--expect", &other],
        1,
    );
    assert!(error.contains("agent/fix"), "{error}");
    assert_eq!(upstream.find("refs/heads/reviewed"), None);
    let promote = [
        "gate",
        "promote",
        "alpha",
        "agent/fix",
        "--to",
        "reviewed",
        "--expect",
        &commit,
    ];
    assert_eq!(
        desk.ok(&promote),
        format!("reviewed: new -> {}\n", &commit[..12])
    );
    assert_eq!(upstream.head("reviewed"), commit);
    assert_eq!(
        desk.wire(&["gate", "server"])["base_path"],
        json!(path.parent().unwrap())
    );
}

#[test]
fn what_upstream_rewrote_waits_for_a_human_and_can_be_undone() {
    let Some((desk, upstream)) = desk("") else {
        return;
    };
    desk.ok(&["gate", "sync", "alpha"]);
    let ours = desk.commit_in_gate("side", "side", "only here");
    upstream.force_push("side", "rewritten");
    let theirs = upstream.head("side");
    let output = desk.run(&["gate", "sync", "alpha"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(
        error.contains("side") && error.contains("terokctl gate apply alpha"),
        "{error}"
    );
    let pending = desk.ok(&["gate", "pending", "alpha"]);
    let row = format!(
        "side\tforce update\tupstream rewrite\t{}\t{}\t",
        &ours[..12],
        &theirs[..12]
    );
    assert!(pending.starts_with(&row), "{pending}");
    let error = desk.fails(&["gate", "apply", "alpha", "main"], 1);
    assert!(error.contains("nothing is pending for `main`"), "{error}");

    let (code, out, error) = desk.fed(&["gate", "apply", "alpha", "side"], "n\n");
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    assert!(
        error.contains(&ours[..12]) && error.contains("Cancelled"),
        "{error}"
    );
    assert_eq!(
        desk.wire(&["gate", "pending", "alpha"])[0]["gate_sha"],
        json!(ours)
    );
    let (code, out, error) = desk.fed(&["gate", "apply", "alpha", "side"], "yes\n");
    assert_eq!(code, Some(0), "{error}");
    let moved = format!(
        "side: {} -> {} (kept as refs/terok/",
        &ours[..12],
        &theirs[..12]
    );
    assert!(out.starts_with(&moved), "{out}");

    let kept = desk.wire(&["gate", "backups", "alpha"]);
    assert_eq!(
        (&kept[0]["branch"], &kept[0]["commit"]),
        (&json!("side"), &json!(ours))
    );
    let name = kept[0]["ref"].as_str().unwrap();
    let back = desk.ok(&["gate", "restore", "alpha", name]);
    assert!(
        back.starts_with(&format!("side: {} -> {}", &theirs[..12], &ours[..12])),
        "{back}"
    );
    let listed = desk.ok(&["gate", "backups", "alpha"]);
    assert!(
        listed.lines().all(|line| line.starts_with("side\t")),
        "{listed}"
    );
    desk.ok(&["gate", "prune", "alpha", "--older-than-days", "3650"]);
    assert_eq!(desk.ok(&["gate", "backups", "alpha"]), listed);
    desk.fails(&["gate", "restore", "alpha", "refs/terok/backup/none"], 1);
}

#[test]
fn a_sync_that_fails_says_so_and_is_1() {
    let Some((desk, upstream)) = desk("") else {
        return;
    };
    fs::rename(upstream.path(), upstream.path().with_extension("away")).unwrap();
    let output = desk.run(&["gate", "sync", "alpha"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(1), &b""[..]),
        "{error}"
    );
    assert!(
        error
            .lines()
            .any(|line| line.starts_with("Gate sync failed: ")),
        "{error}"
    );
    let output = desk.run(&["--json", "gate", "sync", "alpha"]);
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(1), &b""[..])
    );
    let wire: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(wire["success"], false);
}

#[test]
fn without_a_key_both_remedies_are_named() {
    let desk = Desk::new(World::new().project("alpha", &yaml("ssh://git@127.0.0.1:1/x/y.git", "")));
    let error = desk.fails(&["gate", "sync", "alpha"], 1);
    assert!(error.contains("terokctl project ssh-init alpha"), "{error}");
    assert!(error.contains("--use-personal-ssh"), "{error}");
    let quiet = desk.fails(&["--quiet", "gate", "sync", "alpha"], 1);
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
    let error = desk.fails(&["--json", "gate", "sync", "alpha"], 1);
    let error: serde_json::Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!(error["data"]["kind"], "gate_auth_not_configured");
}

#[test]
fn a_gate_of_its_own_is_said_to_have_no_upstream() {
    let desk = Desk::new(World::with_project("alpha"));
    let line = desk.ok(&["gate", "sync", "alpha"]);
    assert!(
        line.contains("(upstream: (none — local-only bare repo); created: yes"),
        "{line}"
    );
    assert!(desk.gate().join("HEAD").exists());
}

#[test]
fn a_project_is_made_ready_as_far_as_the_host_allows() {
    let Some((desk, _upstream)) = desk("") else {
        return;
    };
    let output = desk.run(&["project", "init", "alpha"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: not done: build;"), "{error}");
    assert!(error.contains("terokctl project build alpha"), "{error}");
    assert!(
        desk.gate().join("HEAD").exists(),
        "the other steps are done"
    );
    let done = desk.ok(&["project", "init", "alpha", "--skip-images"]);
    assert!(done.starts_with("Gate ready at "), "{done}");
    let wire = desk.wire(&["project", "init", "alpha", "--skip-images"]);
    assert_eq!(wire["done"]["gate sync"]["success"], true);
    let skipped: Vec<_> = (0..3)
        .map(|at| wire["skipped"][at]["step"].clone())
        .collect();
    assert_eq!(
        skipped,
        [json!("ssh-init"), json!("generate"), json!("build")]
    );

    let Some((desk, _upstream)) = self::desk("gate: {enabled: false}\n") else {
        return;
    };
    let output = desk.run(&["project", "init", "alpha", "--skip-images"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(error.contains("gate sync: skipped"), "{error}");
    let error = desk.fails(&["gate", "sync", "alpha"], 1);
    assert!(error.contains("gate.enabled"), "{error}");
}
