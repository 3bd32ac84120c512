//! The host's agent, byte by byte and with OpenSSH's own client.

use crate::programs::need;
use crate::world::World;
use ssh_agent_lib::proto::Response;
use ssh_agent_lib::ssh_encoding::Decode;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use terok_proto::Kind;
use terok_vault::VaultEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const FAILURE: &[u8] = &[5];

/// Sends one message and answers what comes back; `None`: the connection was closed.
async fn exchange(stream: &mut UnixStream, message: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await.ok()?;
    stream.write_all(message).await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

/// Comments and blobs that the agent at that socket offers.
pub(crate) async fn identities(socket: &Path) -> Vec<(String, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let answer = exchange(&mut stream, &[11]).await.unwrap();
    match Response::decode(&mut &answer[..]).unwrap() {
        Response::IdentitiesAnswer(list) => list
            .into_iter()
            .map(|one| {
                let key = ssh_key::PublicKey::new(one.credential.key_data().clone(), "");
                (one.comment, key.to_bytes().unwrap())
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn sign_request(blob: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
    [&[13][..], &text(blob), &text(data), &flags.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_conversation_byte_by_byte() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, Some("side"), false)
        .await
        .unwrap();
    let main = vault
        .provision_key("orion", Some("rsa"), Some("tk-main:late"), false)
        .await
        .unwrap()
        .row;
    vault
        .provision_key("lyra", None, None, false)
        .await
        .unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    assert_eq!(socket, world.dir.path().join("run/host/agent-orion.sock"));
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(
        (mode(&socket), mode(socket.parent().unwrap())),
        (0o600, 0o700)
    );

    let offered = identities(&socket).await;
    let comments: Vec<&str> = offered
        .iter()
        .map(|(comment, _)| comment.as_str())
        .collect();
    assert_eq!(comments, ["tk-main:late", "side"], "main keys come first");
    let foreign = identities(&vault.host_agent("lyra").await.unwrap())
        .await
        .remove(0)
        .1;

    let mut events = vault.events();
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    // Everything but listing and signing is refused, and the connection stays.
    let extension = [&[27][..], &text(b"session-bind@openssh.com")].concat();
    for message in [
        &[19][..],
        &[22, 0, 0, 0, 0],
        &[200],
        &[17, 1, 2],
        &[13],
        &[13, 0, 0, 0, 9, 1],
        &extension,
    ] {
        assert_eq!(
            exchange(&mut stream, message).await.as_deref(),
            Some(FAILURE),
            "{message:?}"
        );
    }
    // A key of another scope cannot be used here, nor something after a good request.
    let request = sign_request(&foreign, b"data", 0);
    assert_eq!(
        exchange(&mut stream, &request).await.as_deref(),
        Some(FAILURE)
    );
    let (rsa, ed) = (&offered[0].1, &offered[1].1);
    let long = [&sign_request(ed, b"data", 0)[..], b"x"].concat();
    assert_eq!(exchange(&mut stream, &long).await.as_deref(), Some(FAILURE));

    for (blob, flags, algorithm) in [
        (ed, 0, "ssh-ed25519"),
        (rsa, 0, "rsa-sha2-256"),
        (rsa, 2, "rsa-sha2-256"),
        (rsa, 4, "rsa-sha2-512"),
        (rsa, 6, "rsa-sha2-512"),
        (rsa, 64, "rsa-sha2-256"),
    ] {
        let answer = exchange(&mut stream, &sign_request(blob, b"data", flags))
            .await
            .unwrap();
        let Response::SignResponse(signature) = Response::decode(&mut &answer[..]).unwrap() else {
            panic!("{answer:?}");
        };
        assert_eq!(signature.algorithm().as_str(), algorithm, "{flags}");
        let public = ssh_key::PublicKey::from_bytes(blob).unwrap();
        rsa::signature::Verifier::verify(public.key_data(), b"data", &signature).unwrap();
        let expected = events.recv().await.unwrap();
        assert!(matches!(expected, VaultEvent::Signed { scope, .. } if scope == "orion"));
    }

    // Lengths that are no messages end it.
    for length in [0, 262_145, u32::MAX] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "{length}");
    }
    // The longest message is read whole.
    let mut longest = vec![200; 262_144];
    longest[0] = 200;
    assert_eq!(
        exchange(&mut stream, &longest).await.as_deref(),
        Some(FAILURE)
    );

    let log =
        std::fs::read_to_string(world.dir.path().join("vault/credential_audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let signed: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] == "ssh_sign")
        .collect();
    assert_eq!(
        signed.iter().filter(|line| line["outcome"] == "ok").count(),
        6
    );
    assert_eq!(
        signed
            .iter()
            .filter(|line| line["outcome"] == "credential_missing")
            .count(),
        1
    );
    assert_eq!(signed.last().unwrap()["path"], main.fingerprint);
    assert_eq!(signed[0]["scope"], "orion");
    assert!(signed[0]["ts"].as_str().unwrap().ends_with("+00:00"));
    assert_eq!(lines[0]["kind"], "unlock");
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_uses_it() {
    let Some(ssh_add) = need("ssh-add") else {
        return;
    };
    let Some(ssh_keygen) = need("ssh-keygen") else {
        return;
    };
    let world = World::new();
    let vault = world.vault();
    for key_type in ["ed25519", "rsa"] {
        let key = vault
            .provision_key(key_type, Some(key_type), None, false)
            .await
            .unwrap()
            .row;
        let socket = vault.host_agent(key_type).await.unwrap();
        let public = world.dir.path().join(format!("{key_type}.pub"));
        std::fs::write(&public, format!("{}\n", key.public_line)).unwrap();
        let (ssh_add, ssh_keygen) = (ssh_add.clone(), ssh_keygen.clone());
        let dir = world.dir.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let run = |command: &mut Command| {
                let output = command.env("SSH_AUTH_SOCK", &socket).output().unwrap();
                (
                    output.status.success(),
                    String::from_utf8_lossy(&output.stdout).into_owned(),
                )
            };
            let (ok, listed) = run(Command::new(&ssh_add).arg("-l"));
            assert!(ok && listed.contains(&key.fingerprint), "{listed}");
            // Signs and verifies.
            assert!(run(Command::new(&ssh_add).arg("-T").arg(&public)).0);
            assert!(
                !run(Command::new(&ssh_add).arg("-D")).0,
                "nothing can be removed"
            );
            let data = dir.join("data");
            std::fs::write(&data, "text").unwrap();
            let signed = run(Command::new(&ssh_keygen)
                .args(["-Y", "sign", "-n", "test", "-f"])
                .arg(&public)
                .arg(&data));
            assert!(signed.0);
            let output = Command::new(&ssh_keygen)
                .args(["-Y", "check-novalidate", "-n", "test", "-s"])
                .arg(dir.join("data.sig"))
                .stdin(std::fs::File::open(&data).unwrap())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            std::fs::remove_file(dir.join("data.sig")).unwrap();
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn without_a_usable_key_it_says_why() {
    let world = World::new();
    let vault = world.vault();
    let fault = vault.host_agent("orion").await.unwrap_err();
    assert_eq!(fault.kind, Kind::GateAuthNotConfigured);
    assert_eq!(
        (&fault.data["scope"], &fault.data["reason"]),
        (&"orion".into(), &"no_key".into())
    );
    assert!(
        fault.data["hint"]
            .as_str()
            .unwrap()
            .contains("ssh-init orion")
    );
    assert!(
        fault.data["hint"]
            .as_str()
            .unwrap()
            .contains("ssh.use_personal")
    );
    assert!(!world.database().exists());

    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    assert_eq!(vault.host_agent("orion").await.unwrap(), socket);
    let inode = socket.metadata().unwrap().ino();
    let mut client = UnixStream::connect(&socket).await.unwrap();
    assert!(exchange(&mut client, &[11]).await.is_some());
    assert_eq!(socket.metadata().unwrap().ino(), inode, "bound once");

    vault.lock(false, false).await.unwrap();
    assert!(!socket.exists());
    assert_eq!(
        exchange(&mut client, &[11]).await,
        None,
        "open connections end too"
    );
    let fault = vault.host_agent("orion").await.unwrap_err();
    assert_eq!(
        (fault.kind, &fault.data["reason"]),
        (Kind::GateAuthNotConfigured, &"vault_locked".into())
    );
    assert!(fault.data["hint"].as_str().unwrap().contains("unlock"));

    vault.unlock(None).await.unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    // Somebody cleaned the runtime directory up.
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    assert_eq!(identities(&socket).await.len(), 1);
    vault.shutdown().await;
    assert!(!socket.exists());
}

/// A connection that is open sees a rotated key at once, and no longer the old one.
#[tokio::test]
async fn rotation_is_effective_at_once() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    let old = identities(&socket).await.remove(0).1;
    let mut client = UnixStream::connect(&socket).await.unwrap();
    let request = sign_request(&old, b"data", 0);
    assert_eq!(exchange(&mut client, &request).await.unwrap()[0], 14);
    vault
        .provision_key("orion", None, None, true)
        .await
        .unwrap();
    assert_eq!(
        exchange(&mut client, &request).await.as_deref(),
        Some(FAILURE)
    );
    let new = identities(&socket).await;
    assert!(new.len() == 1 && new[0].1 != old);
}
