//! The public halves of all keys and their assignments as last read, and the private halves that were used since.
//!
//! SQLite counts the commits of other connections: as long as the number stays, a question costs one pragma and no
//! query, and private keys stay decoded. When it changes both are read anew, so a change by anybody, also by the
//! reference, is seen at once.

use super::codec::{KeyError, KeyType, SigningKey};
use super::{codec, rules};
use crate::db::Database;
use sqlx::{Connection, Row};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use terok_proto::Fault;
use terok_proto::error::printable_line;
use terok_proto::vault::SshKeyRow;
use zeroize::Zeroizing;

/// Comments of the keys that an agent offers first begin with this.
pub(crate) const MAIN: &str = "tk-main:";

/// The place of the current snapshot in a [`Database`].
#[derive(Default)]
pub(crate) struct SnapshotCell(tokio::sync::Mutex<Option<Arc<Snapshot>>>);

/// One key without its private half.
#[derive(Debug)]
pub(crate) struct StoredKey {
    pub(crate) id: i64,
    pub(crate) key_type: String,
    pub(crate) blob: Vec<u8>,
    pub(crate) comment: String,
    pub(crate) fingerprint: String,
    created_at: String,
    /// All scopes that have it, `%` ones too.
    pub(crate) scopes: Vec<String>,
}

/// All keys at one moment.
pub(crate) struct Snapshot {
    version: i64,
    keys: HashMap<i64, StoredKey>,
    /// Keys of each scope, the longest assigned first.
    scopes: HashMap<String, Vec<i64>>,
    decoded: Mutex<HashMap<i64, Arc<SigningKey>>>,
}

impl Database {
    /// The keys as they are now.
    pub(crate) async fn snapshot(&self) -> Result<Arc<Snapshot>, Fault> {
        let mut cell = self.snapshot.0.lock().await;
        let mut reader = self.reader().await?;
        let fail = |e: sqlx::Error| self.fault(&e);
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut *reader)
            .await
            .map_err(fail)?;
        if let Some(snapshot) = cell.as_ref().filter(|s| s.version == version) {
            return Ok(Arc::clone(snapshot));
        }
        // One transaction, so that both tables are of the same moment.
        let mut tx = reader.begin().await.map_err(fail)?;
        let keys = sqlx::query(
            "SELECT id, key_type, public_blob, comment, fingerprint, created_at FROM ssh_keys",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(fail)?;
        let links = sqlx::query(
            "SELECT scope, key_id FROM ssh_key_assignments ORDER BY assigned_at, key_id",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(fail)?;
        tx.commit().await.map_err(fail)?;
        drop(reader);
        let snapshot = Arc::new(Snapshot::build(version, &keys, &links).map_err(fail)?);
        *cell = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The private half of a key, decoded once per snapshot.
    pub(crate) async fn signing_key(
        &self,
        snapshot: &Snapshot,
        key: &StoredKey,
    ) -> Result<Result<Arc<SigningKey>, KeyError>, Fault> {
        let known = || {
            snapshot
                .decoded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(found) = known().get(&key.id) {
            return Ok(Ok(Arc::clone(found)));
        }
        let der: Option<Vec<u8>> = {
            let mut reader = self.reader().await?;
            sqlx::query_scalar("SELECT private_der FROM ssh_keys WHERE id = ?")
                .bind(key.id)
                .fetch_optional(&mut *reader)
                .await
                .map_err(|e| self.fault(&e))?
        };
        let Some(der) = der.map(Zeroizing::new) else {
            return Ok(Err(KeyError::Malformed));
        };
        let key_type = match key.key_type.as_str() {
            "rsa" => KeyType::Rsa,
            _ => KeyType::Ed25519,
        };
        let decoded = match SigningKey::from_der(key_type, &der) {
            // A private half that belongs to another public one would only make signatures that nobody accepts.
            Ok(decoded) if decoded.public_blob().as_ref() == Ok(&key.blob) => Arc::new(decoded),
            _ => {
                tracing::error!(
                    key_id = key.id,
                    "a stored key cannot be read: it is not offered"
                );
                return Ok(Err(KeyError::Malformed));
            }
        };
        known().insert(key.id, Arc::clone(&decoded));
        Ok(Ok(decoded))
    }
}

impl Snapshot {
    fn build(
        version: i64,
        keys: &[sqlx::sqlite::SqliteRow],
        links: &[sqlx::sqlite::SqliteRow],
    ) -> Result<Self, sqlx::Error> {
        let mut snapshot = Self {
            version,
            keys: HashMap::with_capacity(keys.len()),
            scopes: HashMap::new(),
            decoded: Mutex::default(),
        };
        for row in keys {
            let key = StoredKey {
                id: row.try_get(0)?,
                key_type: row.try_get(1)?,
                blob: row.try_get(2)?,
                comment: row.try_get(3)?,
                fingerprint: row.try_get(4)?,
                created_at: row.try_get(5)?,
                scopes: Vec::new(),
            };
            snapshot.keys.insert(key.id, key);
        }
        for row in links {
            let (scope, id): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(key) = snapshot.keys.get_mut(&id) {
                key.scopes.push(scope.clone());
                snapshot.scopes.entry(scope).or_default().push(id);
            }
        }
        Ok(snapshot)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// One key.
    pub(crate) fn key(&self, id: i64) -> Option<&StoredKey> {
        self.keys.get(&id)
    }

    /// Keys of a scope, the longest assigned first.
    pub(crate) fn of_scope(&self, scope: &str) -> impl Iterator<Item = &StoredKey> {
        self.scopes
            .get(scope)
            .into_iter()
            .flatten()
            .filter_map(|id| self.keys.get(id))
    }

    /// All keys, by number.
    pub(crate) fn all(&self) -> Vec<&StoredKey> {
        let mut keys: Vec<_> = self.keys.values().collect();
        keys.sort_unstable_by_key(|key| key.id);
        keys
    }
}

impl StoredKey {
    /// The wire's form.
    pub(crate) fn row(&self) -> SshKeyRow {
        // Rows of other writers did not go through our rules.
        let comment = printable_line(&self.comment);
        let mut scopes: Vec<String> = self
            .scopes
            .iter()
            .filter(|scope| rules::is_visible(scope))
            .cloned()
            .collect();
        scopes.sort_unstable();
        SshKeyRow {
            key_id: self.id,
            key_type: self.key_type.clone(),
            fingerprint: self.fingerprint.clone(),
            public_line: codec::public_line(&self.key_type, &self.blob, &comment),
            comment,
            created_at: rfc3339(&self.created_at),
            scopes,
        }
    }
}

/// SQLite's `datetime('now')` as RFC 3339; anything else as it is.
fn rfc3339(stored: &str) -> String {
    match jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", stored) {
        Ok(time) => format!("{time}Z"),
        Err(_) => printable_line(stored),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_become_rfc_3339() {
        assert_eq!(
            super::rfc3339("2026-11-23 07:00:09"),
            "2026-11-23T07:00:09Z"
        );
        assert_eq!(super::rfc3339("yesterday"), "yesterday");
    }
}
