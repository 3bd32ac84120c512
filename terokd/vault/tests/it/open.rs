//! A fresh machine, and how the vault opens again.

use crate::world::{World, secret, settled};
use std::os::unix::fs::MetadataExt;
use terok_proto::Kind;
use terok_proto::vault::{PassphraseSource, VaultState};
use terok_vault::VaultEvent;

#[tokio::test]
async fn a_fresh_machine_works_without_a_question_and_after_a_restart() {
    let world = World::new();
    let vault = world.vault();
    let mut events = vault.events();
    let status = settled(&vault).await;
    assert_eq!((status.state, status.locked), (VaultState::Absent, false));
    assert!(vault.all_keys().await.unwrap().is_empty());
    assert!(!world.database().exists(), "a question makes nothing");

    let key = vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    assert!(key.created);
    assert_eq!(key.row.comment, "tk-main:orion");
    assert_eq!(key.row.scopes, ["orion"]);
    assert!(key.row.created_at.ends_with('Z'));
    assert_eq!(events.recv().await.unwrap(), VaultEvent::Unlocked);
    assert_eq!(
        events.recv().await.unwrap(),
        VaultEvent::KeyMinted {
            scope: "orion".into(),
            key_id: key.row.key_id,
            fingerprint: key.row.fingerprint.clone()
        }
    );
    let passphrase = world
        .config
        .passphrase()
        .expect("kept in the configuration");
    assert_eq!(passphrase.expose().len(), 43);

    let status = settled(&vault).await;
    assert_eq!(status.state, VaultState::Unlocked);
    assert_eq!(status.passphrase_source, Some(PassphraseSource::Config));
    assert_eq!(status.ssh_keys_stored, Some(1));
    assert_eq!(status.warnings.len(), 1, "{:?}", status.warnings);
    drop(vault);

    let again = world.vault();
    assert_eq!(again.keys("orion").await.unwrap(), [key.row]);
}

#[tokio::test]
async fn what_an_old_release_left_is_told_and_not_touched() {
    let world = World::new();
    let before = world.dir.path().join("credentials");
    std::fs::create_dir(&before).unwrap();
    std::fs::write(before.join("credentials.db"), "old").unwrap();
    let vault = world.vault();
    let warnings = settled(&vault).await.warnings;
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    for path in [&before, &world.dir.path().join("vault")] {
        assert!(warning.contains(path.to_str().unwrap()), "{warning}");
    }
    assert!(!world.dir.path().join("vault").exists());
    // With a vault there is nothing to be missed.
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let warnings = settled(&vault).await.warnings;
    assert!(
        !warnings.iter().any(|text| text.contains("0.8")),
        "{warnings:?}"
    );
    assert_eq!(
        std::fs::read(before.join("credentials.db")).unwrap(),
        b"old"
    );
    // Somebody else's directory of that name, beside a vault at a place of the user's choice.
    let mut settings = world.settings();
    settings.vault_dir = world.dir.path().join("secrets");
    let elsewhere = world.vault_with(settings);
    assert_eq!(settled(&elsewhere).await.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn nobody_else_can_read_it_and_a_wide_mode_is_repaired() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o777;
    let dir = world.database().parent().unwrap().to_owned();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&world.database()), 0o600);
    let wal = dir.join("credentials.db-wal");
    assert_eq!(mode(&wal), 0o600);
    drop(vault);

    for (path, wide) in [(&world.database(), 0o644), (&dir, 0o755)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(wide)).unwrap();
    }
    assert!(world.vault().has_keys("orion").await.unwrap());
    assert_eq!((mode(&dir), mode(&world.database())), (0o700, 0o600));
}

#[tokio::test]
async fn a_wrong_unlock_changes_nothing() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let right = world.config.passphrase().unwrap();
    vault.lock(false, false).await.unwrap();

    let fault = vault.unlock(Some(secret("wrong"))).await.unwrap_err();
    assert_eq!(fault.kind, Kind::VaultWrongPassphrase);
    assert!(!world.session_file().exists());
    assert_eq!(settled(&vault).await.state, VaultState::Locked);
    assert_eq!(
        vault.keys("orion").await.unwrap_err().kind,
        Kind::VaultLocked
    );

    let status = vault.unlock(Some(right.clone())).await.unwrap();
    assert_eq!(
        status.passphrase_source,
        Some(PassphraseSource::SessionFile)
    );
    assert!(status.recovery.urgent);
    let session = std::fs::read_to_string(world.session_file()).unwrap();
    assert_eq!(session, format!("{}\n", right.expose()));
    assert_eq!(
        world.session_file().metadata().unwrap().mode() & 0o777,
        0o600
    );

    // While it is open a wrong one is as wrong.
    let fault = vault.unlock(Some(secret("wrong"))).await.unwrap_err();
    assert_eq!(fault.kind, Kind::VaultWrongPassphrase);
    assert_eq!(
        std::fs::read_to_string(world.session_file()).unwrap(),
        session
    );
    assert!(vault.is_unlocked());
}

#[tokio::test]
async fn locked_on_purpose_it_stays_so_until_unlock() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let locked = vault.lock(false, false).await.unwrap();
    assert_eq!(locked.remaining_tiers, [PassphraseSource::Config]);
    assert_eq!(settled(&vault).await.state, VaultState::Locked);
    let mut settings = world.settings_now();
    settings.use_keyring = true;
    vault.configure(settings);
    assert_eq!(vault.all_keys().await.unwrap_err().kind, Kind::VaultLocked);
    assert_eq!(
        vault
            .provision_key("lyra", None, None, false)
            .await
            .unwrap_err()
            .kind,
        Kind::VaultLocked
    );
    let status = vault.unlock(None).await.unwrap();
    assert_eq!(status.state, VaultState::Unlocked);
    assert_eq!(vault.all_keys().await.unwrap().len(), 1);
}
