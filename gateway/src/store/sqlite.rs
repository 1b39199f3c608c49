//! Everything that is SQL, and SQLite's own ways. Another database gets another folder like this one.

mod apply;
mod checkpoint;
mod credentials;
mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_executor::InstanceId;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqliteConnection};
use uuid::Uuid;

use super::{Durability, StoreError};

pub(super) use checkpoint::Checkpointer;
pub(super) use read::Reader;

/// How long a connection waits for another one's lock. Only opening and checkpoints ever take one that matters.
const BUSY: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log (4 KiB each) after which a commit copies them into the database.
const CHECKPOINT_PAGES: &str = "4000";

/// Every form the database has had, in order. One that was released never changes.
const MIGRATIONS: [(&str, &str); 3] = [
    ("ledger", include_str!("migrations/0001_ledger.sql")),
    ("credentials", include_str!("migrations/0002_credentials.sql")),
    ("egress", include_str!("migrations/0003_egress.sql")),
];

/// How the database is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// What a commit survives.
    pub(super) durability: Durability,
    /// Most pages of the database, so that a test can fill it.
    pub(super) max_pages: Option<u32>,
}

impl Settings {
    fn connect(self, path: &Path) -> SqliteConnectOptions {
        let options = base(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match self.durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Relaxed => SqliteSynchronous::Normal,
            })
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
        match self.max_pages {
            Some(pages) => options.pragma("max_page_count", pages.to_string()),
            None => options,
        }
    }
}

fn base(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging()
}

/// The one connection that writes. After a failure it is replaced, so that no half-open transaction outlives the batch it belonged to.
#[derive(Debug)]
pub(super) struct Ledger {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
}

impl Ledger {
    /// Opens the database, brings it to this version's form and reads the installation's id.
    pub(super) async fn open(path: &Path, settings: Settings) -> Result<(Self, InstanceId), StoreError> {
        let mut ledger = Self { options: settings.connect(path), connection: None };
        let connection = ledger.connection().await?;
        migrator().run(&mut *connection).await.map_err(|error| StoreError::Migration(Arc::new(error)))?;
        let instance = instance(connection).await?;
        Ok((ledger, instance))
    }

    /// Copies the log into the database and closes it.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the store could not be closed; it will be recovered when it is opened next");
        }
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(self.connection.insert(connection))
    }
}

fn migrator() -> Migrator {
    let migrations = (1..)
        .zip(MIGRATIONS)
        .map(|(version, (name, sql))| Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false));
    Migrator::with_migrations(migrations.collect())
}

async fn instance(connection: &mut SqliteConnection) -> Result<InstanceId, sqlx::Error> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('instance', ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(&mut *connection)
        .await?;
    let id: String = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'instance'").fetch_one(connection).await?;
    id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn full_durability_waits_for_the_disk_and_relaxed_does_not() {
        for (durability, expected) in [(Durability::Full, 2), (Durability::Relaxed, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            std::fs::File::create(&path).unwrap();
            let (mut ledger, _) = Ledger::open(&path, Settings { durability, max_pages: None }).await.unwrap();
            let connection = ledger.connection().await.unwrap();
            let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
            let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
            assert_eq!((synchronous, journal.as_str()), (expected, "wal"));
        }
    }

    #[tokio::test]
    async fn a_database_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::File::create(&path).unwrap();
        let settings = Settings { durability: Durability::Relaxed, max_pages: None };
        let (mut ledger, _) = Ledger::open(&path, settings).await.unwrap();
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)";
        sqlx::query(later).execute(ledger.connection().await.unwrap()).await.unwrap();
        ledger.close().await;
        let error = Ledger::open(&path, settings).await.unwrap_err();
        assert!(matches!(error, StoreError::Migration(_)), "{error}");
    }
}
