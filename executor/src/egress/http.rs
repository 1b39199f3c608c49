//! HTTP through the wall: a proxy (RFC 9110, 7.3), and plain requests to a destination that the wall adds a credential for.
//!
//! # Flow
//! read a request -> where does it lead? -> may it? -> add what is for it -> connect, TLS if so -> forward -> answer
//!
//! # Guarantees
//! - What leaves was read whole and written anew: two readers cannot see two requests in one. `Host` says where it truly goes.
//! - A tunnel is not dug to a destination that the wall adds to: what is in it could not be seen.
//! - Redirects are answers like any other.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::inject::strip_hop_by_hop;
use super::io::Io;
use super::metered::{Metered, Stream};
use super::raw;
use super::spans::RequestSpan;
use super::wall::Wall;
use super::{Refusal, Target};
use crate::spec::Destination;

/// Largest head of a request or an answer.
const HEAD: usize = 128 << 10;
/// How long a connection waits for another request. Each is a descriptor of ours.
const IDLE: Duration = Duration::from_secs(5);
/// Longest cause that is followed.
const CAUSES: usize = 8;

/// Which face the requests came to.
#[derive(Debug, Clone)]
pub(super) enum Face {
    /// The proxy: each names where it leads.
    Proxy,
    /// The one for this destination.
    Direct(Destination),
}

type Body = BoxBody<Bytes, hyper::Error>;

/// One connection of a tool.
struct Conversation {
    face: Face,
    wall: Arc<Wall>,
    client: Client<Connector, Incoming>,
    /// What the connection is to become once its answer is out.
    tunnel: Mutex<Option<Tunnel>>,
}

struct Tunnel {
    near: OnUpgrade,
    far: Metered,
    to: Destination,
}

/// Serves one connection to its end. `standing` is one to its destination that was made before it turned out to be HTTP.
pub(super) async fn serve(stream: Io, face: Face, wall: Arc<Wall>, standing: Option<Metered>, gone: CancellationToken) {
    let connector = Connector { wall: wall.clone(), standing: Arc::new(Mutex::new(standing)) };
    let upstreams = Arc::<Mutex<JoinSet<()>>>::default();
    let mut client = Client::builder(Upstreams(Arc::downgrade(&upstreams)));
    client.http1_max_buf_size(HEAD).pool_max_idle_per_host(1).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
    let client = client.build(connector);
    let conversation = Conversation { face, wall, client, tunnel: Mutex::default() };
    let answering = service_fn(|request| async { Ok::<_, Infallible>(conversation.answer(request).await) });
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD).half_close(true);
    let served = server.serve_connection(TokioIo::new(stream), answering).with_upgrades().await;
    let tunnel = conversation.tunnel.into_inner();
    if let (Ok(()), Some(Tunnel { near, far, to })) = (served, tunnel)
        && let Ok(near) = near.await
    {
        let _ = raw::relay(Io::new(TokioIo::new(near)), far, to, conversation.wall, gone).await;
    }
}

impl Conversation {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut span = RequestSpan::begin(self.wall.clone(), &request);
        let answered = if request.method() == Method::CONNECT {
            self.dig(request, &mut span).await
        } else {
            self.forward(request, &mut span).await
        };
        match answered {
            Ok(response) => {
                span.answered(response.status());
                response
            }
            Err(refusal) => {
                span.failed(&refusal.to_string());
                problem(refusal)
            }
        }
    }

    /// A tunnel (RFC 9110, 9.3.6). It stands before the tool is told so.
    async fn dig(&self, request: Request<Incoming>, span: &mut RequestSpan) -> Result<Response<Body>, Refusal> {
        let Face::Proxy = self.face else { return Err(Refusal::Method) };
        let authority = request.uri().authority().ok_or(Refusal::Malformed)?;
        let to: Destination = authority.as_str().parse().map_err(|_| Refusal::Malformed)?;
        span.leads_to(&to);
        if self.wall.injects(&to) {
            return Err(Refusal::PlainOnly);
        }
        let far = self.wall.dial(&to).await?;
        *self.tunnel.lock() = Some(Tunnel { near: hyper::upgrade::on(request), far, to });
        Ok(Response::new(body("")))
    }

    async fn forward(&self, mut request: Request<Incoming>, span: &mut RequestSpan) -> Result<Response<Body>, Refusal> {
        let asked = self.asked(&request)?;
        span.leads_to(&asked.destination);
        let target = self.wall.lead(asked, &mut request)?;
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let scheme = if target.tls { "https" } else { "http" };
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(target.destination.to_string())
            .path_and_query(path)
            .build()
            .map_err(|_| Refusal::Malformed)?;
        let host = HeaderValue::from_str(&target.host_header()).map_err(|_| Refusal::Malformed)?;
        request.headers_mut().insert(header::HOST, host);
        // The tool's version of HTTP is between it and us.
        *request.version_mut() = http::Version::HTTP_11;
        let mut response = self.client.request(request).await.map_err(|error| cause(&error))?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response.map(BodyExt::boxed))
    }

    /// Where a request says it leads. One that says two things is refused.
    fn asked<B>(&self, request: &Request<B>) -> Result<Target, Refusal> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (host, more) = (hosts.next(), hosts.next());
        if more.is_some() {
            return Err(Refusal::Malformed);
        }
        match &self.face {
            Face::Proxy => Target::of(request.uri()),
            Face::Direct(to) => {
                if request.uri().authority().is_some() {
                    return Err(Refusal::Malformed);
                }
                let said = host.and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
                let target = Target { destination: to.clone(), tls: false };
                let name = target.without_port();
                let agrees = said.strip_prefix(&name).is_some_and(|rest| {
                    rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port == to.port.to_string() || port == "80")
                });
                if agrees { Ok(target) } else { Err(Refusal::Misdirected) }
            }
        }
    }
}

/// What the client does beside a request, such as keeping a connection for another. It ends with the tool's connection.
#[derive(Clone)]
struct Upstreams(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Upstreams {
    fn execute(&self, task: F) {
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Connects where the wall has let a request go.
#[derive(Clone)]
struct Connector {
    wall: Arc<Wall>,
    standing: Arc<Mutex<Option<Metered>>>,
}

/// A connection as the client keeps it.
struct Upstream(TokioIo<Stream>);

impl Connection for Upstream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Upstream;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Upstream, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (wall, standing) = (self.wall.clone(), self.standing.lock().take());
        Box::pin(async move {
            let target = Target::of(&uri)?;
            let stream = match standing.filter(|_| !target.tls) {
                Some(standing) => Stream::Left(standing),
                None => wall.connect(&target).await?,
            };
            Ok(Upstream(TokioIo::new(stream)))
        })
    }
}

impl hyper::rt::Read for Upstream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Upstream {
    fn poll_write(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Why the client gave no answer.
fn cause(error: &hyper_util::client::legacy::Error) -> Refusal {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |error| error.source()).take(CAUSES);
    causes.find_map(|error| error.downcast_ref().copied()).unwrap_or(Refusal::NoAnswer)
}

/// A refusal as the tool's client reads it (RFC 9457).
fn problem(refusal: Refusal) -> Response<Body> {
    let status = status(refusal);
    let problem = serde_json::json!({
        "title": "The gateway did not forward this request",
        "status": status.as_u16(),
        "detail": refusal.to_string(),
    });
    let mut response = Response::new(body(problem.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    // The tool's connections are bounded, and its requests on one are not.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

const fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Malformed | Refusal::Path | Refusal::Unclear => StatusCode::BAD_REQUEST,
        Refusal::NotListed | Refusal::AddressNotListed | Refusal::PlainOnly => StatusCode::FORBIDDEN,
        Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Credential => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::Late => StatusCode::GATEWAY_TIMEOUT,
        Refusal::NoAddress
        | Refusal::Refused
        | Refusal::Unreachable
        | Refusal::Certificate
        | Refusal::Tls
        | Refusal::NoAnswer => StatusCode::BAD_GATEWAY,
    }
}

fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}
