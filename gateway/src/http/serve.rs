//! Serving a router on a listener: bounded connections, bounded patience, and an orderly end.
//!
//! # Guarantees
//! - At most [`ConnectionLimits::connections`] connections are open; further ones wait in the kernel's queue.
//! - A connection on which no request is under way is closed after [`ConnectionLimits::idle`] to twice that, whether it never
//!   said a word, stopped in the middle of its first bytes, or has been served; headers must be complete within
//!   [`ConnectionLimits::headers`]. (Bodies are bounded where they are read.)
//! - After `shutdown` nothing new is accepted, requests under way have [`ConnectionLimits::drain`] to end, and what is left is
//!   dropped, which cancels the calls behind it. When [`serve`] returns, no connection of its is left.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::serve::{Listener, ListenerExt as _};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

/// What connections may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most open at once.
    pub connections: usize,
    /// Time for the headers of an HTTP/1 request, from the end of the one before.
    pub headers: Duration,
    /// Time without a request under way.
    pub idle: Duration,
    /// Time for requests under way to end after a shutdown began.
    pub drain: Duration,
    /// Most requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            streams: 128,
        }
    }
}

/// A TCP listener that sends small answers at once.
///
/// # Errors
/// As binding does.
pub async fn bind(address: impl ToSocketAddrs) -> std::io::Result<impl Listener<Addr = std::net::SocketAddr>> {
    Ok(TcpListener::bind(address).await?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    }))
}

/// Serves `router` over HTTP/1.1 and HTTP/2 (with prior knowledge) until `shutdown`, and then until everything has ended.
pub async fn serve<L: Listener>(mut listener: L, router: Router, shutdown: CancellationToken, limits: ConnectionLimits) {
    let builder = builder(&limits);
    let (slots, tasks) = (Arc::new(Semaphore::new(limits.connections)), TaskTracker::new());
    let (graceful, kill) = (GracefulShutdown::new(), CancellationToken::new());
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await.0)
        };
        let (slot, io) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let activity = Arc::new(Activity::default());
        let connection = builder.serve_connection(TokioIo::new(io), service_fn(answer(router.clone(), activity.clone())));
        let connection = graceful.watch(connection.into_owned());
        let kill = kill.clone();
        tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(error = &*error, "a connection broke off");
                },
                () = activity.idle(limits.idle) => {}
                () = kill.cancelled() => {}
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(limits.drain) => {
            tracing::warn!("requests were still under way at the end of the drain; they are dropped");
            kill.cancel();
        }
    }
    tasks.close();
    tasks.wait().await;
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

type Answer = Pin<Box<dyn Future<Output = Result<hyper::Response<Held>, Infallible>> + Send>>;

/// The service of one connection: the router, with its requests counted.
fn answer(router: Router, activity: Arc<Activity>) -> impl Fn(hyper::Request<Incoming>) -> Answer {
    move |request| {
        let (mut router, under_way) = (router.clone(), UnderWay::new(activity.clone()));
        Box::pin(async move {
            let request: Request = request.map(Body::new);
            let response = router.call(request).await?;
            Ok(response.map(|body| Held { body, _under_way: under_way }))
        })
    }
}

/// What happens on one connection.
#[derive(Default)]
struct Activity {
    under_way: AtomicUsize,
    /// Beginnings and ends of requests so far.
    changes: AtomicU64,
}

impl Activity {
    /// Returns when nothing was under way, and nothing began or ended, for `limit`.
    async fn idle(&self, limit: Duration) {
        let mut seen = self.changes.load(Ordering::Acquire);
        loop {
            tokio::time::sleep(limit).await;
            let now = self.changes.load(Ordering::Acquire);
            if self.under_way.load(Ordering::Acquire) == 0 && now == seen {
                return;
            }
            seen = now;
        }
    }
}

/// A request, from its headers to the end of its response's body.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::AcqRel);
        activity.changes.fetch_add(1, Ordering::AcqRel);
        Self(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response's body that keeps its request under way.
struct Held {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
