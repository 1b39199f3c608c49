//! The wall's faces: what listens in the sandbox, and carries each connection of the tool to the gateway.

use std::io;
use std::net::{SocketAddrV4, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, SelectAll, StreamExt};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::tunnel::{self, CONNECTIONS, Carrier, Opener, Opening};
use crate::wire;

/// What is read at once.
const PIECE: usize = 64 << 10;
/// How long to rest when the kernel has no descriptor for a connection.
const REST: Duration = Duration::from_millis(50);

/// Listens where the tool is to connect.
pub(super) struct Faces(Vec<(TcpListener, Opening)>);

impl Faces {
    /// Listens on all of them.
    ///
    /// # Errors
    /// A sentence: one of them cannot be had.
    pub(super) fn open(faces: &wire::Faces) -> Result<Self, String> {
        let direct = faces.direct.iter().map(|(at, to)| (*at, Opening::Direct(to.clone())));
        let all = direct.chain([(faces.proxy, Opening::Proxy)]);
        let listen = |(at, opening)| {
            let listener = listener(at).map_err(|error| format!("the sandbox cannot listen on {at} for its tool: {error}"))?;
            Ok((listener, opening))
        };
        all.map(listen).collect::<Result<_, String>>().map(Self)
    }

    /// Carries what comes, for as long as it is polled.
    pub(super) async fn serve(self, carrier: Carrier) {
        let mut tasks = JoinSet::new();
        let Ok((opener, driving)) = tunnel::open(carrier).await else { return };
        tasks.spawn(driving);
        let mut arriving: SelectAll<_> = self
            .0
            .into_iter()
            .map(|(listener, opening)| {
                stream::poll_fn(move |cx| listener.poll_accept(cx).map(|accepted| Some((accepted, opening.clone()))))
            })
            .collect();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            tokio::select! {
                arrived = arriving.next() => match arrived {
                    Some((Ok((near, _)), opening)) => {
                        // One too many is closed at once: its tool hears of it, and need not wait for a deadline.
                        let Ok(place) = room.clone().try_acquire_owned() else { continue };
                        tasks.spawn(one(near, opening, opener.clone(), place));
                    }
                    Some((Err(_), _)) => tokio::time::sleep(REST).await,
                    None => return,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

fn listener(at: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = StdListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// One connection of the tool. What cannot be carried any further is closed, on this side as on the other.
async fn one(mut near: TcpStream, opening: Opening, opener: Opener, _place: OwnedSemaphorePermit) {
    let _ = near.set_nodelay(true);
    if let Ok(mut far) = opener.open(&opening).await {
        let _ = copy_bidirectional_with_sizes(&mut near, &mut far, PIECE, PIECE).await;
    }
}
