//! The wall from inside a sandbox: what every backend with containers lets its tools reach, and what it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mayfly_executor::egress::{Injection, Limits, Terms, Wall, trust};
use mayfly_executor::spec::{Reach, SandboxSpec};
use mayfly_executor::wire::{Exit, Report, SecretText};
use mayfly_executor::{Backend, SandboxId};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Listener, invocation};

/// A server on this machine that says what it was asked, behind a line of its own. What begins with a zero is only counted.
struct Mirror {
    address: SocketAddr,
    counted: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Mirror {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        let counted = Arc::<AtomicU64>::default();
        let counting = counted.clone();
        task.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let counting = counting.clone();
                serving.spawn(async move {
                    let mut asked = vec![0; 64 << 10];
                    while let Ok(length @ 1..) = stream.read(&mut asked).await {
                        if asked[0] == 0 {
                            counting.fetch_add(length as u64, Ordering::Relaxed);
                            continue;
                        }
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                        let answer = [head.as_bytes(), &asked[..length]].concat();
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, counted, _task: task }
    }
}

const NAMED: &str = "db.example.com:5432";
const PRIVILEGED: &str = "plain.example.com:80";
const INJECTED: &str = "api.example.com:443";
const SILENT: &str = "silent.example.com:5432";
const BEHIND_A_LABEL: &str = "one.label.example.com:8080";

/// What one sandbox may ever reach.
fn network() -> BTreeSet<Reach> {
    [NAMED, PRIVILEGED, INJECTED, SILENT, "*.label.example.com:8080"].iter().map(|entry| entry.parse().unwrap()).collect()
}

struct Rig<'a> {
    backend: &'a dyn Backend,
    spec: SandboxSpec,
    mirror: Mirror,
    /// Takes connections, and never reads from one.
    silent: TcpListener,
}

impl Rig<'_> {
    fn wall(&self, listed: &BTreeSet<Reach>) -> Arc<Wall> {
        let routes: BTreeMap<_, _> = [NAMED, PRIVILEGED, INJECTED, BEHIND_A_LABEL, "unlisted.example.com:80"]
            .iter()
            .map(|name| (name.parse().unwrap(), self.mirror.address))
            .chain([(SILENT.parse().unwrap(), self.silent.local_addr().unwrap())])
            .collect();
        let injection = Injection {
            to: INJECTED.parse().unwrap(),
            tls: false,
            methods: BTreeSet::new(),
            paths: Vec::new(),
            header: "x-api-key".into(),
            value: SecretText::new("canary"),
        };
        let terms = Terms { limits: Limits::default(), tls: trust(&[]).unwrap(), routes };
        Wall::new(listed.clone(), vec![injection], terms)
    }

    async fn run(&self, wall: Arc<Wall>, command: &[&str]) -> Report {
        let id = SandboxId::generate();
        let sandbox = self.backend.start(id, &self.spec).await.unwrap();
        let host = Listener::behind(wall);
        let report = sandbox.invoke(invocation(command), &host).await;
        self.backend.destroy(id).await.unwrap();
        report.unwrap()
    }

    async fn said(&self, command: &[&str]) -> String {
        let report = self.run(self.wall(&network()), command).await;
        assert_eq!(report.exit, Exit::Code(0), "{:?}", report.detail);
        String::from_utf8_lossy(&report.stdout).into_owned()
    }
}

/// One that leads wherever its destinations truly are.
pub(crate) fn of(listed: BTreeSet<Reach>) -> Arc<Wall> {
    let terms = Terms { limits: Limits::default(), tls: trust(&[]).unwrap(), routes: BTreeMap::new() };
    Wall::new(listed, Vec::new(), terms)
}

/// All of it.
pub(crate) async fn check(backend: &dyn Backend, spec: &SandboxSpec) {
    let spec = SandboxSpec { network: network(), ..spec.clone() };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig { backend, spec, mirror: Mirror::new().await, silent };
    names_lead_through_it(&rig).await;
    the_proxy_does_too(&rig).await;
    a_credential_is_added_outside(&rig).await;
    nothing_else_is_there(&rig).await;
    a_call_that_may_less_reaches_less(&rig).await;
    a_flood_of_connections_is_bounded(&rig).await;
    what_nobody_reads_is_bounded(&rig).await;
    last_words_get_through(&rig).await;
    a_canceled_call_says_nothing_more(&rig).await;
}

async fn names_lead_through_it(rig: &Rig<'_>) {
    let said = rig.said(&["/tool", "ask", NAMED, "ping"]).await;
    assert!(said.ends_with("ping"), "{said}");
    let plain = rig.said(&["/tool", "ask", PRIVILEGED, "GET / HTTP/1.1\r\nHost: plain.example.com\r\n\r\n"]).await;
    assert!(plain.starts_with("HTTP/1.1 200") && plain.contains("GET / HTTP/1.1"), "{plain}");
    let wall = rig.wall(&network());
    rig.run(wall.clone(), &["/tool", "ask", NAMED, "ping"]).await;
    let contacts = wall.contacts();
    assert!(contacts.len() == 1 && contacts[0].sent == 4 && contacts[0].connections == 1, "{contacts:?}");
    assert!(wall.take_spans().iter().any(|span| span.name == "egress.connection"));
}

async fn the_proxy_does_too(rig: &Rig<'_>) {
    let look = rig.said(&["/tool", "look"]).await;
    assert!(look.contains("\"HTTP_PROXY\": \"http://127.128.0.1:3128\""), "{look}");
    let get = format!("GET http://{BEHIND_A_LABEL}/x HTTP/1.1\r\nHost: x\r\n\r\n");
    let answered = rig.said(&["/tool", "ask", "127.128.0.1:3128", &get]).await;
    assert!(answered.contains("GET /x HTTP/1.1") && answered.contains(BEHIND_A_LABEL), "{answered}");
    let refused = rig.said(&["/tool", "ask", "127.128.0.1:3128", &get.replace("one.label", "label")]).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
}

async fn a_credential_is_added_outside(rig: &Rig<'_>) {
    for place in ["api.example.com:80", INJECTED] {
        let get = "GET /x HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        let mirrored = rig.said(&["/tool", "ask", place, get]).await;
        assert!(mirrored.contains("x-api-key: canary"), "{mirrored}");
    }
    let look = rig.said(&["/tool", "look"]).await;
    assert!(!look.contains("canary"));
    let seen = rig.said(&["/tool", "show", "/etc/hosts", "/proc/self/environ", "/proc/1/environ", "/tmp"]).await;
    assert!(seen.contains("api.example.com") && !seen.contains("canary"), "{seen}");
}

async fn nothing_else_is_there(rig: &Rig<'_>) {
    let mirror = rig.mirror.address.to_string();
    let here = gateway_of_this_machine();
    let places = [
        mirror.as_str(),
        "unlisted.example.com:80",
        "169.254.169.254:80",
        "1.1.1.1:53/udp",
        "8.8.8.8:53",
        "[2606:4700:4700::1111]:53",
        "10.96.0.1:443",
        "172.17.0.1:2375",
        "10.0.0.1:443",
        here.as_str(),
    ];
    let reached = rig.said(&[&["/tool", "knock"], &places[..]].concat()).await;
    assert_eq!(reached, "{\"reached\": []}");
}

/// An address of this machine that is not its loopback, at which something listens in no test.
fn gateway_of_this_machine() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    address.map_or_else(|_| "192.0.2.1:22".into(), |address| format!("{}:22", address.ip()))
}

async fn a_call_that_may_less_reaches_less(rig: &Rig<'_>) {
    let only: BTreeSet<Reach> = [NAMED.parse().unwrap()].into();
    let refused = rig.run(rig.wall(&only), &["/tool", "ask", PRIVILEGED, "ping"]).await;
    assert!(String::from_utf8_lossy(&refused.stdout).starts_with("error: "), "{refused:?}");
    let none = rig.run(rig.wall(&BTreeSet::new()), &["/tool", "knock", NAMED, "127.128.0.1:3128"]).await;
    assert_eq!(none.stdout, "{\"reached\": []}");
}

async fn a_flood_of_connections_is_bounded(rig: &Rig<'_>) {
    let wall = rig.wall(&network());
    let report = rig.run(wall.clone(), &["/tool", "crowd", NAMED, "200"]).await;
    assert_eq!(report.exit, Exit::Code(0), "{:?}", report.detail);
    let served: u32 = String::from_utf8_lossy(&report.stdout).parse().unwrap();
    assert_eq!(served, 64);
    assert_eq!(wall.contacts()[0].connections, 64);
}

/// Few connections that are not read leave the others room; with many, the call still has its report.
async fn what_nobody_reads_is_bounded(rig: &Rig<'_>) {
    for (count, at_least, leaves_room) in [(4, 4 << 20, true), (16, 8 << 20, false)] {
        let said: Value = rig.said(&["/tool", "stuff", SILENT, &count.to_string(), NAMED]).await.parse().unwrap();
        assert!(!leaves_room || said["answered"] == true, "{said}");
        assert!(said["taken"].as_u64() > Some(at_least), "{said}");
    }
}

async fn last_words_get_through(rig: &Rig<'_>) {
    // More than fits into any one buffer on the way.
    for (length, count) in [(1, 16), (300_000, 4)] {
        let wall = rig.wall(&network());
        rig.mirror.counted.store(0, Ordering::Relaxed);
        let report = rig.run(wall.clone(), &["/tool", "blurt", NAMED, &length.to_string(), &count.to_string()]).await;
        assert_eq!(report.stdout, count.to_string());
        let contacts = wall.contacts();
        assert_eq!((contacts[0].connections, contacts[0].sent), (count, u64::from(length * count)), "{contacts:?}");
        within(|| rig.mirror.counted.load(Ordering::Relaxed) == contacts[0].sent).await;
    }
}

/// Waits for it, and not for ever.
async fn within(until: impl Fn() -> bool) {
    let waiting = async {
        while !until() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

async fn a_canceled_call_says_nothing_more(rig: &Rig<'_>) {
    let wall = rig.wall(&network());
    let id = SandboxId::generate();
    let sandbox = rig.backend.start(id, &rig.spec).await.unwrap();
    let host = Listener::behind(wall.clone());
    let canceling = async {
        within(|| !wall.contacts().is_empty()).await;
        host.cancel.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
        wall.contacts()[0].sent
    };
    let (report, sent) = tokio::join!(sandbox.invoke(invocation(&["/tool", "chatter", NAMED]), &host), canceling);
    rig.backend.destroy(id).await.unwrap();
    assert_eq!(report.unwrap().exit, Exit::Canceled);
    assert_eq!(wall.contacts()[0].sent, sent);
}
