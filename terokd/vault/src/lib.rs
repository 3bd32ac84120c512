//! The vault: the credential database that is shared with the reference, the places its passphrase comes from, SSH
//! keys, and the agent through which the host's `ssh` uses them.
//!
//! Owns everything in the vault directory, the session passphrase file and the sockets below `host/`. Knows nothing of
//! the daemon, projects, RPC or YAML: settings come in as a value ([`Settings`]), changes of `config.yml` go out through
//! a trait ([`ConfigFile`]). A locked vault is a normal state; no call waits for a human.

#![forbid(unsafe_code)]

mod agent;
mod audit;
mod child;
mod db;
mod events;
mod files;
mod keys;
mod pending;
mod settings;
mod tiers;
mod vault;
mod words;

pub use events::VaultEvent;
pub use keys::import::ImportRequest;
pub use pending::Unassigned;
pub use settings::{ConfigFile, ConfigKey, ConfigValue, SessionBus, Settings};
pub use vault::{ProvisionedKey, Vault};
