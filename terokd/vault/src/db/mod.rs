//! The encrypted database file: opening, creating, the two connections, and when the file is not ours any more.
//!
//! The format and the schema are shared with the reference, which may use the file at the same time. Key derivation
//! costs 0.2 s per connection, so both connections are kept. SQLite's locks on a file go away when anybody in the
//! process closes another descriptor of it: nothing here opens the file beside SQLite while it is in use.

pub(crate) mod schema;

use crate::files;
use crate::keys::snapshot::SnapshotCell;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use terok_proto::vault::Secret;
use terok_proto::{Fault, Kind};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, OnceCell};

/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(5);

/// Why a database cannot be used.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The passphrase does not decrypt it.
    WrongPassphrase,
    /// It is not encrypted.
    Plaintext,
    /// A newer release wrote it.
    SchemaNewer(i64),
    /// The file system or SQLite refuses.
    Other(Fault),
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

/// An open, decrypted and migrated database.
pub(crate) struct Database {
    path: PathBuf,
    identity: (u64, u64),
    passphrase: Secret,
    writer: Mutex<Closing>,
    reader: OnceCell<Mutex<Closing>>,
    pub(crate) snapshot: SnapshotCell,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Whether there is a database: an empty file is none yet.
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

impl Database {
    /// Opens the file and brings its schema up to date.
    pub(crate) async fn open(path: &Path, passphrase: &Secret) -> Result<Self, OpenError> {
        let p = path.to_owned();
        let plain = files::blocking(move || {
            protect(&p)?;
            is_plaintext(&p)
        })
        .await?;
        if plain {
            return Err(OpenError::Plaintext);
        }
        let mut writer = connect(path, passphrase).await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *writer)
            .await
            .map_err(|e| classify(path, &e))?;
        if version > schema::VERSION {
            return Err(OpenError::SchemaNewer(version));
        }
        let broken = |e: sqlx::Error| OpenError::Other(fault(path, &e));
        sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON")
            .execute(&mut *writer)
            .await
            .map_err(broken)?;
        schema::prepare(&mut writer, path).await?;
        let identity = identity(path).map_err(|e| Fault::io("inspect", path, &e))?;
        let p = path.to_owned();
        files::blocking(move || protect(&p)).await?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            passphrase: passphrase.clone(),
            writer: Mutex::new(writer),
            reader: OnceCell::new(),
            snapshot: SnapshotCell::default(),
        })
    }

    /// Makes a new database. The passphrase must be in a safe place already.
    pub(crate) async fn create(path: &Path, passphrase: &Secret) -> Result<Self, OpenError> {
        let p = path.to_owned();
        files::blocking(move || {
            files::private_dir(p.parent().unwrap_or(Path::new("/")))?;
            // SQLite would make it with the mode that the umask leaves; its companions inherit this one.
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&p)
                .map(drop)
                .map_err(|e| Fault::io("create", &p, &e))
        })
        .await?;
        Self::open(path, passphrase).await
    }

    /// The passphrase that opened it.
    pub(crate) fn passphrase(&self) -> &Secret {
        &self.passphrase
    }

    /// Whether the path still leads to the file that is open.
    pub(crate) fn is_current(&self, path: &Path) -> bool {
        self.path == path && identity(path).is_ok_and(|found| found == self.identity)
    }

    /// The connection for changes. Composed ones begin with [`begin`].
    pub(crate) async fn writer(&self) -> MappedMutexGuard<'_, SqliteConnection> {
        MutexGuard::map(self.writer.lock().await, |closing| &mut **closing)
    }

    /// The connection for questions, which no waiting writer holds up.
    pub(crate) async fn reader(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, Fault> {
        let connection = self
            .reader
            .get_or_try_init(|| async {
                match connect(&self.path, &self.passphrase).await {
                    Ok(connection) => Ok(Mutex::new(connection)),
                    Err(OpenError::Other(fault)) => Err(fault),
                    Err(_) => Err(Fault::new(
                        Kind::StorageError,
                        "the vault's database was exchanged while it was open",
                    )),
                }
            })
            .await?;
        Ok(MutexGuard::map(connection.lock().await, |closing| {
            &mut **closing
        }))
    }

    /// An error of SQLite as a fault.
    pub(crate) fn fault(&self, error: &sqlx::Error) -> Fault {
        fault(&self.path, error)
    }
}

/// A connection that is really closed when it is dropped. SQLite runs in a thread of `sqlx`'s; one that still closes
/// while the process exits meets a cipher library that is gone, and crashes.
pub(crate) struct Closing(Option<SqliteConnection>);

impl std::ops::Deref for Closing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.0.as_ref().expect("taken only when dropped")
    }
}

impl std::ops::DerefMut for Closing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("taken only when dropped")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(connection) = self.0.take() else {
            return;
        };
        // A thread of its own, because this one may be the event loop's, which must not be entered twice.
        let close = move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build()
                && let Err(error) = runtime.block_on(connection.close())
            {
                tracing::warn!(%error, "the vault's database was not closed well");
            }
        };
        if std::thread::spawn(close).join().is_err() {
            tracing::warn!("the vault's database was not closed well");
        }
    }
}

/// Begins a change that is composed of several statements: whoever comes second waits here and not half-way.
pub(crate) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Sqlite>, sqlx::Error> {
    connection.begin_with("BEGIN IMMEDIATE").await
}

async fn connect(path: &Path, passphrase: &Secret) -> Result<Closing, OpenError> {
    let text = passphrase.expose();
    if text.is_empty() || text.contains('\0') {
        // The first would mean no encryption, the second cannot be said in a statement.
        return Err(OpenError::WrongPassphrase);
    }
    let broken = |e: sqlx::Error| OpenError::Other(fault(path, &e));
    let mut connection = Closing(Some(
        SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // The statement with the key must not get into a log, least of all because it was slow.
            .disable_statement_logging()
            .connect()
            .await
            .map_err(broken)?,
    ));
    // The level comes first: a wrong passphrase is an answer, not a line on stderr.
    let key = format!(
        "PRAGMA cipher_log_level = NONE; PRAGMA key = '{}'; PRAGMA cipher_compatibility = 4",
        text.replace('\'', "''")
    );
    sqlx::raw_sql(AssertSqlSafe(key))
        .execute(&mut *connection)
        .await
        .map_err(|_| {
            // Whatever SQLite says here may quote the statement.
            Fault::new(
                Kind::StorageError,
                "the vault's database does not take a key",
            )
        })?;
    sqlx::query("SELECT count(*) FROM sqlite_master")
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| classify(path, &e))?;
    Ok(connection)
}

/// An error of the first read, where a wrong key shows.
fn classify(path: &Path, error: &sqlx::Error) -> OpenError {
    match error.as_database_error().and_then(|e| e.code()) {
        // SQLITE_NOTADB
        Some(code) if code == "26" => OpenError::WrongPassphrase,
        _ => OpenError::Other(fault(path, error)),
    }
}

fn fault(path: &Path, error: &sqlx::Error) -> Fault {
    Fault::new(
        Kind::StorageError,
        format!("the vault's database `{}`: {error}", path.display()),
    )
    .with("path", path.to_string_lossy())
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Takes others their access to the database, its companions and their directory.
fn protect(path: &Path) -> Result<(), Fault> {
    if let Some(dir) = path.parent() {
        files::narrow(dir, 0o700).map_err(|e| Fault::io("protect", dir, &e))?;
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match files::narrow(Path::new(&name), 0o600) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::io("protect", Path::new(&name), &e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_plaintext(path: &Path) -> Result<bool, Fault> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut head))
        .map_err(|e| Fault::io("read", path, &e))?;
    Ok(head == b"SQLite format 3\0")
}
