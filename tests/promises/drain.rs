//! SIGTERM: running calls finish within the grace time, then are ended and recorded as such.

use std::time::{Duration, Instant};

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

fn setup(timeout: &str) -> Setup {
    let spin = tools::yaml("spin", "").replace("timeout: 2s", &format!("timeout: {timeout}"));
    Setup::new().tool("spin", &spin, Some(tools::SPIN)).set("/drain_grace", json!("2s"))
}

#[tokio::test]
async fn a_call_that_ends_within_grace_ends_as_it_would() {
    let mut mayfly = setup("1s").start();
    let ann = mayfly.agent("ann");
    let id = ann.start("spin", json!({})).await.body["id"].as_str().unwrap().to_owned();
    assert_eq!(mayfly.stop(), Some(0));
    mayfly.launch();
    let ann = mayfly_tests::harness::Agent { url: mayfly.url.clone(), ..ann };
    assert_eq!(ann.get(&id).await.body["state"], "timed_out");
}

#[tokio::test]
async fn a_call_that_does_not_is_killed_and_recorded() {
    let mut mayfly = setup("60s").start();
    let ann = mayfly.agent("ann");
    let id = ann.start("spin", json!({})).await.body["id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    assert_eq!(mayfly.stop(), Some(0));
    assert!(begun.elapsed() > Duration::from_millis(1500), "grace was given");
    assert!(begun.elapsed() < Duration::from_secs(15), "and ended");
    mayfly.launch();
    let ann = mayfly_tests::harness::Agent { url: mayfly.url.clone(), ..ann };
    assert_eq!(ann.get(&id).await.body["state"], "canceled");
}
