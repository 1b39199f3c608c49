//! `postgres_query`: rows of a real PostgreSQL, as a role of the call's own, through the wall, and nothing written.

use std::time::Duration;

use mayfly_tests::harness::postgres::{PASSWORD, Postgres};
use mayfly_tests::harness::{Agent, Engine, Mayfly, Setup, edited, root, until};
use serde_json::{Value, json};

/// Where the tool finds it; the server itself is on a port of this machine.
const PLACE: &str = "postgres.internal:5432";

const ENCRYPTED: &str = "sslmode=require";

fn started(engine: &Engine, server: &Postgres, sslmode: &str, statements: &[&str]) -> Mayfly {
    let backend = format!("backend: {}", engine.kind.name());
    let source = json!({
        "kind": "postgres",
        "url": format!("postgres://mayfly@127.0.0.1:{}/shop?{sslmode}", server.port),
        "advertise": PLACE,
        "password": {"environment": "HARNESS_PASSWORD"},
        "member_of": ["reader"],
        "statements": statements,
    });
    Setup::new()
        .shipped(engine, "postgres_query", |yaml| edited(&yaml, "backend: docker", &backend))
        .set("/policy/path", json!(root().join("policies/default")))
        .set("/credentials", json!({"postgres_query": source}))
        .set("/egress", json!({"routes": {PLACE: format!("127.0.0.1:{}", server.port)}}))
        .env("HARNESS_PASSWORD", PASSWORD)
        .start()
}

/// The result of a call that has to succeed, and its id.
async fn rows(bot: &Agent, arguments: Value) -> (Value, String) {
    let answer = bot.call("postgres_query", arguments).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?}");
    (answer.body["result"].clone(), answer.body["id"].as_str().unwrap().to_owned())
}

/// What a query that has to fail is told.
async fn refused(bot: &Agent, arguments: Value) -> String {
    let answer = bot.call("postgres_query", arguments).await;
    assert_eq!((answer.status, &answer.body["is_error"]), (200, &json!(true)), "{answer:?}");
    answer.body["result"]["error"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

fn nothing_is_left(server: &Postgres) {
    until("its roles are dropped", Duration::from_secs(30), || server.roles().is_empty());
    assert_eq!(server.ask("SELECT count(*) FROM orders"), "1000");
}

async fn it_reads_as_a_role_of_its_own(engine: &Engine) {
    let server = Postgres::start();
    let mayfly = started(engine, &server, ENCRYPTED, &["ALTER ROLE {role} SET default_transaction_read_only = on"]);
    let bot = mayfly.agent("runbook-bot");
    let (result, id) =
        rows(&bot, json!({"sql": "SELECT id, customer, total, current_user AS me FROM orders ORDER BY id", "limit": 2})).await;
    assert_eq!((&result["count"], &result["truncated"]), (&json!(2), &json!(true)), "{result}");
    assert_eq!(result["columns"][2], json!({"name": "total", "type": "numeric"}));
    assert_eq!(result["rows"][1].as_array().unwrap()[..3], [json!(2), json!("customer 2"), json!("3.0")]);
    let role = result["rows"][0][3].as_str().unwrap();
    assert!(role.starts_with("mayfly_"), "{role}");
    let reached = &mayfly.call_line(&id)["contacted"][0];
    assert_eq!((&reached["destination"], &reached["connections"]), (&json!(PLACE), &json!(1)), "{reached}");
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(rows(&bot, json!({"sql": tls})).await.0["rows"], json!([[true]]));
    assert!(refused(&bot, json!({"sql": "SELECT * FROM salaries"})).await.contains("permission denied"));
    nothing_is_left(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_reads_as_a_role_of_its_own() {
    let Some(engine) = Engine::docker() else { return };
    it_reads_as_a_role_of_its_own(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reads_as_a_role_of_its_own() {
    let Some(engine) = Engine::kubernetes() else { return };
    it_reads_as_a_role_of_its_own(&engine).await;
}

/// The gateway trusts the server's certificate, and the image does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_is_not_asked() {
    let Some(engine) = Engine::docker() else { return };
    let server = Postgres::start();
    let sslmode = format!("sslmode=verify-ca&sslrootcert={}", server.certificate().display());
    let mayfly = started(&engine, &server, &sslmode, &[]);
    let told = refused(&mayfly.agent("runbook-bot"), json!({"sql": "SELECT 1"})).await;
    assert!(told.contains("certificate verify failed"), "{told}");
    nothing_is_left(&server);
}

/// With a role that may do more than it should: what the tool holds by itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_and_nothing_is_without_end() {
    let Some(engine) = Engine::docker() else { return };
    let server = Postgres::start();
    server.ask(
        "CREATE FUNCTION wipe() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'WITH gone AS (DELETE FROM orders RETURNING 1) SELECT count(*) FROM gone'",
    );
    server.ask("GRANT DELETE, UPDATE ON orders TO reader");
    let harden = std::fs::read_to_string(root().join("images/postgres_query/harden.sql")).unwrap();
    server.ask(&format!("\\set gateway mayfly\n{harden}"));
    assert_eq!(server.ask("SHOW temp_file_limit"), "1GB");
    let mayfly = started(&engine, &server, ENCRYPTED, &[]);
    let bot = mayfly.agent("runbook-bot");
    for (sql, why) in [
        ("DELETE FROM orders RETURNING id", "syntax error"),
        ("WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone", "data-modifying"),
        ("SELECT 1; DELETE FROM orders", "multiple commands"),
        ("SELECT 1; COMMIT; DELETE FROM orders; SELECT 1", "multiple commands"),
        ("SELECT * FROM orders FOR UPDATE", "read-only transaction"),
        ("SELECT wipe()", "read-only transaction"),
        ("SELECT set_config('transaction_read_only', 'off', true), wipe()", "must be set before any query"),
        ("SELECT pg_read_file('/etc/passwd')", "permission denied"),
        ("SELECT pg_advisory_lock(7)", "permission denied"),
        ("SELECT pg_try_advisory_xact_lock_shared(1, 2)", "permission denied"),
        ("SELECT lo_create(0)", "permission denied"),
        ("SELECT pg_logical_emit_message(false, 'a', 'b')", "permission denied"),
        ("SELECT 1 FROM nowhere", "does not exist"),
        ("SELECT '\u{d7ff}' FROM nowhere", "does not exist"),
    ] {
        let told = refused(&bot, json!({"sql": sql})).await;
        assert!(told.contains(why), "{sql}: {told}");
    }
    for endless in ["SELECT pg_sleep(40)", "SELECT set_config('statement_timeout', '0', true), pg_sleep(40)"] {
        let told = refused(&bot, json!({"sql": endless, "timeout_seconds": 1})).await;
        assert!(told.contains("statement timeout"), "{endless}: {told}");
    }
    let (large, _) = rows(&bot, json!({"sql": "SELECT repeat('x', 5000) FROM generate_series(1, 100000)", "limit": 1000})).await;
    assert_eq!((large["count"].as_u64() < Some(250), &large["truncated"]), (true, &json!(true)));
    // Rows that are too large to be held together are not.
    let (huge, _) = rows(&bot, json!({"sql": "SELECT repeat('x', 8000000) FROM generate_series(1, 20)"})).await;
    assert_eq!((&huge["count"], &huge["truncated"]), (&json!(0), &json!(true)));
    // However small those before them were.
    let late = "SELECT repeat('x', CASE WHEN n > 127 THEN 2000000 ELSE 1 END) FROM generate_series(1, 400) n";
    let (late, _) = rows(&bot, json!({"sql": late, "limit": 400})).await;
    assert_eq!((&late["count"], &late["truncated"]), (&json!(127), &json!(true)));
    // The published policy caps what this agent gets.
    let many = bot.call("postgres_query", json!({"sql": "SELECT id FROM orders", "limit": 1000})).await;
    assert_eq!((many.status, &many.body["title"]), (502, &json!("Output withheld")), "{many:?}");
    let values =
        "SELECT 1::int8, 1.5::float8, 'NaN'::float8, true, NULL, '{\"a\": [1]}'::jsonb, '1e999'::json, '{1,2}'::int[], '%'";
    let (values, _) = rows(&bot, json!({"sql": values})).await;
    assert_eq!(values["rows"][0], json!([1, 1.5, "NaN", true, null, {"a": [1]}, "1e999", "{1,2}", "%"]));
    nothing_is_left(&server);
    assert!(!format!("{:?}", mayfly.log()).contains(PASSWORD));
}
