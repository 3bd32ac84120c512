//! What only terokd needs to remember: one plain SQLite file in its own directory.
//!
//! Owns the file, its permissions, its schema and the connections: one that writes, one that reads. Knows nothing of
//! what the tables mean. A file that is no database is set aside, never deleted; a file that cannot be used for
//! another reason is left alone and named in the fault.

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use terok_proto::{Fault, Kind};
use tokio::sync::{Mutex, MutexGuard};

/// Every step of the schema, oldest first. A step that was released never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("store/0001_operations.sql"),
    include_str!("store/0002_gate_polls.sql"),
    include_str!("store/0003_gate_tokens.sql"),
    include_str!("store/0004_images.sql"),
];

/// How long a connection of the pool stays open unused.
const IDLE: Duration = Duration::from_secs(30);

/// How long a statement waits for another process, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

/// The open state database.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Two connections without a pool: there is one writer anyway, and idle threads cost memory.
#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<SqliteConnection>,
    reader: Mutex<SqliteConnection>,
    /// Held as long as the store is open: two daemons would take each other's operations for interrupted ones.
    _lock: File,
}

/// Why a database could not be opened.
#[derive(Debug)]
enum OpenError {
    /// The file's content is something else.
    NotADatabase,
    /// Everything that is not cured by a fresh file.
    Fault(Fault),
}

impl Store {
    /// Opens the database, creates it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// `storage_error`: the file or its directory cannot be used, another daemon uses it, or a newer terokd wrote it.
    pub async fn open(path: &Path) -> Result<Self, Fault> {
        let lock = prepare(path)?;
        let (writer, reader) = match connect(path).await {
            Ok(pair) => pair,
            Err(OpenError::Fault(fault)) => return Err(fault),
            Err(OpenError::NotADatabase) => {
                set_aside(path)?;
                private_file(path)?;
                connect(path).await.map_err(|error| match error {
                    OpenError::Fault(fault) => fault,
                    OpenError::NotADatabase => Fault::new(
                        Kind::StorageError,
                        format!("cannot create a database at `{}`", path.display()),
                    ),
                })?
            }
        };
        let inner = Inner {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The connection that writes.
    pub async fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        self.inner.writer.lock().await
    }

    /// The connection that reads.
    pub async fn reader(&self) -> MutexGuard<'_, SqliteConnection> {
        self.inner.reader.lock().await
    }

    /// Connections for those who bring statements of their own; there are none while nobody uses them.
    pub fn pool(&self) -> SqlitePool {
        SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(0)
            .idle_timeout(IDLE)
            .connect_lazy_with(options(&self.inner.path))
    }

    /// A failure of a statement, as the caller learns of it.
    pub fn fault(&self, action: &str, error: &sqlx::Error) -> Fault {
        fault(action, &self.inner.path, error)
    }
}

/// Makes directory and file private, and takes the lock.
fn prepare(path: &Path) -> Result<File, Fault> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| io_fault("create the directory", dir, &e))?;
    tighten(dir, 0o700);
    let lock_path = beside(path, ".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|e| io_fault("open", &lock_path, &e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Fault::new(
                Kind::StorageError,
                format!("another terokd uses the state in `{}`", dir.display()),
            )
            .with("path", path.to_string_lossy())
            .hint("stop the other daemon, or give this one a state directory of its own"));
        }
        Err(TryLockError::Error(error)) => {
            tracing::debug!(path = %lock_path.display(), %error, "this file system has no locks");
        }
    }
    private_file(path)?;
    Ok(lock)
}

/// Creates the file before SQLite does, so that it is private from the start; journals inherit its mode.
fn private_file(path: &Path) -> Result<(), Fault> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| io_fault("open", path, &e))?;
    tighten(path, 0o600);
    Ok(())
}

/// Takes away what others may do; a file system that cannot is no reason to stop.
fn tighten(path: &Path, mode: u32) {
    let Ok(found) = path.metadata() else { return };
    if found.permissions().mode() & 0o077 != 0
        && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode))
    {
        tracing::warn!(path = %path.display(), %error, "cannot make this private");
    }
}

async fn connect(path: &Path) -> Result<(SqliteConnection, SqliteConnection), OpenError> {
    let failed = |error: sqlx::Error| {
        if primary_code(&error) == Some(26) {
            OpenError::NotADatabase
        } else {
            OpenError::Fault(fault("open", path, &error))
        }
    };
    let options = options(path);
    let mut writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await
        .map_err(failed)?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut writer)
        .await
        .map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(OpenError::Fault(
            Fault::new(
                Kind::StorageError,
                format!(
                    "`{}` was written by a newer terokd (schema {version}; this one knows up to {known})",
                    path.display()
                ),
            )
            .with("path", path.to_string_lossy())
            .hint("update terokd, or move the file away: projects and tasks are not in it, only the record of operations"),
        ));
    }
    if version < known {
        migrate(&mut writer, usize::try_from(version).unwrap_or(0))
            .await
            .map_err(failed)?;
    }
    let reader = options.read_only(true).connect().await.map_err(failed)?;
    Ok((writer, reader))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .synchronous(SqliteSynchronous::Full)
        .statement_cache_capacity(16)
        .pragma("cache_size", "-256")
        .disable_statement_logging()
}

/// Applies the steps after `from`, all or none.
async fn migrate(connection: &mut SqliteConnection, from: usize) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for step in &MIGRATIONS[from..] {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", MIGRATIONS.len()));
    sqlx::raw_sql(version).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Renames a file that is no database, and the journals that belonged to it.
fn set_aside(path: &Path) -> Result<(), Fault> {
    let stamp = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%S%3fZ")
        .to_string();
    let kept = beside(path, &format!(".corrupt-{stamp}"));
    std::fs::rename(path, &kept).map_err(|e| io_fault("set aside", path, &e))?;
    for journal in ["-wal", "-shm"] {
        match std::fs::rename(beside(path, journal), beside(&kept, journal)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_fault("set aside", path, &e));
            }
            _ => {}
        }
    }
    tracing::warn!(
        path = %path.display(),
        kept = %kept.display(),
        "this is not a database: it was set aside, and the record of operations starts anew"
    );
    Ok(())
}

/// `path` with something appended to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_fault(action: &str, path: &Path, error: &io::Error) -> Fault {
    let fault = Fault::io(action, path, error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => fault.hint(WRITABLE),
        io::ErrorKind::ReadOnlyFilesystem => fault.hint(READ_ONLY),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => fault.hint(FULL),
        io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::IsADirectory => fault
            .hint("move away what stands in the way: a directory and a plain file belong there"),
        _ => fault,
    }
}

const WRITABLE: &str =
    "make the file and its directory readable and writable for the user who runs terokd";
const READ_ONLY: &str = "remount the file system writable, or set another state directory";
const FULL: &str = "free some space on the file system, then try again";

fn fault(action: &str, path: &Path, error: &sqlx::Error) -> Fault {
    let reason = match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    let fault = Fault::new(
        Kind::StorageError,
        format!("cannot {action} `{}`: {reason}", path.display()),
    )
    .with("path", path.to_string_lossy());
    // SQLite's primary result codes.
    match primary_code(error) {
        Some(3 | 14) => fault.hint(WRITABLE),
        Some(8) => fault.hint(READ_ONLY),
        Some(13) => fault.hint(FULL),
        Some(5 | 6) => fault.hint("another program holds the file: end it, then try again").retry_after_ms(1_000),
        Some(11 | 26) => {
            fault.hint("stop terokd and move the file away: projects and tasks are not in it, only the record of operations")
        }
        _ => fault,
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

#[cfg(test)]
mod tests;
