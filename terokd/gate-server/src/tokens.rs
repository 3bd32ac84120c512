//! The tokens that open gates: hashes in the state database, and all live ones in memory.
//!
//! A token is bound to the resolved path of a gate, not to a name: a project that shares another's gate gets in.

use crate::import;
use crate::token::{self, Hash, Token};
use jiff::Timestamp;
use sqlx::{Row as _, SqlitePool};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use subtle::ConstantTimeEq as _;
use terok_proto::{Fault, Kind};
use tokio::sync::Mutex;

/// All tokens. A handle: clones share them.
#[derive(Clone, Debug)]
pub struct Tokens {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: SqlitePool,
    /// Changes happen one after the other; lookups do not wait for them.
    changes: Mutex<()>,
    live: RwLock<Live>,
}

/// By the first bytes of the hash; the whole is compared in constant time.
type Live = HashMap<[u8; 8], Vec<Arc<Grant>>>;

/// What a token stands for.
#[derive(Debug)]
pub(crate) struct Grant {
    hash: Hash,
    pub(crate) gate_path: PathBuf,
    pub(crate) scope: String,
    pub(crate) task_id: String,
    /// Seconds since 1970; 0 means never.
    used: AtomicI64,
    written: AtomicI64,
}

impl Grant {
    pub(crate) fn new(hash: Hash, gate_path: PathBuf, scope: &str, task_id: &str) -> Self {
        Self {
            hash,
            gate_path,
            scope: scope.to_owned(),
            task_id: task_id.to_owned(),
            used: AtomicI64::new(0),
            written: AtomicI64::new(0),
        }
    }

    /// Names the token in logs and towards children, without opening anything.
    pub(crate) fn id(&self) -> String {
        token::hex(&self.hash[..6])
    }
}

impl Tokens {
    /// Reads the live tokens from the daemon's state database, whose table `gate_tokens` exists.
    ///
    /// # Errors
    /// `storage_error`: the database cannot be read.
    pub async fn open(pool: SqlitePool) -> Result<Self, Fault> {
        let rows = sqlx::query(
            "SELECT hash, gate_path, scope, task_id FROM gate_tokens WHERE revoked_at IS NULL",
        )
        .fetch_all(&pool)
        .await
        .map_err(|error| fault("read", &error))?;
        let mut live = Live::new();
        for row in rows {
            let hash: Vec<u8> = row.try_get(0).map_err(|error| fault("read", &error))?;
            let Ok(hash) = Hash::try_from(hash) else {
                continue;
            };
            let text = |index| {
                row.try_get::<String, _>(index)
                    .map_err(|error| fault("read", &error))
            };
            let grant = Grant::new(hash, text(1)?.into(), &text(2)?, &text(3)?);
            insert(&mut live, grant);
        }
        let inner = Inner {
            pool,
            changes: Mutex::new(()),
            live: RwLock::new(live),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Makes a token that opens the gate at `gate_path`, which is resolved, for one task. Older ones of the task end.
    ///
    /// # Errors
    /// `storage_error`: the token could not be recorded; the older ones stay.
    pub async fn mint(&self, scope: &str, task_id: &str, gate_path: &Path) -> Result<Token, Fault> {
        self.mint_one(scope, task_id, gate_path, false).await
    }

    /// The same, but older tokens of the task stay valid.
    ///
    /// # Errors
    /// `storage_error`: the token could not be recorded.
    pub async fn mint_another(
        &self,
        scope: &str,
        task_id: &str,
        gate_path: &Path,
    ) -> Result<Token, Fault> {
        self.mint_one(scope, task_id, gate_path, true).await
    }

    async fn mint_one(
        &self,
        scope: &str,
        task_id: &str,
        gate_path: &Path,
        keep: bool,
    ) -> Result<Token, Fault> {
        let path = gate_path.to_str().ok_or_else(|| {
            Fault::invalid_argument(format!(
                "the path of gate `{}` is not UTF-8: choose another `gate.path`",
                gate_path.display()
            ))
        })?;
        let token = Token::mint()?;
        let hash = token::hash(token.expose().as_bytes());
        let _changes = self.inner.changes.lock().await;
        let written = async {
            let mut transaction = self.inner.pool.begin().await?;
            if !keep {
                end_rows(&mut transaction, scope, Some(task_id)).await?;
            }
            sqlx::query(
                "INSERT INTO gate_tokens (hash, gate_path, scope, task_id, created_at, imported)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0)",
            )
            .bind(&hash[..])
            .bind(path)
            .bind(scope)
            .bind(task_id)
            .bind(now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        };
        written.await.map_err(|error| fault("write", &error))?;
        let mut live = self.write();
        if !keep {
            remove(&mut live, |grant| {
                grant.scope == scope && grant.task_id == task_id
            });
        }
        insert(
            &mut live,
            Grant::new(hash, gate_path.to_owned(), scope, task_id),
        );
        Ok(token)
    }

    /// Ends all tokens of a task, at once, and says how many there were.
    ///
    /// # Errors
    /// `storage_error`: they open nothing any more, but may do so again after a restart.
    pub async fn revoke_task(&self, scope: &str, task_id: &str) -> Result<usize, Fault> {
        self.revoke(scope, Some(task_id)).await
    }

    /// Ends all tokens of a project, at once, and says how many there were.
    ///
    /// # Errors
    /// `storage_error`: they open nothing any more, but may do so again after a restart.
    pub async fn revoke_scope(&self, scope: &str) -> Result<usize, Fault> {
        self.revoke(scope, None).await
    }

    async fn revoke(&self, scope: &str, task_id: Option<&str>) -> Result<usize, Fault> {
        let _changes = self.inner.changes.lock().await;
        // Memory first: whatever becomes of the database, from here on the token opens nothing.
        let ended = remove(&mut self.write(), |grant| {
            grant.scope == scope && task_id.is_none_or(|task| grant.task_id == task)
        });
        let written = async {
            let mut transaction = self.inner.pool.begin().await?;
            end_rows(&mut transaction, scope, task_id).await?;
            transaction.commit().await
        };
        written.await.map_err(|error| fault("write", &error))?;
        Ok(ended)
    }

    /// Live tokens.
    pub fn count(&self) -> usize {
        self.read().values().map(Vec::len).sum()
    }

    /// Tasks that have a live token: project and task.
    pub fn tasks(&self) -> BTreeSet<(String, String)> {
        let live = self.read();
        let grants = live.values().flatten();
        grants
            .map(|grant| (grant.scope.clone(), grant.task_id.clone()))
            .collect()
    }

    /// What the presented bytes open.
    pub(crate) fn lookup(&self, presented: &[u8]) -> Option<Arc<Grant>> {
        let hash = token::hash(presented);
        let live = self.read();
        let mut found = None;
        for grant in live.get(&hash[..8]).into_iter().flatten() {
            if bool::from(grant.hash.ct_eq(&hash)) {
                found = Some(Arc::clone(grant));
            }
        }
        if let Some(grant) = &found {
            grant
                .used
                .store(Timestamp::now().as_second(), Ordering::Relaxed);
        }
        found
    }

    /// Takes over the tokens of the reference's `<base>/tokens.json`, so that its running tasks stay served, and ends
    /// those that it had taken over before and that are not in the file any more. `gate_of` gives the resolved gate
    /// of a project. Says how many of the file's tokens are live.
    ///
    /// # Errors
    /// `storage_error`: file or database cannot be used. A file that is not understood changes nothing.
    pub async fn import_reference(
        &self,
        base: &Path,
        gate_of: impl Fn(&str) -> Option<PathBuf> + Send,
    ) -> Result<usize, Fault> {
        let Some(found) = import::read(base)? else {
            return Ok(0);
        };
        // A project that is broken just now has no gate to tell. Its tokens are still in the file, so they keep what they
        // have: live ones stay live, and revoked ones revoked.
        let present: HashSet<Hash> = found.iter().map(|entry| entry.hash).collect();
        let found: Vec<_> = found
            .into_iter()
            .filter_map(|entry| {
                let gate = gate_of(&entry.scope)?;
                gate.to_str()?;
                Some(Grant::new(entry.hash, gate, &entry.scope, &entry.task))
            })
            .collect();
        let _changes = self.inner.changes.lock().await;
        let written = async {
            let mut transaction = self.inner.pool.begin().await?;
            let rows =
                sqlx::query("SELECT hash, revoked_at IS NOT NULL FROM gate_tokens WHERE imported")
                    .fetch_all(&mut *transaction)
                    .await?;
            let mut known = HashMap::new();
            for row in rows {
                known.insert(row.try_get::<Vec<u8>, _>(0)?, row.try_get::<bool, _>(1)?);
            }
            let mut fresh = Vec::new();
            let mut count = 0;
            for grant in found {
                match known.remove(&grant.hash[..]) {
                    // Revoked here; that the file still has it changes nothing.
                    Some(true) => {}
                    Some(false) => count += 1,
                    None => {
                        let inserted = sqlx::query(
                            "INSERT OR IGNORE INTO gate_tokens (hash, gate_path, scope, task_id, created_at, imported)
                             VALUES (?1, ?2, ?3, ?4, ?5, 1)",
                        )
                        .bind(&grant.hash[..])
                        .bind(grant.gate_path.to_str())
                        .bind(&grant.scope)
                        .bind(&grant.task_id)
                        .bind(now())
                        .execute(&mut *transaction)
                        .await?;
                        if inserted.rows_affected() > 0 {
                            count += 1;
                            fresh.push(grant);
                        }
                    }
                }
            }
            known.retain(|hash, _| !present.iter().any(|present| present[..] == hash[..]));
            for hash in known.keys() {
                sqlx::query("DELETE FROM gate_tokens WHERE hash = ?1")
                    .bind(hash)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok::<_, sqlx::Error>((fresh, known, count))
        };
        let (fresh, gone, count) = written.await.map_err(|error| fault("write", &error))?;
        let mut live = self.write();
        remove(&mut live, |grant| gone.contains_key(&grant.hash[..]));
        for grant in fresh {
            insert(&mut live, grant);
        }
        Ok(count)
    }

    /// Writes down when tokens were last used.
    ///
    /// # Errors
    /// `storage_error`: the times will be written the next time.
    pub async fn flush(&self) -> Result<(), Fault> {
        let used: Vec<_> = self
            .read()
            .values()
            .flatten()
            .filter(|grant| {
                grant.used.load(Ordering::Relaxed) != grant.written.load(Ordering::Relaxed)
            })
            .cloned()
            .collect();
        if used.is_empty() {
            return Ok(());
        }
        let _changes = self.inner.changes.lock().await;
        let written = async {
            let mut transaction = self.inner.pool.begin().await?;
            let mut times = Vec::new();
            for grant in &used {
                let second = grant.used.load(Ordering::Relaxed);
                let at = Timestamp::from_second(second)
                    .unwrap_or_default()
                    .to_string();
                sqlx::query("UPDATE gate_tokens SET last_used_at = ?1 WHERE hash = ?2")
                    .bind(at)
                    .bind(&grant.hash[..])
                    .execute(&mut *transaction)
                    .await?;
                times.push(second);
            }
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(times)
        };
        let times = written.await.map_err(|error| fault("write", &error))?;
        for (grant, second) in used.iter().zip(times) {
            grant.written.store(second, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Live> {
        self.inner
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Live> {
        self.inner
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(live: &mut Live, grant: Grant) {
    live.entry(key(&grant.hash))
        .or_default()
        .push(Arc::new(grant));
}

fn remove(live: &mut Live, which: impl Fn(&Grant) -> bool) -> usize {
    let mut removed = 0;
    live.retain(|_, grants| {
        let before = grants.len();
        grants.retain(|grant| !which(grant));
        removed += before - grants.len();
        !grants.is_empty()
    });
    removed
}

fn key(hash: &Hash) -> [u8; 8] {
    let mut key = [0; 8];
    key.copy_from_slice(&hash[..8]);
    key
}

/// Ends tokens in the database. Imported ones leave a mark, or the next import would bring them back.
async fn end_rows(
    connection: &mut sqlx::SqliteConnection,
    scope: &str,
    task_id: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE gate_tokens SET revoked_at = ?3
         WHERE imported AND revoked_at IS NULL AND scope = ?1 AND (?2 IS NULL OR task_id = ?2)",
    )
    .bind(scope)
    .bind(task_id)
    .bind(now())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM gate_tokens WHERE NOT imported AND scope = ?1 AND (?2 IS NULL OR task_id = ?2)",
    )
    .bind(scope)
    .bind(task_id)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn now() -> String {
    let second = Timestamp::now().as_second();
    Timestamp::from_second(second)
        .unwrap_or_default()
        .to_string()
}

fn fault(action: &str, error: &sqlx::Error) -> Fault {
    Fault::new(
        Kind::StorageError,
        format!("cannot {action} the tokens of gates: {error}"),
    )
}

#[cfg(test)]
pub(crate) mod tests;
