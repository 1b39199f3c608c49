//! What a container tool reaches: what it lists, through the wall, with credentials that it never sees.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use mayfly_tests::harness::{Engine, Mayfly, Setup};
use serde_json::{Value, json};

use crate::credentials::add;

/// Asks the API for something, by its name and in the clear, and tells what came back; then a place that it does not list.
const ASK: &str = r#"ask() {
  exec 3<>"/dev/tcp/$1/$2" || return
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$3" "$1" >&3
  cat <&3
} 2>/dev/null
body() { tr -d '\r' | sed '1,/^$/d' | tr -d '"\n'; }
listed=$(ask api.example.com 80 /v1/things | body)
other=$(ask api.example.com 80 /admin | body)
unlisted=$(ask 127.128.0.1 3128 http://secret.example.com/ | head -1 | tr -d '\r')
printf '{"listed": "%s", "other": "%s", "unlisted": "%s", "environment": "%s"}' "$listed" "$other" "$unlisted" "$(env | grep -c canary)"
"#;

/// A server that says whether it was given the credential, and keeps what it was asked.
fn api() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let hearing = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = vec![0; 16 << 10];
            let length = stream.read(&mut asked).unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
            let known = asked.to_lowercase().contains("authorization: bearer canary-of-the-wall\r\n");
            let body = if known { "welcome" } else { "a stranger" };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            hearing.lock().unwrap().push(asked);
        }
    });
    (address, heard)
}

fn started(engine: &Engine, name: &str, api: SocketAddr) -> Mayfly {
    let dockerfile = format!("FROM debian:bookworm-slim\nENTRYPOINT {}\n", json!(["bash", "-c", ASK]));
    let setup = Setup::new().container(engine, name, &dockerfile, "timeout: 20s\n  network: ['api.example.com:8080']");
    let inject = "{to: 'api.example.com:8080', as: bearer, methods: [GET], paths: [/v1/**], plaintext: true}";
    add(&setup, name, &format!("credentials:\n  - {{source: api, deliver: egress, inject: {inject}}}\n"));
    let prints = ["/bin/echo", r#"{"token": "canary-of-the-wall"}"#];
    setup
        .set("/credentials", json!({"api": {"kind": "command", "command": prints}}))
        .set("/egress", json!({"routes": {"api.example.com:8080": api.to_string()}}))
        .start()
}

async fn a_tool_reaches_what_it_lists(engine: &Engine, name: &str) {
    let (address, heard) = api();
    let mayfly = started(engine, name, address);
    let ann = mayfly.agent("ann");
    let answered = ann.call(name, json!({})).await;
    let result = &answered.body["result"];
    assert_eq!(
        *result,
        json!({"listed": "welcome", "other": "a stranger", "unlisted": "HTTP/1.1 403 Forbidden", "environment": "0"}),
        "{answered:?}"
    );
    assert_eq!(heard.lock().unwrap().iter().filter(|asked| asked.contains("canary")).count(), 1);
    let line = mayfly.call_line(answered.body["id"].as_str().unwrap());
    let contacted = |name: &str| {
        let all = line["contacted"].as_array().unwrap().iter();
        all.filter(|one| one["destination"] == name).cloned().collect::<Vec<Value>>()
    };
    let [reached] = &contacted("api.example.com:8080")[..] else { panic!("{line}") };
    assert!(reached["connections"].as_u64() >= Some(1) && reached["sent"].as_u64() > Some(0), "{line}");
    let [refused] = &contacted("secret.example.com:80")[..] else { panic!("{line}") };
    assert_eq!((&refused["connections"], &refused["refused"]), (&json!(0), &json!(1)));
    assert!(!format!("{:?}", mayfly.log()).contains("canary"), "the gateway's log");
    let id = answered.body["id"].as_str().unwrap();
    let trace = ann.send(ann.request("GET", &format!("/v1/calls/{id}/trace"))).await.body.to_string();
    assert!(trace.contains("HTTP GET") && trace.contains("api.example.com") && !trace.contains("canary"), "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_tool_reaches_what_it_lists_and_its_credential_stays_outside() {
    let Some(engine) = Engine::docker() else { return };
    a_tool_reaches_what_it_lists(&engine, "reaches_by_docker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_what_it_lists_and_its_credential_stays_outside() {
    let Some(engine) = Engine::kubernetes() else { return };
    a_tool_reaches_what_it_lists(&engine, "reaches_by_pod").await;
}
