//! What a call's trace shows of what it reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, StatusCode};

use super::wall::Wall;
use crate::spec::Destination;
use crate::wire::{Span, clip};

/// A start that both clocks saw: the wall says when, the other how long.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    at: SystemTime,
    clock: Instant,
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { at: SystemTime::now(), clock: Instant::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The finished span. Its id is given with the report.
    pub(crate) fn span(&self, name: String, lasted: Duration, attributes: BTreeMap<String, String>, error: bool) -> Span {
        let start = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (start_unix_nanos, end_unix_nanos) = (nanos(start), nanos(start.saturating_add(lasted)));
        Span { id: 0, parent: None, name, start_unix_nanos, end_unix_nanos, attributes, error }
    }
}

/// A span of the wall. Recorded when dropped, so that what the end of the call cuts off is seen too.
struct Open {
    wall: Arc<Wall>,
    begun: Begun,
    name: String,
    attributes: BTreeMap<String, String>,
    error: bool,
}

impl Open {
    fn set(&mut self, name: &str, value: &str) {
        self.attributes.insert(name.to_owned(), clip(value).to_owned());
    }

    fn leads_to(&mut self, destination: &Destination) {
        self.set("server.address", &destination.host);
        self.set("server.port", &destination.port.to_string());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (name, attributes) = (std::mem::take(&mut self.name), std::mem::take(&mut self.attributes));
        self.wall.record(self.begun.span(name, self.begun.elapsed(), attributes, self.error));
    }
}

/// The span of one outgoing request, from its start to the head of the answer. Names and attributes follow OpenTelemetry's HTTP
/// client spans, without path and query: those may carry what is nobody's business.
pub(crate) struct RequestSpan(Open);

impl RequestSpan {
    pub(crate) fn begin<B>(wall: Arc<Wall>, request: &Request<B>) -> Self {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::CONNECT,
            Method::OPTIONS,
            Method::PATCH,
        ];
        let method = if known.contains(request.method()) { request.method().as_str() } else { "_OTHER" };
        let attributes = BTreeMap::from([("http.request.method".to_owned(), method.to_owned())]);
        Self(Open { wall, begun: Begun::now(), name: format!("HTTP {method}"), attributes, error: true })
    }

    pub(crate) fn leads_to(&mut self, destination: &Destination) {
        self.0.leads_to(destination);
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        self.0.set("http.response.status_code", status.as_str());
        self.0.error = status.is_client_error() || status.is_server_error();
    }

    pub(crate) fn failed(mut self, error: &str) {
        self.0.set("error.type", error);
    }
}

/// The span of one connection whose bytes are the tool's, from its opening to its end.
pub(super) struct ConnectionSpan(Open);

impl ConnectionSpan {
    pub(super) fn begin(wall: Arc<Wall>, destination: &Destination) -> Self {
        let mut open =
            Open { wall, begun: Begun::now(), name: "egress.connection".to_owned(), attributes: BTreeMap::new(), error: false };
        open.leads_to(destination);
        Self(open)
    }

    pub(super) fn ended(self) {}

    pub(super) fn failed(mut self, error: &str) {
        self.0.error = true;
        self.0.set("error.type", error);
    }
}
