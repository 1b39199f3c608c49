//! What a tool said on its connections right before it was over.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::egress::{Limits, Terms, trust};
use crate::tunnel::{self, Carrier, Opening, Stream};
use crate::wire::Faces;

const PLACE: &str = "db.example.com:5432";

/// A host whose tool may connect to `server`.
fn host(server: &TcpListener) -> Recorder {
    let routes = [(PLACE.parse().unwrap(), server.local_addr().unwrap())].into();
    let terms = Terms { limits: Limits::default(), tls: trust(&[]).unwrap(), routes };
    Recorder { wall: Some(Wall::new([PLACE.parse().unwrap()].into(), Vec::new(), terms)), ..Recorder::default() }
}

fn connected() -> Invocation {
    let proxy = std::net::SocketAddrV4::new(Ipv4Addr::new(127, 128, 0, 1), 3128);
    Invocation { faces: Some(Faces { proxy, direct: BTreeMap::new() }), ..invocation(2) }
}

/// The executor of a tool that has connected to the server.
struct Executor {
    outbox: Outbox<FromExecutor>,
    stream: Stream,
    _tasks: JoinSet<()>,
}

impl Executor {
    async fn of(mut peer: Peer) -> Self {
        peer.accept().await;
        let Peer { mut reader, mut writer } = peer;
        let (outbox, queue) = Outbox::new();
        let (inlet, carrier) = Carrier::over(&outbox, |chunk| FromExecutor::Tunnel { chunk });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = pump(queue, &mut writer).await;
        });
        tasks.spawn(async move {
            while let Ok(Some(frame)) = reader.next().await {
                if let ToExecutor::Tunnel { chunk } = frame {
                    inlet.push(chunk).unwrap();
                }
            }
        });
        let alive = outbox.clone();
        tasks.spawn(async move {
            loop {
                alive.offer(FromExecutor::Ping);
                sleep(QUICK.ping).await;
            }
        });
        let (opener, driving) = tunnel::open(carrier).await.unwrap();
        tasks.spawn(driving);
        let stream = opener.open(&Opening::Direct(PLACE.parse().unwrap())).await.unwrap();
        Self { outbox, stream, _tasks: tasks }
    }

    async fn report(&self) {
        self.outbox.send(FromExecutor::Report(report())).await.unwrap();
    }
}

async fn accepted(server: &TcpListener) -> TcpStream {
    server.accept().await.unwrap().0
}

#[tokio::test]
async fn a_destination_that_does_not_read_is_not_waited_for_long() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = host(&server);
    let (session, peer) = greeted().await;
    let (reported, when) = tokio::sync::oneshot::channel();
    let playing = async {
        let (mut executor, _unread) = tokio::join!(Executor::of(peer), accepted(&server));
        // More than all buffers on the way.
        while timeout(QUICK.ping, executor.stream.write_all(&[0; 64 << 10])).await.is_ok() {}
        reported.send(Instant::now()).unwrap();
        executor.report().await;
        std::future::pending::<()>().await;
    };
    let running = timeout(Duration::from_secs(30), session.run(connected(), &host));
    let result = tokio::select! { result = running => result, () = playing => unreachable!() };
    assert_eq!(result.unwrap().unwrap().exit, Exit::Code(0));
    assert!(when.await.unwrap().elapsed() >= QUICK.linger);
}

#[tokio::test]
async fn a_canceled_call_has_none() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = host(&server);
    let (session, peer) = greeted().await;
    let playing = async {
        let (mut executor, mut far) = tokio::join!(Executor::of(peer), accepted(&server));
        executor.stream.write_all(b"\0first").await.unwrap();
        far.read_exact(&mut [0; 6]).await.unwrap();
        host.cancel.cancel();
        // Its connections are cut at once, whatever its executor does.
        assert!(far.read(&mut [0; 1]).await.is_err());
        executor.stream.write_all(b"last").await.unwrap();
        executor.report().await;
        std::future::pending::<()>().await;
    };
    let result = tokio::select! { result = session.run(connected(), &host) => result, () = playing => unreachable!() };
    assert_eq!(result.unwrap().exit, Exit::Code(0));
}
