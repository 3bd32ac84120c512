//! Nothing secret gets out: everything is logged at the lowest level while the vault is used, then logs, errors, debug
//! output and files are searched. A binary of its own, because the logger is the process's.

use std::path::Path;
use std::sync::{Arc, Mutex};
use terok_proto::Fault;
use terok_proto::vault::{PassphraseSource, Secret};
use terok_vault::{ConfigFile, ConfigKey, ConfigValue, ImportRequest, SessionBus, Settings, Vault};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Nowhere;

impl ConfigFile for Nowhere {
    fn set(&self, _: ConfigKey, _: Option<ConfigValue>) -> Result<std::path::PathBuf, Fault> {
        Ok("config.yml".into())
    }
}

fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let kind = path.symlink_metadata().expect("its kind").file_type();
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_gets_out() {
    const PASSPHRASE: &str = "correct horse'battery";
    const WRONG: &str = "incorrect horse";
    const KEY_PASSPHRASE: &str = "of the key itself";
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    tracing::trace!("the lowest level");

    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let mut settings = Settings::new(at("vault"), at("run"), at("state"));
    settings.session_bus = SessionBus::Disabled;
    settings.systemd_creds = at("none");
    let vault = Vault::new(settings.clone(), Arc::new(Nowhere), || false);
    let mut said = Vec::new();

    // A key whose private half is known.
    let key =
        ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519)
            .expect("a key");
    let seed = key
        .key_data()
        .ed25519()
        .expect("its half")
        .private
        .to_bytes();
    let locked = key
        .encrypt(&mut ssh_key::rand_core::OsRng, KEY_PASSPHRASE)
        .expect("encrypted");
    let text = locked
        .to_openssh(ssh_key::LineEnding::LF)
        .expect("text")
        .to_string();

    vault
        .provision(
            Some(PassphraseSource::SessionFile),
            Some(Secret::new(PASSPHRASE.into())),
        )
        .await
        .expect("a vault");
    let request = ImportRequest {
        private_key: Some(Secret::new(text.clone())),
        passphrase: Some(Secret::new(KEY_PASSPHRASE.into())),
        scope: Some("orion".into()),
        ..ImportRequest::default()
    };
    said.push(format!("{request:?}"));
    vault.import_key(request).await.expect("imported");
    vault.host_agent("orion").await.expect("an agent");
    said.push(format!("{vault:?} {:?} {settings:?}", vault.status().await));
    vault.lock(false, false).await.expect("locked");
    let fault = vault
        .unlock(Some(Secret::new(WRONG.into())))
        .await
        .expect_err("wrong");
    said.push(format!("{fault:?}"));
    settings.config_passphrase = Some(Secret::new(WRONG.into()));
    settings.passphrase_command = Some(Secret::new(format!("echo '{WRONG}'")));
    said.push(format!("{settings:?}"));
    let other = Vault::new(settings, Arc::new(Nowhere), || false);
    said.push(format!("{:?}", other.all_keys().await.expect_err("wrong")));
    vault
        .unlock(Some(Secret::new(PASSPHRASE.into())))
        .await
        .expect("open");

    let log = log.0.lock().expect("the log").clone();
    assert!(
        holds(&log, b"TRACE") || holds(&log, b"DEBUG"),
        "something was logged"
    );
    let said = said.join("\n").into_bytes();
    let mut found = vec![
        ("the log".to_owned(), log),
        ("what was said".to_owned(), said),
    ];
    files(dir.path(), &mut found);
    assert!(
        found
            .iter()
            .any(|(name, _)| name.ends_with("credentials.db-wal"))
    );
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, bytes) in &found {
        assert!(!holds(bytes, &seed), "the private key is in {name}");
        assert!(
            !holds(bytes, hex.as_bytes()),
            "the private key is in {name}"
        );
        assert!(
            !holds(bytes, &text.as_bytes()[60..90]),
            "the key file is in {name}"
        );
        for secret in [WRONG, KEY_PASSPHRASE, "horse'battery", "horse''battery"] {
            let kept = name.ends_with("vault.passphrase") && secret == "horse'battery";
            assert!(
                kept || !holds(bytes, secret.as_bytes()),
                "`{secret}` is in {name}"
            );
        }
    }
    vault.shutdown().await;
}
