//! Operations as rows: what is known of them after a restart.

use crate::store::Store;
use futures_util::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use terok_proto::ops::{Operation, OperationState, Progress};
use terok_proto::{Fault, Kind};

/// How many finished operations are kept.
pub(super) const KEPT: i64 = 1_000;
/// How long a finished operation is kept.
const KEPT_DAYS: i64 = 30;
/// A result larger than this is not kept: no message could carry it.
const MAX_RESULT: usize = 16 << 20;
/// Larger results are left out of lists; `operation.get` has them.
const MAX_LISTED: i64 = 64 << 10;
/// What the results in one list may take together.
const MAX_LIST: usize = 4 << 20;

/// Reads and writes the rows.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    store: Store,
}

/// An operation that the last daemon left unfinished.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) operation: Operation,
    pub(super) params: Value,
    pub(super) resumable: bool,
}

/// Which operations a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) project_id: Option<&'a str>,
    pub(super) state: Option<OperationState>,
}

impl Wanted<'_> {
    pub(super) fn shows(&self, operation: &Operation) -> bool {
        self.state.is_none_or(|state| operation.state == state)
            && self
                .project_id
                .is_none_or(|id| operation.project_id.as_deref() == Some(id))
    }
}

const COLUMNS: &str = "SELECT id, method, project_id, task_id, state, started_at, finished_at, progress, error, \
                       result, params, resumable FROM operations ";

impl Journal {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Records that an operation begins.
    pub(super) async fn begin(
        &self,
        operation: &Operation,
        params: &Value,
        resumable: bool,
    ) -> Result<(), Fault> {
        let query = sqlx::query(
            "INSERT INTO operations (id, method, project_id, task_id, resumable, state, started_at, params) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(&operation.id)
        .bind(&operation.method)
        .bind(&operation.project_id)
        .bind(&operation.task_id)
        .bind(resumable)
        .bind(name(operation.state))
        .bind(&operation.started_at)
        .bind(if resumable { Some(params.to_string()) } else { None });
        self.write("record the operation in", query).await
    }

    /// Records how far an operation is.
    pub(super) async fn progress(&self, id: &str, progress: &Progress) -> Result<(), Fault> {
        let query = sqlx::query(
            "UPDATE operations SET progress = ?2 WHERE id = ?1 AND finished_at IS NULL",
        )
        .bind(id.to_owned())
        .bind(text(progress));
        self.write("record progress in", query).await
    }

    /// Records what an operation will answer.
    pub(super) async fn settle(&self, id: &str, result: &Value) -> Result<(), Fault> {
        let query =
            sqlx::query("UPDATE operations SET result = ?2 WHERE id = ?1 AND finished_at IS NULL")
                .bind(id.to_owned())
                .bind(kept(result));
        self.write("record the result in", query).await
    }

    /// Records how an operation ended.
    pub(super) async fn finish(&self, operation: &Operation) -> Result<(), Fault> {
        let result = operation.result.as_ref().and_then(kept);
        let query = sqlx::query(
            "UPDATE operations SET state = ?2, finished_at = ?3, progress = ?4, error = ?5, result = ?6, params = NULL \
             WHERE id = ?1",
        )
        .bind(operation.id.clone())
        .bind(name(operation.state))
        .bind(operation.finished_at.clone())
        .bind(operation.progress.as_ref().and_then(text))
        .bind(operation.error.as_ref().and_then(text))
        .bind(result);
        self.write("record the end of the operation in", query)
            .await
    }

    /// Removes finished operations that are too many or too old.
    pub(super) async fn prune(&self) -> Result<(), Fault> {
        let oldest = jiff::Timestamp::now()
            .checked_sub(jiff::SignedDuration::from_hours(24 * KEPT_DAYS))
            .map_or_else(|_| String::new(), rfc3339);
        let query = sqlx::query(
            "DELETE FROM operations WHERE finished_at < ?1 OR finished_at IS NOT NULL AND id <= \
             (SELECT id FROM operations WHERE finished_at IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(oldest)
        .bind(KEPT);
        self.write("prune", query).await
    }

    /// One operation.
    pub(super) async fn get(&self, id: &str) -> Result<Option<Operation>, Fault> {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = ?1"));
        let mut reader = self.store.reader().await;
        let row = sqlx::query(sql)
            .bind(id.to_owned())
            .fetch_optional(&mut *reader)
            .await;
        row.and_then(|row| row.map(|row| operation(&row)).transpose())
            .map_err(|e| self.store.fault("read", &e))
    }

    /// Those wanted, newest first; large results are left out.
    pub(super) async fn list(&self, wanted: Wanted<'_>) -> Result<Vec<Operation>, Fault> {
        let sql = "SELECT id, method, project_id, task_id, state, started_at, finished_at, progress, error, \
                   CASE WHEN octet_length(result) <= ?3 THEN result END AS result FROM operations \
                   WHERE (?1 IS NULL OR project_id = ?1) AND (?2 IS NULL OR state = ?2) ORDER BY id DESC";
        let mut reader = self.store.reader().await;
        let mut rows = sqlx::query(sql)
            .bind(wanted.project_id.map(ToOwned::to_owned))
            .bind(wanted.state.map(name))
            .bind(MAX_LISTED)
            .fetch(&mut *reader);
        let (mut operations, mut budget) = (Vec::new(), MAX_LIST);
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|e| self.store.fault("read", &e))?
        {
            let size = row
                .try_get::<Option<&str>, _>("result")
                .ok()
                .flatten()
                .map_or(0, str::len);
            let mut operation = operation(&row).map_err(|e| self.store.fault("read", &e))?;
            match budget.checked_sub(size) {
                Some(left) => budget = left,
                None => operation.result = None,
            }
            operations.push(operation);
        }
        Ok(operations)
    }

    /// Those without an end, oldest first.
    pub(super) async fn unfinished(&self) -> Result<Vec<Unfinished>, Fault> {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE finished_at IS NULL ORDER BY id"));
        let mut reader = self.store.reader().await;
        let rows = sqlx::query(sql)
            .fetch_all(&mut *reader)
            .await
            .map_err(|e| self.store.fault("read", &e))?;
        let read = |row: &SqliteRow| {
            Ok(Unfinished {
                operation: operation(row)?,
                params: json(row, "params")?.unwrap_or_default(),
                resumable: row.try_get("resumable")?,
            })
        };
        rows.iter()
            .map(read)
            .collect::<sqlx::Result<_>>()
            .map_err(|e| self.store.fault("read", &e))
    }

    /// The id that the next one must exceed.
    pub(super) async fn greatest_id(&self) -> Result<Option<String>, Fault> {
        let mut reader = self.store.reader().await;
        sqlx::query_scalar("SELECT max(id) FROM operations")
            .fetch_one(&mut *reader)
            .await
            .map_err(|e| self.store.fault("read", &e))
    }

    async fn write(
        &self,
        action: &str,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), Fault> {
        let mut writer = self.store.writer().await;
        query
            .execute(&mut *writer)
            .await
            .map(drop)
            .map_err(|e| self.store.fault(action, &e))
    }
}

/// A time as it stands in rows and on the wire; such texts sort like times.
pub(super) fn rfc3339(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}

/// The operation of an id that nobody knows.
pub(super) fn not_found(id: &str) -> Fault {
    let id: String = id.chars().take(64).collect();
    Fault::new(
        Kind::OperationNotFound,
        format!("there is no operation `{id}`"),
    )
    .hint("finished operations are kept for 30 days, the newest 1,000 of them")
}

fn operation(row: &SqliteRow) -> sqlx::Result<Operation> {
    let finished_at: Option<String> = row.try_get("finished_at")?;
    let state: &str = row.try_get("state")?;
    let state = STATES.iter().find(|(_, name)| *name == state).map_or(
        if finished_at.is_some() {
            OperationState::Failed
        } else {
            OperationState::Running
        },
        |(state, _)| *state,
    );
    Ok(Operation {
        id: row.try_get("id")?,
        method: row.try_get("method")?,
        project_id: row.try_get("project_id")?,
        task_id: row.try_get("task_id")?,
        state,
        started_at: row.try_get("started_at")?,
        finished_at,
        progress: json(row, "progress")?,
        result: json(row, "result")?,
        error: json(row, "error")?,
    })
}

/// A column with JSON in it; what does not fit the type is as good as absent.
fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.and_then(|text| serde_json::from_str(text).ok()))
}

/// A result as it is stored.
fn kept(result: &Value) -> Option<String> {
    Some(result.to_string()).filter(|result| result.len() <= MAX_RESULT)
}

fn text<T: Serialize>(value: &T) -> Option<String> {
    serde_json::to_string(value).ok()
}

const STATES: [(OperationState, &str); 5] = [
    (OperationState::Queued, "queued"),
    (OperationState::Running, "running"),
    (OperationState::Succeeded, "succeeded"),
    (OperationState::Failed, "failed"),
    (OperationState::Cancelled, "cancelled"),
];

fn name(state: OperationState) -> &'static str {
    STATES
        .iter()
        .find(|(s, _)| *s == state)
        .map_or("failed", |(_, name)| name)
}
