//! A role of a PostgreSQL database for one call: made from a template, with an end to its password, dropped with the call.
//!
//! The database is told a SCRAM-SHA-256 verifier (RFC 5803) and never the password, so that no log of its statements has one. A
//! role outlives its password's end, and what it is connected to outlives the role: dropping it ends its sessions first. The user who does
//! this needs `CREATEROLE`, membership with admin option in `member_of`, and `pg_signal_backend`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::own;
use super::source::{Minted, Order, Part, Source, SourceError};
use crate::config::PostgresConfig;
use crate::secrets::Secrets;

/// `kind: postgres`.
pub(super) struct Postgres {
    config: PostgresConfig,
    secrets: Arc<Secrets>,
}

impl Postgres {
    pub(super) const fn new(config: PostgresConfig, secrets: Arc<Secrets>) -> Self {
        Self { config, secrets }
    }

    fn options(&self) -> Result<PgConnectOptions, SourceError> {
        let options = PgConnectOptions::from_str(&self.config.url).map_err(|error| SourceError(format!("`url`: {error}")))?;
        let options = options.application_name("mayfly").disable_statement_logging();
        match &self.config.password {
            Some(password) => Ok(options.password(&own::text(password, &self.secrets)?)),
            None => Ok(options),
        }
    }

    /// A connection for one credential: a pool would keep its password, and serve a database that moved.
    async fn connect(&self) -> Result<PgConnection, SourceError> {
        self.options()?.connect().await.map_err(|error| told(&error))
    }

    async fn create(&self, connection: &mut PgConnection, role: &str, verifier: &str, life: f64) -> Result<(), sqlx::Error> {
        // By the clock that will hold it to this.
        let until: String =
            sqlx::query_scalar("SELECT (now() + make_interval(secs => $1))::text").bind(life).fetch_one(&mut *connection).await?;
        let mut made = format!(
            "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 8 \
             PASSWORD {} VALID UNTIL {}",
            literal(verifier),
            literal(&until)
        );
        if !self.config.member_of.is_empty() {
            let groups: Vec<_> = self.config.member_of.iter().map(|group| identifier(group)).collect();
            made = format!("{made} IN ROLE {}", groups.join(", "));
        }
        let mut transaction = connection.begin().await?;
        alone(&mut transaction, role).await?;
        sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut *transaction).await?;
        for statement in &self.config.statements {
            sqlx::raw_sql(AssertSqlSafe(statement.replace("{role}", role))).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    fn minted(&self, name: &str, password: &str) -> Result<Minted, SourceError> {
        let wrong = || SourceError("`url` is no URL".into());
        let mut url = url::Url::parse(&self.config.url).map_err(|_| wrong())?;
        url.set_username(name).and_then(|()| url.set_password(Some(password))).map_err(|()| wrong())?;
        let (host, port) = (url.host_str().unwrap_or("localhost").to_owned(), url.port().unwrap_or(5432).to_string());
        let database = url.path().trim_start_matches('/').to_owned();
        let fields = [
            ("url", Part::secret(String::from(url))),
            ("password", Part::secret(password)),
            ("username", Part::public(name)),
            ("host", Part::public(host)),
            ("port", Part::public(port)),
            ("database", Part::public(database)),
        ];
        let fields: BTreeMap<_, _> = fields.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
        Ok(Minted { fields, main: "url".into(), handle: None })
    }
}

#[async_trait]
impl Source for Postgres {
    fn revocable(&self) -> bool {
        true
    }

    fn outlives_expiry(&self) -> bool {
        true
    }

    async fn mint(&self, order: &Order) -> Result<Minted, SourceError> {
        let mut random = Zeroizing::new([0; 24]);
        getrandom::fill(&mut *random).map_err(|error| SourceError(error.to_string()))?;
        let password = Zeroizing::new(hex::encode(&random[..]));
        let name = role(order.id);
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let mut connection = self.connect().await?;
        let created = self.create(&mut connection, &identifier(&name), &verifier, order.life.as_secs_f64()).await;
        let _ = connection.close().await;
        created.map_err(|error| told(&error))?;
        self.minted(&name, &password)
    }

    async fn revoke(&self, id: Uuid, _: Option<&str>) -> Result<(), SourceError> {
        let mut connection = self.connect().await?;
        let dropped = drop_role(&mut connection, &role(id)).await;
        let _ = connection.close().await;
        dropped.map_err(|error| told(&error))
    }
}

/// Known before the role is made, so that whatever was made is found again.
fn role(id: Uuid) -> String {
    format!("mayfly_{}", id.simple())
}

async fn drop_role(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    alone(&mut *connection, &identifier(name)).await?;
    let found = sqlx::query("SELECT 1 FROM pg_roles WHERE rolname = $1").bind(name).fetch_optional(&mut *connection).await?;
    if found.is_none() {
        return Ok(());
    }
    let role = identifier(name);
    // Nobody comes in any more; then whoever is in goes, and only then the role: a session would go on without it.
    let closed = format!("ALTER ROLE {role} NOLOGIN");
    sqlx::raw_sql(AssertSqlSafe(closed)).execute(&mut *connection).await?;
    let sessions = "SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity WHERE usename = $1";
    for session in sqlx::query(sessions).bind(name).fetch_all(&mut *connection).await? {
        let _ended: bool = session.try_get("ended")?;
    }
    // What it made goes with it; it takes a member to say so.
    let dropped = format!("GRANT {role} TO CURRENT_USER; DROP OWNED BY {role} CASCADE; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(dropped)).execute(&mut *connection).await.map(|_| ())
}

/// Waits until nobody else is at work on this role: a gateway that was killed may have asked for it a moment ago. Until the
/// connection ends.
async fn alone(connection: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0))").bind(role).execute(connection).await.map(|_| ())
}

/// An error of the database without what it quotes: a statement, a value.
fn told(error: &sqlx::Error) -> SourceError {
    SourceError(match error {
        sqlx::Error::Database(refused) => format!("the database refused it: {}", refused.message()),
        other => format!("the database cannot be reached: {other}"),
    })
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_end_early() {
        assert_eq!(identifier("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(role(Uuid::nil()).len(), 39);
    }
}
