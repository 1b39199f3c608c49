//! Bad input gets a problem that names the place; nothing panics, nothing leaks, nothing is half done.

use mayfly_tests::harness::{Agent, Answer, Mayfly, Setup, tools};
use serde_json::{Value, json};

fn setup() -> Setup {
    Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO))
}

async fn raw(ann: &Agent, body: impl Into<reqwest::Body>) -> Answer {
    ann.send(ann.request("POST", "/v1/calls").header("Content-Type", "application/json").body(body)).await
}

async fn alive(mayfly: &Mayfly, ann: &Agent) {
    assert_eq!(ann.call("echo", json!({"text": "still here"})).await.status, 200);
    let panics = mayfly.log().iter().filter(|line| line.to_string().contains("panicked")).count();
    assert_eq!(panics, 0, "{:#?}", mayfly.log());
}

#[tokio::test]
async fn every_malformed_body_is_told_what_is_wrong_with_it() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let deep = format!(r#"{{"tool":"echo","arguments":{{"text":{}1{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let cases: [(Vec<u8>, &[u64], &str); 15] = [
        (
            br#"{"tool": "echo", "arguments": {"text": {"$serde_json::private::RawValue": "[[]]"}}}"#.to_vec(),
            &[400],
            "embedded JSON",
        ),
        (
            br#"{"tool": "echo", "arguments": {"text": {"$serde_json::private::Number": "1"}}}"#.to_vec(),
            &[400],
            "a disguised number",
        ),
        (b"".to_vec(), &[400], "empty"),
        (b"{".to_vec(), &[400], "cut short"),
        (b"{}".to_vec(), &[422, 400], "tool"),
        (b"[]".to_vec(), &[422, 400], "an array"),
        (br#"{"tool": 7, "arguments": {}}"#.to_vec(), &[422, 400], "tool is a number"),
        (br#"{"tool": "echo", "arguments": []}"#.to_vec(), &[422], "arguments is an array"),
        (br#"{"tool": "echo", "arguments": {}, "extra": 1}"#.to_vec(), &[422], "unknown member"),
        (br#"{"tool": "echo", "tool": "spin", "arguments": {}}"#.to_vec(), &[400, 422], "duplicate key"),
        (br#"{"tool": "echo", "arguments": {"text": "a", "text": "b"}}"#.to_vec(), &[400, 422], "duplicate key inside"),
        (b"{\"tool\": \"echo\", \"arguments\": {\"text\": \"\xff\"}}".to_vec(), &[400], "invalid UTF-8"),
        (br#"{"tool": "echo", "arguments": {}} trailing"#.to_vec(), &[400], "trailing"),
        (br#"{"tool": "echo", "arguments": {"text": 5}}"#.to_vec(), &[422], "wrong type"),
        (deep.into_bytes(), &[400, 422], "10,000 deep"),
    ];
    for (body, statuses, what) in cases {
        let answer = raw(&ann, body).await;
        assert!(statuses.contains(&u64::from(answer.status)), "{what}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{what}: {answer:?}");
        assert!(answer.body["trace_id"].is_string(), "{what} has a trace: {answer:?}");
        let line = mayfly.call_line(answer.body["call_id"].as_str().unwrap());
        assert_eq!((&line["outcome"], &line["agent_id"]), (&json!("denied"), &json!("ann")), "{what} has a record");
    }
    alive(&mayfly, &ann).await;
}

#[tokio::test]
async fn violations_name_the_place_and_never_the_value() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let answer = ann.call("echo", json!({"text": ["canary-value"], "unknown": "canary-value"})).await;
    assert_eq!(answer.status, 422);
    let violations = answer.body["violations"].as_array().unwrap();
    assert!(violations.iter().any(|v| v["pointer"] == "/text"), "{answer:?}");
    assert!(!answer.body.to_string().contains("canary-value"), "{answer:?}");
    let line = mayfly.call_line(answer.body["call_id"].as_str().unwrap());
    assert!(!line.to_string().contains("canary-value"), "{line}");
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_early() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let before = mayfly.resident();
    let chunk = bytes::Bytes::from(vec![b' '; 1 << 20]);
    let chunks = futures_util::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let sent = ann
        .request("POST", "/v1/calls")
        .header("Content-Type", "application/json")
        .body(reqwest::Body::wrap_stream(chunks))
        .send()
        .await;
    // Refused while it is still being sent: an answer, or a connection that ends under the sender.
    assert!(sent.map_or(true, |answer| answer.status() == 413), "a long body is refused");
    assert_eq!(raw(&ann, vec![b' '; 3 << 20]).await.status, 413);
    assert!(mayfly.resident() < before + (32 << 20), "it was not held in memory");
    alive(&mayfly, &ann).await;
}

#[tokio::test]
async fn names_and_headers_that_nobody_should_send() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    for name in ["../echo", "..%2f..%2fetc", "echo\u{0}", "ECHO", "", "a/b", &"x".repeat(10_000), "ec ho", "🐝"] {
        let answer = ann.call(name, json!({})).await;
        assert!([404, 422].contains(&answer.status), "{name:?}: {answer:?}");
    }
    for path in
        ["/v1/tools/..%2f..%2fetc/calls", "/v1/tools/%00/calls", "/v1/tools/%ff/calls", "/v1/calls/not-an-id", "/v1/calls/..%2f"]
    {
        let answer = ann.send(ann.request("GET", path)).await;
        assert!((400..=405).contains(&answer.status), "{path}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
    }
    let body = json!({"tool": "echo", "arguments": {}});
    let key = ann.send(ann.request("POST", "/v1/calls").header("Idempotency-Key", "k").json(&body)).await;
    assert_eq!(key.status, 400, "it would run things twice: {key:?}");
    let kind = ann.send(ann.request("POST", "/v1/calls").header("Content-Type", "text/plain").body(body.to_string())).await;
    assert_eq!(kind.status, 415, "{kind:?}");
    let nul = ann.call("echo", json!({"text": "a\u{0}b"})).await;
    assert_eq!(nul.body["result"], json!({"text": "a\u{0}b"}), "a NUL in a text argument is a character like any other");
    for trace in ["garbage", "00-0-0-00", &"0".repeat(5000)] {
        let answer = ann.send(ann.request("POST", "/v1/calls").header("traceparent", trace).json(&body)).await;
        assert_eq!(answer.status, 200, "a bad traceparent starts a trace of its own: {answer:?}");
    }
    alive(&mayfly, &ann).await;
}

#[tokio::test]
async fn the_openapi_document_names_every_path() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    let document = ann.send(ann.request("GET", "/openapi.json")).await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in
        ["/v1/calls", "/v1/calls/{id}", "/v1/calls/{id}/events", "/v1/tools", "/v1/tools/{name}", "/v1/tools/{name}/calls"]
    {
        assert!(paths.iter().any(|p| *p == path), "{path} is not in {paths:?}");
    }
    assert_ne!(document["components"]["schemas"], Value::Null);
}
