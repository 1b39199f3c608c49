//! Both ends of what all connections share.

use std::io;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};

use super::{ALL_WINDOWS, CHUNK, Carrier, HEADER, Opening, SMALL_PIECES, Stream, WINDOW};

/// Opens connections: the executor's end.
#[derive(Clone)]
pub(crate) struct Opener(SendRequest<Bytes>);

/// Begins. Connections can be opened for as long as the future is polled.
///
/// # Errors
/// When the carrier fails.
pub(crate) async fn open(carrier: Carrier) -> io::Result<(Opener, impl Future<Output = ()> + Send + 'static)> {
    let mut client = h2::client::Builder::new();
    client.initial_window_size(WINDOW).initial_connection_window_size(ALL_WINDOWS);
    client.max_frame_size(CHUNK as u32 - HEADER).max_send_buffer_size(CHUNK).data_frame_budget(SMALL_PIECES).enable_push(false);
    let (requests, connection) = client.handshake(carrier.into_stream()).await.map_err(failed)?;
    // How it ended shows in the connections.
    let driving = async move { drop(connection.await) };
    Ok((Opener(requests), driving))
}

impl Opener {
    /// Opens one. What is written to it need not wait for the gateway's answer.
    ///
    /// # Errors
    /// When there is nobody to open it to.
    pub(crate) async fn open(&self, opening: &Opening) -> io::Result<Stream> {
        let request = Request::builder().method(Method::CONNECT).uri(opening.authority()).body(()).map_err(io::Error::other)?;
        let mut requests = self.0.clone().ready().await.map_err(failed)?;
        let (answer, sending) = requests.send_request(request, false).map_err(failed)?;
        Ok(Stream::answered_later(answer, sending))
    }
}

/// Takes connections as they come, for as long as the future is polled: the gateway's end.
#[cfg(feature = "dispatch")]
pub(crate) async fn accept(carrier: Carrier, mut take: impl FnMut(Opening, Stream)) {
    let mut server = h2::server::Builder::new();
    server.initial_window_size(WINDOW).initial_connection_window_size(ALL_WINDOWS);
    server.max_frame_size(CHUNK as u32 - HEADER).max_send_buffer_size(CHUNK).data_frame_budget(SMALL_PIECES);
    let most = 2 * super::CONNECTIONS;
    server.max_concurrent_streams(most as u32).max_pending_accept_reset_streams(most);
    let Ok(mut connection) = server.handshake::<_, Bytes>(carrier.into_stream()).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let opening = authority.and_then(Opening::of).filter(|_| request.method() == Method::CONNECT);
        let Some(opening) = opening else {
            respond.send_reset(h2::Reason::PROTOCOL_ERROR);
            continue;
        };
        if let Ok(sending) = respond.send_response(http::Response::new(()), false) {
            take(opening, Stream::new(request.into_body(), sending));
        }
    }
}

pub(super) fn failed(error: h2::Error) -> io::Error {
    if error.is_io() { error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()) } else { io::Error::other(error) }
}
