//! The vault as clients see it: set up, locked, opened, and the keys in it.

use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use terok_tests::programs::need;
use terok_tests::transport::Transport as _;
use terok_tests::{Daemon, World};

const PASSPHRASE: &str = "a passphrase for tests";

/// A daemon with an open vault whose passphrase is known, in the tier that a reboot loses.
fn unlocked(world: &World) -> Daemon {
    let daemon = world.start();
    let params = json!({"tier": "session-file", "passphrase": PASSPHRASE});
    let status = daemon.ok("vault.provision", params);
    assert_eq!(status["state"], "unlocked", "{status}");
    daemon
}

/// The text of a new private key, and its public line; or a skipped test.
fn keygen(world: &World, name: &str, more: &[&str]) -> Option<(String, String)> {
    let path = world.path(&format!("$HOME/{name}"));
    let status = Command::new(need("ssh-keygen")?)
        .args(["-q", "-C", "me@example.com", "-f"])
        .arg(&path)
        .args(more)
        .status()
        .unwrap();
    assert!(status.success());
    world.own(&path);
    let read = |path| std::fs::read_to_string(path).unwrap();
    Some((
        read(path.clone()),
        read(path.with_extension("pub")).trim().to_owned(),
    ))
}

#[test]
fn deriving_onto_a_project_that_is_there_costs_it_nothing() {
    let world = World::with_project("alpha")
        .project("beta", "project: {security_class: online}\n")
        .project("gamma", "project: {id: other, security_class: online}\n")
        .env("TEROK_CONFIG_DIR", "$SYSTEM")
        .file(
            "$SYSTEM/projects/sys/project.yml",
            "project: {security_class: online}\n",
        );
    let daemon = unlocked(&world);
    let keys = |id: &str| daemon.ok("project.ssh.list_keys", json!({"project_id": id}));
    let all = ["alpha", "beta", "sys", "other"];
    for id in all {
        daemon.ok("project.provision_ssh_key", json!({"project_id": id}));
    }
    let before = all.map(keys);
    for id in ["beta", "sys", "other"] {
        let onto = json!({"source_id": "alpha", "new_id": id});
        daemon.fails("derive_project", onto, "already_exists");
        let forced =
            json!({"source_id": "alpha", "new_id": id, "copy": ["nothing"], "shadow": true});
        daemon.fails("derive_project", forced, "invalid_argument");
    }
    assert_eq!(all.map(keys), before);
    let over = json!({"source_id": "alpha", "new_id": "sys", "shadow": true});
    daemon.ok("derive_project", over);
    let comments: Vec<String> = keys("sys")
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["comment"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        comments.contains(&"tk-main:sys".to_owned())
            && comments.contains(&"tk-main:alpha".to_owned()),
        "a hidden project comes back one day, and needs its keys: {comments:?}"
    );
}

#[test]
fn a_vault_waits_for_a_configuration_that_can_be_read() {
    let text = "credentials: {use_keyring: maybe}\n";
    let world = World::with_project("alpha").file("$CONFIG/config.yml", text);
    let daemon = world.start();
    for (method, params) in [
        ("vault.provision", json!({"tier": "config"})),
        ("vault.unlock", json!({})),
        ("project.provision_ssh_key", json!({"project_id": "alpha"})),
        ("vault.import_ssh_key", json!({"path": "/none"})),
    ] {
        daemon.fails(method, params, "invalid_config");
    }
    assert_eq!(daemon.ok("vault.status", json!({}))["state"], "absent");
    let path = world.path("$CONFIG/config.yml");
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    world.write("$CONFIG/config.yml", "credentials: {use_keyring: no}\n");
    daemon.ok("daemon.reload", json!({}));
    daemon.ok("vault.provision", json!({"tier": "config"}));
}

#[test]
fn calls_of_batches_count_as_calls_in_flight() {
    let world = World::new()
        .file("$CONFIG/terokd.yml", "rpc: {max_in_flight: 2}\n")
        .project(
            "alpha",
            "project: {security_class: online}\ngit: {upstream_url: 'ssh://git@127.0.0.1:1/r.git'}\n",
        );
    let daemon = unlocked(&world);
    daemon.ok("project.provision_ssh_key", json!({"project_id": "alpha"}));
    let mut client = daemon.connect();
    let call = |id: u64, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let wait = |id| {
        let params = json!({"project_id": "alpha", "timeout_ms": 2_000});
        call(
            id,
            "project.pause_for_ssh_key_registration_if_needed",
            params,
        )
    };
    client
        .transport
        .send(&json!([wait(1), wait(2)]).to_string());
    // It would end both waits, but they have taken all there is: the first of them has to run out of time.
    let confirm = call(
        3,
        "project.confirm_ssh_key_registration",
        json!({"project_id": "alpha"}),
    );
    client.transport.send(&json!([confirm]).to_string());
    let answers: Vec<Value> = (0..2)
        .flat_map(|_| client.message().unwrap().as_array().unwrap().clone())
        .collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(
        answers
            .iter()
            .any(|answer| answer["result"]["registered"] == false),
        "{answers:?}"
    );
}

#[test]
fn a_vault_is_set_up_locked_and_opened() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let absent = daemon.ok("vault.status", json!({}));
    assert_eq!(absent["state"], "absent", "{absent}");
    drop(daemon);
    let daemon = unlocked(&world);
    daemon.fails("vault.provision", json!({}), "already_exists");
    let key = daemon.ok("project.provision_ssh_key", json!({"project_id": "alpha"}));
    let database = daemon.ok("vault.status", json!({}))["db_path"].clone();
    let file = std::fs::metadata(database.as_str().unwrap()).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
    let bytes = std::fs::read(database.as_str().unwrap()).unwrap();
    assert!(
        !bytes.starts_with(b"SQLite format 3"),
        "it is not encrypted"
    );

    let mut events = daemon.events(json!({"kinds": ["vault.locked", "vault.unlocked"]}));
    daemon.ok("vault.lock", json!({}));
    events.next_of("vault.locked");
    let status = daemon.ok("vault.status", json!({}));
    assert_eq!(
        (&status["state"], &status["locked"]),
        (&json!("locked"), &json!(true))
    );
    assert_eq!(status["ssh_keys_stored"], Value::Null, "{status}");
    for (method, params) in [
        ("vault.list_ssh_keys", json!({})),
        ("vault.unlock", json!({})),
        ("project.provision_ssh_key", json!({"project_id": "alpha"})),
    ] {
        daemon.fails(method, params, "vault_locked");
    }
    let wrong = json!({"passphrase": "another"});
    daemon.fails("vault.unlock", wrong, "vault_wrong_passphrase");
    assert_eq!(daemon.ok("vault.status", json!({}))["state"], "locked");
    let right = json!({"passphrase": PASSPHRASE});
    assert_eq!(daemon.ok("vault.unlock", right)["state"], "unlocked");
    events.next_of("vault.unlocked");

    // The session file outlives the daemon, and lets the next one in.
    drop(daemon);
    let daemon = world.start();
    let keys = daemon.ok("vault.list_ssh_keys", json!({}));
    assert_eq!(keys[0]["fingerprint"], key["fingerprint"], "{keys}");
    assert!(!daemon.log().contains(PASSPHRASE));
}

#[test]
fn a_vault_set_up_in_the_configuration_opens_by_itself_and_warns() {
    let world = World::with_project("alpha").file("$CONFIG/config.yml", "# mine\nimage: {}\n");
    let daemon = world.start();
    let status = daemon.ok("vault.provision", json!({"tier": "config"}));
    assert_eq!(status["passphrase_source"], "config", "{status}");
    let config = world.path("$CONFIG/config.yml");
    assert_eq!(
        status["plaintext_passphrase_path"],
        json!(config),
        "{status}"
    );
    assert_eq!(std::fs::metadata(&config).unwrap().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("# mine") && text.contains("passphrase:"),
        "comments stay"
    );
    daemon.ok("project.provision_ssh_key", json!({"project_id": "alpha"}));
    drop(daemon);
    let daemon = world.start();
    daemon.ok("vault.list_ssh_keys", json!({}));
    let lines = text
        .lines()
        .filter_map(|line| line.split_once("passphrase:"));
    for (_, secret) in lines {
        assert!(
            !daemon.log().contains(secret.trim()),
            "the log has the passphrase"
        );
        let shown = daemon.ok("config.resolve", json!({})).to_string();
        assert!(shown.contains("passphrase"), "{shown}");
        assert!(
            !shown.contains(secret.trim()),
            "an answer has the passphrase"
        );
    }
}

#[test]
fn keys_are_minted_imported_shared_and_removed() {
    let world = World::with_project("alpha");
    world.write(
        "$CONFIG/projects/beta/project.yml",
        "project: {security_class: online}\n",
    );
    let daemon = unlocked(&world);
    let mint = |more: Value| {
        let mut params = json!({"project_id": "alpha"});
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        params
    };
    let main = daemon.ok("project.provision_ssh_key", mint(json!({})));
    assert_eq!(
        (&main["comment"], &main["created"]),
        (&json!("tk-main:alpha"), &json!(true))
    );
    let again = daemon.ok("project.provision_ssh_key", mint(json!({})));
    assert_eq!(
        (&again["key_id"], &again["created"]),
        (&main["key_id"], &json!(false))
    );
    let rsa = daemon.ok(
        "project.provision_ssh_key",
        mint(json!({"key_type": "rsa", "comment": "second"})),
    );
    assert!(
        rsa["public_line"].as_str().unwrap().starts_with("ssh-rsa "),
        "{rsa}"
    );
    daemon.fails(
        "project.provision_ssh_key",
        mint(json!({"key_type": "dsa"})),
        "invalid_argument",
    );
    daemon.fails(
        "project.provision_ssh_key",
        mint(json!({"comment": "a\nb"})),
        "unsafe_comment",
    );

    let (Some((private, public)), Some((closed, _))) = (
        keygen(&world, "open", &["-t", "ed25519", "-N", ""]),
        keygen(&world, "closed", &["-t", "ed25519", "-N", "its own secret"]),
    ) else {
        return;
    };
    let import = json!({"private_key": private, "public_key": public, "project_id": "beta"});
    let imported = daemon.ok("vault.import_ssh_key", import.clone());
    assert_eq!(imported["comment"], "me@example.com", "{imported}");
    assert_eq!(
        (
            &imported["already_present"],
            &imported["scope_was_assigned"]
        ),
        (&json!(false), &json!(false))
    );
    let twice = daemon.ok("vault.import_ssh_key", import);
    assert_eq!(
        (&twice["already_present"], &twice["scope_was_assigned"]),
        (&json!(true), &json!(true))
    );
    let by_path = json!({"path": world.path("$HOME/open"), "project_id": "alpha"});
    assert_eq!(
        daemon.ok("vault.import_ssh_key", by_path)["key_id"],
        imported["key_id"]
    );
    let mismatch = json!({"private_key": private, "public_key": rsa["public_line"]});
    daemon.fails("vault.import_ssh_key", mismatch, "key_mismatch");
    let locked = json!({"private_key": closed});
    daemon.fails("vault.import_ssh_key", locked, "key_password_protected");
    let opened = json!({"private_key": closed, "passphrase": "its own secret"});
    daemon.ok("vault.import_ssh_key", opened);
    for bad in [
        json!({}),
        json!({"private_key": "nonsense"}),
        json!({"path": "relative"}),
    ] {
        daemon.fails("vault.import_ssh_key", bad, "invalid_argument");
    }

    let listed = daemon.ok("vault.list_ssh_keys", json!({}));
    assert_eq!(listed.as_array().unwrap().len(), 4, "{listed}");
    let exported = daemon.ok(
        "vault.export_ssh_key",
        json!({"key_id": imported["key_id"]}),
    );
    assert_eq!(exported["public_line"], json!(public));
    assert_eq!(exported["scopes"], json!(["alpha", "beta"]), "{exported}");
    assert!(!listed.to_string().contains("PRIVATE"), "{listed}");

    let from_one = json!({"key_id": imported["key_id"], "project_id": "beta"});
    let removed = daemon.ok("vault.remove_ssh_key", from_one);
    assert_eq!(removed, json!({"unassigned": ["beta"], "deleted": false}));
    let removed = daemon.ok(
        "vault.remove_ssh_key",
        json!({"key_id": imported["key_id"]}),
    );
    assert_eq!(removed, json!({"unassigned": ["alpha"], "deleted": true}));
    daemon.fails(
        "vault.export_ssh_key",
        json!({"key_id": imported["key_id"]}),
        "key_not_found",
    );

    // A sibling has the same keys; deleting it takes them from nobody else.
    daemon.ok(
        "derive_project",
        json!({"source_id": "alpha", "new_id": "gamma"}),
    );
    let keys = |id: &str| daemon.ok("project.ssh.list_keys", json!({"project_id": id}));
    assert_eq!(keys("gamma"), keys("alpha"));
    assert_eq!(keys("gamma")[0]["scopes"], json!(["alpha", "gamma"]));
    daemon.ok("delete_project", json!({"project_id": "gamma"}));
    assert_eq!(keys("alpha")[0]["scopes"], json!(["alpha"]));
    let forced = daemon.ok("project.provision_ssh_key", mint(json!({"force": true})));
    let left = keys("alpha");
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["fingerprint"], forced["fingerprint"]);
}
