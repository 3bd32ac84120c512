//! Keys: which call makes which key, who has it, what may come in.

use crate::programs::need;
use crate::world::{World, secret};
use std::path::Path;
use std::process::Command;
use terok_proto::Kind;
use terok_vault::{ImportRequest, Unassigned, VaultEvent};

#[tokio::test]
async fn each_call_makes_the_key_of_the_table() {
    let world = World::new();
    let vault = world.vault();
    let provision = async |comment: Option<&str>, force| {
        let key = vault
            .provision_key("orion", None, comment, force)
            .await
            .unwrap();
        (key.row, key.created)
    };
    let comments = async || -> Vec<String> {
        vault
            .keys("orion")
            .await
            .unwrap()
            .into_iter()
            .map(|key| key.comment)
            .collect()
    };
    // Others only: the next is a side key.
    let (own, created) = provision(Some("mine"), false).await;
    assert!(created);
    assert_eq!(provision(None, false).await.0.comment, "tk-side:orion:2");
    assert_eq!(provision(None, false).await.0.comment, "tk-side:orion:3");
    assert_eq!(provision(Some(""), false).await.0.comment, "");
    assert_eq!(
        comments().await,
        ["mine", "tk-side:orion:2", "tk-side:orion:3", ""]
    );

    // None: the main one, which is returned from then on, whatever type is asked for.
    vault.register_key("lyra", own.key_id).await.unwrap();
    let mut events = vault.events();
    let (main, created) = provision(None, true).await;
    assert!(created);
    assert_eq!(main.comment, "tk-main:orion");
    assert!(
        matches!(events.try_recv().unwrap(), VaultEvent::KeyRotated { key_id, .. } if key_id == main.key_id)
    );
    assert_eq!(comments().await, ["tk-main:orion"]);
    let again = vault
        .provision_key("orion", Some("rsa"), None, false)
        .await
        .unwrap();
    assert_eq!((again.created, again.row.key_id), (false, main.key_id));

    // Force took only this scope's links; what nobody has is gone, what another has stays.
    let all: Vec<i64> = vault
        .all_keys()
        .await
        .unwrap()
        .iter()
        .map(|key| key.key_id)
        .collect();
    assert_eq!(all, [own.key_id, main.key_id]);
    assert_eq!(vault.key(own.key_id).await.unwrap().scopes, ["lyra"]);
    let (named, _) = provision(Some("n"), true).await;
    assert_eq!(
        (named.comment, comments().await),
        ("n".into(), vec!["n".to_owned()])
    );
}

#[tokio::test]
async fn what_is_not_acceptable_makes_nothing() {
    let world = World::new();
    let vault = world.vault();
    for (scope, key_type, comment, kind) in [
        ("%host", None, None, Kind::InvalidScope),
        ("../x", None, None, Kind::InvalidScope),
        ("orion", Some("dsa"), None, Kind::InvalidArgument),
        ("orion", None, Some("a\u{1b}[31m"), Kind::UnsafeComment),
        ("orion", None, Some("\u{202e}evil"), Kind::UnsafeComment),
    ] {
        let fault = vault
            .provision_key(scope, key_type, comment, false)
            .await
            .unwrap_err();
        assert_eq!(fault.kind, kind, "{scope}");
    }
    assert!(!world.database().exists());
    assert_eq!(
        vault.keys("%host").await.unwrap_err().kind,
        Kind::InvalidScope
    );
    assert_eq!(
        vault.register_key("orion", 1).await.unwrap_err().kind,
        Kind::KeyNotFound
    );
    vault.provision(None, None).await.unwrap();
    assert_eq!(
        vault.register_key("orion", 1).await.unwrap_err().kind,
        Kind::KeyNotFound
    );
    assert_eq!(vault.key(7).await.unwrap_err().kind, Kind::KeyNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_answer_the_same_key() {
    let world = World::new();
    let vault = world.vault();
    // Another daemon on the same file, beside another handle of the same.
    vault.provision(None, None).await.unwrap();
    let other = world.vault();
    let calls: Vec<_> = (0..16)
        .map(|n| {
            let vault = if n % 2 == 0 {
                vault.clone()
            } else {
                other.clone()
            };
            tokio::spawn(async move {
                vault
                    .provision_key("orion", None, None, false)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut made = 0;
    let mut ids = std::collections::BTreeSet::new();
    for call in calls {
        let key = call.await.unwrap();
        made += usize::from(key.created);
        ids.insert(key.row.key_id);
    }
    assert_eq!((made, ids.len()), (1, 1));
    assert_eq!(vault.all_keys().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_calls_set_up_one_vault() {
    let world = World::new();
    let vault = world.vault();
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let vault = vault.clone();
            tokio::spawn(async move {
                vault
                    .provision_key(&format!("s{n}"), None, None, false)
                    .await
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(vault.all_keys().await.unwrap().len(), 8);
}

#[tokio::test]
async fn openssh_agrees_about_fingerprints() {
    let Some(program) = need("ssh-keygen") else {
        return;
    };
    let world = World::new();
    let vault = world.vault();
    for (key_type, bits) in [("ed25519", "256"), ("rsa", "3072")] {
        let key = vault
            .provision_key("orion", Some(key_type), Some("my key"), false)
            .await
            .unwrap()
            .row;
        assert_eq!(key.key_type, key_type);
        let file = world.dir.path().join("key.pub");
        std::fs::write(&file, format!("{}\n", key.public_line)).unwrap();
        let output = Command::new(&program)
            .arg("-lf")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let label = if key_type == "rsa" { "RSA" } else { "ED25519" };
        assert_eq!(
            text.trim(),
            format!("{bits} {} my key ({label})", key.fingerprint)
        );
    }
    let bare = vault
        .provision_key("orion", None, Some(""), false)
        .await
        .unwrap()
        .row;
    assert!(!bare.public_line.ends_with(' '));
}

fn keygen(program: &Path, file: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .args(["-q", "-C", "ada@example", "-f"])
        .arg(file)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn keys_of_openssh_come_in() {
    let Some(program) = need("ssh-keygen") else {
        return;
    };
    let world = World::new();
    let vault = world.vault();
    let dir = world.dir.path();
    keygen(&program, &dir.join("ed"), &["-t", "ed25519", "-N", ""]);
    keygen(
        &program,
        &dir.join("rsa"),
        &["-t", "rsa", "-b", "2048", "-N", "geheim"],
    );
    keygen(&program, &dir.join("ec"), &["-t", "ecdsa", "-N", ""]);
    let from = |name: &str| ImportRequest {
        path: Some(dir.join(name)),
        ..ImportRequest::default()
    };

    let ed = vault
        .import_key(ImportRequest {
            scope: Some("orion".into()),
            ..from("ed")
        })
        .await
        .unwrap();
    assert_eq!(ed.comment, "ada@example");
    assert!(!ed.already_present && !ed.scope_was_assigned);
    let line = std::fs::read_to_string(dir.join("ed.pub")).unwrap();
    assert_eq!(vault.key(ed.key_id).await.unwrap().public_line, line.trim());

    // The same again, as text, with its public half, for another scope: linked.
    let text = std::fs::read_to_string(dir.join("ed")).unwrap();
    let again = vault
        .import_key(ImportRequest {
            private_key: Some(secret(&text)),
            public_key: Some(line.clone()),
            comment: Some("other".into()),
            scope: Some("lyra".into()),
            ..ImportRequest::default()
        })
        .await
        .unwrap();
    assert_eq!((again.key_id, again.already_present), (ed.key_id, true));
    assert_eq!(again.comment, "ada@example", "what is stored stays");
    assert_eq!(
        vault.key(ed.key_id).await.unwrap().scopes,
        ["lyra", "orion"]
    );
    let third = vault
        .import_key(ImportRequest {
            scope: Some("lyra".into()),
            ..from("ed")
        })
        .await
        .unwrap();
    assert!(third.scope_was_assigned);

    // Encrypted.
    for passphrase in [None, Some(secret("falsch"))] {
        let fault = vault
            .import_key(ImportRequest {
                passphrase,
                ..from("rsa")
            })
            .await
            .unwrap_err();
        assert_eq!(fault.kind, Kind::KeyPasswordProtected);
        assert!(!fault.message.contains("falsch"));
    }
    let rsa = vault
        .import_key(ImportRequest {
            passphrase: Some(secret("geheim")),
            scope: Some("orion".into()),
            ..from("rsa")
        })
        .await
        .unwrap();
    assert_eq!(vault.key(rsa.key_id).await.unwrap().key_type, "rsa");
    let offered = crate::agent::identities(&vault.host_agent("orion").await.unwrap()).await;
    assert_eq!(offered.len(), 2, "both can sign");

    // What does not come in.
    std::os::unix::fs::symlink(dir.join("ed"), dir.join("link")).unwrap();
    std::fs::write(dir.join("large"), vec![b'x'; 65 * 1024]).unwrap();
    nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let wrong = |request| vault.import_key(request);
    let other = std::fs::read_to_string(dir.join("rsa.pub")).unwrap();
    for (request, kind) in [
        (from("link"), Kind::InvalidArgument),
        (from("large"), Kind::InvalidArgument),
        (from("pipe"), Kind::InvalidArgument),
        (from("none"), Kind::InvalidArgument),
        (from("ed.pub"), Kind::InvalidArgument),
        (from("ec"), Kind::InvalidArgument),
        (
            ImportRequest {
                path: Some("ed".into()),
                ..ImportRequest::default()
            },
            Kind::InvalidArgument,
        ),
        (
            ImportRequest {
                private_key: Some(secret(&text)),
                ..from("ed")
            },
            Kind::InvalidArgument,
        ),
        (ImportRequest::default(), Kind::InvalidArgument),
        (
            ImportRequest {
                public_key: Some(other),
                ..from("ed")
            },
            Kind::KeyMismatch,
        ),
        (
            ImportRequest {
                scope: Some("%host".into()),
                ..from("ed")
            },
            Kind::InvalidScope,
        ),
        (
            ImportRequest {
                comment: Some("a\nb".into()),
                ..from("ed")
            },
            Kind::UnsafeComment,
        ),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(wrong(request).await.unwrap_err().kind, kind, "{shown}");
    }
    assert_eq!(vault.all_keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_goes_with_its_last_scope() {
    let world = World::new();
    let vault = world.vault();
    let shared = vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap()
        .row
        .key_id;
    let own = vault
        .provision_key("orion", None, Some("own"), false)
        .await
        .unwrap()
        .row
        .key_id;
    assert_eq!(vault.copy_scope("orion", "lyra").await.unwrap(), 2);
    assert_eq!(vault.copy_scope("orion", "lyra").await.unwrap(), 0);
    assert_eq!(
        vault.copy_scope("orion", "%x").await.unwrap_err().kind,
        Kind::InvalidScope
    );

    let removed = vault.remove_key(own, Some("orion")).await.unwrap();
    assert_eq!(
        (removed.unassigned, removed.deleted),
        (vec!["orion".into()], false)
    );
    let removed = vault.remove_key(own, Some("orion")).await.unwrap();
    assert_eq!((removed.unassigned, removed.deleted), (vec![], false));
    let removed = vault.remove_key(own, None).await.unwrap();
    assert_eq!(
        (removed.unassigned, removed.deleted),
        (vec!["lyra".into()], true)
    );
    assert_eq!(
        vault.remove_key(own, None).await.unwrap_err().kind,
        Kind::KeyNotFound
    );

    assert_eq!(vault.unassign_all("orion").await.unwrap(), 1);
    assert_eq!(vault.key(shared).await.unwrap().scopes, ["lyra"]);
    assert_eq!(
        vault.unassign_all_or_later("lyra").await.unwrap(),
        Unassigned::Done(1)
    );
    assert!(vault.all_keys().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_scope_deleted_while_locked_has_no_keys_after_unlock() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    vault
        .provision_key("lyra", None, None, false)
        .await
        .unwrap();
    vault.lock(false, false).await.unwrap();
    assert_eq!(
        vault.unassign_all_or_later("orion").await.unwrap(),
        Unassigned::Later
    );
    let note = world.dir.path().join("state/vault-pending.json");
    assert!(note.exists());
    drop(vault);
    // The next daemon does it.
    let vault = world.vault();
    assert!(vault.keys("orion").await.unwrap().is_empty());
    assert_eq!(vault.all_keys().await.unwrap().len(), 1);
    assert!(!note.exists());
}

#[tokio::test]
async fn a_thousand_listings_cost_one_opening() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let mut events = vault.events();
    for _ in 0..1000 {
        assert_eq!(vault.all_keys().await.unwrap().len(), 1);
    }
    assert!(events.try_recv().is_err(), "it was not opened again");
}

/// Names the world of [`killed_at_any_moment_it_keeps_one_key_and_no_orphan`] to its child.
const CHILD: &str = "TEROK_VAULT_TEST_CHILD";

/// The child of the test below: rotates for ever. By itself it does nothing.
#[tokio::test]
async fn rotates_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let world = World::at(Path::new(&dir), "right");
    let vault = world.vault();
    loop {
        vault
            .provision_key("orion", None, None, true)
            .await
            .unwrap();
        // Straight to the pipe: the test runner captures what is printed.
        std::io::Write::write_all(&mut std::io::stderr(), b".").unwrap();
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_keeps_one_key_and_no_orphan() {
    let world = World::new();
    world.configure("right");
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    vault.shutdown().await;
    let mut seen = std::collections::BTreeSet::new();
    for turn in 0..8_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keys::rotates_until_it_is_killed", "--nocapture"])
            .env(CHILD, world.dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let mut rotations = vec![0; 3 + turn as usize];
        std::io::Read::read_exact(&mut pipe, &mut rotations).unwrap();
        // Somewhere inside the next rotation.
        for _ in 0..turn * 20_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let vault = world.vault();
        let keys = vault.all_keys().await.unwrap();
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!(keys[0].scopes, ["orion"]);
        seen.insert(keys[0].fingerprint.clone());
        vault.shutdown().await;
    }
    assert_eq!(seen.len(), 8, "each child rotated");
}
