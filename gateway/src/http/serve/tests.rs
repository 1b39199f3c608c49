use super::*;
use axum::routing::get;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const QUICK: ConnectionLimits = ConnectionLimits {
    connections: 2,
    headers: Duration::from_millis(300),
    idle: Duration::from_millis(300),
    drain: Duration::from_millis(300),
    streams: 8,
};
const PATIENCE: Duration = Duration::from_secs(5);

/// Says when it is dropped.
struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().map(|sender| sender.send(()));
    }
}

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    hung_up: tokio::sync::oneshot::Receiver<()>,
}

async fn served(limits: ConnectionLimits) -> Served {
    let (sender, hung_up) = tokio::sync::oneshot::channel();
    let once = Arc::new(parking_lot::Mutex::new(Some(sender)));
    let router = Router::new().route("/", get(async || "hello")).route(
        "/never",
        get(async move || {
            let _dropped = Dropped(once.lock().take());
            std::future::pending::<()>().await
        }),
    );
    let router = router.route("/slow", get(async || tokio::time::sleep(Duration::from_millis(100)).await));
    let listener = bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, router, shutdown.clone(), limits));
    Served { address, shutdown, task, hung_up }
}

impl Served {
    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Everything until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection stayed open");
    String::from_utf8_lossy(&text).into_owned()
}

async fn first_byte(stream: &mut TcpStream, patience: Duration) -> bool {
    tokio::time::timeout(patience, stream.read_u8()).await.is_ok_and(|byte| byte.is_ok())
}

#[tokio::test]
async fn both_versions_are_served() {
    let served = served(QUICK).await;
    let answer = rest(served.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 5") && answer.ends_with("hello"), "{answer}");
    let stream = TokioIo::new(TcpStream::connect(served.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("http://x/").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_silent_and_the_slow_are_closed() {
    let served = served(ConnectionLimits { connections: 8, ..QUICK }).await;
    for opening in [
        "",
        "PRI * HT",
        "GET / HTTP/1.1\r\nhost: x\r\nx: ",
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        rest(served.send(opening).await).await;
    }
}

#[tokio::test]
async fn a_request_under_way_is_not_idle() {
    let served = served(ConnectionLimits { idle: Duration::from_millis(20), ..QUICK }).await;
    let answer = rest(served.send("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let served = served(ConnectionLimits { idle: Duration::from_secs(60), headers: Duration::from_secs(60), ..QUICK }).await;
    let _first = served.send("").await;
    let second = served.send("").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = served.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!first_byte(&mut third, Duration::from_millis(300)).await, "a third connection was served");
    drop(second);
    assert!(first_byte(&mut third, PATIENCE).await, "the third connection was never served");
}

#[tokio::test]
async fn a_client_that_hangs_up_drops_its_request() {
    let served = served(QUICK).await;
    let stream = served.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    tokio::time::timeout(PATIENCE, served.hung_up).await.expect("the request went on").unwrap();
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_drops_those_that_do_not() {
    let first = served(QUICK).await;
    let slow = first.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    first.shutdown.cancel();
    tokio::time::timeout(PATIENCE, first.task).await.unwrap().unwrap();
    assert!(rest(slow).await.starts_with("HTTP/1.1 200"));
    assert!(TcpStream::connect(first.address).await.is_err(), "it still listens");

    let second = served(QUICK).await;
    let _never = second.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let begun = Instant::now();
    second.shutdown.cancel();
    tokio::time::timeout(PATIENCE, second.task).await.unwrap().unwrap();
    assert!(begun.elapsed() >= QUICK.drain, "the drain was cut short");
    second.hung_up.await.unwrap();
}
