//! SSH keys for callers: minting, registering, listing, importing, removing. Each change is one transaction.

use super::{Need, Open, Vault};
use crate::db::{Database, begin};
use crate::events::VaultEvent;
use crate::files;
use crate::keys::codec::{KeyType, SigningKey};
use crate::keys::import::{self, ImportRequest};
use crate::keys::rules;
use crate::keys::snapshot::MAIN;
use crate::keys::store::{self, NewKey};
use crate::pending::Unassigned;
use crate::settings::Settings;
use std::sync::Arc;
use terok_proto::vault::{ImportResult, RemovedKey, SshKeyRow};
use terok_proto::{Fault, Kind};

/// The key of a scope, and whether it was made just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedKey {
    /// Its public half.
    pub row: SshKeyRow,
    /// It is new.
    pub created: bool,
}

fn key_not_found(id: i64) -> Fault {
    Fault::new(
        Kind::KeyNotFound,
        format!("there is no SSH key {id} in the vault"),
    )
    .with("key_id", id)
    .hint("`terokctl vault keys` lists them")
}

impl Vault {
    /// The key of a scope: without comment and `force` the main one, made if there is none; with a comment an
    /// additional one; with `force` a new one that replaces all others.
    ///
    /// # Errors
    /// The scope, the comment or the key type is not acceptable, or the vault cannot be opened. Nothing is made then.
    pub async fn provision_key(
        &self,
        scope: &str,
        key_type: Option<&str>,
        comment: Option<&str>,
        force: bool,
    ) -> Result<ProvisionedKey, Fault> {
        rules::check_scope(scope)?;
        if let Some(comment) = comment {
            rules::check_comment(comment)?;
        }
        let key_type = rules::key_type(key_type)?;
        let open = self.writable().await?;
        let database = &open.database;
        let default = comment.is_none() && !force;
        if default
            && let Some(key) = database
                .snapshot()
                .await?
                .of_scope(scope)
                .find(|key| key.comment.starts_with(MAIN))
        {
            return Ok(ProvisionedKey {
                row: key.row(),
                created: false,
            });
        }
        let new = mint(key_type).await?;
        let fail = |e: sqlx::Error| database.fault(&e);
        let id = {
            let mut writer = database.writer().await;
            let mut tx = begin(&mut writer).await.map_err(fail)?;
            let existing = store::of_scope(&mut tx, scope).await.map_err(fail)?;
            // Somebody may have been faster; the key just made was never stored then.
            if default && let Some((id, _)) = existing.iter().find(|(_, c)| c.starts_with(MAIN)) {
                let id = *id;
                tx.rollback().await.map_err(fail)?;
                drop(writer);
                return Ok(ProvisionedKey {
                    row: row(database, id).await?,
                    created: false,
                });
            }
            let comment = match comment {
                Some(comment) => comment.to_owned(),
                None if force || existing.is_empty() => format!("{MAIN}{scope}"),
                None => format!("tk-side:{scope}:{}", existing.len() + 1),
            };
            let (id, _) = store::insert(&mut tx, &new, &comment).await.map_err(fail)?;
            store::assign(&mut tx, scope, id).await.map_err(fail)?;
            if force {
                store::unassign_others(&mut tx, scope, Some(id))
                    .await
                    .map_err(fail)?;
            }
            tx.commit().await.map_err(fail)?;
            id
        };
        let row = row(database, id).await?;
        let (scope, fingerprint) = (scope.to_owned(), row.fingerprint.clone());
        self.tell(if force {
            VaultEvent::KeyRotated {
                scope,
                key_id: id,
                fingerprint,
            }
        } else {
            VaultEvent::KeyMinted {
                scope,
                key_id: id,
                fingerprint,
            }
        });
        Ok(ProvisionedKey { row, created: true })
    }

    /// Gives a scope a key that is in the vault. Having it already is as good.
    ///
    /// # Errors
    /// `key_not_found`, `invalid_scope`.
    pub async fn register_key(&self, scope: &str, key_id: i64) -> Result<(), Fault> {
        rules::check_scope(scope)?;
        let Some(open) = self.open(Need::Read).await? else {
            return Err(key_not_found(key_id));
        };
        let fail = |e: sqlx::Error| open.database.fault(&e);
        let mut writer = open.database.writer().await;
        let mut tx = begin(&mut writer).await.map_err(fail)?;
        if store::comment(&mut tx, key_id)
            .await
            .map_err(fail)?
            .is_none()
        {
            return Err(key_not_found(key_id));
        }
        store::assign(&mut tx, scope, key_id).await.map_err(fail)?;
        tx.commit().await.map_err(fail)
    }

    /// Keys of a scope, the longest assigned first.
    ///
    /// # Errors
    /// `invalid_scope`, or the vault cannot be opened.
    pub async fn keys(&self, scope: &str) -> Result<Vec<SshKeyRow>, Fault> {
        rules::check_scope(scope)?;
        let Some(open) = self.open(Need::Read).await? else {
            return Ok(Vec::new());
        };
        let snapshot = open.database.snapshot().await?;
        Ok(snapshot.of_scope(scope).map(|key| key.row()).collect())
    }

    /// Whether a scope has a key.
    ///
    /// # Errors
    /// `invalid_scope`, or the vault cannot be opened.
    pub async fn has_keys(&self, scope: &str) -> Result<bool, Fault> {
        rules::check_scope(scope)?;
        let Some(open) = self.open(Need::Read).await? else {
            return Ok(false);
        };
        Ok(open
            .database
            .snapshot()
            .await?
            .of_scope(scope)
            .next()
            .is_some())
    }

    /// All keys, by number.
    ///
    /// # Errors
    /// The vault cannot be opened.
    pub async fn all_keys(&self) -> Result<Vec<SshKeyRow>, Fault> {
        let Some(open) = self.open(Need::Read).await? else {
            return Ok(Vec::new());
        };
        let snapshot = open.database.snapshot().await?;
        Ok(snapshot.all().into_iter().map(|key| key.row()).collect())
    }

    /// The public half of one key.
    ///
    /// # Errors
    /// `key_not_found`, or the vault cannot be opened.
    pub async fn key(&self, key_id: i64) -> Result<SshKeyRow, Fault> {
        match self.open(Need::Read).await? {
            Some(open) => row(&open.database, key_id).await,
            None => Err(key_not_found(key_id)),
        }
    }

    /// Stores a private key that the user brings.
    ///
    /// # Errors
    /// It is not a key that the vault keeps, it is encrypted, or does not match; nothing is stored then.
    pub async fn import_key(&self, request: ImportRequest) -> Result<ImportResult, Fault> {
        self.check_panic()?;
        let scope = request.scope.clone();
        let (new, comment) = files::blocking(move || import::prepare(&request)).await?;
        let open = self.writable().await?;
        let fail = |e: sqlx::Error| open.database.fault(&e);
        let mut writer = open.database.writer().await;
        let mut tx = begin(&mut writer).await.map_err(fail)?;
        let (key_id, inserted) = store::insert(&mut tx, &new, &comment).await.map_err(fail)?;
        let added = match &scope {
            Some(scope) => store::assign(&mut tx, scope, key_id).await.map_err(fail)?,
            None => false,
        };
        let stored = store::comment(&mut tx, key_id).await.map_err(fail)?;
        tx.commit().await.map_err(fail)?;
        Ok(ImportResult {
            key_id,
            fingerprint: new.fingerprint.clone(),
            comment: terok_proto::error::printable_line(&stored.unwrap_or(comment)),
            already_present: !inserted,
            scope_was_assigned: scope.is_some() && !added,
        })
    }

    /// Takes a key from a scope, or from all. A key that nobody has any more is deleted.
    ///
    /// # Errors
    /// `key_not_found`, `invalid_scope`.
    pub async fn remove_key(&self, key_id: i64, scope: Option<&str>) -> Result<RemovedKey, Fault> {
        if let Some(scope) = scope {
            rules::check_scope(scope)?;
        }
        let Some(open) = self.open(Need::Read).await? else {
            return Err(key_not_found(key_id));
        };
        let fail = |e: sqlx::Error| open.database.fault(&e);
        let mut writer = open.database.writer().await;
        let mut tx = begin(&mut writer).await.map_err(fail)?;
        if store::comment(&mut tx, key_id)
            .await
            .map_err(fail)?
            .is_none()
        {
            return Err(key_not_found(key_id));
        }
        let scopes = match scope {
            Some(scope) => vec![scope.to_owned()],
            None => store::scopes(&mut tx, key_id).await.map_err(fail)?,
        };
        let mut removed = RemovedKey::default();
        // What the infrastructure has is not ours to take.
        for name in scopes.into_iter().filter(|name| rules::is_visible(name)) {
            let (gone, deleted) = store::unassign(&mut tx, &name, key_id)
                .await
                .map_err(fail)?;
            if gone {
                removed.unassigned.push(name);
            }
            removed.deleted |= deleted;
        }
        if scope.is_none() {
            removed.deleted |= store::delete_unassigned(&mut tx, key_id)
                .await
                .map_err(fail)?;
        }
        tx.commit().await.map_err(fail)?;
        Ok(removed)
    }

    /// Gives a scope every key of another. Answers how many it did not have.
    ///
    /// # Errors
    /// `invalid_scope`, or the vault cannot be opened.
    pub async fn copy_scope(&self, from: &str, to: &str) -> Result<u64, Fault> {
        rules::check_scope(from)?;
        rules::check_scope(to)?;
        let Some(open) = self.open(Need::Read).await? else {
            return Ok(0);
        };
        let fail = |e: sqlx::Error| open.database.fault(&e);
        let mut writer = open.database.writer().await;
        let mut tx = begin(&mut writer).await.map_err(fail)?;
        let added = store::copy(&mut tx, from, to).await.map_err(fail)?;
        tx.commit().await.map_err(fail)?;
        Ok(added)
    }

    /// Takes all keys from a scope; keys that nobody has any more are deleted. Answers how many it had.
    ///
    /// # Errors
    /// `invalid_scope`, or the vault cannot be opened.
    pub async fn unassign_all(&self, scope: &str) -> Result<u64, Fault> {
        rules::check_scope(scope)?;
        let Some(open) = self.open(Need::Read).await? else {
            return Ok(0);
        };
        self.inner.agents.close_scope(scope);
        unassign_all(&open.database, scope).await
    }

    /// The same, and while the vault is closed it is noted and done at the next unlock.
    ///
    /// # Errors
    /// `invalid_scope`, or not even the note can be written.
    pub async fn unassign_all_or_later(&self, scope: &str) -> Result<Unassigned, Fault> {
        match self.unassign_all(scope).await {
            Ok(count) => Ok(Unassigned::Done(count)),
            Err(fault) if fault.kind == Kind::InvalidScope => Err(fault),
            Err(fault) => {
                tracing::info!(scope, error = %fault, "SSH keys stay assigned until the vault opens");
                let (inner, settings) = (Arc::clone(&self.inner), self.settings());
                let name = scope.to_owned();
                files::blocking(move || inner.pending.add(&settings, &name)).await?;
                Ok(Unassigned::Later)
            }
        }
    }

    /// Does what was noted while nobody could write the database, before anybody reads it.
    pub(super) async fn run_pending(
        &self,
        settings: &Settings,
        database: &Database,
    ) -> Result<(), Fault> {
        let (inner, owned) = (Arc::clone(&self.inner), settings.clone());
        let waiting = match files::blocking(move || inner.pending.scopes(&owned)).await {
            Ok(waiting) => waiting,
            Err(error) => {
                // A broken note must not keep the vault closed for ever.
                tracing::error!(%error, "the note of scopes to be cleared cannot be read");
                return Ok(());
            }
        };
        if waiting.is_empty() {
            return Ok(());
        }
        for scope in &waiting {
            if rules::check_scope(scope).is_ok() {
                unassign_all(database, scope).await?;
            }
        }
        let (inner, owned) = (Arc::clone(&self.inner), settings.clone());
        files::blocking(move || inner.pending.remove(&owned, &waiting)).await
    }

    /// Where the agent of a scope listens, for the host's `ssh`. It is bound on demand and serves until the vault is
    /// locked.
    ///
    /// # Errors
    /// `gate_auth_not_configured`, with the reason, without a key that can be used.
    pub async fn host_agent(&self, scope: &str) -> Result<std::path::PathBuf, Fault> {
        rules::check_scope(scope)?;
        let refuse = |reason: &str, message: String| {
            Fault::new(Kind::GateAuthNotConfigured, message)
                .with("scope", scope)
                .with("reason", reason)
        };
        let has = match self.has_keys(scope).await {
            Ok(has) => has,
            Err(fault) if fault.kind == Kind::Panicked => return Err(fault),
            Err(fault) => {
                return Err(refuse(
                    fault.kind.name(),
                    format!("`{scope}` cannot use its SSH key: {}", fault.message),
                )
                .hint("unlock the vault with `terokctl vault unlock`, or set `ssh.use_personal` to use your own keys"));
            }
        };
        if !has {
            return Err(refuse("no_key", format!("`{scope}` has no SSH key in the vault")).hint(
                format!("make one with `terokctl project ssh-init {scope}`, or set `ssh.use_personal` to use your own keys"),
            ));
        }
        self.inner.agents.bind(self, scope, &self.settings()).await
    }

    /// For agents: the vault if it is open.
    pub(super) async fn for_agent(&self) -> Option<Arc<Open>> {
        self.open(Need::Read).await.ok().flatten()
    }

    /// For agents: a signature was made or refused.
    pub(super) async fn note_signature(
        &self,
        scope: &str,
        fingerprint: &str,
        outcome: crate::audit::Outcome,
        took: std::time::Duration,
    ) {
        if matches!(outcome, crate::audit::Outcome::Ok) {
            self.tell(VaultEvent::Signed {
                scope: scope.to_owned(),
                fingerprint: fingerprint.to_owned(),
            });
        }
        let log = self.settings().audit();
        self.inner
            .audit
            .signed(log, scope, fingerprint, outcome, took)
            .await;
    }
}

async fn mint(key_type: KeyType) -> Result<NewKey, Fault> {
    files::blocking(move || {
        SigningKey::mint(key_type)
            .and_then(|key| NewKey::new(&key))
            .map_err(|_| Fault::internal("the new key cannot be encoded"))
    })
    .await
}

async fn row(database: &Database, id: i64) -> Result<SshKeyRow, Fault> {
    let snapshot = database.snapshot().await?;
    snapshot
        .key(id)
        .map(|key| key.row())
        .ok_or_else(|| key_not_found(id))
}

async fn unassign_all(database: &Database, scope: &str) -> Result<u64, Fault> {
    let fail = |e: sqlx::Error| database.fault(&e);
    let mut writer = database.writer().await;
    let mut tx = begin(&mut writer).await.map_err(fail)?;
    let count = store::unassign_others(&mut tx, scope, None)
        .await
        .map_err(fail)?;
    tx.commit().await.map_err(fail)?;
    Ok(count)
}
