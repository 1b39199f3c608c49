//! The gateway's end of a sandbox's connections.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http::{self, Face};
use super::io::Io;
use super::raw;
use super::wall::Wall;
use crate::tunnel::{self, Carrier, Opening};

/// What ends connections.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Nobody listens in the sandbox any more. What was said there still gets out.
    pub(crate) gone: CancellationToken,
    /// At once, whatever is under way.
    pub(crate) over: CancellationToken,
}

/// Serves every connection that comes over `carrier` until they are over, or the sandbox has closed the carrier and the last has
/// ended. When it returns, what they carried is counted; dropped, it ends them all too.
pub(crate) async fn serve(carrier: Carrier, wall: Arc<Wall>, ends: &Ends) {
    let mut connections = JoinSet::new();
    let serving = async {
        tunnel::accept(carrier, |opening, stream| {
            while connections.try_join_next().is_some() {}
            connections.spawn(one(opening, Io::new(stream), wall.clone(), ends.gone.clone()));
        })
        .await;
        while connections.join_next().await.is_some() {}
    };
    tokio::select! {
        () = ends.over.cancelled() => {}
        () = serving => {}
    }
    connections.shutdown().await;
}

async fn one(opening: Opening, stream: Io, wall: Arc<Wall>, gone: CancellationToken) {
    if !wall.opens(&opening) {
        return;
    }
    match opening {
        Opening::Proxy => http::serve(stream, Face::Proxy, wall, None, gone).await,
        // What is added to has to be seen.
        Opening::Direct(to) if wall.injects(&to) => http::serve(stream, Face::Direct(to), wall, None, gone).await,
        Opening::Direct(to) => raw::serve(stream, to, wall, gone).await,
    }
}
