//! A machine of a test's own: directories, a configuration file that only remembers, a panic switch.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use terok_proto::Fault;
use terok_proto::vault::{Secret, VaultStatus};
use terok_vault::{ConfigFile, ConfigKey, ConfigValue, SessionBus, Settings, Vault};

pub(crate) struct World {
    pub(crate) dir: Dir,
    pub(crate) config: Arc<Remembered>,
    pub(crate) panicked: Arc<AtomicBool>,
}

/// A directory that goes with us, or that of somebody else.
pub(crate) enum Dir {
    Ours(TempDir),
    Theirs(PathBuf),
}

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Ours(dir) => dir.path(),
            Self::Theirs(dir) => dir,
        }
    }
}

#[derive(Default)]
pub(crate) struct Remembered {
    values: Mutex<HashMap<&'static str, ConfigValue>>,
    pub(crate) path: Mutex<PathBuf>,
}

impl ConfigFile for Remembered {
    fn set(&self, key: ConfigKey, value: Option<ConfigValue>) -> Result<PathBuf, Fault> {
        let mut values = self.values.lock().unwrap();
        match value {
            Some(value) => values.insert(key.path(), value),
            None => values.remove(key.path()),
        };
        Ok(self.path.lock().unwrap().clone())
    }
}

impl Remembered {
    pub(crate) fn get(&self, key: ConfigKey) -> Option<ConfigValue> {
        self.values.lock().unwrap().get(key.path()).cloned()
    }

    pub(crate) fn passphrase(&self) -> Option<Secret> {
        match self.get(ConfigKey::Passphrase) {
            Some(ConfigValue::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vault").tempdir().unwrap();
        let config = Arc::new(Remembered::default());
        *config.path.lock().unwrap() = dir.path().join("config.yml");
        Self {
            dir: Dir::Ours(dir),
            config,
            panicked: Arc::default(),
        }
    }

    /// The world of another process, with that passphrase in its configuration.
    pub(crate) fn at(dir: &Path, passphrase: &str) -> Self {
        let world = Self {
            dir: Dir::Theirs(dir.to_owned()),
            config: Arc::default(),
            panicked: Arc::default(),
        };
        world.configure(passphrase);
        world
    }

    /// Settings of a machine without keyring and systemd-creds, whatever this one has.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(
            self.dir.path().join("vault"),
            self.dir.path().join("run"),
            self.dir.path().join("state"),
        );
        settings.session_bus = SessionBus::Disabled;
        settings.systemd_creds = self.dir.path().join("no-systemd-creds");
        settings.systemd_creds_socket = self.dir.path().join("no-socket");
        settings
    }

    /// Puts a passphrase into the configuration, as its user would.
    pub(crate) fn configure(&self, passphrase: &str) {
        let value = ConfigValue::Text(secret(passphrase));
        self.config.set(ConfigKey::Passphrase, Some(value)).unwrap();
    }

    /// The same after a restart of the daemon: what was written into the configuration is read from it.
    pub(crate) fn settings_now(&self) -> Settings {
        let mut settings = self.settings();
        settings.config_passphrase = self.config.passphrase();
        settings.use_keyring =
            self.config.get(ConfigKey::UseKeyring) == Some(ConfigValue::Flag(true));
        settings
    }

    pub(crate) fn vault(&self) -> Vault {
        self.vault_with(self.settings_now())
    }

    pub(crate) fn vault_with(&self, settings: Settings) -> Vault {
        let panicked = Arc::clone(&self.panicked);
        Vault::new(
            settings,
            Arc::clone(&self.config) as Arc<dyn ConfigFile>,
            move || panicked.load(Ordering::SeqCst),
        )
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("vault/credentials.db")
    }

    pub(crate) fn session_file(&self) -> PathBuf {
        self.dir.path().join("run/vault.passphrase")
    }
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// Where the vault stands once it has opened or failed to: a status alone gives up on slow tiers.
pub(crate) async fn settled(vault: &Vault) -> VaultStatus {
    drop(vault.all_keys().await);
    vault.status().await
}
