//! Small clients of a running gateway: of the agents' door over HTTP, of administration over its Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use url::Url;

use super::{Exit, Failure};
use crate::call::{CallState, CallView};
use crate::http::problem::Problem;
use crate::view::SpanView;

/// Longest answer taken from a gateway.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug)]
pub enum ClientError {
    /// The gateway said no.
    Refused(Box<Refusal>),
    /// There is no gateway, or it is none.
    Failed(Failure),
}

/// A problem that a gateway answered with.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Refusal(Problem);

impl Refusal {
    /// The call it is about.
    pub fn call_id(&self) -> Option<&str> {
        self.0.call_id.as_deref()
    }

    /// What the exit code says about it.
    pub fn exit(&self) -> Exit {
        match (self.0.slug(), self.0.status) {
            ("policy-unavailable", _) | (_, 401 | 403) => Exit::Denied,
            ("timed-out" | "canceled" | "interrupted" | "output-rejected", _) => Exit::ToolFailed,
            (_, 404 | 405) => Exit::NotFound,
            (_, 429 | 500..) => Exit::Unreachable,
            _ => Exit::Invalid,
        }
    }

    /// For people: the detail, what else there is to know, and the call's id for whoever looks it up.
    pub fn text(&self) -> String {
        let Problem { detail, violations, reasons, call_id, .. } = &self.0;
        let mut lines = vec![detail.clone()];
        lines.extend(reasons.iter().skip(1).map(|reason| format!("  also: {reason}")));
        lines.extend(violations.iter().map(|violation| format!("  {}: {}", violation.pointer, violation.detail)));
        lines.extend(call_id.iter().map(|id| format!("  call {id}")));
        lines.join("\n")
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => Self::new(refusal.exit(), refusal.text()),
            ClientError::Failed(failure) => failure,
        }
    }
}

fn unreachable(message: String) -> ClientError {
    ClientError::Failed(Failure::new(Exit::Unreachable, message))
}

/// Reads an answer: a value, or a problem.
fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if status.is_success() {
        let text = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(text).map_err(|_| unreachable(stranger(status)));
    }
    match serde_json::from_slice(body) {
        Ok(problem) => Err(ClientError::Refused(Box::new(Refusal(problem)))),
        Err(_) => Err(unreachable(stranger(status))),
    }
}

fn stranger(status: StatusCode) -> String {
    format!("what answers there ({status}) does not speak like this version of Mayfly; check the address")
}

/// `segments` as a path, each one encoded.
fn path(mut base: Url, segments: &[&str]) -> Result<Url, ClientError> {
    // A URL drops these two, and would then name something else.
    if segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Err(ClientError::Failed(Failure::new(Exit::NotFound, "there is nothing of that name")));
    }
    match base.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(segments),
        Err(()) => return Err(unreachable("the gateway's address must start with http:// or https://".into())),
    };
    Ok(base)
}

/// What the client reads of a tool.
#[derive(Debug, serde::Deserialize)]
struct Described {
    input_schema: Value,
}

/// A client of the agents' door.
pub struct AgentsClient {
    http: reqwest::Client,
    url: Url,
    key: SecretString,
}

impl AgentsClient {
    /// A client for the gateway at `url`, with an agent's `key`.
    ///
    /// # Errors
    /// When `url` is none, or this system has no TLS to offer.
    pub fn new(url: &str, key: SecretString) -> Result<Self, Failure> {
        // An error only says that it has been done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{url}` is not the address of a gateway; write http://host:port"))
        })?;
        // The key goes to this gateway and nowhere else: not to a proxy, not where an answer points to.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5));
        let http =
            client.build().map_err(|error| Failure::new(Exit::Unreachable, format!("no HTTP client could be made: {error}")))?;
        Ok(Self { http, url, key })
    }

    /// Submits a call; waits for its end, or `wait` seconds at most. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&self, body: &Value, wait: Option<u32>) -> Result<CallView, ClientError> {
        let mut request = self.request(Method::POST, &["v1", "calls"])?.json(body);
        if let Some(seconds) = wait {
            request = request.header("Prefer", format!("wait={seconds}"));
        }
        self.send(request).await
    }

    /// The input schema of a tool.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn input_schema(&self, tool: &str) -> Result<Value, ClientError> {
        let described: Described = self.send(self.request(Method::GET, &["v1", "tools", tool])?).await?;
        Ok(described.input_schema)
    }

    /// The spans of a call.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace(&self, call: &str) -> Result<Vec<SpanView>, ClientError> {
        self.send(self.request(Method::GET, &["v1", "calls", call, "trace"])?).await
    }

    fn request(&self, method: Method, segments: &[&str]) -> Result<reqwest::RequestBuilder, ClientError> {
        Ok(self.http.request(method, path(self.url.clone(), segments)?).bearer_auth(self.key.expose_secret()))
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let failed = |error: reqwest::Error| {
            unreachable(format!("no gateway answers at {}: {}; is it running? (`--url`, MAYFLY_URL)", self.url, cause(&error)))
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        read(status, &body)
    }
}

/// The innermost reason of an error, which is the one that helps.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a call's state says at the end of a command.
pub fn exit_of(view: &CallView) -> Exit {
    match view.state {
        CallState::AwaitingApproval => Exit::AwaitingApproval,
        CallState::Denied | CallState::Expired => Exit::Denied,
        CallState::Running | CallState::Succeeded => Exit::Ok,
        CallState::Failed | CallState::Canceled | CallState::TimedOut | CallState::Interrupted => Exit::ToolFailed,
    }
}

/// A client of administration.
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// A client for the gateway that listens on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for `/admin/v1/` and `segments`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let failed = |error: &dyn std::error::Error| {
            let socket = self.socket.display();
            unreachable(format!("no gateway answers on {socket}: {}; is it running, as this user? (`--socket`)", cause(error)))
        };
        let segments: Vec<&str> = ["admin", "v1"].iter().chain(segments).copied().collect();
        let base = Url::parse("http://mayfly").map_err(|error| failed(&error))?;
        let mut request = hyper::Request::builder().method(method).uri(path(base, &segments)?.path()).header("host", "mayfly");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(bytes)).map_err(|error| failed(&error))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| failed(&*error))?.to_bytes();
        driver.abort();
        read(status, &body)
    }
}

#[cfg(test)]
mod tests;
