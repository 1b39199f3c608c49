//! A client of the API server that sends what little it has to say at once.

use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A client that has no `Debug` of its own.
pub(super) struct ClientFace(pub(super) Client);

impl fmt::Debug for ClientFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

/// A client from the library's parts, without Nagle's algorithm, which cannot be turned off in the one it makes: the second of two small
/// frames on a stream would wait for the other side's acknowledgement of the first, which it holds back for 40 ms. Nor has it a timeout
/// for reading or writing: streams are silent for long, and whoever wants an answer has a clock of its own.
pub(super) fn client(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let connector = ServiceBuilder::new().map_future(Box::pin).timeout(CONNECT).service(tls);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
