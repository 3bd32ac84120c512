//! What the vault tells about itself; it never fails because it is locked.

use super::{Need, Open, Reason, State, Vault};
use crate::db;
use crate::files;
use crate::settings::Settings;
use std::sync::Arc;
use std::time::Duration;
use terok_proto::Fault;
use terok_proto::gate::ServerMode;
use terok_proto::vault::{PassphraseSource, VaultRecovery, VaultState, VaultStatus};

/// How long the status waits for a tier that is being asked.
const PATIENCE: Duration = Duration::from_secs(2);

impl Vault {
    /// Where the vault stands.
    pub async fn status(&self) -> VaultStatus {
        // The attempt goes on if this gives up.
        let opened = tokio::time::timeout(PATIENCE, self.open(Need::Read)).await;
        let settings = self.settings();
        let mut error = None;
        let open = match opened {
            Ok(Ok(open)) => open,
            Ok(Err(fault)) => {
                error = Some(fault.message);
                None
            }
            Err(_) => {
                error = Some("a tier has not answered yet".to_owned());
                None
            }
        };
        let state = self.judge(open.is_some(), &settings);
        if matches!(state, VaultState::Absent | VaultState::Unlocked) {
            error = None;
        }
        let (credentials_stored, ssh_keys_stored) = match &open {
            Some(open) => match contents(open).await {
                Ok((providers, keys)) => (providers, Some(keys)),
                Err(fault) => {
                    error = Some(fault.message);
                    (Vec::new(), None)
                }
            },
            None => (Vec::new(), None),
        };
        let source = open.as_ref().map(|open| open.source());
        let s = Arc::clone(&settings);
        let on_disk = files::blocking(move || {
            let acknowledged = s.recovery_marker().exists();
            Ok((routes(&s), acknowledged, s.leftover_warning()))
        });
        let (routes_configured, acknowledged, leftover) = on_disk.await.unwrap_or_default();
        let session_only = source == Some(PassphraseSource::SessionFile);
        let recovery = VaultRecovery {
            acknowledged,
            source,
            session_only,
            urgent: !acknowledged && session_only,
        };
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        VaultStatus {
            warnings: leftover
                .into_iter()
                .chain(warnings(&settings, &recovery))
                .collect(),
            state,
            recovery,
            mode: ServerMode::Daemon,
            running: state != VaultState::Panicked,
            healthy: matches!(state, VaultState::Unlocked | VaultState::Absent) && error.is_none(),
            socket_path: self.inner.agents.any().then(|| text(settings.host_dir())),
            db_path: text(settings.database()),
            routes_path: text(settings.routes()),
            routes_configured,
            credentials_stored,
            transport: None,
            ssh_keys_stored,
            passphrase_source: source,
            locked: !matches!(state, VaultState::Unlocked | VaultState::Absent),
            plaintext_passphrase_path: settings.plaintext_passphrase_path.clone().map(text),
            error,
        }
    }

    fn judge(&self, open: bool, settings: &Settings) -> VaultState {
        if self.is_panicked() {
            return VaultState::Panicked;
        }
        if open {
            return VaultState::Unlocked;
        }
        if !db::exists(&settings.database()) {
            return VaultState::Absent;
        }
        match &self.state().state {
            State::Failed(failure) => match &failure.reason {
                Reason::NoTier | Reason::Other(_) => VaultState::Locked,
                Reason::Wrong(_) => VaultState::WrongPassphrase,
                Reason::Broken(_) => VaultState::TierBroken,
                Reason::Plaintext => VaultState::Plaintext,
                Reason::Newer(_) => VaultState::SchemaNewer,
            },
            _ => VaultState::Locked,
        }
    }
}

async fn contents(open: &Open) -> Result<(Vec<String>, u64), Fault> {
    let keys = open.database.snapshot().await?.len() as u64;
    let mut reader = open.database.reader().await?;
    let providers: Vec<String> = sqlx::query_scalar(
        "SELECT provider FROM credentials WHERE credential_set = 'default' ORDER BY provider",
    )
    .fetch_all(&mut *reader)
    .await
    .map_err(|e| open.database.fault(&e))?;
    Ok((providers, keys))
}

/// Number of routes in the file of the API proxy; none if it cannot be read.
fn routes(settings: &Settings) -> u64 {
    let Ok(Some(bytes)) = files::read(&settings.routes()) else {
        return 0;
    };
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(routes) => routes.len() as u64,
        Err(_) => 0,
    }
}

fn warnings(settings: &Settings, recovery: &VaultRecovery) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(path) = &settings.plaintext_passphrase_path {
        warnings.push(format!(
            "the vault's passphrase is in clear text in `{}`: `terokctl vault to-keyring` moves it, or seal it with `terokctl vault seal` and remove the key",
            path.display()
        ));
    } else if recovery.source == Some(PassphraseSource::Config) {
        warnings.push("the vault's passphrase is in clear text in a configuration file".to_owned());
    }
    if recovery.urgent {
        warnings.push(
            "only the session file holds the vault's passphrase: write it down, a reboot removes it".to_owned(),
        );
    }
    warnings
}
