//! A role of a PostgreSQL database for one call: made from a template, with an end to its password, dropped with the call.
//!
//! The database is told a SCRAM-SHA-256 verifier (RFC 5803) and never the password, so that no log of its statements has one. A
//! role outlives its password's end, and what it is connected to outlives the role: dropping it ends its sessions first. The user who does
//! this needs `CREATEROLE`, membership with admin option in `member_of`, and `pg_signal_backend`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mayfly_executor::wire;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::time::sleep;
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::own;
use super::source::{Keep, Minted, Order, Part, Source, SourceError};
use crate::config::PostgresConfig;
use crate::secrets::Secrets;

/// Of our own sessions. Functions and operators are PostgreSQL's and nobody else's: a tool may be able to make some of the same names,
/// and what we call runs with our rights. And nobody who holds a lock keeps one of these sessions for long.
const SETTINGS: [(&str, &str); 3] = [("search_path", "pg_catalog"), ("lock_timeout", LOCK_TIMEOUT), ("statement_timeout", "8s")];
const LOCK_TIMEOUT: &str = "4s";

/// How often it is tried again to let nobody in as a role any more.
const TRIES: usize = 6;
/// How often, and after what pauses, it is looked whether sessions have ended: 3 seconds in all.
const LOOKS: usize = 60;
const A_MOMENT: Duration = Duration::from_millis(50);

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
        let options = options.application_name("mayfly").options(SETTINGS).disable_statement_logging();
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
        let until = "SELECT (now() + make_interval(secs => $1))::text";
        let until: String = sqlx::query_scalar(until).bind(life).fetch_one(&mut *connection).await?;
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
        run(&mut transaction, made).await?;
        for statement in &self.config.statements {
            run(&mut transaction, statement.replace("{role}", role)).await?;
        }
        transaction.commit().await
    }

    async fn drop_role(&self, connection: &mut PgConnection, name: &str) -> Result<(), SourceError> {
        let role = identifier(name);
        let exists = "SELECT count(*) FROM pg_roles WHERE rolname = $1";
        if count(connection, exists, name).await? == 0 {
            // A gateway that was killed may have asked for it a moment ago.
            alone(connection, &role).await.map_err(|error| told(&error))?;
            if count(connection, exists, name).await? == 0 {
                return Ok(());
            }
        }
        let failed = |error: sqlx::Error| told(&error);
        shut_out(connection, &role, name).await?;
        // What it made goes with it; it takes a member to say so.
        run(connection, format!("GRANT {role} TO CURRENT_USER")).await.map_err(failed)?;
        drop_owned(connection, &role, name).await?;
        for database in elsewhere(connection, name).await.map_err(failed)? {
            let mut other = self.options()?.database(&database).connect().await.map_err(failed)?;
            let dropped = drop_owned(&mut other, &role, name).await;
            let _ = other.close().await;
            dropped?;
        }
        run(connection, format!("DROP ROLE {role}")).await.map_err(failed)
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

    async fn mint(&self, order: &Order, _: &dyn Keep) -> Result<Minted, SourceError> {
        let mut random = Zeroizing::new([0; 24]);
        getrandom::fill(&mut *random).map_err(|error| SourceError(error.to_string()))?;
        let password = Zeroizing::new(hex::encode(&random[..]));
        let name = role(order.id);
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let mut connection = self.connect().await?;
        let created = self.create(&mut connection, &identifier(&name), &verifier, order.life.as_secs_f64()).await;
        let _ = connection.close().await;
        created.map_err(|error| told(&error))?;
        minted(&self.config, &name, &password)
    }

    fn target(&self) -> String {
        self.config.url.split('?').next().unwrap_or_default().to_owned()
    }

    async fn revoke(&self, id: Uuid, _: Option<&str>) -> Result<(), SourceError> {
        let mut connection = self.connect().await?;
        let dropped = self.drop_role(&mut connection, &role(id)).await;
        let _ = connection.close().await;
        dropped
    }
}

/// What a tool connects with as this role, as text and in parts.
fn minted(config: &PostgresConfig, name: &str, password: &str) -> Result<Minted, SourceError> {
    let wrong = || SourceError("`url` is no URL".into());
    let mut url = Url::parse(&config.url).map_err(|_| wrong())?;
    url.set_username(name).and_then(|()| url.set_password(Some(password))).map_err(|()| wrong())?;
    // Nothing of what the gateway itself connects with, but for how.
    let sslmode = url.query_pairs().find(|(key, _)| key == "sslmode").map(|(_, mode)| mode.into_owned());
    url.set_query(None);
    if let Some(at) = &config.advertise {
        match at.address() {
            Some(address) => url.set_ip_host(address).map_err(|()| wrong())?,
            None => url.set_host(Some(&at.host)).map_err(|_| wrong())?,
        }
        url.set_port(Some(at.port)).map_err(|()| wrong())?;
    }
    if let Some(mode) = sslmode {
        url.query_pairs_mut().append_pair("sslmode", &mode);
    }
    // An address of IPv6 has brackets in a URL, and nowhere else.
    let host = url.host_str().unwrap_or("localhost").trim_matches(['[', ']']).to_owned();
    let port = url.port().unwrap_or(5432).to_string();
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
    Ok(Minted { fields, main: "url".into() })
}

/// Known before the role is made, so that whatever was made is found again.
fn role(id: Uuid) -> String {
    format!("mayfly_{}", id.simple())
}

/// Databases beside this one in which the role has left something.
async fn elsewhere(connection: &mut PgConnection, name: &str) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid \
               JOIN pg_roles r ON r.oid = s.refobjid \
               WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = $1 AND d.datname <> current_database()";
    sqlx::query_scalar(sql).bind(name).fetch_all(connection).await
}

/// Nobody comes in as this role any more, and nobody is in. Whoever is in may hold what it takes to say the former: the role's own row, by
/// changing its password and staying. So they are told to end first, and whoever came in between once more behind it.
async fn shut_out(connection: &mut PgConnection, role: &str, name: &str) -> Result<(), SourceError> {
    let failed = |error: sqlx::Error| told(&error);
    run(connection, "SET lock_timeout = '300ms'".into()).await.map_err(failed)?;
    let mut tries = 0;
    loop {
        end_sessions(connection, name).await?;
        match run(connection, format!("ALTER ROLE {role} NOLOGIN")).await {
            Ok(()) => break,
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(told(&error)),
        }
    }
    run(connection, format!("SET lock_timeout = '{LOCK_TIMEOUT}'")).await.map_err(failed)?;
    for _ in 0..LOOKS {
        if end_sessions(connection, name).await? == 0 {
            return Ok(());
        }
        sleep(A_MOMENT).await;
    }
    Err(SourceError("sessions of its role do not end".into()))
}

/// Tells all of them to end, and says how many there are.
async fn end_sessions(connection: &mut PgConnection, name: &str) -> Result<i64, SourceError> {
    count(connection, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", name).await
}

/// What the role made in the connection's database goes with it. Large objects go a few at a time: everybody may make any number of them,
/// each takes a lock to drop, of which the server has some thousands for everybody, and time. What has gone stays so if it takes too long.
async fn drop_owned(connection: &mut PgConnection, role: &str, name: &str) -> Result<(), SourceError> {
    let some = "SELECT count(lo_unlink(oid)) FROM (SELECT m.oid FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner \
                WHERE r.rolname = $1 LIMIT 50) found";
    while count(connection, some, name).await? > 0 {}
    run(connection, format!("DROP OWNED BY {role} CASCADE")).await.map_err(|error| told(&error))
}

async fn count(connection: &mut PgConnection, sql: &'static str, name: &str) -> Result<i64, SourceError> {
    sqlx::query_scalar(sql).bind(name).fetch_one(connection).await.map_err(|error| told(&error))
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
}

/// Waits until nobody else is at work on this role, and keeps them out until the connection ends. A role that exists is not waited
/// for: whoever has it could hold this too.
async fn alone(connection: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0::bigint))").bind(role).execute(connection).await.map(|_| ())
}

/// An error of the database without what it quotes: a statement, a value.
fn told(error: &sqlx::Error) -> SourceError {
    SourceError(match error {
        sqlx::Error::Database(refused) => format!("the database refused it: {}", wire::clip(refused.message())),
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
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn names_and_literals_cannot_end_early() {
        assert_eq!(identifier("a\"; DROP ROLE b; --"), "\"a\"\"; DROP ROLE b; --\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(role(Uuid::nil()).len(), 39);
    }

    #[test]
    fn tools_are_told_where_they_find_it_and_nothing_of_how_the_gateway_does() {
        let url = "postgres://mayfly@10.0.0.7:5433/shop?sslmode=verify-full&sslrootcert=/etc/mayfly/ca.pem&application_name=x";
        let told = |advertise: Option<&str>| {
            let advertise = advertise.map(|at| at.parse().unwrap());
            let config = PostgresConfig { url: url.into(), password: None, advertise, member_of: vec![], statements: vec![] };
            let minted = minted(&config, "mayfly_1", "p").unwrap();
            assert_eq!(minted.main, "url");
            ["url", "host", "port", "username", "database"]
                .map(|field| String::from_utf8(minted.fields[field].value.expose_secret().to_vec()).unwrap())
        };
        let here = "postgres://mayfly_1:p@10.0.0.7:5433/shop?sslmode=verify-full";
        assert_eq!(told(None), [here, "10.0.0.7", "5433", "mayfly_1", "shop"]);
        let there = "postgres://mayfly_1:p@db.example.com:5432/shop?sslmode=verify-full";
        assert_eq!(told(Some("db.example.com:5432")), [there, "db.example.com", "5432", "mayfly_1", "shop"]);
        let v6 = "postgres://mayfly_1:p@[2001:db8::7]:5432/shop?sslmode=verify-full";
        assert_eq!(told(Some("[2001:db8::7]:5432")), [v6, "2001:db8::7", "5432", "mayfly_1", "shop"]);
    }
}
