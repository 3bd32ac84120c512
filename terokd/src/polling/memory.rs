//! What is remembered of each gate over a restart, so that nobody hears old news and nothing is tried too soon.

use crate::store::Store;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terok_proto::Fault;
use terok_proto::gate::{GateStalenessInfo, StalenessErrorKind};

/// One gate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Last poll, RFC 3339, UTC.
    pub last_poll_at: Option<String>,
    /// Last poll that reached upstream, RFC 3339, UTC.
    pub last_success_at: Option<String>,
    /// Failures since then.
    pub failures: u32,
    /// Why the last poll failed.
    pub last_error: Option<String>,
    /// The same for machines.
    pub last_error_kind: Option<StalenessErrorKind>,
    /// Upstream's head that subscribers were told about; none if they believe the gate to be current.
    pub notified_head: Option<String>,
    /// What the last successful poll found.
    pub staleness: Option<GateStalenessInfo>,
    /// Last successful sync, RFC 3339, UTC.
    pub last_sync_at: Option<String>,
    /// Why the last sync failed.
    pub last_sync_error: Option<String>,
}

impl Row {
    /// What would be told or tried again if it were forgotten; the rest the next poll finds out anew.
    pub(super) fn news(&self) -> impl PartialEq + use<> {
        (
            self.failures,
            self.last_error.clone(),
            self.last_error_kind,
            self.notified_head.clone(),
        )
    }
}

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// What is to be written, by gate.
    rows: BTreeMap<PathBuf, Row>,
    /// Somebody is going to write it soon.
    expected: bool,
}

impl Memory {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Arc::default(),
        }
    }

    pub(super) async fn load(&self) -> Result<HashMap<PathBuf, Row>, Fault> {
        let mut reader = self.store.reader().await;
        let rows = sqlx::query("SELECT * FROM gate_polls")
            .fetch_all(&mut *reader)
            .await
            .map_err(|error| self.store.fault("read what was polled", &error))?;
        Ok(rows
            .iter()
            .map(|row| {
                let text = |name: &str| row.try_get::<Option<String>, _>(name).ok().flatten();
                let kind = text("last_error_kind").map(serde_json::Value::String);
                let known = Row {
                    last_poll_at: text("last_poll_at"),
                    last_success_at: text("last_success_at"),
                    failures: row
                        .try_get::<i64, _>("failures")
                        .ok()
                        .and_then(|n| u32::try_from(n).ok())
                        .unwrap_or(0),
                    last_error: text("last_error"),
                    last_error_kind: kind.and_then(|kind| serde_json::from_value(kind).ok()),
                    notified_head: text("notified_head"),
                    staleness: text("staleness").and_then(|text| serde_json::from_str(&text).ok()),
                    last_sync_at: text("last_sync_at"),
                    last_sync_error: text("last_sync_error"),
                };
                (PathBuf::from(text("gate_path").unwrap_or_default()), known)
            })
            .collect())
    }

    /// Writes one gate, and what waits to be written with it.
    pub(super) async fn save(&self, gate: &Path, row: &Row) -> Result<(), Fault> {
        self.waiting().rows.insert(gate.to_owned(), row.clone());
        self.write().await
    }

    /// Leaves one gate for the next who writes; true if the caller has to see to it that somebody does soon.
    pub(super) fn put_aside(&self, gate: &Path, row: Row) -> bool {
        let mut waiting = self.waiting();
        waiting.rows.insert(gate.to_owned(), row);
        !std::mem::replace(&mut waiting.expected, true)
    }

    /// Writes what was put aside, from now on.
    pub(super) async fn write_aside(&self) -> Result<(), Fault> {
        self.waiting().expected = false;
        self.write().await
    }

    /// Many polls end at the same time: whoever writes first writes for all who wait.
    async fn write(&self) -> Result<(), Fault> {
        let mut writer = self.store.writer().await;
        let rows = std::mem::take(&mut self.waiting().rows);
        if rows.is_empty() {
            return Ok(());
        }
        let failed = |error| self.store.fault("remember a poll", &error);
        let mut together = writer.begin().await.map_err(failed)?;
        for (gate, row) in &rows {
            insert(&mut together, gate, row).await.map_err(failed)?;
        }
        together.commit().await.map_err(failed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn forget(&self, gate: &Path) -> Result<(), Fault> {
        self.waiting().rows.remove(gate);
        let mut writer = self.store.writer().await;
        sqlx::query("DELETE FROM gate_polls WHERE gate_path = ?")
            .bind(gate.to_string_lossy().into_owned())
            .execute(&mut *writer)
            .await
            .map_err(|error| self.store.fault("forget a gate", &error))?;
        Ok(())
    }
}

async fn insert(writer: &mut SqliteConnection, gate: &Path, row: &Row) -> Result<(), sqlx::Error> {
    let kind = row
        .last_error_kind
        .and_then(|kind| serde_json::to_value(kind).ok())
        .and_then(|kind| kind.as_str().map(str::to_owned));
    let staleness = row
        .staleness
        .as_ref()
        .and_then(|staleness| serde_json::to_string(staleness).ok());
    sqlx::query(
        "INSERT OR REPLACE INTO gate_polls (gate_path, last_poll_at, last_success_at, failures, last_error, \
         last_error_kind, notified_head, staleness, last_sync_at, last_sync_error) VALUES (?,?,?,?,?,?,?,?,?,?)",
    )
    .bind(gate.to_string_lossy().into_owned())
    .bind(&row.last_poll_at)
    .bind(&row.last_success_at)
    .bind(i64::from(row.failures))
    .bind(&row.last_error)
    .bind(kind)
    .bind(&row.notified_head)
    .bind(staleness)
    .bind(&row.last_sync_at)
    .bind(&row.last_sync_error)
    .execute(writer)
    .await
    .map(drop)
}
