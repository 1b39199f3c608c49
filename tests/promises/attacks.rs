//! A hostile tool gets nothing that is not its own: not another call's credential, not its own once its call is over, not the
//! gateway's, and nothing outside that it does not list. One suite for every backend with containers; `attack.py` says what it tries.
//!
//! Components have theirs where they can be attacked, at the interfaces of the host: `executor/src/wasm/tests`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mayfly_tests::harness::{Engine, Kind, Mayfly, Setup, edited};
use serde_json::{Value, json};

use crate::credentials::{add, told};

const ATTACK: &str = include_str!("attacks/attack.py");
const LISTED: &str = "listed.example.com:8080";
/// What a credential is added for.
const INJECTED: &str = "injected.example.com:8080";
const PREY: &str = "canary-of-the-prey";
const OWN: &str = "canary-of-this-call";
const GATEWAY: &str = "canary-of-the-gateway";

/// Holds a credential in every way that there is, says so backwards, and stays.
const HOLD: &str = r#"FROM debian:bookworm-slim
ENTRYPOINT ["sh", "-c", "cat /tmp/token > /tmp/copy; printf '%s' \"$TOKEN\" | rev >&2; echo >&2; sleep 140 & wait"]
"#;

/// A server that says yes to whoever reaches it, and keeps what it hears.
struct Outside {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Outside {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let hearing = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, hearing) = (stream.unwrap(), hearing.clone());
                std::thread::spawn(move || {
                    let mut piece = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut piece) {
                        hearing.lock().unwrap().extend_from_slice(&piece[..length]);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                    }
                });
            }
        });
        Self { address, heard }
    }

    /// What it has heard since the last time.
    fn heard(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.heard.lock().unwrap())).into_owned()
    }
}

fn port(mayfly: &Mayfly) -> u16 {
    mayfly.url.rsplit(':').next().unwrap().parse().unwrap()
}

/// What the tool is sent for.
fn errand(engine: &Engine, outside: &Outside, gateway: u16) -> Value {
    let backwards = |word: &str| word.chars().rev().collect::<String>();
    let mut hosts: Vec<String> = ["127.0.0.1", "[::1]", "172.17.0.1"].map(str::to_owned).into();
    let mut places = vec![outside.address.to_string(), "127.0.0.1:2375".into(), "172.17.0.1:22".into()];
    places.extend(["169.254.169.254:80", "[fd00:ec2::254]:80", "evil.example.com:443"].map(str::to_owned));
    places.extend(["1.1.1.1:53", "[2606:4700:4700::1111]:53"].map(str::to_owned));
    if engine.kind == Kind::Kubernetes {
        let asked = |args: &[&str]| engine.run("kubectl", args, "").trim().to_owned();
        let server = asked(&["get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}"]);
        let node = asked(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]);
        places.extend([format!("{server}:443"), format!("{node}:10250"), "127.0.0.1:10250".into()]);
        hosts.push(node);
    }
    places.extend(hosts.iter().map(|host| format!("{host}:{gateway}")));
    json!({
        "hunted": [backwards(PREY), backwards(GATEWAY)],
        "places": places,
        "listed": LISTED,
        "injected": INJECTED,
        "proxy": ["127.128.0.1", 3128],
        "gateway": gateway,
    })
}

/// A gateway with the attacker and its prey; were the wall to let it, the attacker would find somebody at every place it asks for.
fn started(engine: &Engine, prey: &str, outside: &Outside) -> Mayfly {
    let name = engine.kind.name();
    let setup = Setup::new().container(engine, prey, HOLD, "timeout: 150s").shipped(engine, "code_executor", |yaml| {
        let backend = format!("backend: {name}\n  network: ['{LISTED}', '{INJECTED}']");
        edited(&edited(&yaml, "backend: docker", &backend), "timeout: 30s", "timeout: 90s")
    });
    let uses = "  - {source: prey, deliver: env, variable: TOKEN}\n  - {source: prey, deliver: file, path: /tmp/token}\n";
    add(&setup, prey, &format!("expose_logs: true\ncredentials:\n{uses}"));
    let inject = format!("{{to: '{INJECTED}', as: bearer, plaintext: true}}");
    add(&setup, "code_executor", &format!("credentials:\n  - {{source: own, deliver: egress, inject: {inject}}}\n"));
    let prints = |value: &str| json!({"kind": "command", "command": ["/bin/echo", json!({"token": value}).to_string()]});
    let there = json!(outside.address.to_string());
    let routes = [LISTED, INJECTED, "evil.example.com:443", "evil.example.com:80", "169.254.169.254:80"];
    let routes: serde_json::Map<_, _> = routes.into_iter().map(|name| (name.to_owned(), there.clone())).collect();
    setup
        .set("/credentials", json!({"prey": prints(PREY), "own": prints(OWN)}))
        .set("/egress", json!({"routes": routes}))
        .env("HARNESS_SECRET", GATEWAY)
        .start()
}

async fn gets_nothing(engine: &Engine) {
    let (outside, prey) = (Outside::start(), format!("prey_of_{}", engine.kind.name()));
    let mayfly = started(engine, &prey, &outside);
    let ann = mayfly.agent("ann");
    let (id, said) = told(&ann, &prey, 1).await;
    assert_eq!(said[0], PREY, "there is something to hunt");

    let arguments = json!({"code": ATTACK, "stdin": errand(engine, &outside, port(&mayfly)).to_string()});
    let attacked = ann.call("code_executor", arguments).await;
    let result = &attacked.body["result"];
    let found: Value =
        serde_json::from_str(result["stdout"].as_str().unwrap_or_default()).unwrap_or_else(|_| panic!("{attacked:?}"));
    assert_eq!((&found["got"], &found["tried"]), (&json!({}), &json!(35)), "{found:#}");
    assert_eq!(ann.get(&id).await.body["state"], "running", "its prey was there all the time");

    // What was heard outside is what is listed, and not a word of what was to get past the wall.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heard = outside.heard();
    assert!(heard.contains("HTTP/1.1") && !heard.contains("evil") && !heard.contains("late"), "{heard}");
    let (_, in_time) = heard.split_once("/in-time").unwrap_or_else(|| panic!("nothing was asked with a credential: {heard}"));
    assert!(in_time.contains(&format!("Bearer {OWN}")), "{heard}");
    // What it left running is gone with its call, and so is the credential that the wall added.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(outside.heard(), "", "it outlived its call");
    let line = mayfly.call_line(attacked.body["id"].as_str().unwrap());
    let contacted = line["contacted"].as_array().unwrap();
    let is_listed = |one: &Value| one["destination"] == LISTED || one["destination"] == INJECTED || one["connections"] == 0;
    assert!(contacted.iter().all(is_listed), "{line}");
    ann.send(ann.request("DELETE", &format!("/v1/calls/{id}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_container_gets_nothing() {
    let Some(engine) = Engine::docker() else { return };
    gets_nothing(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_pod_gets_nothing() {
    let Some(engine) = Engine::kubernetes() else { return };
    gets_nothing(&engine).await;
}

/// The same attempts where nothing holds them: what succeeds nowhere proves nothing. The others depend on how a kernel was built, on
/// the machine's devices, and on name servers around it.
const REAL: [&str; 27] = [
    "processes",
    "files",
    "abstract sockets",
    "PID 1",
    "ptrace",
    "mount",
    "chroot",
    "pivot_root",
    "mknodat",
    "bpf",
    "perf_event_open",
    "keyctl",
    "open_by_handle_at",
    "fsopen",
    "open_tree",
    "settimeofday",
    "a user namespace of its own",
    "a network namespace of its own",
    "a mounts namespace of its own",
    "the namespace of PID 1",
    "memory of PID 1",
    "a descriptor of PID 1",
    "root",
    "socket families",
    "places",
    "the proxy",
    "kcmp",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_attacks_are_real() {
    let Some(engine) = Engine::docker() else { return };
    let outside = Outside::start();
    let setup = Setup::new().shipped(&engine, "code_executor", |yaml| yaml);
    let lock = std::fs::read_to_string(setup.dir.path().join("tools/code_executor/tool.lock")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    let image = lock["image"].as_str().unwrap().to_owned();
    let mayfly = setup.start();
    // Somebody to look into, as PID 1; a file, and a socket without a path.
    let prey = ["run", "-d", "--rm", "--user", "0", "--env", &format!("WORD={GATEWAY}"), "--entrypoint", "sleep", &image, "120"];
    let prey = engine.run("docker", &prey, "").trim().to_owned();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("word"), PREY).unwrap();
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("mayfly-{}", port(&mayfly))).unwrap();
    let _listening = UnixListener::bind_addr(&name).unwrap();

    let mut errand = errand(&engine, &outside, port(&mayfly));
    errand["proxy"] = json!(["127.0.0.1", outside.address.port()]);
    errand["listed"] = json!(outside.address.to_string());
    let capabilities =
        ["SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_TIME", "DAC_READ_SEARCH"].map(|name| format!("--cap-add={name}"));
    let (pids, shown) = (format!("container:{prey}"), format!("{}:/prey:ro", folder.path().display()));
    let mut open = vec!["run", "--rm", "-i", "--user", "0", "--pid", &pids, "--network", "host", "--volume", &shown];
    open.extend(capabilities.iter().map(String::as_str));
    open.extend(["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]);
    let program = ["--entrypoint", "/usr/bin/python3", &image, "-c", ATTACK];
    let (_, found, said) = engine.attempt("docker", &[&open[..], &program[..]].concat(), &errand.to_string());
    engine.run("docker", &["rm", "-f", &prey], "");
    let found: Value = serde_json::from_str(&found).unwrap_or_else(|_| panic!("{said}"));
    let held: Vec<_> = REAL.into_iter().filter(|name| found["got"].get(name).is_none()).collect();
    assert!(held.is_empty(), "{held:?} are held everywhere: {found:#}");
    assert!(outside.heard().contains("evil"));
}
