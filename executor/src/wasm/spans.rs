//! What a call's trace shows of the inside of its sandbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, StatusCode};
use wasmtime_wasi_http::Error;

use crate::spec::Destination;
use crate::wire::{Span, clip};

use super::http::Outgoing;

/// A start that both clocks saw: the wall says when, the other how long.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    at: SystemTime,
    clock: Instant,
}

impl Begun {
    pub(super) fn now() -> Self {
        Self { at: SystemTime::now(), clock: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The finished span. Its id is given with the report.
    pub(super) fn span(&self, name: String, lasted: Duration, attributes: BTreeMap<String, String>, error: bool) -> Span {
        let start = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (start_unix_nanos, end_unix_nanos) = (nanos(start), nanos(start.saturating_add(lasted)));
        Span { id: 0, parent: None, name, start_unix_nanos, end_unix_nanos, attributes, error }
    }
}

/// The span of one outgoing request, from its start to the head of the answer. Names and attributes follow OpenTelemetry's HTTP
/// client spans, without path and query: those may carry what is nobody's business. Recorded when dropped, so that a request
/// cut off by the end of the call is seen too.
pub(super) struct RequestSpan {
    outgoing: Arc<Outgoing>,
    begun: Begun,
    name: String,
    attributes: BTreeMap<String, String>,
    error: bool,
}

impl RequestSpan {
    pub(super) fn begin<B>(outgoing: Arc<Outgoing>, request: &Request<B>) -> Self {
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
        Self { outgoing, begun: Begun::now(), name: format!("HTTP {method}"), attributes, error: true }
    }

    pub(super) fn leads_to(&mut self, destination: &Destination) {
        self.attributes.insert("server.address".into(), clip(&destination.host).to_owned());
        self.attributes.insert("server.port".into(), destination.port.to_string());
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        self.attributes.insert("http.response.status_code".into(), status.as_str().to_owned());
        self.error = status.is_client_error() || status.is_server_error();
    }

    pub(super) fn failed(mut self, error: &Error) {
        self.attributes.insert("error.type".into(), clip(&error.to_string()).to_owned());
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let attributes = std::mem::take(&mut self.attributes);
        let name = std::mem::take(&mut self.name);
        self.outgoing.record(self.begun.span(name, self.begun.elapsed(), attributes, self.error));
    }
}
