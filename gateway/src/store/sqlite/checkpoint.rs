//! Copies the write-ahead log into the database behind the writer's back.
//!
//! Left alone, SQLite does this inside a commit, which then takes as long as hundreds of others. Here a connection of its own does
//! it meanwhile, so that the writer, when the log is long enough to begin anew, finds next to nothing left to copy.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Settings;

/// How long writes gather before they are copied.
const PAUSE: Duration = Duration::from_millis(100);

/// How long it rests after a failure.
const REST: Duration = Duration::from_secs(5);

/// The copying side. It only saves time: without it the writer copies for itself.
#[derive(Debug)]
pub(in super::super) struct Checkpointer {
    options: SqliteConnectOptions,
}

impl Checkpointer {
    pub(in super::super) fn new(path: &Path, settings: Settings) -> Self {
        Self { options: settings.connect(path) }
    }

    /// Copies, a moment after `written` tells of a write, until `stop`. Never leaves a copy half done.
    pub(in super::super) async fn run(self, written: &Notify, stop: CancellationToken) {
        while let Err(error) = self.copy(written, &stop).await {
            tracing::warn!(%error, "the write-ahead log could not be copied; the writer does it until this works again");
            stop.run_until_cancelled(tokio::time::sleep(REST)).await;
        }
    }

    async fn copy(&self, written: &Notify, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let gather = async || {
            written.notified().await;
            tokio::time::sleep(PAUSE).await;
        };
        while stop.run_until_cancelled(gather()).await.is_some() {
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut connection).await?;
        }
        connection.close().await
    }
}
