//! Reads, on connections of their own: in WAL mode they see the last commit and never wait for the next.

use std::path::Path;

use mayfly_executor::{BackendKind, SandboxId, SandboxRow};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NameError;
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{Row, SqlitePool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::rows::{AgentRow, CallRow, Intent, Outcome};
use super::super::{StoreError, from_nanos, system_time};
use super::base;
use crate::call::{CallId, CallState};
use crate::catalog::definition::Tier;

/// Most connections that read at once; each is a thread.
const CONNECTIONS: u32 = 4;

/// Everything of calls but what may be long: the results of a whole list do not fit in memory.
macro_rules! list_calls {
    ($which:literal) => {
        concat!(
            "SELECT call_id, agent_id, user_id, task_id, tool, version, tier, tool_digest, generation, decision_id, trace_id, \
             '' AS arguments, arguments_sha256, reason, created_at, delivered, NULL AS credentials, state, is_error, NULL AS result, problem, detail, \
             may_have_run, exit, NULL AS leaked, NULL AS contacted, duration_ms, finished_at FROM calls WHERE ",
            $which
        )
    };
}

const CALL: &str = "SELECT * FROM calls WHERE call_id = ?";
const OPEN_CALLS: &str = "SELECT call_id, delivered, created_at FROM calls WHERE finished_at IS NULL";
const CALLS: &str = list_calls!("agent_id = ? AND user_id IS ? ORDER BY seq DESC LIMIT ?");
const CALLS_OF_TASK: &str = list_calls!("agent_id = ? AND user_id IS ? AND task_id = ? ORDER BY seq DESC LIMIT ?");
const AGENTS: &str = "SELECT * FROM agents WHERE removed_at IS NULL ORDER BY name";
const REMOVED_AGENT: &str = "SELECT name FROM agents WHERE name = ? AND removed_at IS NOT NULL";
const SANDBOXES: &str = "SELECT * FROM sandboxes";

/// The reading side.
#[derive(Debug)]
pub(in super::super) struct Reader {
    pool: SqlitePool,
}

/// As much of an open call as recovery needs.
pub(in super::super) struct OpenCall {
    /// The call.
    pub(in super::super) call_id: CallId,
    /// Whether its invocation had begun to leave.
    pub(in super::super) delivered: bool,
    /// When it arrived.
    pub(in super::super) created_at: OffsetDateTime,
}

impl Reader {
    /// Connections are made when they are needed.
    pub(in super::super) fn open(path: &Path) -> Self {
        Self { pool: SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_lazy_with(base(path).read_only(true)) }
    }

    pub(in super::super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(in super::super) async fn call(&self, call: CallId) -> Result<Option<CallRow>, StoreError> {
        let row = sqlx::query(CALL).bind(&call.0.as_bytes()[..]).fetch_optional(&self.pool).await?;
        Ok(row.map(call_row).transpose()?)
    }

    pub(in super::super) async fn calls(
        &self,
        agent_id: &str,
        user: Option<&str>,
        task_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<CallRow>, StoreError> {
        let query = sqlx::query(if task_id.is_some() { CALLS_OF_TASK } else { CALLS }).bind(agent_id).bind(user);
        let query = if let Some(task) = task_id { query.bind(task) } else { query };
        let rows = query.bind(limit).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(call_row).collect::<Result<_, _>>()?)
    }

    pub(in super::super) async fn open_calls(&self) -> Result<Vec<OpenCall>, StoreError> {
        let rows = sqlx::query(OPEN_CALLS).fetch_all(&self.pool).await?;
        let open_call = |row: SqliteRow| -> Result<_, sqlx::Error> {
            Ok(OpenCall {
                call_id: CallId(id(&row, "call_id")?),
                delivered: row.try_get("delivered")?,
                created_at: from_nanos(row.try_get("created_at")?)?,
            })
        };
        Ok(rows.into_iter().map(open_call).collect::<Result<_, _>>()?)
    }

    pub(in super::super) async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        let rows = sqlx::query(AGENTS).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(agent_row).collect::<Result<_, _>>()?)
    }

    pub(super) const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Whether an agent of that name was removed.
    pub(in super::super) async fn was_removed(&self, name: &str) -> Result<bool, StoreError> {
        Ok(sqlx::query(REMOVED_AGENT).bind(name).fetch_optional(&self.pool).await?.is_some())
    }

    pub(in super::super) async fn sandboxes(&self) -> Result<Vec<SandboxRow>, StoreError> {
        let rows = sqlx::query(SANDBOXES).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(sandbox_row).collect::<Result<_, _>>()?)
    }
}

fn call_row(row: SqliteRow) -> Result<CallRow, sqlx::Error> {
    let call_id = CallId(id(&row, "call_id")?);
    let state = named::<CallState>(row.try_get("state")?)?;
    let finished_at: Option<i64> = row.try_get("finished_at")?;
    let outcome = finished_at.map(|at| outcome(&row, call_id, state, at)).transpose()?;
    let intent = Intent {
        call_id,
        agent_id: row.try_get("agent_id")?,
        user: row.try_get("user_id")?,
        task_id: row.try_get("task_id")?,
        tool: row.try_get("tool")?,
        version: row.try_get("version")?,
        tier: row.try_get::<Option<&str>, _>("tier")?.map(named::<Tier>).transpose()?,
        tool_digest: row.try_get("tool_digest")?,
        generation: row.try_get("generation")?,
        decision_id: row.try_get("decision_id")?,
        trace_id: row.try_get("trace_id")?,
        arguments: row.try_get("arguments")?,
        arguments_sha256: row.try_get("arguments_sha256")?,
        reason: row.try_get("reason")?,
        created_at: from_nanos(row.try_get("created_at")?)?,
        delivered: row.try_get("delivered")?,
        credentials: list(&row, "credentials")?,
    };
    Ok(CallRow { intent, state, outcome })
}

fn outcome(row: &SqliteRow, call_id: CallId, state: CallState, finished_at: i64) -> Result<Outcome, sqlx::Error> {
    Ok(Outcome {
        call_id,
        state,
        is_error: row.try_get("is_error")?,
        result: row.try_get("result")?,
        problem: row.try_get("problem")?,
        detail: row.try_get("detail")?,
        may_have_run: row.try_get("may_have_run")?,
        exit: row.try_get("exit")?,
        leaked: list(row, "leaked")?,
        contacted: list(row, "contacted")?,
        duration_ms: row.try_get("duration_ms")?,
        finished_at: from_nanos(finished_at)?,
    })
}

/// A list that was written as JSON.
fn list<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Vec<T>, sqlx::Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e))))
}

fn agent_row(row: SqliteRow) -> Result<AgentRow, sqlx::Error> {
    Ok(AgentRow {
        key_id: row.try_get("key_id")?,
        name: row.try_get("name")?,
        user: row.try_get("user_id")?,
        key_mac: row.try_get::<&[u8], _>("key_mac")?.try_into().map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        created_at: from_nanos(row.try_get("created_at")?)?,
        suspended: row.try_get("suspended")?,
    })
}

fn sandbox_row(row: SqliteRow) -> Result<SandboxRow, sqlx::Error> {
    Ok(SandboxRow {
        id: SandboxId(id(&row, "sandbox_id")?),
        backend: named::<BackendKind>(row.try_get("backend")?)?,
        call_id: row.try_get("call_id")?,
        expires_at: system_time(row.try_get("expires_at")?)?,
    })
}

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Reads an enum by the name it has on the wire. A name we do not know was written by a later version: an error, never a guess.
fn named<T: for<'de> Deserialize<'de>>(name: &str) -> Result<T, sqlx::Error> {
    T::deserialize(name.into_deserializer()).map_err(|error: NameError| sqlx::Error::Decode(Box::new(error)))
}

/// The name of a tier, as `tool.yaml` has it.
pub(super) const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Free => "free",
        Tier::Supervised => "supervised",
        Tier::Forbidden => "forbidden",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Durability;
    use super::super::{Ledger, Settings};
    use super::*;

    #[tokio::test]
    async fn no_list_scans_or_sorts_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::File::create(&path).unwrap();
        let settings = Settings { durability: Durability::Relaxed, max_pages: None };
        let (ledger, _) = Ledger::open(&path, settings).await.unwrap();
        let reader = Reader::open(&path);
        for (sql, index) in [(OPEN_CALLS, "calls_open"), (CALLS, "calls_by_owner"), (CALLS_OF_TASK, "calls_by_task")] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan: Vec<String> =
                sqlx::query(explain).fetch_all(&reader.pool).await.unwrap().iter().map(|row| row.get("detail")).collect();
            assert!(plan.len() == 1 && plan[0].contains(&format!("USING INDEX {index}")), "{plan:?}");
        }
        ledger.close().await;
    }
}
