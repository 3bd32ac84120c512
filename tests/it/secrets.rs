//! What must not get out: passphrases and private keys are looked for in everything that a daemon leaves behind.

use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use terok_tests::World;
use terok_tests::programs::{account, need};

const VAULT_PASSPHRASE: &str = "correct-horse-of-the-vault";
const WRONG_PASSPHRASE: &str = "wrong-horse-of-somebody";
const KEY_PASSPHRASE: &str = "battery-staple-of-the-key";

/// Secrets in every form in which they could be written somewhere.
struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    fn assert_absent(&self, place: &str, bytes: &[u8]) {
        for (name, needle) in &self.0 {
            let found = bytes
                .windows(needle.len())
                .any(|window| window == &needle[..]);
            assert!(!found, "{name} is in {place}");
        }
    }

    /// Every file below a directory but those that the vault's design names.
    fn assert_absent_below(&self, dir: &Path, allowed: &[&str]) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a type");
            let is_allowed = allowed.iter().any(|name| path.ends_with(name));
            if kind.is_dir() {
                self.assert_absent_below(&path, allowed);
            } else if kind.is_file() && !is_allowed {
                let bytes = std::fs::read(&path).expect("a file");
                self.assert_absent(&path.display().to_string(), &bytes);
            }
        }
    }
}

fn base64_decode(text: &str) -> Vec<u8> {
    let mut child = Command::new("base64")
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("base64 reads");
    drop(input);
    child.wait_with_output().expect("base64").stdout
}

/// The 32 secret bytes of an unencrypted OpenSSH key: they stand before the last copy of the public ones.
fn seed(private: &str, public: &str) -> Vec<u8> {
    let body: String = private
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let blob = base64_decode(&body);
    let public = base64_decode(public.split_whitespace().nth(1).expect("a key"));
    let public = &public[public.len() - 32..];
    let at = blob
        .windows(32)
        .rposition(|window| window == public)
        .expect("the public half");
    blob[at - 32..at].to_vec()
}

#[test]
fn no_secret_is_in_any_log_event_file_or_environment() {
    let Some(keygen) = need("ssh-keygen") else {
        return;
    };
    let world = World::with_project("orion");
    let keys = tempfile::tempdir().expect("a directory of the test's own");
    let make = |name: &str, passphrase: &str| {
        let path = keys.path().join(name);
        let made = Command::new(&keygen)
            .args(["-q", "-t", "ed25519", "-C", "test", "-N", passphrase, "-f"])
            .arg(&path)
            .status()
            .expect("ssh-keygen");
        assert!(made.success());
        let read = |path: &Path| std::fs::read_to_string(path).expect("a key");
        (read(&path), read(&path.with_extension("pub")))
    };
    let (plain, plain_public) = make("plain", "");
    let (sealed, _) = make("sealed", KEY_PASSPHRASE);

    let seed = seed(&plain, &plain_public);
    let mut needles = vec![
        ("the vault's passphrase".to_owned(), VAULT_PASSPHRASE.into()),
        ("a wrong passphrase".to_owned(), WRONG_PASSPHRASE.into()),
        ("the key's passphrase".to_owned(), KEY_PASSPHRASE.into()),
        ("the key's secret half".to_owned(), seed.clone()),
        (
            "the key's secret half in hex".to_owned(),
            seed.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
        ),
    ];
    for (name, text) in [("the plain key", &plain), ("the sealed key", &sealed)] {
        // The first line of both begins with what every key begins with.
        let lines = text.lines().filter(|line| !line.starts_with('-')).skip(1);
        needles.extend(
            lines
                .filter(|line| line.len() > 20)
                .map(|line| (name.to_owned(), line.into())),
        );
    }
    let needles = Needles(needles);

    let daemon = world.start_with(|command| {
        command.args(["--log", "trace"]);
    });
    let mut events = daemon.events(json!({}));
    let mut heard: Vec<Value> = Vec::new();
    daemon.ok(
        "vault.provision",
        json!({"tier": "session-file", "passphrase": VAULT_PASSPHRASE}),
    );
    let imported = daemon.ok(
        "vault.import_ssh_key",
        json!({"private_key": plain, "project_id": "orion", "request_id": "once"}),
    );
    daemon.ok(
        "vault.import_ssh_key",
        json!({"private_key": sealed, "passphrase": KEY_PASSPHRASE}),
    );
    let refused = daemon.fails(
        "vault.import_ssh_key",
        json!({"private_key": sealed, "passphrase": WRONG_PASSPHRASE}),
        "key_password_protected",
    );
    needles.assert_absent("an error", format!("{refused:?}").as_bytes());
    let refused = daemon.fails(
        "vault.unlock",
        json!({"passphrase": [VAULT_PASSPHRASE]}),
        "invalid_params",
    );
    needles.assert_absent(
        "an error about parameters",
        format!("{refused:?}").as_bytes(),
    );
    daemon.ok("vault.lock", json!({}));
    let refused = daemon.fails(
        "vault.unlock",
        json!({"passphrase": WRONG_PASSPHRASE}),
        "vault_wrong_passphrase",
    );
    needles.assert_absent("an error", format!("{refused:?}").as_bytes());
    daemon.ok("vault.unlock", json!({"passphrase": VAULT_PASSPHRASE}));
    let locked = daemon.proc_status("VmLck").unwrap_or_default();
    assert!(locked > 0, "the database's key could be swapped out");
    daemon.ok("project.provision_ssh_key", json!({"project_id": "orion"}));
    let listed = daemon.ok("vault.list_ssh_keys", json!({}));
    assert!(
        listed.as_array().is_some_and(|rows| rows.len() >= 2),
        "{listed}"
    );
    assert_eq!(imported["key_id"], 1);

    events.until(|event| {
        heard.push(event.clone());
        event["kind"] == "vault.key_minted"
    });
    needles.assert_absent("an event", json!(heard).to_string().as_bytes());
    for file in ["environ", "cmdline"] {
        let bytes = std::fs::read(format!("/proc/{}/{file}", daemon.pid())).expect("proc");
        needles.assert_absent(file, &bytes);
    }
    needles.assert_absent("the log", daemon.log().as_bytes());
    // The session file is where the user asked it to be kept.
    needles.assert_absent_below(world.dir(), &["vault.passphrase"]);
    // A process that may not be dumped belongs to root in /proc.
    if account().is_some() {
        let owner = std::fs::metadata(format!("/proc/{}/environ", daemon.pid()))
            .expect("proc")
            .uid();
        assert_eq!(owner, 0, "the daemon can be dumped");
    }
}
