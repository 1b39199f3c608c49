//! What the wall costs: the same program against the same server, once outside and once in a sandbox.
//!
//! `cargo bench -p mayfly-executor --bench egress --features docker,kubernetes` prints each figure with its baseline of the same run.
//! Needs what the container tests need; `MAYFLY_TEST_SKIP_DOCKER=1` and `MAYFLY_TEST_SKIP_KUBERNETES=1` leave an engine out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on says so by a panic")]
#![allow(dead_code, unused_imports, reason = "it shares the rigs of the container tests, and needs a part of them")]

#[path = "../tests/containers/cluster.rs"]
mod cluster;
#[path = "../tests/containers/images.rs"]
mod images;
#[path = "../tests/containers/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use mayfly_executor::egress::{Limits, Terms, Wall, trust};
use mayfly_executor::spec::{ByteSize, SandboxSpec};
use mayfly_executor::wire::Exit;
use mayfly_executor::{Backend, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::{Listener, invocation};

/// How long the server thinks about each request.
const THINKS: Duration = Duration::from_millis(20);
const REQUESTS: &str = "500";
const MEBIBYTES: &str = "512";
const WEB: &str = "web.example.com:80";
const BULK: &str = "bulk.example.com:9";

#[tokio::main]
async fn main() {
    let (web, bulk) = (served(web).await, served(bulk).await);
    let outside = Figures::of(|command| {
        let place = if command[1] == "requests" { web } else { bulk };
        let command: Vec<_> =
            command.iter().map(|word| if word.contains(".example.") { place.to_string() } else { (*word).into() }).collect();
        let output = Command::new(images::tool()).args(&command[1..]).output().unwrap();
        std::future::ready(String::from_utf8(output.stdout).unwrap())
    })
    .await;
    println!("outside: {outside:?}");
    if let Some(rig) = support::rig().await {
        inside("docker", &rig.backend, support::spec(&rig.image), &outside, (web, bulk)).await;
    }
    if let Some(rig) = cluster::cluster().await {
        inside("kubernetes", &rig.backend, cluster::spec(&rig.image), &outside, (web, bulk)).await;
    }
}

/// What was measured: microseconds of a request, MB/s each way.
#[derive(Debug)]
struct Figures {
    p50: f64,
    p99: f64,
    up: f64,
    down: f64,
}

impl Figures {
    async fn of<F: Future<Output = String>>(mut run: impl FnMut(Vec<&'static str>) -> F) -> Self {
        let took = run(vec!["/tool", "requests", WEB, REQUESTS]).await;
        let mut took: Vec<f64> = took.trim_matches(['[', ']']).split(", ").map(|one| one.parse().unwrap()).collect();
        // The first one connects.
        took.remove(0);
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[(took.len() as f64 * share) as usize];
        let mut rate = async |way| {
            let micros: f64 = run(vec!["/tool", "bulk", BULK, way, MEBIBYTES]).await.parse().unwrap();
            MEBIBYTES.parse::<f64>().unwrap() * f64::from(1 << 20) / micros
        };
        Self { p50: at(0.50), p99: at(0.99), up: rate("up").await, down: rate("down").await }
    }
}

async fn inside(
    engine: &str,
    backend: &dyn Backend,
    spec: SandboxSpec,
    outside: &Figures,
    (web, bulk): (SocketAddr, SocketAddr),
) {
    let network = [WEB, BULK].map(|entry| entry.parse().unwrap());
    let spec = SandboxSpec { network: network.into(), cpu_millis: 2000, ..spec };
    let found = Figures::of(async |command: Vec<&'static str>| {
        let routes: BTreeMap<_, _> = [(WEB, web), (BULK, bulk)].map(|(name, address)| (name.parse().unwrap(), address)).into();
        let limits = Limits { bytes: ByteSize(1 << 40), ..Limits::default() };
        let wall = Wall::new(spec.network.clone(), Vec::new(), Terms { limits, tls: trust(&[]).unwrap(), routes });
        let id = SandboxId::generate();
        let sandbox = backend.start(id, &spec).await.unwrap();
        let report = sandbox.invoke(invocation(&command), &Listener::behind(wall)).await;
        backend.destroy(id).await.unwrap();
        let report = report.unwrap();
        assert_eq!(report.exit, Exit::Code(0), "{}", String::from_utf8_lossy(&report.stderr));
        String::from_utf8(report.stdout.to_vec()).unwrap()
    })
    .await;
    let line = |what: &str, inside: f64, outside: f64, unit: &str, ratio: f64| {
        println!("{engine:>10}  {what:<28} {inside:>9.1} {unit:<5} outside {outside:>9.1} {unit:<5} {ratio:>6.3} x");
    };
    line("request, p50", found.p50 / 1e3, outside.p50 / 1e3, "ms", found.p50 / outside.p50);
    line("request, p99", found.p99 / 1e3, outside.p99 / 1e3, "ms", found.p99 / outside.p99);
    line("bulk out of the sandbox", found.up, outside.up, "MB/s", found.up / outside.up);
    line("bulk into the sandbox", found.down, outside.down, "MB/s", found.down / outside.down);
}

async fn served<F: Future<Output = ()> + Send + 'static>(serve: fn(TcpStream) -> F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn web(mut stream: TcpStream) {
    let mut asked = [0; 4096];
    while let Ok(1..) = stream.read(&mut asked).await {
        tokio::time::sleep(THINKS).await;
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// Sends as much as it is told to, or takes all there is and says so.
async fn bulk(mut stream: TcpStream) {
    let Ok(wanted) = stream.read_u64().await else { return };
    let mut piece = vec![0; 256 << 10];
    if wanted == 0 {
        while let Ok(1..) = stream.read(&mut piece).await {}
        let _ = stream.write_all(b"!").await;
        return;
    }
    let mut left = wanted;
    while left > 0 {
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if stream.write_all(&piece[..length]).await.is_err() {
            return;
        }
        left -= length as u64;
    }
}
