//! What a gateway's ledger holds, read from its file: the truth behind what the doors show.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::Mayfly;

/// A look into a ledger.
#[derive(Debug)]
pub struct Ledger {
    /// The id of the installation, which its sandboxes carry.
    pub instance: String,
    /// The sandboxes that may exist, by id.
    pub sandboxes: BTreeSet<String>,
    /// How many calls are in which state.
    pub calls: BTreeMap<String, u64>,
    /// The open calls whose invocation has begun to leave.
    pub delivered: BTreeSet<String>,
}

impl Ledger {
    /// How many calls have no outcome.
    pub fn running(&self) -> u64 {
        self.in_state("running")
    }

    /// How many calls are in this state.
    pub fn in_state(&self, state: &str) -> u64 {
        self.calls.get(state).copied().unwrap_or(0)
    }
}

impl Mayfly {
    /// Its ledger, whether it runs or not.
    pub async fn ledger(&self) -> Ledger {
        let options = SqliteConnectOptions::new().filename(self.dir().join("data/mayfly.db")).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("the ledger");
        let of = &mut connection;
        let instance = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'instance'").fetch_one(&mut *of).await;
        let open: Vec<Vec<u8>> = sqlx::query_scalar("SELECT sandbox_id FROM sandboxes").fetch_all(&mut *of).await.expect("rows");
        let calls: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM calls GROUP BY state").fetch_all(&mut *of).await.expect("rows");
        let delivered = "SELECT call_id FROM calls WHERE finished_at IS NULL AND delivered = 1";
        let delivered: Vec<Vec<u8>> = sqlx::query_scalar(delivered).fetch_all(&mut *of).await.expect("rows");
        let id = |bytes: Vec<u8>| uuid::Uuid::from_slice(&bytes).expect("an id").to_string();
        Ledger {
            instance: instance.expect("an instance"),
            sandboxes: open.into_iter().map(id).collect(),
            calls: calls.into_iter().map(|(state, count)| (state, count.unsigned_abs())).collect(),
            delivered: delivered.into_iter().map(id).collect(),
        }
    }
}
