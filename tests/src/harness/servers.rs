//! Servers that credentials come from, real ones: each starts empty, and ends with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{client, target};

/// One of `tests/servers`.
pub struct Server {
    child: Child,
    /// Where it is, with a slash at the end.
    pub url: String,
    /// What lets everything in, where it has such a thing.
    pub token: String,
}

impl Server {
    /// A Vault with a KV engine (version 2) at `secret/` and a database engine at `database/`.
    pub async fn vault() -> Self {
        let server = Self::start(&["vault"]);
        server.write("sys/mounts/secret", &serde_json::json!({"type": "kv", "options": {"version": "2"}})).await;
        server.write("sys/mounts/database", &serde_json::json!({"type": "database"})).await;
        server
    }

    /// An OAuth 2.0 server: the client `sid1` (secret `verysecret`) asks for itself, `web` (secret `secret`) in exchange for what is
    /// signed with the key whose public half is in this file.
    pub fn oauth(public_key: &Path) -> Self {
        Self::start(&["oauth", public_key.to_str().expect("UTF-8")])
    }

    fn start(which: &[&str]) -> Self {
        let program = target().join("tools/bin/servers");
        let mut command = Command::new(&program);
        command.arg(which[0]).arg("127.0.0.1:0").args(&which[1..]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{}: {error}; `tests/run` builds it", program.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{which:?} did not start: {:?}", child.wait()));
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        Self { child, url: text("url"), token: text("token") }
    }

    /// Writes to a path of the Vault, which has to take it.
    pub async fn write(&self, path: &str, body: &Value) {
        let mut last = None;
        // An engine that was mounted a moment ago asks for patience.
        for _ in 0..50 {
            let request = client().post(format!("{}v1/{path}", self.url)).header("X-Vault-Token", &self.token).json(body);
            let answer = request.send().await.expect("an answer");
            if answer.status().is_success() {
                return;
            }
            last = answer.text().await.ok();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{path}: {last:?}");
    }

    /// The names below a path of the Vault.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let request = client().get(format!("{}v1/{path}?list=true", self.url)).header("X-Vault-Token", &self.token);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["data"]["keys"].as_array().cloned().unwrap_or_default()
    }

    /// What the OAuth server says of a token (RFC 7662).
    pub async fn introspect(&self, token: &str, client_id: &str, secret: &str) -> Value {
        let request = client().post(format!("{}oauth/introspect", self.url)).basic_auth(client_id, Some(secret));
        request.form(&[("token", token)]).send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Stops it: it takes connections, and answers nobody.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
