//! Writes many rows with few statements.
//!
//! A statement costs more on its way to SQLite's thread than a row costs inside: rows of one kind go in together, in a few fixed
//! sizes so that their statements stay prepared. If anything in a batch is not as expected, all of it is rolled back
//! and done again one by one, so that one bad write fails alone.

use std::sync::{Arc, LazyLock};

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr, SqlStr, Sqlite, SqliteConnection};

use super::super::rows::{AgentRow, Intent, Outcome};
use super::super::writer::Write;
use super::super::{StoreError, to_nanos};
use super::Ledger;
use super::read::tier_name;
use crate::call::{CallId, CallState};

/// How many rows one statement carries, largest first.
const SIZES: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// New calls.
static CALLS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO calls (call_id, agent_id, user_id, task_id, tool, version, tier, tool_digest, generation, decision_id, trace_id, \
         arguments, arguments_sha256, reason, created_at, delivered, credentials, state, is_error, result, problem, detail, may_have_run, \
         exit, leaked, contacted, duration_ms, finished_at) VALUES ",
        "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        "",
    )
});

/// Invocations about to leave.
static DELIVERIES: LazyLock<Bulk> =
    LazyLock::new(|| Bulk::new("UPDATE calls SET delivered = 1 WHERE finished_at IS NULL AND call_id IN (", "?", ")"));

/// Outcomes. The last line is the rule that a call has one.
static OUTCOMES: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "WITH o (call_id, state, is_error, result, problem, detail, may_have_run, exit, leaked, contacted, duration_ms, finished_at) AS (VALUES ",
        "(?,?,?,?,?,?,?,?,?,?,?,?)",
        ") UPDATE calls SET state = o.state, is_error = o.is_error, result = o.result, problem = o.problem, detail = o.detail, \
         may_have_run = o.may_have_run, exit = o.exit, leaked = o.leaked, contacted = o.contacted, duration_ms = o.duration_ms, finished_at = o.finished_at FROM o \
         WHERE calls.call_id = o.call_id AND calls.finished_at IS NULL",
    )
});

/// One statement in each of the [`SIZES`].
struct Bulk([SqlStr; SIZES.len()]);

impl Bulk {
    fn new(before: &str, row: &str, after: &str) -> Self {
        Self(SIZES.map(|size| {
            let sql: Arc<str> = format!("{before}{}{after}", vec![row; size].join(",")).into();
            AssertSqlSafe(sql).into_sql_str()
        }))
    }
}

pub(super) type SqliteQuery = Query<'static, Sqlite, SqliteArguments>;

/// Why a transaction did not go through.
enum Snag {
    /// Some row is not as expected; the others may be fine.
    Row,
    /// The database failed; so would every row.
    Database(StoreError),
}

impl From<sqlx::Error> for Snag {
    fn from(error: sqlx::Error) -> Self {
        if breaks_a_rule(&error) { Self::Row } else { Self::Database(error.into()) }
    }
}

impl Ledger {
    /// Carries out `writes` in one transaction; one answer each, in their order. Durable when it returns.
    pub(in super::super) async fn write(&mut self, writes: &[Write]) -> Vec<Result<(), StoreError>> {
        let result = match writes {
            [write] => self.alone(write).await,
            _ => match self.together(writes).await {
                Ok(()) => Ok(vec![Ok(()); writes.len()]),
                Err(Snag::Row) => self.one_by_one(writes).await,
                Err(Snag::Database(error)) => Err(error),
            },
        };
        result.unwrap_or_else(|error| {
            tracing::error!(%error, writes = writes.len(), "the store could not write; whoever waits is told so");
            // Closing it rolls back what is open. The next batch opens a new one.
            self.connection = None;
            vec![Err(error); writes.len()]
        })
    }

    /// A statement of its own is a transaction of its own.
    async fn alone(&mut self, write: &Write) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let connection = self.connection().await?;
        Ok(vec![apply(connection, write).await?])
    }

    async fn together(&mut self, writes: &[Write]) -> Result<(), Snag> {
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let changed = apply_all(&mut transaction, writes).await;
        match changed {
            Ok(true) => Ok(transaction.commit().await?),
            Ok(false) => {
                transaction.rollback().await?;
                Err(Snag::Row)
            }
            Err(error) => {
                let snag = Snag::from(error);
                if let Snag::Row = snag {
                    transaction.rollback().await?;
                }
                Err(snag)
            }
        }
    }

    async fn one_by_one(&mut self, writes: &[Write]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let connection = self.connection().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            answers.push(apply(&mut transaction, write).await?);
        }
        transaction.commit().await?;
        Ok(answers)
    }
}

/// Applies one write. The outer error is the database's, the inner one this write's.
async fn apply(connection: &mut SqliteConnection, write: &Write) -> Result<Result<(), StoreError>, StoreError> {
    match statement(write).execute(connection).await {
        Ok(done) if done.rows_affected() == 0 => Ok(unchanged(write)),
        Ok(_) => Ok(Ok(())),
        Err(error) if breaks_a_rule(&error) => Ok(Err(conflict(write, error))),
        Err(error) => Err(error.into()),
    }
}

/// Applies all, calls first: what follows may be about them. Says whether every write changed what it should.
async fn apply_all(connection: &mut SqliteConnection, writes: &[Write]) -> Result<bool, sqlx::Error> {
    let (mut calls, mut deliveries, mut outcomes, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for write in writes {
        match write {
            Write::Call(intent, outcome) => calls.push((&**intent, outcome.as_deref())),
            Write::Delivering(call) => deliveries.push(*call),
            Write::Settle(outcome) => outcomes.push(&**outcome),
            other => rest.push(other),
        }
    }
    let all = apply_bulk(connection, &CALLS, &calls, |query, (intent, outcome)| bind_call(query, intent, *outcome)).await?
        && apply_bulk(connection, &DELIVERIES, &deliveries, |query, call| bind_id(query, *call)).await?
        && apply_bulk(connection, &OUTCOMES, &outcomes, |query, outcome| bind_outcome(bind_id(query, outcome.call_id), outcome))
            .await?;
    if !all {
        return Ok(false);
    }
    for write in rest {
        let changed = statement(write).execute(&mut *connection).await?.rows_affected();
        if changed == 0 && unchanged(write).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Applies the rows of one kind. Says whether as many rows changed as there are.
async fn apply_bulk<T>(
    connection: &mut SqliteConnection,
    bulk: &Bulk,
    rows: &[T],
    bind: impl Fn(SqliteQuery, &T) -> SqliteQuery,
) -> Result<bool, sqlx::Error> {
    let mut rest = rows;
    for (size, sql) in SIZES.iter().zip(&bulk.0) {
        while let Some((chunk, others)) = rest.split_at_checked(*size) {
            rest = others;
            let query = chunk.iter().fold(sqlx::query(sql.clone()), &bind);
            if query.execute(&mut *connection).await?.rows_affected() != *size as u64 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The statement of one write.
fn statement(write: &Write) -> SqliteQuery {
    let one = |bulk: &Bulk| sqlx::query(bulk.0[SIZES.len() - 1].clone());
    match write {
        Write::Call(intent, outcome) => bind_call(one(&CALLS), intent, outcome.as_deref()),
        Write::Delivering(call) => bind_id(one(&DELIVERIES), *call),
        Write::Settle(outcome) => bind_outcome(bind_id(one(&OUTCOMES), outcome.call_id), outcome),
        Write::OpenSandbox(row) => {
            sqlx::query("INSERT INTO sandboxes (sandbox_id, backend, call_id, expires_at) VALUES (?,?,?,?)")
                .bind(row.id.0.as_bytes().to_vec())
                .bind(row.backend.as_str())
                .bind(row.call_id.clone())
                .bind(to_nanos(row.expires_at.into()))
        }
        Write::CloseSandbox(id) => sqlx::query("DELETE FROM sandboxes WHERE sandbox_id = ?").bind(id.0.as_bytes().to_vec()),
        Write::Secret(write) => super::credentials::secret(write),
        Write::Credential(write) => super::credentials::credential(write),
        Write::AddAgent(agent) => add_agent(agent),
        Write::RemoveAgent { name, at } => {
            sqlx::query("UPDATE agents SET removed_at = ?, key_mac = x'' WHERE name = ? AND removed_at IS NULL")
                .bind(to_nanos(*at))
                .bind(name.clone())
        }
        Write::SuspendAgent { name, suspended } => {
            sqlx::query("UPDATE agents SET suspended = ? WHERE name = ? AND removed_at IS NULL")
                .bind(*suspended)
                .bind(name.clone())
        }
    }
}

fn add_agent(agent: &AgentRow) -> SqliteQuery {
    sqlx::query("INSERT INTO agents (key_id, name, user_id, key_mac, created_at, suspended) VALUES (?,?,?,?,?,?)")
        .bind(agent.key_id.clone())
        .bind(agent.name.clone())
        .bind(agent.user.clone())
        .bind(agent.key_mac.to_vec())
        .bind(to_nanos(agent.created_at))
        .bind(agent.suspended)
}

fn bind_id(query: SqliteQuery, call: CallId) -> SqliteQuery {
    query.bind(&call.0.as_bytes()[..])
}

fn bind_call(query: SqliteQuery, intent: &Intent, outcome: Option<&Outcome>) -> SqliteQuery {
    let query = bind_id(query, intent.call_id)
        .bind(&*intent.agent_id)
        .bind(intent.user.as_deref())
        .bind(intent.task_id.as_deref())
        .bind(&*intent.tool)
        .bind(&*intent.version)
        .bind(intent.tier.map(tier_name))
        .bind(intent.tool_digest.as_deref())
        .bind(intent.generation.as_deref())
        .bind(intent.decision_id.as_deref())
        .bind(&*intent.trace_id)
        .bind(&*intent.arguments)
        .bind(&*intent.arguments_sha256)
        .bind(intent.reason.as_deref())
        .bind(to_nanos(intent.created_at))
        .bind(intent.delivered)
        .bind(list(&intent.credentials));
    match outcome {
        Some(outcome) => bind_outcome(query, outcome),
        None => {
            const NOTHING: Option<&str> = None;
            let query = query.bind(CallState::Running.as_str());
            // is_error, result, problem, detail, may_have_run, exit, leaked, contacted, duration_ms, finished_at
            [NOTHING; 10].into_iter().fold(query, Query::bind)
        }
    }
}

fn bind_outcome(query: SqliteQuery, outcome: &Outcome) -> SqliteQuery {
    query
        .bind(outcome.state.as_str())
        .bind(outcome.is_error)
        .bind(outcome.result.as_deref())
        .bind(outcome.problem.as_deref())
        .bind(outcome.detail.as_deref())
        .bind(outcome.may_have_run)
        .bind(outcome.exit.as_deref())
        .bind(list(&outcome.leaked))
        .bind(list(&outcome.contacted))
        .bind(outcome.duration_ms)
        .bind(to_nanos(outcome.finished_at))
}

/// A list as JSON; one of nothing is null.
fn list<T: serde::Serialize>(list: &[T]) -> Option<String> {
    (!list.is_empty()).then(|| serde_json::json!(list).to_string())
}

/// What it means that a write changed no row.
fn unchanged(write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Delivering(call) => Err(StoreError::NotOpen(*call)),
        Write::Settle(outcome) => Err(StoreError::NotOpen(outcome.call_id)),
        Write::RemoveAgent { name, .. } | Write::SuspendAgent { name, .. } => Err(StoreError::UnknownAgent(name.clone())),
        // It is gone, which is what was asked; the others insert, and fail if they cannot.
        Write::CloseSandbox(_) | Write::OpenSandbox(_) | Write::Call(..) | Write::AddAgent(_) => Ok(()),
        // The same; nobody waits to hear that a credential that is gone failed to go.
        Write::Secret(_) | Write::Credential(_) => Ok(()),
    }
}

/// What it means that a write broke a rule of the tables.
fn conflict(write: &Write, error: sqlx::Error) -> StoreError {
    let duplicate = error.as_database_error().is_some_and(|e| e.is_unique_violation());
    match write {
        Write::Call(intent, _) if duplicate => StoreError::DuplicateCall(intent.call_id),
        Write::AddAgent(agent) if duplicate => StoreError::DuplicateAgent(agent.name.clone()),
        _ => StoreError::Unfit(Arc::new(error)),
    }
}

/// Whether only the row is to blame: SQLite takes back that one statement and the transaction goes on.
fn breaks_a_rule(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.is_unique_violation() || e.is_check_violation())
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::super::super::Durability;
    use super::super::Settings;
    use super::*;

    #[tokio::test]
    async fn no_write_scans_the_ledger_however_many_come_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::File::create(&path).unwrap();
        let settings = Settings { durability: Durability::Relaxed, max_pages: None };
        let (mut ledger, _) = Ledger::open(&path, settings).await.unwrap();
        let connection = ledger.connection().await.unwrap();
        for sql in DELIVERIES.0.iter().chain(&OUTCOMES.0) {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql.as_str()));
            let plan = sqlx::query(explain).fetch_all(&mut *connection).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().any(|step| step.starts_with("SEARCH calls USING")), "{plan:?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN calls")), "{plan:?}");
        }
    }
}
