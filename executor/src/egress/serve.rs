//! The gateway's end of a sandbox's connections.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http::{self, Face};
use super::io::Io;
use super::raw;
use super::wall::Wall;
use crate::tunnel::{self, Carrier, Opening};

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
    tunnel::accept(carrier, |opening, stream| {
        while connections.try_join_next().is_some() {}
        connections.spawn(one(opening, Io::new(stream), wall.clone()));
    })
    .await;
}

async fn one(opening: Opening, stream: Io, wall: Arc<Wall>) {
    match opening {
        Opening::Proxy => http::serve(stream, Face::Proxy, wall, None).await,
        // What is added to has to be seen.
        Opening::Direct(to) if wall.injects(&to) => http::serve(stream, Face::Direct(to), wall, None).await,
        Opening::Direct(to) => raw::serve(stream, to, wall).await,
    }
}
