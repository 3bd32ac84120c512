//! Changes of keys and assignments. Each runs inside the caller's transaction and counts up the version that the
//! reference watches.

use super::codec::{self, KeyError, SigningKey};
use sqlx::sqlite::SqliteConnection;

type Sql<T> = Result<T, sqlx::Error>;

/// A key ready to be stored.
pub(crate) struct NewKey {
    key_type: &'static str,
    der: zeroize::Zeroizing<Vec<u8>>,
    pub(crate) blob: Vec<u8>,
    pub(crate) fingerprint: String,
}

impl NewKey {
    /// Encodes a key.
    pub(crate) fn new(key: &SigningKey) -> Result<Self, KeyError> {
        let blob = key.public_blob()?;
        Ok(Self {
            key_type: key.key_type().name(),
            der: key.to_der()?,
            fingerprint: codec::fingerprint(&blob),
            blob,
        })
    }
}

/// Stores a key unless it is there. Answers its number and whether it is new.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    key: &NewKey,
    comment: &str,
) -> Sql<(i64, bool)> {
    let inserted = sqlx::query(
        "INSERT OR IGNORE INTO ssh_keys (key_type, private_der, public_blob, comment, fingerprint) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(key.key_type)
    .bind(&key.der[..])
    .bind(&key.blob)
    .bind(comment)
    .bind(&key.fingerprint)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    let id = sqlx::query_scalar("SELECT id FROM ssh_keys WHERE fingerprint = ?")
        .bind(&key.fingerprint)
        .fetch_one(&mut *tx)
        .await?;
    if inserted > 0 {
        bump(tx).await?;
    }
    Ok((id, inserted > 0))
}

/// The comment of a key; `None` if there is no such key.
pub(crate) async fn comment(tx: &mut SqliteConnection, id: i64) -> Sql<Option<String>> {
    sqlx::query_scalar("SELECT comment FROM ssh_keys WHERE id = ?")
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Numbers and comments of a scope's keys, the longest assigned first.
pub(crate) async fn of_scope(tx: &mut SqliteConnection, scope: &str) -> Sql<Vec<(i64, String)>> {
    sqlx::query_as(
        "SELECT k.id, k.comment FROM ssh_key_assignments a JOIN ssh_keys k ON k.id = a.key_id WHERE a.scope = ? ORDER BY a.assigned_at, k.id",
    )
    .bind(scope)
    .fetch_all(tx)
    .await
}

/// Gives a scope a key. Answers whether it did not have it yet.
pub(crate) async fn assign(tx: &mut SqliteConnection, scope: &str, id: i64) -> Sql<bool> {
    let added =
        sqlx::query("INSERT OR IGNORE INTO ssh_key_assignments (scope, key_id) VALUES (?, ?)")
            .bind(scope)
            .bind(id)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    if added > 0 {
        bump(tx).await?;
    }
    Ok(added > 0)
}

/// Takes all keys but `keep` from a scope; keys that nobody has any more are deleted. Answers how many links went.
pub(crate) async fn unassign_others(
    tx: &mut SqliteConnection,
    scope: &str,
    keep: Option<i64>,
) -> Sql<u64> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT key_id FROM ssh_key_assignments WHERE scope = ? AND key_id IS NOT ?",
    )
    .bind(scope)
    .bind(keep)
    .fetch_all(&mut *tx)
    .await?;
    for id in &ids {
        unassign(tx, scope, *id).await?;
    }
    Ok(ids.len() as u64)
}

/// Takes one key from a scope. Answers whether the scope had it, and whether the key is deleted now.
pub(crate) async fn unassign(tx: &mut SqliteConnection, scope: &str, id: i64) -> Sql<(bool, bool)> {
    let removed = sqlx::query("DELETE FROM ssh_key_assignments WHERE scope = ? AND key_id = ?")
        .bind(scope)
        .bind(id)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if removed == 0 {
        return Ok((false, false));
    }
    bump(tx).await?;
    let orphans = sqlx::query(
        "DELETE FROM ssh_keys WHERE id = ? AND NOT EXISTS (SELECT 1 FROM ssh_key_assignments WHERE key_id = ssh_keys.id)",
    )
    .bind(id)
    .execute(tx)
    .await?
    .rows_affected();
    Ok((true, orphans > 0))
}

/// Scopes that have a key.
pub(crate) async fn scopes(tx: &mut SqliteConnection, id: i64) -> Sql<Vec<String>> {
    sqlx::query_scalar("SELECT scope FROM ssh_key_assignments WHERE key_id = ? ORDER BY scope")
        .bind(id)
        .fetch_all(tx)
        .await
}

/// Deletes a key that no scope has.
pub(crate) async fn delete_unassigned(tx: &mut SqliteConnection, id: i64) -> Sql<bool> {
    let deleted = sqlx::query(
        "DELETE FROM ssh_keys WHERE id = ? AND NOT EXISTS (SELECT 1 FROM ssh_key_assignments WHERE key_id = ssh_keys.id)",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if deleted > 0 {
        bump(tx).await?;
    }
    Ok(deleted > 0)
}

/// Gives a scope every key of another one, in the same order. Answers how many were added.
pub(crate) async fn copy(tx: &mut SqliteConnection, from: &str, to: &str) -> Sql<u64> {
    let added = sqlx::query(
        "INSERT OR IGNORE INTO ssh_key_assignments (scope, key_id, assigned_at) SELECT ?, key_id, assigned_at FROM ssh_key_assignments WHERE scope = ?",
    )
    .bind(to)
    .bind(from)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if added > 0 {
        bump(tx).await?;
    }
    Ok(added)
}

async fn bump(tx: &mut SqliteConnection) -> Sql<()> {
    sqlx::query("UPDATE ssh_keys_version SET version = version + 1 WHERE id = 0")
        .execute(tx)
        .await?;
    Ok(())
}
