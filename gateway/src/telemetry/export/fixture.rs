//! For tests: an exporter that keeps what it is given, and a collector that speaks OTLP over HTTP and gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use http_body_util::StreamBody;
use hyper::body::Frame;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::*;

/// Keeps spans in memory.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Collector(Arc<Mutex<Vec<SpanData>>>);

impl Collector {
    pub(in super::super) fn spans(&self) -> Vec<SpanData> {
        self.0.lock().clone()
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

pub(in super::super) fn settings(queue: usize) -> Settings {
    let delay = Duration::from_millis(20);
    Settings { target: None, queue, batch: queue.min(512), delay, batch_timeout: Duration::from_secs(30) }
}

/// An exporter over `to`, and its counter of dropped spans.
pub(in super::super) fn exporter<E: SpanExporter + 'static>(to: E, queue: usize) -> (Arc<Exporter>, Counter) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dropped = Counter::default();
    (Exporter::over(to, runtime, &settings(queue), dropped.clone()), dropped)
}

/// One request that a collector got.
pub(super) type Request = (HeaderMap, ExportTraceServiceRequest);

/// A collector on a thread of its own, so that a test may block its own.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let routes = axum::Router::new()
            .route("/v1/traces", post(take_http))
            .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(take_grpc))
            .with_state(requests.clone());
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        Self { address, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }
}

async fn take_http(State(requests): State<Arc<Mutex<Vec<Request>>>>, headers: HeaderMap, body: Bytes) {
    requests.lock().push((headers, ExportTraceServiceRequest::decode(body).unwrap()));
}

/// The unary exchange of gRPC: a length before the message, and the status in the trailers.
async fn take_grpc(State(requests): State<Arc<Mutex<Vec<Request>>>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    requests.lock().push((headers, ExportTraceServiceRequest::decode(body.slice(5..)).unwrap()));
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}
