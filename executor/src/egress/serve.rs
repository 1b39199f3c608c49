//! The gateway's end of a sandbox's connections.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;

use super::http::{self, Face};
use super::io::Io;
use super::raw;
use super::wall::Wall;
use crate::tunnel::Carrier;
use crate::wire::Opening;

/// Serves every connection that comes over `carrier` until `over`. When it returns, they have all ended, and what they carried is
/// counted; dropped, it ends them all too.
pub(crate) async fn serve(carrier: Carrier, wall: Arc<Wall>, over: &CancellationToken) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = over.cancelled() => {}
        // What cannot be read ends the connections, and not the call: its tool finds them closed.
        () = accept(carrier, &wall, &mut connections) => over.cancelled().await,
    }
    connections.shutdown().await;
}

async fn accept(carrier: Carrier, wall: &Arc<Wall>, connections: &mut JoinSet<()>) {
    let mut connection = carrier.server();
    loop {
        tokio::select! {
            opened = poll_fn(|cx| connection.poll_next_inbound(cx)) => match opened {
                Some(Ok(stream)) => drop(connections.spawn(one(stream, wall.clone()))),
                Some(Err(_)) | None => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn one(stream: yamux::Stream, wall: Arc<Wall>) {
    let mut stream = stream.compat();
    match Opening::read(&mut stream).await {
        Ok(Opening::Proxy) => http::serve(Io::new(stream), Face::Proxy, wall, None).await,
        // What is added to has to be seen.
        Ok(Opening::Direct(to)) if wall.injects(&to) => http::serve(Io::new(stream), Face::Direct(to), wall, None).await,
        Ok(Opening::Direct(to)) => raw::serve(Io::new(stream), to, wall).await,
        Err(_) => {}
    }
}
