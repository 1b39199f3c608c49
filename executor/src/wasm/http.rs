//! HTTP for components: our half of `wasi:http`.
//!
//! # Flow
//! count -> listed? -> resolve once -> addresses admitted? -> connect to exactly these -> TLS -> send -> meter the body
//!
//! # Guarantees
//! Nothing is sent to where the call's list does not lead. Redirects are answers like any other: a guest that follows one
//! makes a new request, which is checked again. When the call ends, at its deadline at the latest, its requests and
//! connections are aborted: timeouts here are only those that end a request sooner.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::egress::{Refusal, RequestSpan, Stream, Target, Wall};

use super::config::HttpLimits;
use super::metered::Metered;

/// Largest head of a response.
const HEAD_BUFFER: usize = 128 << 10;
/// Largest write to a request's body that is kept for the connection to take.
const BODY_CHUNK: usize = 64 << 10;
/// How long the connections of an ended call may take to be gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// The hooks of one call. Without an [`Outgoing`] every request is refused.
pub(super) struct Http(pub(super) Option<Arc<Outgoing>>);

/// What one call's requests share.
pub(super) struct Outgoing {
    wall: Arc<Wall>,
    limits: HttpLimits,
    requests: AtomicU32,
    received: AtomicU64,
    running: TaskTracker,
}

type Connection = http1::Connection<TokioIo<Stream>, WasiBody>;
type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Outgoing {
    pub(super) fn new(wall: Arc<Wall>, limits: HttpLimits) -> Arc<Self> {
        let (requests, received) = (AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Self { wall, limits, requests, received, running: TaskTracker::new() })
    }

    /// Waits until no request runs any more: their tasks were aborted with the store.
    pub(super) async fn finish(&self) {
        self.running.close();
        let _ = timeout(FAREWELL, self.running.wait()).await;
    }

    /// Counts `bytes` of a response, and says whether they are still within the call's bound.
    pub(super) fn received(&self, bytes: u64) -> Result<(), Error> {
        let limit = self.limits.response_bytes.0;
        let before = self.received.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > limit { Err(Error::HttpResponseBodySize(Some(limit))) } else { Ok(()) }
    }

    async fn send(
        self: Arc<Self>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(Response<WasiBody>, Sent), Error> {
        let mut span = RequestSpan::begin(self.wall.clone(), &request);
        let result = self.exchange(request, options, &mut span).await;
        match result {
            Ok((response, connection)) => {
                span.answered(response.status());
                let body = |incoming| Metered::new(incoming, self.clone(), options.between_bytes_timeout).boxed_unsync();
                let response = response.map(body);
                let rest = self.running.track_future(async move {
                    match connection {
                        Some(connection) => connection.await.map_err(|e| from_hyper(&e)),
                        None => Ok(()),
                    }
                });
                Ok((response, Box::new(rest)))
            }
            Err(error) => {
                span.failed(&error.to_string());
                Err(error)
            }
        }
    }

    async fn exchange(
        &self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
        span: &mut RequestSpan,
    ) -> Result<(Response<hyper::body::Incoming>, Option<Connection>), Error> {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= self.limits.requests {
            return Err(Error::ConnectionLimitReached);
        }
        // A tunnel would carry what we cannot see.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let asked = Target::of(request.uri()).map_err(refused)?;
        span.leads_to(&asked.destination);
        let target = self.wall.lead(asked, &mut request).map_err(refused)?;
        let connecting = options.connect_timeout.unwrap_or(Duration::MAX).min(self.limits.connect_timeout);
        let stream = timeout(connecting, self.wall.connect(&target)).await.map_err(|_| Error::ConnectionTimeout)?;
        let stream = stream.map_err(refused)?;
        let request = addressed(request, &target)?;
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BUFFER);
        let answering = options.first_byte_timeout.unwrap_or(Duration::MAX);
        timeout(answering, async {
            let (mut sender, mut connection) = http.handshake(TokioIo::new(stream)).await.map_err(|e| from_hyper(&e))?;
            let mut response = pin!(sender.send_request(request));
            tokio::select! {
                biased;
                response = &mut response => Ok((response.map_err(|e| from_hyper(&e))?, Some(connection))),
                ended = &mut connection => {
                    ended.map_err(|e| from_hyper(&e))?;
                    Ok((response.await.map_err(|e| from_hyper(&e))?, None))
                }
            }
        })
        .await
        .map_err(|_| Error::ConnectionReadTimeout)?
    }
}

impl WasiHttpHooks for Http {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Sent), Error>> + Send> {
        match &self.0 {
            Some(outgoing) => {
                let sent = outgoing.clone().send(request, options.unwrap_or_default());
                Box::new(outgoing.running.track_future(sent))
            }
            None => Box::new(std::future::ready(Err(refused(Refusal::NotListed)))),
        }
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

/// The request as it goes over the wire: origin form, and a `Host` that says where it truly goes.
fn addressed(mut request: Request<WasiBody>, target: &Target) -> Result<Request<WasiBody>, Error> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::from_str(&target.host_header()).map_err(|_| Error::HttpRequestUriInvalid)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Malformed | Refusal::Path => Error::HttpRequestUriInvalid,
        Refusal::NotListed | Refusal::PlainOnly | Refusal::Misdirected | Refusal::Unclear => Error::HttpRequestDenied,
        Refusal::AddressNotListed => Error::DestinationIpProhibited,
        Refusal::NoAddress => Error::DestinationNotFound,
        Refusal::Refused => Error::ConnectionRefused,
        Refusal::Unreachable => Error::DestinationUnavailable,
        Refusal::Late => Error::ConnectionTimeout,
        Refusal::NoAnswer => Error::HttpProtocolError,
        Refusal::Certificate => Error::TlsCertificateError,
        Refusal::Tls => Error::TlsProtocolError,
        Refusal::TooMany => Error::ConnectionLimitReached,
        Refusal::Method => Error::HttpRequestMethodInvalid,
        Refusal::Credential => Error::InternalError(Some("the credential cannot be a header".to_owned())),
    }
}

pub(super) fn from_hyper(error: &hyper::Error) -> Error {
    if error.is_incomplete_message() { Error::HttpResponseIncomplete } else { Error::HttpProtocolError }
}
