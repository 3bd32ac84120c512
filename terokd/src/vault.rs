//! The vault's place in the daemon: its settings, the user's `config.yml`, its events.
//!
//! Owns the way between configuration and `terok-vault`; knows nothing of keys or passphrases beyond handing them on.

use crate::events::{Bus, Draft, Filter, Start};
use crate::fs;
use crate::registry::{Registry, Snapshot};
use crate::tasks::Tasks;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use terok_config::edit;
use terok_proto::Fault;
use terok_proto::config::Origin;
use terok_proto::events::EventKind;
use terok_proto::vault::Secret;
use terok_vault::{ConfigFile, ConfigKey, ConfigValue, SessionBus, Settings, Vault, VaultEvent};
use tokio::sync::broadcast::error::RecvError;

/// A `config.yml` is read that far.
const MAX_CONFIG: u64 = 1 << 20;

/// The vault of this configuration. A database that is there is opened in the background.
pub fn start(registry: &Registry, bus: &Bus, tasks: &Tasks, session_bus: SessionBus) -> Vault {
    let config = Arc::new(UserConfig(registry.clone()));
    let panicked = {
        let registry = registry.clone();
        move || crate::panic::is_engaged(&registry.snapshot().paths)
    };
    let settings = settings(&registry.snapshot(), &session_bus);
    let vault = Vault::new(settings, config, panicked);
    tasks.spawn(
        "vault settings",
        follow_config(
            vault.clone(),
            registry.clone(),
            bus.clone(),
            tasks.clone(),
            session_bus,
        ),
    );
    tasks.spawn(
        "vault events",
        tell(vault.clone(), bus.clone(), tasks.clone()),
    );
    vault
}

/// What the configuration says of the vault.
fn settings(snapshot: &Snapshot, session_bus: &SessionBus) -> Settings {
    let (paths, credentials) = (&snapshot.paths, &snapshot.global.config.credentials);
    let secret = |text: &terok_config::global::Secret| Secret::new(text.expose().to_owned());
    Settings {
        use_keyring: credentials.use_keyring,
        passphrase_command: credentials.passphrase_command.as_ref().map(secret),
        config_passphrase: credentials.passphrase.as_ref().map(secret),
        plaintext_passphrase_path: plaintext_path(snapshot),
        session_bus: session_bus.clone(),
        ..Settings::new(
            paths.vault_dir.clone(),
            paths.sandbox_runtime_dir.clone(),
            paths.terokd_dir.clone(),
        )
    }
}

/// The file whose passphrase is in force.
fn plaintext_path(snapshot: &Snapshot) -> Option<PathBuf> {
    let layers = &snapshot.global.config_layers;
    let place = ["credentials", "passphrase"].map(terok_config::yaml::Step::from);
    let (layer, _) = layers.origin(&place)?;
    (layer.origin != Origin::Default).then(|| layer.path.clone())
}

/// The writable `config.yml` of the user.
struct UserConfig(Registry);

impl ConfigFile for UserConfig {
    fn set(&self, key: ConfigKey, value: Option<ConfigValue>) -> Result<PathBuf, Fault> {
        let path = self.0.snapshot().paths.global_config_path.clone();
        let text = match std::fs::metadata(&path) {
            Ok(_) => String::from_utf8(fs::read_limited(&path, MAX_CONFIG)?).map_err(|_| {
                Fault::new(
                    terok_proto::Kind::InvalidConfig,
                    format!("`{}` is not UTF-8 text", path.display()),
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Fault::io("read", &path, &error)),
        };
        let place: Vec<&str> = key.path().split('.').collect();
        let holds_secret = matches!(value, Some(ConfigValue::Text(_)));
        let edited = match &value {
            Some(ConfigValue::Text(secret)) => edit::set_scalar(&text, &place, secret.expose()),
            Some(ConfigValue::Flag(flag)) => edit::set_flag(&text, &place, *flag),
            None => edit::remove_key(&text, &place),
        }?;
        if edited.text == text && !holds_secret {
            return Ok(path);
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_private(dir)?;
        }
        if holds_secret {
            fs::make_private(&path)?;
        }
        fs::replace(&path, edited.text.as_bytes(), 0o600)?;
        Ok(path)
    }
}

/// A changed configuration changes the vault's settings.
async fn follow_config(
    vault: Vault,
    registry: Registry,
    bus: Bus,
    tasks: Tasks,
    session_bus: SessionBus,
) {
    let filter = Filter {
        projects: None,
        kinds: Some([EventKind::ConfigChanged].into()),
    };
    let mut events = bus.subscribe(filter, Start::Now);
    loop {
        vault.configure(settings(&registry.snapshot(), &session_bus));
        tokio::select! {
            event = events.next() => {
                if event.is_none() {
                    return;
                }
            }
            () = tasks.stopping().cancelled() => return,
        }
    }
}

/// What happens in the vault is told to subscribers.
async fn tell(vault: Vault, bus: Bus, tasks: Tasks) {
    let mut events = vault.events();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tasks.stopping().cancelled() => return,
        };
        let draft = match event {
            Ok(event) => draft(event),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events of the vault were lost");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        bus.publish(draft);
    }
}

fn draft(event: VaultEvent) -> Draft {
    let about = |kind, scope: String, data| Draft::new(kind).project(scope).data(data);
    match event {
        VaultEvent::Locked => Draft::new(EventKind::VaultLocked).data(json!({})),
        VaultEvent::Unlocked => Draft::new(EventKind::VaultUnlocked).data(json!({})),
        VaultEvent::Signed { scope, fingerprint } => {
            let data = json!({"scope": scope, "fingerprint": fingerprint});
            about(EventKind::VaultSigned, scope, data)
        }
        VaultEvent::KeyMinted {
            scope,
            key_id,
            fingerprint,
        } => {
            let data = json!({"scope": scope, "key_id": key_id, "fingerprint": fingerprint});
            about(EventKind::VaultKeyMinted, scope, data)
        }
        VaultEvent::KeyRotated {
            scope,
            key_id,
            fingerprint,
        } => {
            let data = json!({"scope": scope, "key_id": key_id, "fingerprint": fingerprint});
            about(EventKind::VaultKeyRotated, scope, data)
        }
    }
}
