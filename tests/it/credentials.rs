//! The vault's passphrase sealed by a real `systemd-creds`, of this machine or of another Debian.

use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use terok_tests::private::in_another_debian;
use terok_tests::programs::{account, find, skip, terokctl, terokd};
use terok_tests::{Daemon, World};

const NAME: &str = "terok-sandbox.vault-passphrase";

/// Whether this machine seals for ordinary users; what the vault itself demands.
fn usable() -> bool {
    use std::os::unix::fs::FileTypeExt;
    let socket = std::fs::metadata("/run/systemd/io.systemd.Credentials");
    let Some(program) = find("systemd-creds") else {
        return false;
    };
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = text.split_whitespace().nth(1).unwrap_or_default();
    let release: String = release.chars().take_while(char::is_ascii_digit).collect();
    socket.is_ok_and(|meta| meta.file_type().is_socket())
        && release.parse().is_ok_and(|release: u32| release >= 257)
}

/// Runs everything here where it can be; else in another Debian, by an ordinary user and by root.
#[test]
fn a_real_systemd_seals_the_passphrase() {
    if usable() {
        return real::whole_life();
    }
    let Some(root) = std::env::var_os("TEROK_TEST_SYSTEMD_ROOT") else {
        return skip(
            "systemd-creds 257",
            "this machine's own is older or not served, and TEROK_TEST_SYSTEMD_ROOT names no directory with a Debian that has it",
        );
    };
    let root = root.to_str().expect("a printable path");
    let itself = std::env::current_exe().unwrap();
    let files = [
        ("it", itself),
        ("terokd", terokd()),
        ("terokctl", terokctl()),
    ];
    let arguments = ["credentials::real::", "--ignored"];
    for options in [&[root][..], &["--rootful", root]] {
        in_another_debian(&files, options, &arguments);
    }
}

/// A world whose daemon keeps out of the machine's own places even if root runs it.
fn world() -> World {
    let world = World::with_project("alpha");
    let root = world.path("$HOME/root").to_str().unwrap().to_owned();
    if account().is_none() {
        world.env("TEROK_ROOT", &root)
    } else {
        world
    }
}

/// Where a daemon keeps the sealed passphrase.
fn place(status: &Value) -> PathBuf {
    let database = Path::new(status["db_path"].as_str().unwrap());
    database.with_file_name("vault.passphrase.cred")
}

/// A passphrase as the world's account seals it.
fn seal(world: &World, name: &str, passphrase: &str) -> Vec<u8> {
    let mut command = world.command(&find("systemd-creds").unwrap());
    let mut child = command
        .args(["encrypt", "--user", &format!("--name={name}"), "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, passphrase.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The sealed file in clear, as terok would see it.
fn unseal(world: &World, file: &Path) -> String {
    let mut command = world.command(&find("systemd-creds").unwrap());
    let name = format!("--name={NAME}");
    let output = command
        .args(["decrypt", "--user", &name])
        .arg(file)
        .arg("-");
    String::from_utf8(output.output().unwrap().stdout).unwrap()
}

fn tier_broken(daemon: &Daemon) {
    let fault = daemon.fails("vault.list_ssh_keys", json!({}), "vault_tier_failed");
    assert!(format!("{fault:?}").contains("systemd-creds"), "{fault:?}");
    let status = daemon.ok("vault.status", json!({}));
    assert_eq!(status["state"], "tier_broken", "{status}");
}

mod real {
    use super::*;

    #[test]
    #[ignore = "for another Debian, or where this machine can do it: see above"]
    fn in_its_place() {
        assert!(usable());
        whole_life();
    }

    pub(super) fn whole_life() {
        chosen_by_itself();
        what_does_not_open_is_told();
        keys();
    }

    /// A fresh machine: sealed without a question, and open again after a restart.
    fn chosen_by_itself() {
        let world = world();
        let daemon = world.start();
        let mint = json!({"project_id": "alpha"});
        let key = daemon.ok("project.provision_ssh_key", mint);
        let status = daemon.ok("vault.status", json!({}));
        assert_eq!(status["passphrase_source"], "systemd-creds", "{status}");
        assert_eq!(status["plaintext_passphrase_path"], Value::Null);
        let sealed = place(&status);
        let meta = std::fs::metadata(&sealed).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o600);
        let passphrase = unseal(&world, &sealed);
        assert_eq!(passphrase.len(), 43);
        drop(daemon);
        let daemon = world.start();
        let status = daemon.ok("vault.status", json!({}));
        assert_eq!(status["state"], "unlocked", "{status}");
        assert_eq!(status["passphrase_source"], "systemd-creds", "{status}");
        let keys = daemon.ok("vault.list_ssh_keys", json!({}));
        assert_eq!(keys[0]["fingerprint"], key["fingerprint"], "{keys}");
        let left = daemon.ok("vault.lock", json!({}));
        assert_eq!(left["remaining_tiers"], json!(["systemd-creds"]));
        assert_eq!(daemon.ok("vault.unlock", json!({}))["state"], "unlocked");
        assert!(!daemon.log().contains(&passphrase));
        daemon.ok("vault.lock", json!({"forget": true, "confirm": true}));
        assert!(!sealed.exists());
    }

    /// Fails closed with the tier's name, whatever is in the file's place, and opens once it is the right one again.
    fn what_does_not_open_is_told() {
        let world = world();
        let daemon = world.start();
        let chosen = json!({"tier": "systemd-creds", "passphrase": "o'Brien's Schlüssel"});
        let status = daemon.ok("vault.provision", chosen);
        assert_eq!(status["passphrase_source"], "systemd-creds", "{status}");
        let sealed = place(&status);
        let good = std::fs::read(&sealed).unwrap();
        let put = |bytes: &[u8]| {
            std::fs::write(&sealed, bytes).unwrap();
            world.own(&sealed);
        };
        let mut flipped = good.clone();
        let middle = good.len() / 2;
        flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
        let mut bad = vec![
            Vec::new(),
            b"no credential\n".to_vec(),
            good[..60].to_vec(),
            flipped,
            seal(&world, "another-name", "o'Brien's Schlüssel"),
        ];
        if account().is_some() {
            // Sealed for another user: root, who runs this.
            let mut command = Command::new("sh");
            let line = format!("printf x | systemd-creds encrypt --user --name={NAME} - -");
            let output = command.args(["-c", &line]).output().unwrap();
            assert!(output.status.success());
            bad.push(output.stdout);
        }
        drop(daemon);
        for bytes in bad {
            put(&bytes);
            let daemon = world.start();
            tier_broken(&daemon);
            put(&good);
            daemon.ok("vault.list_ssh_keys", json!({}));
        }
        std::fs::remove_file(&sealed).unwrap();
        symlink("/nonexistent", &sealed).unwrap();
        let daemon = world.start();
        tier_broken(&daemon);
        std::fs::remove_file(&sealed).unwrap();
        // One that opens, with something else in it.
        put(&seal(&world, NAME, "another passphrase"));
        let fault = daemon.fails("vault.list_ssh_keys", json!({}), "vault_wrong_passphrase");
        assert!(format!("{fault:?}").contains("systemd-creds"), "{fault:?}");
        // Who has the passphrase gets in, and seals it anew.
        let right = json!({"passphrase": "o'Brien's Schlüssel"});
        daemon.ok("vault.unlock", right);
        daemon.ok("vault.seal", json!({}));
        assert_eq!(unseal(&world, &sealed), "o'Brien's Schlüssel");
        daemon.ok("vault.lock", json!({}));
        let status = daemon.ok("vault.unlock", json!({}));
        assert_eq!(status["passphrase_source"], "systemd-creds", "{status}");
    }

    /// Each key does what its name says or is refused, and then what was sealed stays.
    fn keys() {
        let world = world();
        let daemon = world.start();
        let sealed = place(&daemon.ok("vault.provision", json!({"tier": "systemd-creds"})));
        let passphrase = unseal(&world, &sealed);
        daemon.ok("vault.seal", json!({"key": "auto"}));
        daemon.fails("vault.seal", json!({"key": "tpm2"}), "invalid_argument");
        let before = std::fs::read(&sealed).unwrap();
        let fault = daemon.fails("vault.seal", json!({"key": "tpm"}), "vault_tier_failed");
        assert!(format!("{fault:?}").contains("tpm+host"), "{fault:?}");
        assert_eq!(std::fs::read(&sealed).unwrap(), before);
        // The machine's key, which a credential of a user begins to tell of with these letters.
        let machine = "VbntHThZTUOoMZ0uuzMqx";
        if !before.starts_with(machine.as_bytes()) {
            daemon.ok("vault.seal", json!({"key": "tpm+host"}));
        } else {
            let both = json!({"key": "tpm+host"});
            let fault = daemon.fails("vault.seal", both, "vault_tier_failed");
            assert!(format!("{fault:?}").contains("TPM"), "{fault:?}");
            assert_eq!(std::fs::read(&sealed).unwrap(), before);
            daemon.ok("vault.seal", json!({"key": "host"}));
            let now = std::fs::read(&sealed).unwrap();
            assert!(now != before && now.starts_with(machine.as_bytes()));
        }
        assert_eq!(unseal(&world, &sealed), passphrase);
        drop(daemon);
        assert_eq!(
            world.start().ok("vault.status", json!({}))["state"],
            "unlocked"
        );
    }
}
