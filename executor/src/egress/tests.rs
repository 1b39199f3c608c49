//! The wall as a tool finds it: streams with an opening on one side, servers on the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::*;
use crate::frame::Outbox;
use crate::spec::Destination;
use crate::tunnel::{self, Carrier, Opener, Opening, Stream};
use crate::wire::SecretText;

mod http;
mod raw;

/// A server that answers every connection with the same bytes once it has read something, and keeps what it read.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    root: Vec<u8>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn plain(answer: &str) -> Self {
        Self::start(answer, None).await
    }

    /// With a certificate for `name`, of a root of its own.
    async fn tls(name: &str, answer: &str) -> Self {
        Self::start(answer, Some(name)).await
    }

    async fn start(answer: &str, name: Option<&str>) -> Self {
        let (acceptor, root) = name.map(identity).unzip();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (answer, hearing) = (answer.to_owned(), heard.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, hearing) = (acceptor.clone(), answer.clone(), hearing.clone());
                serving.spawn(async move {
                    let mut stream = match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => Either::Right(stream),
                            Err(_) => return,
                        },
                        None => Either::Left(stream),
                    };
                    let mut read = vec![0; 64 << 10];
                    while let Ok(length @ 1..) = stream.read(&mut read).await {
                        hearing.lock().push(String::from_utf8_lossy(&read[..length]).into_owned());
                        let _ = stream.write_all(answer.as_bytes()).await;
                        let _ = stream.flush().await;
                    }
                });
            }
        });
        Self { address, heard, root: root.unwrap_or_default(), _tasks: tasks }
    }

    fn heard(&self) -> String {
        self.heard.lock().concat()
    }
}

fn identity(name: &str) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem().into_bytes())
}

/// A tool behind a wall.
struct Tool {
    wall: Arc<Wall>,
    opener: Opener,
    ends: Arc<Ends>,
    tasks: JoinSet<()>,
}

impl Tool {
    /// One that may reach `listed`, of which each entry of `routes` leads to a server here.
    async fn new(listed: &[&str], routes: &[(&str, &Server)], injections: Vec<Injection>) -> Self {
        Self::within(Limits::default(), listed, routes, injections).await
    }

    async fn within(limits: Limits, listed: &[&str], routes: &[(&str, &Server)], injections: Vec<Injection>) -> Self {
        let roots: Vec<_> = routes.iter().map(|(_, server)| server.root.clone()).filter(|root| !root.is_empty()).collect();
        let routes: BTreeMap<Destination, _> =
            routes.iter().map(|(name, server)| (name.parse().unwrap(), server.address)).collect();
        let terms = Terms { limits, tls: trust(&roots).unwrap(), routes };
        let wall = Wall::new(listed.iter().map(|entry| entry.parse().unwrap()).collect(), injections, terms);
        let (outwards, mut leaving) = Outbox::<Bytes>::new();
        let (inwards, mut arriving) = Outbox::<Bytes>::new();
        let (to_gateway, gateway) = Carrier::over(&inwards, |chunk| chunk);
        let (to_tool, tool) = Carrier::over(&outwards, |chunk| chunk);
        let ends = Arc::<Ends>::default();
        let (serving, until) = (wall.clone(), ends.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serve(gateway, serving, &until).await });
        tasks.spawn(async move {
            while let Some(chunk) = leaving.recv().await {
                to_gateway.push(chunk).unwrap();
            }
        });
        tasks.spawn(async move {
            while let Some(chunk) = arriving.recv().await {
                to_tool.push(chunk).unwrap();
            }
        });
        let (opener, driving) = tunnel::open(tool).await.unwrap();
        tasks.spawn(driving);
        Self { wall, opener, ends, tasks }
    }

    async fn proxy(&self) -> Stream {
        self.opener.open(&Opening::Proxy).await.unwrap()
    }

    async fn direct(&self, to: &str) -> Stream {
        self.opener.open(&Opening::Direct(to.parse().unwrap())).await.unwrap()
    }

    /// What comes back for `said`, until it pauses or ends.
    async fn says(&self, to: Option<&str>, said: &str) -> String {
        let mut stream = match to {
            Some(to) => self.direct(to).await,
            None => self.proxy().await,
        };
        let _ = stream.write_all(said.as_bytes()).await;
        answer(&mut stream).await
    }
}

/// What comes, until it pauses or ends.
async fn answer(stream: &mut Stream) -> String {
    let mut answer = Vec::new();
    let pause = Duration::from_millis(500);
    while let Ok(Ok(1..)) = tokio::time::timeout(pause, stream.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn bearer(to: &str, methods: &[&str], paths: &[&str]) -> Injection {
    Injection {
        to: to.parse().unwrap(),
        tls: true,
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
        header: "authorization".into(),
        value: SecretText::new("Bearer canary"),
    }
}
