//! One file for both: databases that the reference's library made, and ours in its hands.

use crate::programs::need_sqlcipher;
use crate::world::{World, secret, settled};
use std::path::{Path, PathBuf};
use terok_proto::Kind;
use terok_proto::vault::VaultState;

const PASSPHRASE: &str = "o'Brien's Schlüssel";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A world with a copy of that database and its passphrase in the configuration.
fn world_with(name: &str) -> World {
    let world = World::new();
    std::fs::create_dir(world.database().parent().unwrap()).unwrap();
    std::fs::copy(fixture(name), world.database()).unwrap();
    world.configure(PASSPHRASE);
    world
}

#[tokio::test]
async fn databases_of_every_age_open_with_their_keys() {
    for name in ["v0.db", "v1.db", "v2.db"] {
        let world = world_with(name);
        let vault = world.vault();
        let keys = vault.all_keys().await.unwrap();
        assert_eq!(keys.len(), 2, "{name}");
        for (key, kind) in keys.iter().zip(["ed25519", "rsa"]) {
            let fingerprint =
                std::fs::read_to_string(fixture(&format!("{kind}.fingerprint"))).unwrap();
            assert_eq!(key.fingerprint, fingerprint.trim(), "{name}");
            assert_eq!(key.key_type, kind);
            assert_eq!(key.comment, format!("tk-main:{kind}"));
            assert_eq!(key.created_at, "2026-01-02T03:04:05Z");
            assert_eq!(key.scopes, [kind], "the reserved scope is hidden");
            // The private halves can be used: an agent offers only those.
            let socket = vault.host_agent(kind).await.unwrap();
            let offered = crate::agent::identities(&socket).await;
            assert_eq!(offered.len(), 1, "{name} {kind}");
        }
        let status = settled(&vault).await;
        assert_eq!(status.credentials_stored, ["claude"], "{name}");
        // Numbers that were given out before stay taken.
        let new = vault
            .provision_key("orion", None, None, false)
            .await
            .unwrap();
        assert_eq!(new.row.key_id, 10, "{name}");
        drop(vault);
        // A second opening finds nothing to do.
        assert_eq!(world.vault().all_keys().await.unwrap().len(), 3, "{name}");
    }
}

#[tokio::test]
async fn the_reference_opens_ours() {
    let Some(python) = need_sqlcipher() else {
        return;
    };
    let world = World::new();
    let vault = world.vault();
    vault
        .provision(None, Some(secret(PASSPHRASE)))
        .await
        .unwrap();
    let key = vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap()
        .row;
    let found = python.on(
        &world.database(),
        PASSPHRASE,
        r#"
version = db.execute("PRAGMA user_version").fetchone()[0]
row = db.execute("SELECT id, key_type, hex(private_der), comment, fingerprint FROM ssh_keys").fetchone()
link = db.execute("SELECT scope, key_id FROM ssh_key_assignments").fetchone()
count = db.execute("SELECT version FROM ssh_keys_version WHERE id = 0").fetchone()[0]
tables = sorted(n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
print(json.dumps([version, row, link, count, tables]))
"#,
    );
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found[0], 2);
    assert_eq!(found[1][0], key.key_id);
    assert_eq!(found[1][1], "ed25519");
    let der = found[1][2].as_str().unwrap();
    assert!(der.starts_with("302E020100300506032B657004220420") && der.len() == 96);
    assert_eq!(found[1][4], key.fingerprint);
    assert_eq!(found[2], serde_json::json!(["orion", key.key_id]));
    assert_eq!(found[3], 2, "one for the key, one for the assignment");
    assert_eq!(
        found[4],
        serde_json::json!([
            "credentials",
            "proxy_tokens",
            "sqlite_sequence",
            "ssh_key_assignments",
            "ssh_keys",
            "ssh_keys_version"
        ])
    );

    // What it writes is seen at once, without a restart.
    python.on(
        &world.database(),
        PASSPHRASE,
        r#"db.execute("INSERT INTO ssh_key_assignments (scope, key_id) VALUES ('lyra', 1)")"#,
    );
    assert!(vault.has_keys("lyra").await.unwrap());
}

#[tokio::test]
async fn both_write_at_the_same_time() {
    let Some(python) = need_sqlcipher() else {
        return;
    };
    let world = World::new();
    let vault = world.vault();
    vault
        .provision(None, Some(secret(PASSPHRASE)))
        .await
        .unwrap();
    let first = vault
        .provision_key("s0", None, None, false)
        .await
        .unwrap()
        .row
        .key_id;
    let mut other = python
        .on_command(
            &world.database(),
            PASSPHRASE,
            r#"
print("ready", flush=True)
for n in range(100):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO ssh_key_assignments (scope, key_id) VALUES (?, 1)", (f"p{n}",))
    db.execute("UPDATE ssh_keys_version SET version = version + 1")
    db.execute("COMMIT")
"#,
        )
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    for n in 1..100 {
        vault.register_key(&format!("s{n}"), first).await.unwrap();
    }
    assert!(other.wait().unwrap().success());
    let scopes = vault.key(first).await.unwrap().scopes;
    assert_eq!(scopes.len(), 200);
    let count = python.on(
        &world.database(),
        PASSPHRASE,
        r#"print(db.execute("SELECT version FROM ssh_keys_version").fetchone()[0])"#,
    );
    assert_eq!(count.trim(), "201", "no change was lost");
}

#[tokio::test]
async fn a_wrong_passphrase_in_a_tier_is_told_with_the_tier() {
    let world = world_with("v2.db");
    world.configure("something else");
    let vault = world.vault();
    let fault = vault.all_keys().await.unwrap_err();
    assert_eq!(fault.kind, Kind::VaultWrongPassphrase);
    assert_eq!(fault.data["source"], "config");
    assert!(!fault.message.contains("something else"));
    let status = settled(&vault).await;
    assert_eq!(
        (status.state, status.locked),
        (VaultState::WrongPassphrase, true)
    );
    // The right one from the user.
    let status = vault.unlock(Some(secret(PASSPHRASE))).await.unwrap();
    assert_eq!(status.state, VaultState::Unlocked);
}

#[tokio::test]
async fn what_is_newer_or_not_encrypted_is_left_alone() {
    let world = World::new();
    std::fs::create_dir(world.database().parent().unwrap()).unwrap();
    let mut plain = b"SQLite format 3\0".to_vec();
    plain.resize(8192, 0);
    std::fs::write(world.database(), &plain).unwrap();
    world.configure(PASSPHRASE);
    let vault = world.vault();
    assert_eq!(
        vault.all_keys().await.unwrap_err().kind,
        Kind::VaultPlaintextDb
    );
    assert_eq!(settled(&vault).await.state, VaultState::Plaintext);
    let fault = vault.unlock(Some(secret(PASSPHRASE))).await.unwrap_err();
    assert_eq!(fault.kind, Kind::VaultPlaintextDb);
    assert!(!world.session_file().exists());
    assert_eq!(std::fs::read(world.database()).unwrap(), plain);

    let Some(python) = need_sqlcipher() else {
        return;
    };
    let world = world_with("v2.db");
    python.on(
        &world.database(),
        PASSPHRASE,
        r#"
db.execute("PRAGMA user_version = 3")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"#,
    );
    let before = std::fs::read(world.database()).unwrap();
    let vault = world.vault();
    let fault = vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::VaultSchemaNewer);
    assert_eq!(settled(&vault).await.state, VaultState::SchemaNewer);
    assert_eq!(std::fs::read(world.database()).unwrap(), before);
}

/// A passphrase of this form is the key itself to SQLCipher; a user who has one keeps it.
#[tokio::test]
async fn a_raw_key_goes_through_unchanged() {
    let world = World::new();
    let raw = format!("x'{}'", "ab".repeat(32));
    let vault = world.vault();
    vault.provision(None, Some(secret(&raw))).await.unwrap();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    drop(vault);
    assert!(world.vault().has_keys("orion").await.unwrap());
    if let Some(python) = need_sqlcipher() {
        let count = python.on(
            &world.database(),
            &raw,
            r#"print(db.execute("SELECT count(*) FROM ssh_keys").fetchone()[0])"#,
        );
        assert_eq!(count.trim(), "1");
    }
}
