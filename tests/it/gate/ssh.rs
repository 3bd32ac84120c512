//! Upstreams over ssh, with deploy keys that the vault mints and never lets out.

use super::{alpha, gate, of, project, refused, sync, visible};
use serde_json::{Value, json};
use terok_tests::{Daemon, Sshd, Upstream, World, programs};

/// A world with an upstream behind a real sshd and the project `alpha` before it, or a skipped test.
fn lab() -> Option<(World, Upstream, Sshd, Daemon)> {
    let world = World::new();
    let (up, sshd) = (Upstream::new(&world, "up")?, Sshd::start(&world)?);
    alpha(&world, &sshd.url(&up));
    let daemon = world.start();
    daemon.ok("vault.provision", json!({"tier": "config"}));
    Some((world, up, sshd, daemon))
}

/// Mints the project's key; its public line.
fn mint(daemon: &Daemon) -> String {
    let made = daemon.ok("project.provision_ssh_key", of("alpha"));
    assert_eq!(made["needs_registration"], true, "{made}");
    made["public_line"].as_str().unwrap().to_owned()
}

#[test]
fn a_deploy_key_of_the_vault_opens_upstream() {
    let Some((world, up, sshd, daemon)) = lab() else {
        return;
    };
    let missing = daemon.fails("project.gate.sync", of("alpha"), "gate_auth_not_configured");
    assert_eq!(missing.data["reason"], "no_key", "{missing:?}");
    assert!(
        missing.data.to_string().contains("ssh-init alpha"),
        "{missing:?}"
    );
    let unchecked = daemon.ok("project.check_ssh_key", of("alpha"));
    assert_eq!(unchecked["ok"], false, "{unchecked}");
    assert_eq!(sshd.connections(), 0, "nobody is asked without a key");

    let line = mint(&daemon);
    assert_eq!(
        mint(&daemon),
        line,
        "a project has one key unless it asks for more"
    );
    let checked = daemon.ok("project.check_ssh_key", of("alpha"));
    assert_eq!(checked["ok"], false, "{checked}");
    assert!(refused(&daemon).contains("refused the credentials"));
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error_kind"], "gate_missing", "{compared}");

    sshd.accept(&line);
    let checked = daemon.ok("project.check_ssh_key", of("alpha"));
    assert_eq!(checked["ok"], true, "{checked}");
    let mut events = daemon.events(json!({"kinds": ["vault.signed"]}));
    let made = sync(&daemon);
    assert_eq!(made["created"], true);
    let gate = gate(&world, "alpha");
    assert_eq!(visible(&gate), visible(&up));
    let signed = events.next_about("vault.signed", "alpha");
    assert!(
        signed["data"]["fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("SHA256:")
    );

    gate.branch("agent/fix", "main");
    let fix = gate.commit("agent/fix", "fix");
    let pushed = daemon.ok(
        "project.gate.promote",
        json!({"project_id": "alpha", "branch": "agent/fix", "expect_commit": fix}),
    );
    assert_eq!(pushed["new"], json!(fix));
    assert_eq!(up.head("agent/fix"), fix);
    // The key and its passphrase stay inside: no file of the world but the configuration has either.
    let log = daemon.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    sshd.refuse(&line);
    assert!(refused(&daemon).contains("refused the credentials"));
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error_kind"], "auth_failed", "{compared}");
    assert_eq!(compared["error"], "Could not reach upstream");
    let denied = daemon.fails(
        "project.gate.promote",
        json!({"project_id": "alpha", "branch": "agent/fix"}),
        "upstream_auth_failed",
    );
    assert!(denied.message.contains("credentials"), "{}", denied.message);
}

#[test]
fn the_key_of_one_project_does_not_open_for_another() {
    let Some((world, up, sshd, daemon)) = lab() else {
        return;
    };
    sshd.accept(&mint(&daemon));
    let url = sshd.url(&up).replace("ssh://", "SSH://");
    world.write("$CONFIG/projects/beta/project.yml", project(&url));
    daemon.ok("daemon.reload", json!({}));
    let none = daemon.fails("project.gate.sync", of("beta"), "gate_auth_not_configured");
    assert_eq!(
        (&none.data["reason"], &none.data["scope"]),
        (&json!("no_key"), &json!("beta"))
    );
    daemon.ok("project.provision_ssh_key", of("beta"));
    let denied = daemon.ok("project.gate.sync", of("beta"));
    assert_eq!(denied["success"], false, "{denied}");
    // Shared on purpose, it does.
    let keys = daemon.ok("project.ssh.list_keys", of("alpha"));
    let share = json!({"project_id": "beta", "key_id": keys[0]["key_id"]});
    daemon.ok("project.register_ssh_key", share.clone());
    daemon.ok("project.register_ssh_key", share);
    let shared = daemon.ok("project.gate.sync", of("beta"));
    assert_eq!(shared["success"], true, "{shared}");
    let none = json!({"project_id": "beta", "key_id": 4711});
    daemon.fails("project.register_ssh_key", none, "key_not_found");
}

#[test]
fn another_host_key_stops_everything_until_a_human_looks() {
    let Some((world, up, sshd, daemon)) = lab() else {
        return;
    };
    sshd.accept(&mint(&daemon));
    let mut events = daemon.events(json!({"kinds": ["ssh.host_key_pinned"]}));
    sync(&daemon);
    let pinned = events.next_of("ssh.host_key_pinned");
    assert!(
        pinned["data"]["fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("SHA256:"),
        "{pinned}"
    );
    let pins = world.path("$DATA/sandbox/gate/.known_hosts");
    let before = std::fs::read_to_string(&pins).unwrap();
    assert!(before.contains(sshd.host_line().trim()), "{before}");

    sshd.replace_host_key();
    up.commit("main", "behind another key");
    let why = refused(&daemon);
    assert!(
        why.contains("host key") && why.contains(".known_hosts"),
        "{why}"
    );
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error_kind"], "host_key_changed", "{compared}");
    let gate = gate(&world, "alpha");
    gate.commit("main", "mine");
    let params = json!({"project_id": "alpha", "branch": "main", "upstream_branch": "new"});
    let promoted = daemon.fails("project.gate.promote", params, "host_key_changed");
    assert_eq!(promoted.data["known_hosts"], json!(pins), "{promoted:?}");
    assert_eq!(
        std::fs::read_to_string(&pins).unwrap(),
        before,
        "the pin stays"
    );
    assert_eq!(up.find("refs/heads/new"), None);

    std::fs::remove_file(&pins).unwrap();
    let synced = sync(&daemon);
    assert_eq!(synced["pending"][0]["branch"], "main", "{synced}");
    let now = std::fs::read_to_string(&pins).unwrap();
    assert!(now.contains(sshd.host_line().trim()), "{now}");
}

#[test]
fn every_first_contact_tells_of_the_host_key_once_and_no_other_does() {
    let Some((world, _up, sshd, daemon)) = lab() else {
        return;
    };
    // Events come in order: what was told before the vault is locked is told by then.
    let kinds = json!({"kinds": ["ssh.host_key_pinned", "vault.locked"]});
    let mut events = daemon.events(kinds);
    let mut keys = Vec::new();
    let pins = world.path("$DATA/sandbox/gate/.known_hosts");
    let mut meet = |call: &dyn Fn()| {
        if pins.exists() {
            std::fs::remove_file(&pins).unwrap();
            sshd.replace_host_key();
        }
        call();
        let known = std::fs::read_to_string(&pins).unwrap();
        assert!(known.contains(sshd.host_line().trim()), "{known}");
        keys.push(sshd.fingerprint());
    };
    let line = mint(&daemon);
    let check = |ok: bool| {
        let checked = daemon.ok("project.check_ssh_key", of("alpha"));
        assert_eq!(checked["ok"], ok, "{checked}");
    };
    // The usual order: the key is made, and only then registered.
    meet(&|| check(false));
    meet(&|| drop(refused(&daemon)));
    check(false);
    sshd.accept(&line);
    meet(&|| check(true));
    meet(&|| drop(sync(&daemon)));
    meet(&|| {
        let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
        assert_eq!(compared["relation"], "equal", "{compared}");
    });
    gate(&world, "alpha").branch("agent", "main");
    gate(&world, "alpha").commit("agent", "mine");
    meet(&|| {
        let rows = daemon.ok("project.gate.review", of("alpha"));
        assert_ne!(rows[0]["stale"], true, "{rows}");
    });
    meet(&|| {
        let promote = json!({"project_id": "alpha", "branch": "agent"});
        daemon.ok("project.gate.promote", promote);
    });
    meet(&|| {
        let polled = daemon.ok("polling.poll_now", of("alpha"));
        assert_eq!(polled[0]["relation"], "equal", "{polled}");
    });
    daemon.ok("vault.lock", json!({}));
    let told = events.until(|event| event["kind"] == "vault.locked");
    let told: Vec<&Value> = told
        .iter()
        .filter(|event| event["kind"] == "ssh.host_key_pinned")
        .collect();
    assert!(
        told.iter().all(|event| event["project_id"] == "alpha"),
        "{told:?}"
    );
    let told: Vec<&str> = told
        .iter()
        .map(|event| event["data"]["fingerprint"].as_str().unwrap())
        .collect();
    assert_eq!(told, keys);
}

#[test]
fn who_wants_strict_host_keys_pins_them_himself() {
    let world = World::new().file("$CONFIG/terokd.yml", "ssh: {host_keys: strict}\n");
    let (Some(up), Some(sshd)) = (Upstream::new(&world, "up"), Sshd::start(&world)) else {
        return;
    };
    alpha(&world, &sshd.url(&up));
    let daemon = world.start();
    daemon.ok("vault.provision", json!({"tier": "config"}));
    sshd.accept(&mint(&daemon));
    let why = refused(&daemon);
    assert!(why.contains("host key"), "{why}");
    let pins = world.path("$DATA/sandbox/gate/.known_hosts");
    let known = std::fs::read_to_string(&pins).unwrap_or_default();
    assert!(!known.contains("127.0.0.1"), "nothing is pinned: {known}");
    world.write("$DATA/sandbox/gate/.known_hosts", sshd.host_line());
    sync(&daemon);
    assert_eq!(visible(&gate(&world, "alpha")), visible(&up));
}

#[test]
fn a_locked_vault_is_no_missing_key() {
    let Some((world, up, sshd, daemon)) = lab() else {
        return;
    };
    sshd.accept(&mint(&daemon));
    sync(&daemon);
    let connections = sshd.connections();
    let locked = daemon.ok("vault.lock", json!({}));
    assert_eq!(locked["remaining_tiers"], json!(["config"]));
    let error = daemon.fails("project.gate.sync", of("alpha"), "gate_auth_not_configured");
    assert_eq!(error.data["reason"], "vault_locked", "{error:?}");
    assert!(error.data.to_string().contains("vault unlock"), "{error:?}");
    assert_eq!(sshd.connections(), connections);
    // What needs no key goes on.
    let last = daemon.ok("project.gate.last_commit", of("alpha"));
    assert_eq!(last["commit_hash"], json!(up.head("main")));
    let state = daemon.ok("project.state", of("alpha"));
    assert_eq!(state["ssh"], Value::Null, "{state}");
    daemon.ok("project.gate.status", of("alpha"));
    daemon.ok("project.gate.pending", of("alpha"));
    let compared = daemon.ok("project.gate.compare_vs_upstream", of("alpha"));
    assert_eq!(compared["error_kind"], "auth_not_configured", "{compared}");
    let gate = gate(&world, "alpha");
    gate.commit("agent", "mine");
    let stale = daemon.ok("project.gate.review", of("alpha"));
    assert_eq!(stale[0]["stale"], true, "{stale}");

    let open = daemon.ok("vault.unlock", json!({}));
    assert_eq!(open["state"], "unlocked", "{open}");
    sync(&daemon);
    let state = daemon.ok("project.state", of("alpha"));
    assert_eq!(state["ssh"], true, "{state}");
}

#[test]
fn a_wait_for_registration_ends_when_the_key_works_or_the_user_says_so() {
    let Some((_world, _up, sshd, daemon)) = lab() else {
        return;
    };
    let pause = |daemon: &Daemon, params: Value| {
        let mut client = daemon.connect();
        client.ok("project.pause_for_ssh_key_registration_if_needed", params)
    };
    let nothing = pause(&daemon, of("alpha"));
    assert_eq!(
        nothing,
        json!({"needed": true, "registered": false, "public_lines": []})
    );
    let line = mint(&daemon);
    let at_once = pause(&daemon, json!({"project_id": "alpha", "timeout_ms": 0}));
    assert_eq!(
        at_once,
        json!({"needed": true, "registered": false, "public_lines": [line]})
    );
    // Confirmed while it waits: it has asked upstream once, and would wait for ever.
    let before = sshd.connections();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pause(&daemon, of("alpha")));
        sshd.wait_connections(before + 1);
        daemon.ok("project.confirm_ssh_key_registration", of("alpha"));
        assert_eq!(waiting.join().unwrap()["registered"], true);
    });
    // Or upstream accepts the key.
    sshd.accept(&line);
    assert_eq!(pause(&daemon, of("alpha"))["registered"], true);
}

#[test]
fn personal_keys_are_used_when_asked_for() {
    let Some((world, up, sshd, daemon)) = lab() else {
        return;
    };
    let key = sshd.client_key("personal");
    world.write(
        "$HOME/.ssh/config",
        format!(
            "Host *\nIdentityFile {}\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\nUserKnownHostsFile {}\n",
            key.display(),
            world.path("$HOME/.ssh/known_hosts").display()
        ),
    );
    daemon.fails("project.gate.sync", of("alpha"), "gate_auth_not_configured");
    // OpenSSH reads the home of the account, not of the environment.
    let home = nix::unistd::User::from_uid(match programs::account() {
        Some(uid) => nix::unistd::Uid::from_raw(uid),
        None => nix::unistd::geteuid(),
    });
    let home = home.unwrap().unwrap().dir;
    let ssh = format!("ssh -F {}", world.path("$HOME/.ssh/config").display());
    drop(daemon);
    let daemon = world.start_with(|command| {
        command.env("GIT_SSH_COMMAND", ssh);
    });
    let personal = json!({"project_id": "alpha", "use_personal_ssh": true});
    let synced = daemon.ok("project.gate.sync", personal);
    assert_eq!(
        synced["success"],
        true,
        "{synced}; home of the account: {}",
        home.display()
    );
    assert_eq!(visible(&gate(&world, "alpha")), visible(&up));
    // Only this once.
    daemon.fails("project.gate.sync", of("alpha"), "gate_auth_not_configured");
    world.write(
        "$CONFIG/projects/alpha/project.yml",
        project(&sshd.url(&up)) + "ssh: {use_personal: true}\n",
    );
    daemon.ok("daemon.reload", json!({}));
    sync(&daemon);
}
