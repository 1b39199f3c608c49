//! An agent at the agents' door.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

/// An HTTP client that trusts nobody but this machine.
pub fn client() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// A registered agent.
#[derive(Clone)]
pub struct Agent {
    /// The agents' door.
    pub url: String,
    /// Its key.
    pub key: String,
    /// Its client.
    pub http: reqwest::Client,
}

/// A status and a JSON body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers of interest.
    pub headers: reqwest::header::HeaderMap,
    /// The body; `null` when it is not JSON.
    pub body: Value,
}

impl Agent {
    /// A request with this agent's key.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Sends it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.json().await.unwrap_or(Value::Null) }
    }

    /// One call, to its end.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.send(self.request("POST", "/v1/calls").json(&json!({ "tool": tool, "arguments": arguments }))).await
    }

    /// One call that is not waited for.
    pub async fn start(&self, tool: &str, arguments: Value) -> Answer {
        let request = self.request("POST", "/v1/calls").header("Prefer", "respond-async");
        self.send(request.json(&json!({ "tool": tool, "arguments": arguments }))).await
    }

    /// A call of this agent.
    pub async fn get(&self, id: &str) -> Answer {
        self.send(self.request("GET", &format!("/v1/calls/{id}"))).await
    }

    /// Waits until a call of this agent is over.
    pub async fn wait(&self, id: &str) -> Value {
        for _ in 0..600 {
            let view = self.get(id).await.body;
            if view["state"] != "running" {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} does not end");
    }
}
