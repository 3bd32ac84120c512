//! The vault: status, SSH keys, imports. No type here holds a secret, except what a client sends in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Text that a client sends in and nobody may see: it is not shown when debugged and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever really needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Where the vault stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    /// There is no database yet.
    Absent,
    /// No tier yields a passphrase.
    Locked,
    /// A tier yields a passphrase that does not open it.
    WrongPassphrase,
    /// A tier is there and fails.
    TierBroken,
    /// Usable.
    Unlocked,
    /// The database is not encrypted.
    Plaintext,
    /// The database is of a newer release.
    SchemaNewer,
    /// The kill switch is engaged.
    Panicked,
}

/// Where a passphrase comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PassphraseSource {
    /// A file in the runtime directory, gone after a reboot.
    SessionFile,
    /// Sealed with systemd-creds.
    SystemdCreds,
    /// The desktop's keyring.
    Keyring,
    /// Output of a command of the user's.
    PassphraseCommand,
    /// In clear text in `config.yml`.
    Config,
    /// Typed by the user.
    Prompt,
}

impl PassphraseSource {
    /// The label on the wire.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SessionFile => "session-file",
            Self::SystemdCreds => "systemd-creds",
            Self::Keyring => "keyring",
            Self::PassphraseCommand => "passphrase-command",
            Self::Config => "config",
            Self::Prompt => "prompt",
        }
    }
}

/// Whether the user could open the vault if its tiers were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VaultRecovery {
    /// The user said that the passphrase is written down.
    pub acknowledged: bool,
    /// The tier in use.
    pub source: Option<PassphraseSource>,
    /// Only the session file holds the passphrase.
    pub session_only: bool,
    /// A reboot would lose the vault.
    pub urgent: bool,
}

/// Answer of `vault.status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VaultStatus {
    /// Where it stands.
    pub state: VaultState,
    /// Whether a lost tier would lose it.
    pub recovery: VaultRecovery,
    /// How its listeners came to be.
    pub mode: crate::gate::ServerMode,
    /// It serves.
    pub running: bool,
    /// It serves and can be read.
    pub healthy: bool,
    /// Directory of the host's agent sockets; null while there are none.
    pub socket_path: Option<String>,
    /// The database.
    pub db_path: String,
    /// The routes of the API proxy.
    pub routes_path: String,
    /// Number of routes.
    pub routes_configured: u64,
    /// Providers with a credential in the set `default`; empty while locked.
    pub credentials_stored: Vec<String>,
    /// Kind of listener for containers.
    pub transport: Option<crate::gate::ServerTransport>,
    /// Number of SSH keys; null while locked.
    pub ssh_keys_stored: Option<u64>,
    /// Where the passphrase in use comes from.
    pub passphrase_source: Option<PassphraseSource>,
    /// Secrets cannot be used now.
    pub locked: bool,
    /// The file of highest priority that holds the passphrase in clear text.
    pub plaintext_passphrase_path: Option<String>,
    /// What the user should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it is not unlocked, if it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `vault.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockResult {
    /// Tiers that could still open it.
    pub remaining_tiers: Vec<PassphraseSource>,
}

/// The public half of a key in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SshKeyRow {
    /// Number in the vault.
    pub key_id: i64,
    /// `ed25519` or `rsa`.
    pub key_type: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// Comment.
    pub comment: String,
    /// The line for a forge's deploy-key page or `authorized_keys`.
    pub public_line: String,
    /// When it was stored, RFC 3339, UTC.
    pub created_at: String,
    /// Projects that may use it.
    pub scopes: Vec<String>,
}

/// Answer of `vault.import_ssh_key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportResult {
    /// Number in the vault.
    pub key_id: i64,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// Comment that is stored.
    pub comment: String,
    /// The vault had the key already.
    pub already_present: bool,
    /// The project had the key already.
    pub scope_was_assigned: bool,
}

/// Answer of `vault.remove_ssh_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedKey {
    /// Projects that no longer have it.
    pub unassigned: Vec<String>,
    /// The key itself is gone.
    pub deleted: bool,
}

/// Answer of `project.check_ssh_key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedKey {
    /// Upstream accepts the project's key.
    pub ok: bool,
    /// What it said.
    pub message: String,
}

/// Answer of `project.pause_for_ssh_key_registration_if_needed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRegistration {
    /// Upstream is reached over SSH.
    pub needed: bool,
    /// Upstream accepts the key, or the user said so.
    pub registered: bool,
    /// Lines to register; empty without a key.
    pub public_lines: Vec<String>,
}
