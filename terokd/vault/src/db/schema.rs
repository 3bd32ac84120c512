//! The schema, version 2, and how older files get there. The reference reads and writes the same tables.

use super::{OpenError, begin, fault};
use crate::keys::codec;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};
use std::path::Path;

/// The newest version that this release knows.
pub(crate) const VERSION: i64 = 2;

const TABLES: &[(&str, &str)] = &[
    (
        "credentials",
        "credential_set TEXT NOT NULL, provider TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (credential_set, provider)",
    ),
    ("ssh_keys", SSH_KEYS),
    (
        "ssh_key_assignments",
        "scope TEXT NOT NULL, key_id INTEGER NOT NULL REFERENCES ssh_keys(id) ON DELETE CASCADE, \
         assigned_at TEXT NOT NULL DEFAULT (datetime('now')), PRIMARY KEY (scope, key_id)",
    ),
    (
        "proxy_tokens",
        "token TEXT PRIMARY KEY, scope TEXT NOT NULL, subject TEXT NOT NULL, credential_set TEXT NOT NULL, provider TEXT NOT NULL",
    ),
    (
        "ssh_keys_version",
        "id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL",
    ),
];

const SSH_KEYS: &str = "id INTEGER PRIMARY KEY AUTOINCREMENT, key_type TEXT NOT NULL CHECK (key_type IN ('ed25519', 'rsa')), \
     private_der BLOB NOT NULL, public_blob BLOB NOT NULL, comment TEXT NOT NULL DEFAULT '', \
     fingerprint TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL DEFAULT (datetime('now'))";

/// Creates what is missing and migrates what is old, in one transaction; a current file is only looked at.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), OpenError> {
    let broken = |e: sqlx::Error| OpenError::Other(fault(path, &e));
    if is_current(connection).await.map_err(broken)? {
        return Ok(());
    }
    // Exchanging a table would delete what refers to it; the switch has no effect inside a transaction.
    sqlx::raw_sql("PRAGMA foreign_keys = OFF")
        .execute(&mut *connection)
        .await
        .map_err(broken)?;
    let result = migrate(connection).await;
    sqlx::raw_sql("PRAGMA foreign_keys = ON")
        .execute(&mut *connection)
        .await
        .map_err(broken)?;
    match result.map_err(broken)? {
        Migrated::Done => Ok(()),
        Migrated::Newer(version) => Err(OpenError::SchemaNewer(version)),
    }
}

enum Migrated {
    Done,
    Newer(i64),
}

async fn migrate(connection: &mut SqliteConnection) -> Result<Migrated, sqlx::Error> {
    let mut tx = begin(connection).await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *tx)
        .await?;
    if version > VERSION {
        return Ok(Migrated::Newer(version));
    }
    if columns(&mut tx, "ssh_keys")
        .await?
        .contains(&"private_pem".into())
    {
        convert_private_halves(&mut tx).await?;
    }
    if columns(&mut tx, "proxy_tokens")
        .await?
        .contains(&"task".into())
    {
        sqlx::raw_sql("ALTER TABLE proxy_tokens RENAME COLUMN task TO subject")
            .execute(&mut *tx)
            .await?;
    }
    for (table, columns) in TABLES {
        sqlx::raw_sql(AssertSqlSafe(format!(
            "CREATE TABLE IF NOT EXISTS {table} ({columns})"
        )))
        .execute(&mut *tx)
        .await?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT OR IGNORE INTO ssh_keys_version (id, version) VALUES (0, 0); PRAGMA user_version = {VERSION}"
    )))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    if version < VERSION {
        tracing::info!(
            from = version,
            to = VERSION,
            "the vault's schema is up to date"
        );
    }
    Ok(Migrated::Done)
}

/// Version 0 kept an OpenSSH file in `private_pem` and fingerprints in hex.
async fn convert_private_halves(tx: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "CREATE TABLE ssh_keys_new ({SSH_KEYS})"
    )))
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query(
        "SELECT id, key_type, CAST(private_pem AS BLOB), public_blob, comment, created_at FROM ssh_keys ORDER BY id",
    )
    .fetch_all(&mut *tx)
    .await?;
    for row in rows {
        let id: i64 = row.try_get(0)?;
        let pem = zeroize::Zeroizing::new(row.try_get::<Vec<u8>, _>(2)?);
        let blob: Vec<u8> = row.try_get(3)?;
        let private = codec::from_openssh(&pem, None)
            .ok()
            .and_then(|(key, _)| key.to_der().ok())
            .unwrap_or_else(|| {
                // Nothing is thrown away; the agent will skip it.
                tracing::error!(key_id = id, "a stored key cannot be read");
                pem.clone()
            });
        sqlx::query(
            "INSERT INTO ssh_keys_new (id, key_type, private_der, public_blob, comment, fingerprint, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(row.try_get::<String, _>(1)?)
        .bind(&private[..])
        .bind(&blob)
        .bind(row.try_get::<String, _>(4)?)
        .bind(codec::fingerprint(&blob))
        .bind(row.try_get::<String, _>(5)?)
        .execute(&mut *tx)
        .await?;
    }
    // Numbers of deleted keys are not given out again.
    sqlx::raw_sql(
        "UPDATE sqlite_sequence SET seq = max(seq, (SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'ssh_keys')) WHERE name = 'ssh_keys_new'; \
         DROP TABLE ssh_keys; ALTER TABLE ssh_keys_new RENAME TO ssh_keys",
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn is_current(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
            .fetch_all(&mut *connection)
            .await?;
    if version != VERSION
        || !TABLES
            .iter()
            .all(|(name, _)| tables.iter().any(|t| t == name))
    {
        return Ok(false);
    }
    let counters: i64 = sqlx::query_scalar("SELECT count(*) FROM ssh_keys_version WHERE id = 0")
        .fetch_one(connection)
        .await?;
    Ok(counters == 1)
}

async fn columns(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT name FROM pragma_table_info(?)")
        .bind(table)
        .fetch_all(connection)
        .await
}
