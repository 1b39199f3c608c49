//! An engine that goes away under load and comes back: calls in flight get a clear outcome, later calls work without a restart of the
//! gateway, and nothing is left.

use std::time::Duration;

use mayfly_tests::harness::busy::Busy;
use mayfly_tests::harness::own::{Dockerd, OwnCluster};
use mayfly_tests::harness::{Engine, Mayfly, Setup};
use serde_json::json;

const WARM: u32 = 2;
const MINUTE: Duration = Duration::from_secs(60);
/// What a call may be answered with while its engine is away: no sandbox could be started, or its sandbox was lost.
const CLEAR: [&str; 2] = ["tool-unavailable", "interrupted"];

fn gateway(engine: &Engine) -> Mayfly {
    let echo = "FROM debian:bookworm-slim\nENTRYPOINT [\"cat\"]\n";
    let slow = "FROM debian:bookworm-slim\nENTRYPOINT [\"sh\", \"-c\", \"sleep 1; cat\"]\n";
    let cpu = "timeout: 20s\n  cpu: '0.1'";
    let mayfly = Setup::new()
        .container(engine, "outage_warm", echo, &format!("{cpu}\n  warm: {WARM}"))
        .container(engine, "outage_cold", slow, cpu)
        .container(engine, "outage_long", &slow.replace("sleep 1;", "sleep 30;"), "timeout: 40s\n  cpu: '0.1'")
        .start();
    mayfly.until_pools_are_full(MINUTE);
    mayfly
}

async fn survives(engine: &Engine, outage: impl FnOnce()) {
    let mayfly = gateway(engine);
    let ann = mayfly.agent("ann");
    let instance = mayfly.ledger().await.instance;
    let busy = Busy::start(ann.clone(), &[("outage_warm", 2), ("outage_cold", 2)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let long = ann.start("outage_long", json!({"text": "x"})).await;
    assert_eq!(long.status, 202, "{long:?}");
    let long = long.body["id"].as_str().unwrap().to_owned();
    // Its sandbox has it, however long the start took beside the load.
    let given = async {
        while !mayfly.ledger().await.delivered.contains(&long) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = busy.seen();
    tokio::task::block_in_place(outage);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seen = busy.stop().await;

    assert!(before.answered.len() > 2 && before.problems.is_empty() && before.unanswered == 0, "{before:?}");
    // A call either learns of the outage or sits it out.
    let met = !seen.problems.is_empty() || seen.longest > Duration::from_secs(5);
    assert!(met, "the load did not meet the outage: {seen:?}");
    for problem in seen.problems.keys() {
        assert!(CLEAR.iter().any(|clear| problem.ends_with(clear)), "{problem} of {:?}", seen.problems);
    }
    assert_eq!(seen.unanswered, 0, "every call is answered: {seen:?}");
    assert!(seen.longest < MINUTE, "{:?}", seen.longest);
    // It was under way all the time, and nobody can know how far it came.
    let long = ann.wait(&long).await;
    assert_eq!((&long["state"], &long["may_have_run"]), (&json!("interrupted"), &json!(true)), "{long}");
    // The same gateway.
    let answer = ann.call("outage_cold", json!({"text": "after"})).await;
    assert_eq!((answer.status, &answer.body["result"]["text"]), (200, &json!("after")), "{answer:?} {:#?}", mayfly.log());
    mayfly.until_pools_are_full(MINUTE);
    let clean = async {
        loop {
            let (there, ledger) = (engine.sandboxes(&instance), mayfly.ledger().await);
            if there == ledger.sandboxes && there.len() == WARM as usize {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    if tokio::time::timeout(MINUTE, clean).await.is_err() {
        panic!("the engine has {:?}, the ledger {:?}", engine.standing(&instance), mayfly.ledger().await);
    }
    assert_eq!(mayfly.ledger().await.running(), 0);
    eprintln!(
        "{:?}: answered {}, problems {:?}, the longest {:?}",
        engine.kind,
        seen.answered.len(),
        seen.problems,
        seen.longest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_engine_that_is_restarted_under_load() {
    let Some(mut dockerd) = Dockerd::start_new() else { return };
    let engine = dockerd.engine.clone();
    survives(&engine, || {
        dockerd.stop();
        std::thread::sleep(Duration::from_secs(2));
        dockerd.start();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_for_ten_seconds_under_load() {
    let Some(cluster) = OwnCluster::start_new() else { return };
    survives(&cluster.engine, || {
        cluster.stop("kube-apiserver");
        std::thread::sleep(Duration::from_secs(10));
        cluster.start("kube-apiserver");
    })
    .await;
}

/// The node is lost to the cluster: what runs there can be neither reached nor watched.
#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_is_away_for_ten_seconds_under_load() {
    let Some(cluster) = OwnCluster::start_new() else { return };
    survives(&cluster.engine, || {
        cluster.stop("kubelet");
        std::thread::sleep(Duration::from_secs(10));
        cluster.start("kubelet");
    })
    .await;
}
