//! A role of a real PostgreSQL for each call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mayfly_tests::harness::postgres::{PASSWORD, Postgres};
use mayfly_tests::harness::until;

use super::*;

const USES: &str = "  - {source: scoped, deliver: env, variable: TOKEN}\n  - {source: scoped, field: password, deliver: file, path: /tmp/token}\n";

pub(crate) fn source(server: &Postgres) -> Value {
    json!({
        "kind": "postgres",
        "url": format!("postgres://mayfly@127.0.0.1:{}/shop", server.port),
        "password": {"environment": "HARNESS_PASSWORD"},
        "member_of": ["reader"],
        "statements": ["ALTER ROLE {role} SET default_transaction_read_only = on"],
    })
}

fn started(engine: &Engine, server: &Postgres, name: &str) -> Mayfly {
    gateway(engine, name, source(server), USES).env("HARNESS_PASSWORD", PASSWORD).start()
}

/// User and password of a URL.
fn parts(url: &str) -> (String, String) {
    let (user, rest) = url.strip_prefix("postgres://").unwrap().split_once(':').unwrap();
    (user.to_owned(), rest.split_once('@').unwrap().0.to_owned())
}

fn gone(server: &Postgres, mayfly: &Mayfly) {
    until("the role is dropped", Duration::from_secs(30), || server.roles().is_empty());
    until("nothing is open", Duration::from_secs(30), || credentials(mayfly, "list") == json!([]));
    assert_eq!(credentials(mayfly, "leaked"), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_lives_as_long_as_its_call_and_nobody_can_read_its_password() {
    let Some(engine) = Engine::docker() else { return };
    let (server, name) = (Postgres::start(), "role_of_a_call");
    let mayfly = started(&engine, &server, name);
    let ann = mayfly.agent("ann");
    let (id, said) = told(&ann, name, 2).await;
    let (user, password) = parts(&said[0]);
    assert_eq!(said[1], password, "the file has the part that was asked for");

    // While the call runs: it can do what it was made for, and no more.
    let ask = |sql: &str| server.attempt(&user, &password, "shop", sql);
    assert_eq!(ask("SELECT count(*) FROM orders"), Ok("1000".into()));
    assert!(ask("SELECT * FROM salaries").unwrap_err().contains("permission denied"));
    assert!(ask("DELETE FROM orders").is_err());
    assert!(ask("CREATE ROLE friend").is_err());
    // What it can do against its own end: names that the gateway calls, locks that it takes, things left in another database.
    let writable = "SET default_transaction_read_only = off";
    let trap = "BEGIN EXECUTE 'CREATE ROLE trapped SUPERUSER'; RETURN NULL; END";
    // Dropped together, they would take more locks than the server has.
    let many = "SELECT count(lo_create(0)) FROM generate_series(1, 20000)";
    for function in ["pg_terminate_backend(int) RETURNS bool", "hashtextextended(text, bigint) RETURNS bigint"] {
        let made = format!("{writable}; CREATE FUNCTION public.{function} LANGUAGE plpgsql AS '{}'", trap.replace('\'', "''"));
        assert_eq!(ask(&made), Ok(String::new()));
    }
    assert!(server.attempt(&user, &password, "postgres", &format!("{writable}; {many}")).is_ok());
    let lock = format!("SELECT pg_advisory_lock(hashtextextended('\"{user}\"', 0::bigint)), pg_sleep(60)");
    // Its own row among the roles: every role may change its password, and keep that to itself.
    let hold = format!("{writable}; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; SELECT pg_sleep(60)");
    let until_when =
        server.ask(&format!("SELECT rolvaliduntil - now() < interval '5 minutes' FROM pg_roles WHERE rolname = '{user}'"));
    assert_eq!(until_when, "t");
    assert_eq!(credentials(&mayfly, "list").as_array().map(Vec::len), Some(1));
    let container = engine.run("docker", &["ps", "-q", "--filter", &format!("label=mayfly.dev/tool={name}")], "");
    let inspected = engine.run("docker", &["inspect", container.trim()], "");

    // Whoever is still in when the call ends goes too, and whoever comes back again and again.
    let over = AtomicBool::new(false);
    let lingering = std::thread::scope(|scope| {
        let ask = &ask;
        let lingering = [&lock, &hold].map(|sql| scope.spawn(move || ask(sql)));
        let (begun, over) = (Instant::now(), &over);
        for _ in 0..4 {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(90) {
                    let _ = ask("SELECT pg_sleep(9)");
                }
            });
        }
        let sleeping = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}' AND wait_event = 'PgSleep'");
        until("they are in", Duration::from_secs(30), || server.ask(&sleeping) == "6");
        until("the call ends", Duration::from_secs(60), || server.roles().is_empty());
        over.store(true, Ordering::Relaxed);
        lingering.map(|thread| thread.join().unwrap())
    });
    assert!(lingering.iter().all(Result::is_err));
    assert!(ask("SELECT 1").is_err(), "the role is gone");
    assert_eq!(server.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'trapped'"), "0");
    assert_eq!(server.ask("SELECT count(*) FROM pg_proc WHERE proname = 'hashtextextended'"), "1", "what it made is gone");
    gone(&server, &mayfly);
    let view = ann.wait(&id).await;
    assert_eq!(view["result"]["said"], "[redacted]", "{view}");

    // And nobody else had it.
    let files = walk(mayfly.dir());
    let places = [
        ("docker inspect", inspected),
        ("the server's log", server.log()),
        ("the gateway's log", format!("{:?}", mayfly.log())),
        ("its files", files),
    ];
    for (place, text) in places {
        assert!(!text.is_empty() && !text.contains(&password), "{place} has it");
    }
    let line = mayfly.call_line(&id);
    assert_eq!((&line["credentials"], &line["leaked"]), (&json!(["scoped"]), &json!(["scoped"])), "{line}");
}

/// The bytes of every file below, as far as they are text.
fn walk(dir: &std::path::Path) -> String {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.is_symlink()).map(|path| if path.is_dir() { walk(&path) } else { read(&path) }).collect()
}

fn read(path: &std::path::Path) -> String {
    // A socket cannot be read.
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_goes_when_its_gateway_is_killed() {
    let Some(engine) = Engine::docker() else { return };
    let (server, name) = (Postgres::start(), "role_of_the_killed");
    let mut mayfly = started(&engine, &server, name);
    let ann = mayfly.agent("ann");
    told(&ann, name, 1).await;
    assert_eq!(server.roles().len(), 1);
    mayfly.kill();
    mayfly.launch();
    gone(&server, &mayfly);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_fails_the_call_before_it_runs_and_what_is_owed_is_paid_later() {
    let Some(engine) = Engine::docker() else { return };
    let (mut server, name) = (Postgres::start(), "role_of_nobody");
    let mayfly = started(&engine, &server, name);
    let ann = mayfly.agent("ann");
    let (id, _) = told(&ann, name, 1).await;
    server.stop();
    ann.wait(&id).await;
    until("it is told that it leaked", Duration::from_secs(30), || {
        credentials(&mayfly, "leaked").as_array().is_some_and(|all| all.len() == 1)
    });

    let refused = ann.call(name, json!({})).await;
    assert_eq!(
        (refused.status, &refused.body["type"]),
        (503, &json!("https://mayfly.dev/problems/credential-unavailable")),
        "{refused:?}"
    );
    assert!(!refused.body.to_string().contains("127.0.0.1"), "{refused:?}");
    let refused = refused.body["call_id"].as_str().unwrap().to_owned();
    let trace = ann.send(ann.request("GET", &format!("/v1/calls/{refused}/trace"))).await.body.to_string();
    assert!(trace.contains("mint") && !trace.contains("sandbox."), "{trace}");

    server.restart();
    until("the role is dropped", Duration::from_secs(40), || server.roles().is_empty());
    gone(&server, &mayfly);
}
