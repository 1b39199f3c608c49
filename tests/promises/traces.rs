//! One trace a call: the spans of the design, the sandbox's own under `tool.run`, exported by OTLP without ever holding up a call.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mayfly_tests::harness::{Setup, tools};
use serde_json::json;

/// An OTLP/HTTP receiver that keeps the bodies it is sent.
async fn receiver(delay: Duration) -> (String, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::<Mutex<Vec<u8>>>::default();
    let sink = got.clone();
    let app = axum::Router::new().route(
        "/v1/traces",
        axum::routing::post(move |body: bytes::Bytes| async move {
            tokio::time::sleep(delay).await;
            sink.lock().unwrap().extend_from_slice(&body);
            ""
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, got)
}

fn setup() -> Setup {
    Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
}

#[tokio::test]
async fn the_callers_trace_goes_on_and_is_exported() {
    let (url, got) = receiver(Duration::ZERO).await;
    let mayfly = setup()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    let ann = mayfly.agent("ann");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({"tool": "echo", "arguments": {}});
    // Not sampled by the caller: ours is made and exported all the same.
    let parent = format!("00-{trace}-00f067aa0ba902b7-00");
    let answer = ann.send(ann.request("POST", "/v1/calls").header("traceparent", parent).json(&body)).await;
    assert_eq!(answer.body["trace_id"], trace);
    let id = answer.body["id"].as_str().unwrap();
    let spans = ann.send(ann.request("GET", &format!("/v1/calls/{id}/trace"))).await.body;
    let text = spans.to_string();
    for name in ["execute_tool echo", "authorize", "sandbox.start", "tool.run", "settle"] {
        assert!(text.contains(&format!("\"{name}\"")), "{name} is not in {text}");
    }
    let begun = Instant::now();
    loop {
        let sent = got.lock().unwrap().clone();
        let holds = |what: &[u8]| sent.windows(what.len()).any(|window| window == what);
        if holds(b"execute_tool echo") && holds(b"tool.run") && holds(&hex(trace)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the trace was not exported");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn an_exporter_that_is_dead_or_slow_holds_up_nobody() {
    let (slow, _) = receiver(Duration::from_secs(60)).await;
    for endpoint in [slow.as_str(), "http://127.0.0.1:9"] {
        let mut mayfly = setup()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .set("/limits", json!({"requests_per_second": 100_000, "burst": 100_000}))
            .start();
        let ann = mayfly.agent("ann");
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(ann.call("echo", json!({})).await.status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{endpoint}: {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(mayfly.stop(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(20), "{endpoint} held up the shutdown");
    }
}
