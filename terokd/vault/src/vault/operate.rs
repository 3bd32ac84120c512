//! Moving the passphrase: first set-up, unlocking, locking, sealing, the keyring.

use super::{Need, Open, Reason, State, Vault, locked};
use crate::db;
use crate::files;
use crate::settings::{ConfigKey, ConfigValue, Settings};
use crate::tiers::{self, Found, keyring, systemd};
use std::path::PathBuf;
use std::sync::Arc;
use terok_proto::vault::{LockResult, PassphraseSource, Secret, VaultStatus};
use terok_proto::{Fault, Kind};

impl Vault {
    /// Sets the vault up: stores a passphrase in a tier, then makes the database. Without a tier the best that works
    /// without a question is taken, without a passphrase one is made up.
    ///
    /// # Errors
    /// `already_exists` once there is a database.
    pub async fn provision(
        &self,
        tier: Option<PassphraseSource>,
        passphrase: Option<Secret>,
    ) -> Result<VaultStatus, Fault> {
        self.check_panic()?;
        if let Some(passphrase) = &passphrase {
            check_passphrase(passphrase)?;
        }
        {
            let _changing = self.inner.changing.lock().await;
            let settings = self.settings();
            if db::exists(&settings.database()) {
                return Err(Fault::new(
                    Kind::AlreadyExists,
                    "the vault is set up already",
                ));
            }
            let present = tiers::resolve(&settings).await.map_err(|b| b.fault())?;
            let found = match (present, tier, passphrase) {
                (Some(found), None, None) => found,
                (Some(found), None, Some(given)) if found.passphrase == given => found,
                (Some(found), None, Some(_)) => return Err(taken(found.source)),
                (Some(found), Some(tier), _) if (found.source as u8) < (tier as u8) => {
                    return Err(taken(found.source));
                }
                (_, Some(tier), given) => self.store_in(&settings, tier, given).await?,
                (None, None, given) => self.choose_tier(&settings, given).await?,
            };
            let settings = self.settings();
            let open =
                self.open_with(&settings, found, false)
                    .await
                    .map_err(|reason| match reason {
                        // Another process made it meanwhile.
                        Reason::Wrong(_) => Fault::new(
                            Kind::AlreadyExists,
                            "the vault was set up by somebody else meanwhile",
                        ),
                        other => other.fault(),
                    })?;
            self.publish(open, None).await?;
        }
        Ok(self.status().await)
    }

    /// Opens the vault: from its tiers, or with a passphrase that is then kept for the session.
    ///
    /// # Errors
    /// A wrong passphrase changes nothing. Without one: what keeps the tiers from opening it.
    pub async fn unlock(&self, passphrase: Option<Secret>) -> Result<VaultStatus, Fault> {
        self.check_panic()?;
        match passphrase {
            Some(passphrase) => self.unlock_with(passphrase).await?,
            None => {
                {
                    let mut guarded = self.state();
                    if !matches!(guarded.state, State::Open(_)) {
                        guarded.state = State::Unknown;
                    }
                }
                self.open(Need::Read).await?;
            }
        }
        Ok(self.status().await)
    }

    async fn unlock_with(&self, passphrase: Secret) -> Result<(), Fault> {
        check_passphrase(&passphrase)?;
        let settings = self.settings();
        if !db::exists(&settings.database()) {
            return Err(Fault::invalid_argument("there is no vault yet")
                .hint("`terokctl vault provision` sets it up"));
        }
        let wrong = || {
            Fault::new(
                Kind::VaultWrongPassphrase,
                "this passphrase does not open the vault",
            )
            .with("source", PassphraseSource::Prompt.label())
        };
        // Asking the file again would need a second look at it while it is in use.
        let current = self.ready().ok().flatten();
        if let Some(open) = current {
            if *open.database.passphrase() != passphrase {
                return Err(wrong());
            }
            keep_for_session(&settings, &passphrase).await?;
            open.set_source(PassphraseSource::SessionFile);
            return Ok(());
        }
        let found = Found {
            passphrase: passphrase.clone(),
            source: PassphraseSource::SessionFile,
        };
        let open = self
            .open_with(&settings, found, true)
            .await
            .map_err(|reason| match reason {
                Reason::Wrong(_) => wrong(),
                other => other.fault(),
            })?;
        keep_for_session(&settings, &passphrase).await?;
        self.publish(open, None).await?;
        Ok(())
    }

    /// Closes the vault until somebody unlocks it or the daemon restarts. With `forget`, and only with `confirm` too,
    /// every stored copy of the passphrase is destroyed.
    ///
    /// # Errors
    /// `confirmation_required`; or a copy cannot be destroyed, the vault is locked all the same.
    pub async fn lock(&self, forget: bool, confirm: bool) -> Result<LockResult, Fault> {
        if forget && !confirm {
            return Err(Fault::new(
                Kind::ConfirmationRequired,
                "every stored copy of the vault's passphrase would be destroyed: without one of your own the vault is lost",
            )
            .hint("repeat with `confirm`"));
        }
        let settings = self.settings();
        let session = settings.session_file();
        let removed = files::blocking(move || files::remove(&session)).await;
        self.forget_open(State::Closed).await;
        removed?;
        if forget {
            self.destroy_copies(&settings).await?;
        }
        Ok(LockResult {
            remaining_tiers: tiers::present(&self.settings()),
        })
    }

    async fn destroy_copies(&self, settings: &Settings) -> Result<(), Fault> {
        let _changing = self.inner.changing.lock().await;
        match keyring::delete(&settings.session_bus).await {
            Ok(()) => {}
            // One that cannot be asked may hold a copy, if it was ever used.
            Err(error) if settings.use_keyring || matches!(error, keyring::Error::Locked) => {
                return Err(tier_failed(PassphraseSource::Keyring, &error.to_string()));
            }
            Err(_) => {}
        }
        self.configure_file(ConfigKey::Passphrase, None).await?;
        self.configure_file(ConfigKey::PassphraseCommand, None)
            .await?;
        let (sealed, marker) = (settings.sealed(), settings.recovery_marker());
        files::blocking(move || {
            files::remove(&sealed)?;
            files::remove(&marker)
        })
        .await
    }

    /// Seals the passphrase with systemd-creds, to `auto`, `host`, `tpm` or `tpm+host`.
    ///
    /// # Errors
    /// `vault_tier_failed` where systemd-creds cannot work; `vault_locked` without a passphrase to seal.
    pub async fn seal(&self, key: Option<&str>) -> Result<VaultStatus, Fault> {
        let mode = systemd::key_mode(key.unwrap_or("auto")).ok_or_else(|| {
            Fault::invalid_argument("`key` is one of `auto`, `host`, `tpm`, `tpm+host`")
        })?;
        let open = self.current().await?;
        let failed = |why: String| tier_failed(PassphraseSource::SystemdCreds, &why);
        {
            let _changing = self.inner.changing.lock().await;
            let settings = self.settings();
            systemd::available(&settings).await.map_err(failed)?;
            systemd::seal(&settings, open.database.passphrase(), mode)
                .await
                .map_err(failed)?;
        }
        Ok(self.status().await)
    }

    /// Moves the passphrase into the desktop's keyring: stores it there, then destroys the other copies.
    ///
    /// # Errors
    /// `vault_tier_failed` without a keyring that can be written; nothing is destroyed then.
    pub async fn to_keyring(&self) -> Result<VaultStatus, Fault> {
        let open = self.current().await?;
        if open.source() != PassphraseSource::Keyring {
            let _changing = self.inner.changing.lock().await;
            let settings = self.settings();
            self.store_in(
                &settings,
                PassphraseSource::Keyring,
                Some(open.database.passphrase().clone()),
            )
            .await?;
            self.configure_file(ConfigKey::Passphrase, None).await?;
            self.configure_file(ConfigKey::PassphraseCommand, None)
                .await?;
            let (session, sealed) = (settings.session_file(), settings.sealed());
            files::blocking(move || {
                files::remove(&session)?;
                files::remove(&sealed)
            })
            .await?;
            open.set_source(PassphraseSource::Keyring);
        }
        Ok(self.status().await)
    }

    /// Notes that the user has written the passphrase down. Works while locked.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub async fn acknowledge_recovery(&self) -> Result<VaultStatus, Fault> {
        let marker = self.settings().recovery_marker();
        files::blocking(move || {
            if marker.exists() {
                Ok(())
            } else {
                files::replace(&marker, b"")
            }
        })
        .await?;
        Ok(self.status().await)
    }

    /// The open vault, for what needs its passphrase.
    async fn current(&self) -> Result<Arc<Open>, Fault> {
        match self.open(Need::Read).await {
            Ok(Some(open)) => Ok(open),
            Ok(None) => Err(locked()),
            Err(fault)
                if matches!(
                    fault.kind,
                    Kind::VaultWrongPassphrase | Kind::VaultPlaintextDb | Kind::VaultSchemaNewer
                ) =>
            {
                Err(Fault::new(Kind::VaultLocked, &fault.message).with("reason", fault.kind.name()))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The best tier that works without a question.
    pub(super) async fn choose_tier(
        &self,
        settings: &Settings,
        passphrase: Option<Secret>,
    ) -> Result<Found, Fault> {
        let passphrase = match passphrase {
            Some(passphrase) => passphrase,
            None => tiers::generate()?,
        };
        let store = async |tier| {
            self.store_in(settings, tier, Some(passphrase.clone()))
                .await
        };
        match systemd::available(settings).await {
            Ok(()) => match store(PassphraseSource::SystemdCreds).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(%error, "the vault's passphrase cannot be sealed: the next place is tried")
                }
            },
            Err(why) => tracing::debug!(why, "the vault's passphrase is not sealed"),
        }
        if settings.use_keyring {
            return store(PassphraseSource::Keyring).await;
        }
        if keyring::answers(&settings.session_bus).await {
            match store(PassphraseSource::Keyring).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(%error, "the keyring does not take the vault's passphrase: the next place is tried")
                }
            }
        }
        store(PassphraseSource::Config).await
    }

    /// Stores a passphrase in a tier and reads it back.
    async fn store_in(
        &self,
        settings: &Settings,
        tier: PassphraseSource,
        passphrase: Option<Secret>,
    ) -> Result<Found, Fault> {
        let passphrase = match passphrase {
            Some(passphrase) => passphrase,
            None => tiers::generate()?,
        };
        let failed = |why: String| tier_failed(tier, &why);
        let read_back = match tier {
            PassphraseSource::SessionFile => {
                keep_for_session(settings, &passphrase).await?;
                let path = settings.session_file();
                files::blocking(move || files::read(&path))
                    .await?
                    .and_then(|bytes| tiers::text(&bytes, &['\n']))
            }
            PassphraseSource::SystemdCreds => {
                systemd::available(settings).await.map_err(failed)?;
                systemd::seal(settings, &passphrase, "auto")
                    .await
                    .map_err(failed)?;
                match systemd::unseal(settings).await {
                    Ok(text) => Some(text),
                    Err(why) => {
                        // It would keep every later tier from being asked.
                        let sealed = settings.sealed();
                        files::blocking(move || files::remove(&sealed)).await?;
                        return Err(failed(why));
                    }
                }
            }
            PassphraseSource::Keyring => {
                let bus = &settings.session_bus;
                keyring::store(bus, &passphrase)
                    .await
                    .map_err(|e| failed(e.to_string()))?;
                let text = keyring::lookup(bus)
                    .await
                    .map_err(|e| failed(e.to_string()))?;
                if text.as_ref() == Some(&passphrase) {
                    self.configure_file(ConfigKey::UseKeyring, Some(ConfigValue::Flag(true)))
                        .await?;
                }
                text
            }
            PassphraseSource::Config => {
                let value = ConfigValue::Text(passphrase.clone());
                self.configure_file(ConfigKey::Passphrase, Some(value))
                    .await?;
                self.settings().config_passphrase.clone()
            }
            PassphraseSource::PassphraseCommand | PassphraseSource::Prompt => {
                return Err(Fault::invalid_argument(format!(
                    "a passphrase cannot be stored in `{}`: use `session-file`, `systemd-creds`, `keyring` or `config`",
                    tier.label()
                )));
            }
        };
        if read_back.as_ref() != Some(&passphrase) {
            return Err(failed(format!(
                "`{}` does not give back what was stored in it",
                tier.label()
            )));
        }
        Ok(Found {
            passphrase,
            source: tier,
        })
    }

    /// Writes `config.yml`, and notes it here so that nobody has to wait until the daemon has read it.
    async fn configure_file(
        &self,
        key: ConfigKey,
        value: Option<ConfigValue>,
    ) -> Result<PathBuf, Fault> {
        let settings = self.settings();
        let unchanged = match (key, &value) {
            (ConfigKey::Passphrase, None) => settings.config_passphrase.is_none(),
            (ConfigKey::PassphraseCommand, None) => settings.passphrase_command.is_none(),
            (ConfigKey::UseKeyring, Some(ConfigValue::Flag(flag))) => settings.use_keyring == *flag,
            _ => false,
        };
        if unchanged {
            return Ok(PathBuf::new());
        }
        let config = Arc::clone(&self.inner.config);
        let written = value.clone();
        let path = files::blocking(move || config.set(key, written)).await?;
        self.update_settings(|settings| match (key, value) {
            (ConfigKey::Passphrase, Some(ConfigValue::Text(text))) => {
                settings.config_passphrase = Some(text);
                settings.plaintext_passphrase_path = Some(path.clone());
            }
            (ConfigKey::Passphrase, _) => {
                settings.config_passphrase = None;
                settings.plaintext_passphrase_path = None;
            }
            (ConfigKey::PassphraseCommand, Some(ConfigValue::Text(text))) => {
                settings.passphrase_command = Some(text);
            }
            (ConfigKey::PassphraseCommand, _) => settings.passphrase_command = None,
            (ConfigKey::UseKeyring, value) => {
                settings.use_keyring = matches!(value, Some(ConfigValue::Flag(true)));
            }
        });
        Ok(path)
    }
}

async fn keep_for_session(settings: &Settings, passphrase: &Secret) -> Result<(), Fault> {
    let (path, passphrase) = (settings.session_file(), passphrase.clone());
    files::blocking(move || {
        let mut line =
            zeroize::Zeroizing::new(String::with_capacity(passphrase.expose().len() + 1));
        line.push_str(passphrase.expose());
        line.push('\n');
        files::replace(&path, line.as_bytes())
    })
    .await
}

/// What every tier gives back as it was given.
fn check_passphrase(passphrase: &Secret) -> Result<(), Fault> {
    let text = passphrase.expose();
    if text.is_empty() {
        return Err(Fault::invalid_argument(
            "the passphrase is empty: that would mean no encryption",
        ));
    }
    if text.contains(['\0', '\n', '\r']) || text.len() > 4096 {
        return Err(Fault::invalid_argument(
            "the passphrase has a line break or a zero byte, or more than 4096 bytes",
        ));
    }
    Ok(())
}

fn taken(source: PassphraseSource) -> Fault {
    Fault::invalid_argument(format!(
        "`{}` holds a passphrase already and is asked first",
        source.label()
    ))
    .hint("provision without a tier and a passphrase to use it, or remove it")
}

fn tier_failed(source: PassphraseSource, why: &str) -> Fault {
    Fault::new(Kind::VaultTierFailed, why).with("source", source.label())
}
