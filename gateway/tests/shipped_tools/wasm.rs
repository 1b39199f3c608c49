//! The wasm tools, built from their crates and run in this process.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mayfly_executor::InstanceId;
use mayfly_executor::spec::Reach;
use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::wire::Exit;
use mayfly_gateway::build::{Artifact, BuildOptions, build};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Bench, built, folder};

/// A backend with a folder of its own for compiled modules, which goes with the test.
fn bench() -> (Bench, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    let instance = InstanceId(Uuid::new_v4());
    let config = WasmConfig { max_instances: 4, ..WasmConfig::new(cache.path().join("modules"), instance) };
    (Bench { backend: WasmBackend::new(config).unwrap(), instance }, cache)
}

#[tokio::test]
async fn a_crate_becomes_the_module_its_definition_names_and_is_left_alone_when_up_to_date() {
    for (name, header) in [("json_query", [1, 0, 0, 0]), ("http_probe", [13, 0, 1, 0])] {
        let tool = built(name).await;
        assert!(tool.spec.is_ok());
        let again = build(&folder(name), &tool.definition, &BuildOptions::default(), &|_| {}).await.unwrap();
        let Artifact::Module { path, changed, .. } = again.artifact else { panic!("a module") };
        assert!(!changed, "{name}");
        let module = std::fs::read(path).unwrap();
        assert_eq!((&module[..4], &module[4..8]), (b"\0asm".as_slice(), header.as_slice()), "{name}: a core module, a component");
    }
}

#[tokio::test]
async fn json_query_answers_and_is_held_by_its_sandbox() {
    let ((bench, _cache), tool) = (bench(), built("json_query").await);
    let document = json!({"pods": [{"name": "a", "ready": true}, {"name": "b", "ready": false}]});
    let found = bench.answer(&tool, json!({"query": ".pods[] | select(.ready | not) | .name", "document": document})).await;
    assert_eq!(found, json!({"results": ["b"], "count": 1, "truncated": false}));
    assert!(bench.error(&tool, json!({"query": ".a |", "document": 1})).await.contains("syntax error"));
    assert!(bench.error(&tool, json!({"query": "$ENV", "document": 1})).await.contains("$ENV"));

    let begun = Instant::now();
    let endless = bench.run(&tool, json!({"query": "last(repeat(1))", "document": null})).await;
    assert_eq!(endless.report.exit, Exit::Deadline);
    assert!(begun.elapsed() < tool.definition.executor.timeout + Duration::from_secs(2));

    let greedy = bench.run(&tool, json!({"query": "[range(100000000)] | length", "document": null})).await;
    assert_eq!(greedy.report.exit, Exit::OutOfMemory, "{:?}", greedy.report.detail);
    let long = bench.run(&tool, json!({"query": "\"x\" * 2000000", "document": null})).await;
    assert_eq!(long.report.exit, Exit::OutputLimit);
    // What overflows its stack ends, whatever that looks like, and takes nothing with it.
    let deep = bench.run(&tool, json!({"query": format!("{}1{}", "(".repeat(2000), ")".repeat(2000)), "document": null})).await;
    assert!(matches!(deep.report.exit, Exit::Code(_) | Exit::Signal(_)), "{:?}", deep.report.exit);
    assert_eq!(bench.answer(&tool, json!({"query": "1", "document": null})).await["results"], json!([1]));
}

/// Answers requests one after another, each with `answer`; the port.
fn serve(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[tokio::test]
async fn http_probe_reaches_what_is_listed_and_nothing_else() {
    let ((bench, _cache), mut tool) = (bench(), built("http_probe").await);
    let ok = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nserver: test/1\r\nconnection: close\r\n\r\nall good\n");
    let moved =
        serve(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/secret\r\nconnection: close\r\n\r\n");
    let garbled = serve(b"this is no HTTP\r\n\r\n");
    let unlisted = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let closed = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let listed = [ok, moved, garbled, closed].map(|port| format!("127.0.0.1:{port}").parse::<Reach>().unwrap());
    tool.definition.executor.network = listed.to_vec();
    let probe = |port: u16, more: Value| {
        let mut arguments = json!({"scheme": "http", "host": "127.0.0.1", "port": port, "path": "/healthz"});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };

    let found = bench.answer(&tool, probe(ok, json!({"headers": ["server", "x-none"], "body_match": "^all g"}))).await;
    assert_eq!((&found["ok"], &found["status"], &found["body_matched"]), (&json!(true), &json!(200), &json!(true)));
    assert_eq!(found["headers"], json!({"server": "test/1"}));
    assert!(found["latency_ms"].as_f64().unwrap() > 0.0);
    let cut = bench.answer(&tool, probe(ok, json!({"max_body": 3}))).await;
    assert_eq!((&cut["body_bytes"], &cut["body_truncated"]), (&json!(3), &json!(true)));
    let head = bench.answer(&tool, probe(ok, json!({"method": "HEAD"}))).await;
    assert_eq!((&head["status"], &head["body_bytes"]), (&json!(200), &json!(0)));
    let unexpected = bench.answer(&tool, probe(ok, json!({"expect_status": 204}))).await;
    assert_eq!(unexpected["ok"], false);

    let redirect = bench.answer(&tool, probe(moved, json!({"expect_status": 302}))).await;
    assert_eq!((&redirect["status"], &redirect["location"]), (&json!(302), &json!("http://127.0.0.1:1/secret")));

    assert!(bench.error(&tool, probe(unlisted, json!({}))).await.contains("may not connect"));
    assert!(bench.error(&tool, probe(closed, json!({}))).await.contains("refused"));
    assert!(bench.error(&tool, probe(garbled, json!({}))).await.contains("does not speak HTTP"));
}
