//! What the vault is told from outside, and what it may change there.

use std::path::PathBuf;
use terok_proto::Fault;
use terok_proto::vault::Secret;

/// Where the vault lives and which passphrase tiers are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of `credentials.db` and its companions.
    pub vault_dir: PathBuf,
    /// Runtime directory of the session passphrase and of `host/`; emptied by a reboot.
    pub runtime_dir: PathBuf,
    /// The daemon's own state, for what must be done once the vault opens.
    pub state_dir: PathBuf,
    /// `credentials.use_keyring`.
    pub use_keyring: bool,
    /// `credentials.passphrase_command`.
    pub passphrase_command: Option<Secret>,
    /// `credentials.passphrase`.
    pub config_passphrase: Option<Secret>,
    /// The file of highest priority that sets `credentials.passphrase`.
    pub plaintext_passphrase_path: Option<PathBuf>,
    /// Where the Secret Service is asked for.
    pub session_bus: SessionBus,
    /// The program `systemd-creds`: a name to be found on the path, or a path.
    pub systemd_creds: PathBuf,
    /// The socket without which `systemd-creds --user` cannot work.
    pub systemd_creds_socket: PathBuf,
}

impl Settings {
    /// Settings of a machine where nothing is configured.
    pub fn new(
        vault_dir: impl Into<PathBuf>,
        runtime_dir: impl Into<PathBuf>,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            vault_dir: vault_dir.into(),
            runtime_dir: runtime_dir.into(),
            state_dir: state_dir.into(),
            use_keyring: false,
            passphrase_command: None,
            config_passphrase: None,
            plaintext_passphrase_path: None,
            session_bus: SessionBus::Environment,
            systemd_creds: "systemd-creds".into(),
            systemd_creds_socket: "/run/systemd/io.systemd.Credentials".into(),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.vault_dir.join("credentials.db")
    }

    pub(crate) fn routes(&self) -> PathBuf {
        self.vault_dir.join("routes.json")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.vault_dir.join("credential_audit.jsonl")
    }

    pub(crate) fn sealed(&self) -> PathBuf {
        self.vault_dir.join("vault.passphrase.cred")
    }

    pub(crate) fn recovery_marker(&self) -> PathBuf {
        self.vault_dir.join("vault.recovery_acknowledged")
    }

    pub(crate) fn session_file(&self) -> PathBuf {
        self.runtime_dir.join("vault.passphrase")
    }

    pub(crate) fn host_dir(&self) -> PathBuf {
        self.runtime_dir.join("host")
    }

    pub(crate) fn pending_file(&self) -> PathBuf {
        self.state_dir.join("vault-pending.json")
    }

    /// What to say of the directory in which releases before 0.8 kept the vault, if it is there and the one of today is
    /// not. Nothing is moved by itself: it may be somebody else's.
    pub(crate) fn leftover_warning(&self) -> Option<String> {
        let (today, before) = (
            &self.vault_dir,
            self.vault_dir.with_file_name("credentials"),
        );
        let is_left = today.ends_with("vault") && before.is_dir();
        (is_left && today.symlink_metadata().is_err()).then(|| {
            terok_proto::error::printable_line(&format!(
                "`{}` is left of a release before 0.8 and is not used, and there is no `{}`: rename it to that if it \
                 holds your vault, or remove it",
                before.display(),
                today.display()
            ))
        })
    }
}

/// The D-Bus connection on which a Secret Service is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SessionBus {
    /// The one of the process environment.
    #[default]
    Environment,
    /// The one at this address.
    Address(String),
    /// None: there is no keyring.
    Disabled,
}

/// A key of `config.yml` that the vault writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigKey {
    /// `credentials.passphrase`
    Passphrase,
    /// `credentials.use_keyring`
    UseKeyring,
    /// `credentials.passphrase_command`
    PassphraseCommand,
}

impl ConfigKey {
    /// The path of the key.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Passphrase => "credentials.passphrase",
            Self::UseKeyring => "credentials.use_keyring",
            Self::PassphraseCommand => "credentials.passphrase_command",
        }
    }
}

/// A value for a [`ConfigKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    /// Text that nobody may see.
    Text(Secret),
    /// Yes or no.
    Flag(bool),
}

/// The user's writable `config.yml`.
pub trait ConfigFile: Send + Sync + 'static {
    /// Sets a key, or removes it, and answers the file that was changed. May block. The file has mode 0600 if it holds
    /// a passphrase afterwards.
    ///
    /// # Errors
    /// The file cannot be written, or its text cannot be edited safely.
    fn set(&self, key: ConfigKey, value: Option<ConfigValue>) -> Result<PathBuf, Fault>;
}
