//! No path of the agents' door answers without authentication, and nobody sees another caller's call.

use mayfly_tests::harness::{Setup, client, tools};
use serde_json::json;

fn setup() -> Setup {
    Setup::new().tool("echo", &tools::yaml("echo", ""), Some(tools::ECHO)).tool(
        "spin",
        &tools::yaml("spin", "").replace("timeout: 2s", "timeout: 30s"),
        Some(tools::SPIN),
    )
}

#[tokio::test]
async fn every_path_and_method_asks_who_is_there() {
    let mayfly = setup().start();
    let http = client();
    let id = uuid::Uuid::now_v7();
    let paths = [
        "/",
        "/v1/calls",
        "/v1/tools",
        "/v1/tools/echo",
        "/v1/tools/echo/calls",
        "/openapi.json",
        "/metrics",
        "/healthz",
        "/nothing",
    ];
    let with_id = ["", "/events", "/trace"].map(|tail| format!("/v1/calls/{id}{tail}"));
    for path in paths.iter().map(ToString::to_string).chain(with_id) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
            for key in [None, Some("mf_000000000000_aaaa"), Some(""), Some("Bearer"), Some("mf_")] {
                let mut request = http.request(method.parse().unwrap(), format!("{}{path}", mayfly.url));
                if let Some(key) = key {
                    request = request.bearer_auth(key);
                }
                // So many failures are told to go away, which says no more than 401 does.
                let status = request.send().await.unwrap().status().as_u16();
                assert!([401, 429].contains(&status), "{method} {path} {key:?}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_removed_key_is_no_key() {
    let mayfly = setup().start();
    let ann = mayfly.agent("ann");
    assert_eq!(ann.call("echo", json!({})).await.status, 200);
    let socket = mayfly.admin_socket();
    let socket = socket.to_str().unwrap();
    let (code, _, err) = mayfly_tests::harness::cli(&["agent", "suspend", "ann", "--socket", socket]);
    assert_eq!(code, 0, "{err}");
    let answer = ann.call("echo", json!({})).await;
    assert_eq!((answer.status, answer.body["title"].as_str()), (403, Some("Agent suspended")));
    let (code, _, err) = mayfly_tests::harness::cli(&["agent", "remove", "ann", "--socket", socket]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(ann.call("echo", json!({})).await.status, 401);
    let (code, _, err) = mayfly_tests::harness::cli(&["agent", "add", "ann", "--socket", socket]);
    assert!(code != 0 && err.contains("removed"), "the name stays with the calls on record under it: {code} {err}");
}

#[tokio::test]
async fn an_id_is_not_a_capability() {
    let mayfly = setup().start();
    let (ann, bob) = (mayfly.agent("ann"), mayfly.agent("bob"));
    let running = ann.start("spin", json!({})).await;
    assert_eq!(running.status, 202, "{running:?}");
    let running = running.body["id"].as_str().unwrap().to_owned();
    let over = ann.call("echo", json!({})).await.body["id"].as_str().unwrap().to_owned();
    for id in [&running, &over] {
        for (method, tail) in [("GET", ""), ("GET", "/events"), ("GET", "/trace"), ("DELETE", "")] {
            let answer = bob.send(bob.request(method, &format!("/v1/calls/{id}{tail}"))).await;
            assert_eq!(answer.status, 404, "{method} {tail}: {answer:?}");
        }
    }
    assert!(!bob.send(bob.request("GET", "/v1/calls")).await.body.to_string().contains(&over));
    assert_eq!(ann.get(&running).await.body["state"], "running", "bob could not cancel it");
    let canceled = ann.send(ann.request("DELETE", &format!("/v1/calls/{running}"))).await;
    assert_eq!(canceled.body["state"], "canceled", "{canceled:?}");
}

#[tokio::test]
async fn the_observability_listener_shows_three_things_and_nothing_else() {
    let mayfly = setup().start();
    let http = client();
    for (path, status) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 404),
        ("/v1/tools", 404),
        ("/admin/v1/agents", 404),
        ("/debug", 404),
    ] {
        assert_eq!(http.get(format!("{}{path}", mayfly.observability)).send().await.unwrap().status(), status, "{path}");
    }
}

#[test]
fn the_administration_socket_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mayfly = setup().start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&mayfly.admin_socket()), 0o600);
    assert_eq!(mode(&mayfly.dir().join("data")), 0o700);
}
