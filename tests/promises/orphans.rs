//! Not one orphan: a gateway that is killed at random moments under load, and one that never comes back.
//!
//! `MAYFLY_TEST_KILLS` says how often it is killed: a few times in the suite, 50 for the figures in the README.
//! `MAYFLY_TEST_SEED` repeats the moments of a run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_tests::harness::busy::Busy;
use mayfly_tests::harness::postgres::{PASSWORD, Postgres};
use mayfly_tests::harness::{Agent, Engine, Kind, Setup, until};
use serde_json::json;

use crate::credentials::{self, database};

/// After the last kill.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// A gateway with a tool that is kept warm and one that is not, and takes a while.
fn setup(engine: &Engine, warm: u32) -> Setup {
    let echo = "FROM debian:bookworm-slim\nENTRYPOINT [\"cat\"]\n";
    let slow = "FROM debian:bookworm-slim\nENTRYPOINT [\"sh\", \"-c\", \"sleep 1; cat\"]\n";
    let cpu = "timeout: 20s\n  cpu: '0.1'";
    Setup::new().container(engine, "orphan_warm", echo, &format!("{cpu}\n  warm: {warm}")).container(
        engine,
        "orphan_cold",
        slow,
        cpu,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_on_docker_leave_nothing() {
    if let Some(engine) = Engine::docker() {
        kill_and_kill(&engine, number("MAYFLY_TEST_KILLS", 6)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_on_kubernetes_leave_nothing() {
    if let Some(engine) = Engine::kubernetes() {
        kill_and_kill(&engine, number("MAYFLY_TEST_KILLS", 3)).await;
    }
}

async fn kill_and_kill(engine: &Engine, kills: u64) {
    const WARM: u32 = 4;
    let seed = number("MAYFLY_TEST_SEED", fastrand::u64(..));
    eprintln!("{:?}: MAYFLY_TEST_SEED={seed} MAYFLY_TEST_KILLS={kills}", engine.kind);
    let mut moments = fastrand::Rng::with_seed(seed);
    let secrets_before = secrets(engine);
    // Each call has a role of its own in a database.
    let server = Postgres::start();
    let setup = setup(engine, WARM).set("/credentials", json!({"scoped": database::source(&server)}));
    for tool in ["orphan_warm", "orphan_cold"] {
        credentials::add(&setup, tool, "credentials:\n  - {source: scoped, deliver: env, variable: TOKEN}\n");
    }
    let mut mayfly = setup.env("HARNESS_PASSWORD", PASSWORD).start();
    let ann = mayfly.agent("ann");
    let instance = mayfly.ledger().await.instance;
    mayfly.until_pools_are_full(MINUTE);

    let busy = Busy::start(ann.clone(), &[("orphan_warm", 4), ("orphan_cold", 2)]);
    let (mut stood, mut roles, mut last_kill) = (0, 0, Instant::now());
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(moments.u64(0..3000))).await;
        mayfly.kill();
        last_kill = Instant::now();
        stood += engine.sandboxes(&instance).len();
        roles += server.roles().len();
        mayfly.launch();
        busy.moved(&mayfly);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = busy.stop().await;

    let mut left = BTreeSet::new();
    let clean = async {
        loop {
            let (there, ledger) = (engine.sandboxes(&instance), mayfly.ledger().await);
            left = there.symmetric_difference(&ledger.sandboxes).cloned().collect();
            let owed = server.roles().len();
            if left.is_empty() && owed == 0 && there.len() == WARM as usize && mayfly.pools()[0]["idle"] == WARM {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let in_time = tokio::time::timeout(CLEAN_WITHIN.saturating_sub(last_kill.elapsed()), clean).await;
    let took = last_kill.elapsed();
    assert!(
        in_time.is_ok(),
        "{took:?} after the last of {kills} kills: {left:?} is on one side only, roles {:?}, pools {}, {:?}",
        server.roles(),
        mayfly.pools(),
        engine.standing(&instance)
    );
    let ledger = mayfly.ledger().await;
    assert_eq!(ledger.running(), 0, "a call is without an outcome: {ledger:?}");
    // Otherwise there was nothing to lose. Unanswered requests prove nothing: between two gateways there is nobody to answer.
    assert!(!seen.answered.is_empty() && stood > 0, "{} calls answered, {stood} sandboxes stood", seen.answered.len());
    assert!(ledger.in_state("interrupted") > 0, "no kill met a call: {ledger:?}");
    let ann = Agent { url: mayfly.url.clone(), ..ann };
    for (id, state) in seen.answered.iter().rev().take(100) {
        assert_eq!(ann.get(id).await.body["state"], json!(state), "what was answered is the outcome");
    }
    assert!(seen.answered.values().all(|state| state == "succeeded"), "{:?}", seen.answered.values().collect::<BTreeSet<_>>());
    // The pods of the dead hold their room for a while: a call that finds none on a small cluster says so.
    assert!(seen.problems.keys().all(|problem| problem.ends_with("/saturated")), "{:?}", seen.problems);
    assert!(roles > 0, "no kill met a role");
    assert_eq!(credentials::credentials(&mayfly, "leaked"), json!([]));
    assert_eq!(secrets(engine), secrets_before, "no Secret is left, and none is gone");
    until("the dead are buried", CLEAN_WITHIN, || zombies(mayfly.pid()) == 0);
    eprintln!(
        "{:?}: {kills} kills, {} calls answered, {} interrupted, {} without room, {stood} sandboxes and {roles} roles stood when it was killed; \
         {:.1} s after the last kill nothing was left but a full pool",
        engine.kind,
        seen.answered.len(),
        ledger.in_state("interrupted"),
        seen.problems.values().sum::<u64>(),
        took.as_secs_f64(),
    );
}

/// The names of all Secrets where the sandboxes run, whatever labels they carry. Docker is never given any.
fn secrets(engine: &Engine) -> String {
    match engine.kind {
        Kind::Docker => String::new(),
        Kind::Kubernetes => engine.run("kubectl", &["-n", Engine::NAMESPACE, "get", "secrets", "-o", "name"], ""),
    }
}

/// How many of a process's children ended without it taking notice.
fn zombies(parent: u32) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // State and parent come after the name, which may hold anything.
    let ended = format!("Z {parent} ");
    stats.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(&ended))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_docker_a_gateway_that_never_comes_back_leaves_nothing_that_runs() {
    if let Some(engine) = Engine::docker() {
        never_comes_back(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kubernetes_a_gateway_that_never_comes_back_leaves_nothing_that_runs() {
    if let Some(engine) = Engine::kubernetes() {
        never_comes_back(&engine).await;
    }
}

/// Two gateways on one engine: one dies for good, the other lives on with what is its own, and clears away what nobody owns.
async fn never_comes_back(engine: &Engine) {
    // So long that the call ends by the death of its gateway, not by itself.
    let long = "FROM debian:bookworm-slim\nENTRYPOINT [\"sh\", \"-c\", \"sleep 30; cat\"]\n";
    let mut dying = setup(engine, 2).container(engine, "orphan_long", long, "timeout: 60s\n  cpu: '0.1'").start();
    let staying = setup(engine, 2).start();
    let (of_dying, of_staying) = (dying.ledger().await.instance, staying.ledger().await.instance);
    dying.until_pools_are_full(MINUTE);
    staying.until_pools_are_full(MINUTE);
    let kept = engine.sandboxes(&of_staying);
    let bob = dying.agent("bob");
    let call = bob.start("orphan_long", json!({"text": "x"})).await;
    assert_eq!(call.status, 202, "{call:?}");
    until("the call has its sandbox", MINUTE, || engine.running(&of_dying).len() == 3);

    // Created and never started, by gateways that are no more: one whose life is over, one whose is not.
    let (expired, unexpired) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    abandon(engine, &expired, now - 120);
    abandon(engine, &unexpired, now + 600);

    let running = engine.running(&of_dying);
    assert_eq!(running.len(), 3, "the pool and the call under way: {running:?}");
    let call = bob.get(call.body["id"].as_str().unwrap()).await;
    assert_eq!(call.body["state"], "running", "{call:?}");
    dying.kill();
    until("what it had has ended", Duration::from_secs(20), || engine.running(&of_dying).is_empty());
    until("what is nobody's goes", Duration::from_secs(25), || !engine.sandboxes(&expired).contains(&expired));
    // Two rounds of the reaper.
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(engine.sandboxes(&of_staying), kept, "what lives is left alone");
    assert!(engine.sandboxes(&unexpired).contains(&unexpired), "its gateway may come back for it");
    let ann = staying.agent("ann");
    let answer = ann.call("orphan_warm", json!({"text": "x"})).await;
    assert_eq!((answer.status, &answer.body["result"]["text"]), (200, &json!("x")), "{answer:?}");

    // The test's own leavings, and the ended ones whose gateway might have come back.
    for instance in [&of_dying, &unexpired] {
        remove(engine, instance);
    }
}

/// A sandbox as a gateway makes it that dies before it starts it. Its instance has the same id as itself.
fn abandon(engine: &Engine, id: &str, expires: u64) {
    let labels = [
        ("mayfly.dev/sandbox", id.to_owned()),
        ("mayfly.dev/instance", id.to_owned()),
        ("mayfly.dev/expires-at", expires.to_string()),
    ];
    match engine.kind {
        Kind::Docker => {
            let labels = labels.map(|(name, value)| format!("--label={name}={value}"));
            let name = format!("mayfly-{id}");
            let args: Vec<&str> = ["create", "--name", &name].into_iter().chain(labels.iter().map(String::as_str)).collect();
            engine.run("docker", &[&args[..], &["debian:bookworm-slim", "true"]].concat(), "");
        }
        Kind::Kubernetes => {
            let labels: serde_json::Map<_, _> = labels.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            let job = json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": format!("mayfly-{id}"), "namespace": Engine::NAMESPACE, "labels": labels},
                "spec": {"suspend": true, "template": {"spec": {
                    "restartPolicy": "Never", "containers": [{"name": "tool", "image": "none.example/none:1"}],
                }}},
            });
            engine.run("kubectl", &["create", "-f", "-"], &job.to_string());
        }
    }
}

fn remove(engine: &Engine, instance: &str) {
    for name in engine.standing(instance) {
        match (engine.kind, name.split_once('/').unwrap()) {
            (Kind::Docker, (_, name)) => engine.run("docker", &["rm", "--force", name], ""),
            // Its pod goes with a Job.
            (Kind::Kubernetes, ("job", name)) => {
                engine.run("kubectl", &["-n", Engine::NAMESPACE, "delete", "job", "--ignore-not-found", name], "")
            }
            (Kind::Kubernetes, _) => String::new(),
        };
    }
}
