//! The wall's faces: what listens in the sandbox, and carries each connection of the tool to the gateway.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddrV4, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::tunnel::{self, CONNECTIONS, Carrier, Opener, Opening, relay};
use crate::wire;

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

    /// Carries what comes. Once the tool is `gone`, what it had connected to and said is carried to its end, and nothing more.
    pub(super) async fn serve(self, carrier: Carrier, gone: CancellationToken) {
        let Ok((opener, driving)) = tunnel::open(carrier).await else { return };
        let mut tasks = JoinSet::new();
        tasks.spawn(driving);
        let mut taking = Taking { tasks, opener, room: Arc::new(Semaphore::new(CONNECTIONS)) };
        loop {
            tokio::select! {
                (arrived, opening) = self.arrival() => match arrived {
                    Ok(near) => taking.take(near, opening),
                    Err(_) => sleep(REST).await,
                },
                Some(_) = taking.tasks.join_next() => {}
                () = gone.cancelled() => break,
            }
        }
        for (near, opening) in self.left() {
            taking.take(near, &opening);
        }
        let Taking { mut tasks, opener, .. } = taking;
        // The last connection to end closes the stream now.
        drop(opener);
        while tasks.join_next().await.is_some() {}
    }

    /// The next connection of the tool.
    async fn arrival(&self) -> (io::Result<TcpStream>, &Opening) {
        let accept = poll_fn(|cx| {
            let mut accepted = self.0.iter().filter_map(|(listener, opening)| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Some((accepted.map(|(near, _)| near), opening)),
                Poll::Pending => None,
            });
            accepted.next().map_or(Poll::Pending, Poll::Ready)
        });
        accept.await
    }

    /// What the kernel had taken of its connections and nobody has seen yet.
    fn left(self) -> impl Iterator<Item = (TcpStream, Opening)> {
        let left = |(listener, opening): (TcpListener, Opening)| {
            let listener = listener.into_std().ok()?;
            let accept = move || Some((stream(listener.accept().ok()?.0).ok()?, opening.clone()));
            Some(std::iter::from_fn(accept))
        };
        self.0.into_iter().filter_map(left).flatten()
    }
}

/// The connections that are under way.
struct Taking {
    tasks: JoinSet<()>,
    opener: Opener,
    room: Arc<Semaphore>,
}

impl Taking {
    /// One too many is reset at once: its tool hears of it, and need not wait for a deadline.
    fn take(&mut self, near: TcpStream, opening: &Opening) {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            let _ = near.set_zero_linger();
            return;
        };
        let (opener, opening) = (self.opener.clone(), opening.clone());
        self.tasks.spawn(async move {
            one(near, opening, opener).await;
            drop(place);
        });
    }
}

fn listener(at: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = StdListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn stream(accepted: StdStream) -> io::Result<TcpStream> {
    accepted.set_nonblocking(true)?;
    TcpStream::from_std(accepted)
}

/// One connection of the tool. What cannot be carried any further is reset, on this side as on the other: it must not look like an end.
async fn one(mut near: TcpStream, opening: Opening, opener: Opener) {
    let _ = near.set_nodelay(true);
    let far = opener.open(&opening).await;
    drop(opener);
    let carried = match far {
        Ok(far) => relay(&mut near, far, &CancellationToken::new()).await,
        Err(error) => Err(error),
    };
    if carried.is_err() {
        let _ = near.set_zero_linger();
    }
}
