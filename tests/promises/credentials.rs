//! Credentials of calls: there while the call runs, scoped to it, gone after it, and nowhere to be read.

mod cluster;
pub(crate) mod database;
mod servers;
mod vault;

use std::time::Duration;

use futures_util::StreamExt;
use mayfly_tests::harness::{Agent, Engine, Mayfly, Setup, cli};
use serde_json::{Value, json};

/// Says what it was given, backwards so that nobody takes it out, and stays for a while.
const DOCKERFILE: &str = r#"FROM debian:bookworm-slim
ENTRYPOINT ["sh", "-c", "printf '%s' \"$TOKEN\" | rev >&2; echo >&2; if [ -e /tmp/token ]; then rev /tmp/token >&2; echo >&2; fi; sleep 10; echo \"{\\\"said\\\": \\\"$TOKEN\\\"}\""]
"#;

/// A gateway with the source `scoped`, whose tool `tell` gets it as a variable, and as a file too.
fn gateway(engine: &Engine, name: &str, source: Value, uses: &str) -> Setup {
    let setup = Setup::new().container(engine, name, DOCKERFILE, "timeout: 20s");
    add(&setup, name, &format!("expose_logs: true\ncredentials:\n{uses}"));
    setup.set("/credentials", json!({"scoped": source}))
}

/// Adds lines to the end of a tool's `tool.yaml`.
pub(crate) fn add(setup: &Setup, tool: &str, lines: &str) {
    let path = setup.dir.path().join("tools").join(tool).join("tool.yaml");
    let yaml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{yaml}{lines}")).unwrap();
}

/// What `mayfly credential VERB` shows.
pub(crate) fn credentials(mayfly: &Mayfly, verb: &str) -> Value {
    let socket = mayfly.admin_socket();
    let (code, out, err) = cli(&["credential", verb, "-o", "json", "--socket", socket.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// Starts a call and waits for its first `lines` log lines, which the tool wrote backwards.
pub(crate) async fn told(agent: &Agent, tool: &str, lines: usize) -> (String, Vec<String>) {
    let started = agent.start(tool, json!({})).await;
    let id = started.body["id"].as_str().unwrap_or_else(|| panic!("{started:?}")).to_owned();
    let events = agent.request("GET", &format!("/v1/calls/{id}/events")).send().await.unwrap();
    let (mut stream, mut text, mut found) = (events.bytes_stream(), String::new(), Vec::new());
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
            let lines_in = data.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = lines_in.filter_map(|event| Some(event["line"].as_str()?.chars().rev().collect::<String>())).collect();
            if found.len() >= lines {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap_or_else(|_| panic!("nothing was said: {text}"));
    assert!(found.len() >= lines, "{text}");
    (id, found)
}
