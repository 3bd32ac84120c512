//! Upstreams over http: credentials of the user's helpers, refusals, half answers.

use super::{alpha, assert_whole, gate, of, project, refused, sync, visible};
use serde_json::json;
use terok_tests::http_git::Answer;
use terok_tests::{HttpGit, Tls, Upstream, World};

fn status(code: u16, retry_after: Option<&str>) -> Answer {
    Answer::Status {
        code,
        retry_after: retry_after.map(str::to_owned),
    }
}

/// Both ways to talk to upstream.
fn both(test: impl Fn(World)) {
    for backend in ["gix", "cli"] {
        test(World::new().file(
            "$CONFIG/terokd.yml",
            &format!("git: {{backend: {backend}}}\n"),
        ));
    }
}

#[test]
fn a_private_upstream_opens_to_a_credential_helper() {
    both(|world| {
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        let http = HttpGit::start(&world, up.base()).unwrap();
        http.answer(Answer::Basic {
            user: "me".to_owned(),
            password: "tok:en?".to_owned(),
        });
        alpha(&world, &http.url(&up));
        let daemon = world.start();
        // Nobody is asked for a password, on whatever terminal.
        let why = refused(&daemon);
        assert!(why.contains("refused the credentials"), "{why}");
        let helper = |password: &str| {
            world.write(
                "$HOME/.gitconfig",
                format!("[credential]\n  helper = \"!f() {{ test \\\"$1\\\" != get || printf 'username=me\\\\npassword={password}\\\\n'; }}; f\"\n"),
            );
        };
        helper("wrong");
        let why = refused(&daemon);
        assert!(why.contains("refused the credentials"), "{why}");
        helper("tok:en?");
        assert_eq!(sync(&daemon)["created"], true);
        let gate = gate(&world, "alpha");
        assert_eq!(visible(&gate), visible(&up));
        up.commit("main", "more");
        assert_eq!(sync(&daemon)["updated_branches"], json!(["main"]));
        gate.branch("agent/fix", "main");
        let fix = gate.commit("agent/fix", "fix");
        daemon.ok(
            "project.gate.promote",
            json!({"project_id": "alpha", "branch": "agent/fix"}),
        );
        assert_eq!(up.head("agent/fix"), fix);
        assert!(!daemon.log().contains("tok:en?"), "{}", daemon.log());
    });
}

#[test]
fn a_password_in_the_address_is_used_and_not_shown() {
    both(|world| {
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        let http = HttpGit::start(&world, up.base()).unwrap();
        http.answer(Answer::Basic {
            user: "me".to_owned(),
            password: "hunter2hunter2".to_owned(),
        });
        alpha(
            &world,
            &http.url(&up).replace("://", "://me:hunter2hunter2@"),
        );
        let daemon = world.start();
        let made = sync(&daemon);
        assert_eq!(made["created"], true);
        let status = daemon.ok("project.gate.status", of("alpha"));
        http.answer(status_403());
        let failed = daemon.ok("project.gate.sync", of("alpha"));
        let error = daemon.call(
            "project.gate.promote",
            json!({"project_id": "alpha", "branch": "main", "upstream_branch": "x"}),
        );
        let told = format!("{made} {status} {failed} {error:?} {}", daemon.log());
        assert!(!told.contains("hunter2"), "{told}");
        let config = std::fs::read_to_string(gate(&world, "alpha").path().join("config")).unwrap();
        assert!(!config.contains("hunter2"), "{config}");
    });
}

fn status_403() -> Answer {
    status(403, None)
}

#[test]
fn refusals_are_told_apart_and_cost_nothing() {
    both(|world| {
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        let http = HttpGit::start(&world, up.base()).unwrap();
        alpha(&world, &http.url(&up));
        let daemon = world.start();
        sync(&daemon);
        let gate = gate(&world, "alpha");
        let before = visible(&gate);
        up.big_blob("main", 300_000);
        let compared = || daemon.ok("project.gate.compare_vs_upstream", of("alpha"));

        for (answer, part, kind) in [
            (status(403, None), "credentials", "auth_failed"),
            (status(404, None), "no such repository", "unreachable"),
            (status(500, None), "upstream", "unreachable"),
        ] {
            http.answer(answer.clone());
            let why = refused(&daemon);
            assert!(why.contains(part), "{answer:?}: {why}");
            let found = compared();
            assert_eq!(found["error_kind"], kind, "{answer:?}: {found}");
            assert_eq!(found["error"], "Could not reach upstream");
        }
        for code in [429, 503] {
            http.answer(status(code, Some("3600")));
            let why = refused(&daemon);
            assert!(why.contains("upstream"), "{code}: {why}");
        }
        for answer in [Answer::Truncate(0), Answer::Truncate(200)] {
            http.answer(answer.clone());
            refused(&daemon);
        }
        assert_eq!(visible(&gate), before);
        assert_whole(&gate);
        http.answer(Answer::Honest);
        sync(&daemon);
        assert_eq!(visible(&gate), visible(&up));
        assert_whole(&gate);
    });
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_says_for_how_long() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let http = HttpGit::start(&world, up.base()).unwrap();
    alpha(&world, &http.url(&up));
    let daemon = world.start();
    sync(&daemon);
    gate(&world, "alpha").commit("agent", "mine");
    http.answer(status(429, Some("3600")));
    let why = refused(&daemon);
    assert!(why.contains("3600"), "{why}");
}

#[test]
fn https_needs_a_certificate_that_the_user_trusts() {
    both(|world| {
        let Some(up) = Upstream::new(&world, "up") else {
            return;
        };
        let http = HttpGit::start(&world, up.base()).unwrap();
        let Some(tls) = Tls::before(&world, &http.address().to_string()) else {
            return;
        };
        alpha(&world, &format!("https://{}/{}", tls.address(), up.name()));
        let daemon = world.start();
        let why = refused(&daemon);
        assert!(why.contains("certificate"), "{why}");
        assert_eq!(http.requests(), Vec::<String>::new());
        let trusted = tls.certificate().display();
        world.write(
            "$HOME/.gitconfig",
            format!("[http]\n  sslCAInfo = {trusted}\n"),
        );
        assert_eq!(sync(&daemon)["created"], true);
        let gate = gate(&world, "alpha");
        assert_eq!(visible(&gate), visible(&up));
        up.commit("main", "more");
        let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
        assert_eq!(compared["relation"], "behind", "{compared}");
        sync(&daemon);
        gate.branch("agent/fix", "main");
        let fix = gate.commit("agent/fix", "fix");
        daemon.ok(
            "project.gate.promote",
            json!({"project_id": "alpha", "branch": "agent/fix"}),
        );
        assert_eq!(up.head("agent/fix"), fix);
        assert_whole(&gate);
    });
}

#[test]
fn a_conflict_names_both_addresses_without_their_passwords() {
    let world = World::new();
    for (id, repository) in [("alpha", "a"), ("beta", "b")] {
        let url = format!("https://ada:hunter2@forge.example/{repository}.git");
        let yaml = format!(
            "{}gate: {{path: {}}}\n",
            project(&url),
            world.real("$HOME/shared.git")
        );
        world.write(&format!("$CONFIG/projects/{id}/project.yml"), yaml);
    }
    let daemon = world.start();
    let refused = daemon.fails("project.gate.sync", of("alpha"), "gate_conflict");
    let text = format!("{refused:?}");
    assert!(!text.contains("hunter2"), "{text}");
    for part in [
        "alpha",
        "beta",
        "forge.example/a.git",
        "forge.example/b.git",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_address_of_no_use_spoils_only_what_needs_it() {
    let world = World::new();
    alpha(&world, "ext::sh -c id");
    let daemon = world.start();
    assert_eq!(
        daemon.ok("project.gate.status", of("alpha"))["exists"],
        false
    );
    assert_eq!(
        daemon.ok("project.gate.last_commit", of("alpha")),
        json!(null)
    );
    daemon.fails("project.gate.pending", of("alpha"), "gate_missing");
    daemon.fails("project.gate.sync", of("alpha"), "invalid_url");
}
