//! A gateway that is killed at any moment and started again shows every call with an outcome.

use std::time::Duration;

use mayfly_tests::harness::{Agent, Setup, tools};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_an_outcome_after_sigkill() {
    let mut mayfly = Setup::new()
        .tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
        .tool("spin", &tools::yaml("spin", "").replace("timeout: 2s", "timeout: 60s"), Some(tools::SPIN))
        .set("/limits", json!({"requests_per_second": 100_000, "burst": 100_000}))
        .start();
    let mut ann = mayfly.agent("ann");
    for round in 0..5_u64 {
        let spinning = ann.start("spin", json!({})).await.body["id"].as_str().unwrap().to_owned();
        let answers = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let load = (0..8).map(|_| {
            let (ann, answers) = (ann.clone(), answers.clone());
            tokio::spawn(async move {
                let mut answered = Vec::new();
                loop {
                    let request = ann.request("POST", "/v1/calls").json(&json!({"tool": "echo", "arguments": {"text": "x"}}));
                    let Ok(response) = request.send().await else { return answered };
                    let Ok(body) = response.json::<serde_json::Value>().await else { return answered };
                    answers.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    answered.push((body["id"].as_str().unwrap().to_owned(), body["state"].clone()));
                }
            })
        });
        let load: Vec<_> = load.collect();
        while answers.load(std::sync::atomic::Ordering::SeqCst) < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 37)).await;
        mayfly.kill();
        let answered: Vec<_> = futures_util::future::join_all(load).await.into_iter().flat_map(Result::unwrap).collect();
        mayfly.launch();
        ann = Agent { url: mayfly.url.clone(), ..ann };
        let view = ann.get(&spinning).await.body;
        assert_eq!(view["state"], "interrupted", "{view}");
        for (id, state) in answered.iter().rev().take(50) {
            assert_eq!(&ann.get(id).await.body["state"], state, "an outcome that was answered is an outcome");
        }
        let all = ann.send(ann.request("GET", "/v1/calls?limit=200")).await.body.to_string();
        assert!(!all.contains("\"running\""), "{all}");
    }
}
