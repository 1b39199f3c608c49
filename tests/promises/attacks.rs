//! A hostile tool gets nothing that is not its own: not another call's credential, not its own once its call is over, not the
//! gateway's, and nothing outside that it does not list. One suite for every backend with containers; `attack.py` says what it tries.
//!
//! Components have theirs where they can be attacked, at the interfaces of the host: `executor/src/wasm/tests`.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mayfly_tests::harness::{Engine, Kind, Setup};
use serde_json::{Value, json};

use crate::credentials::add;

const ATTACK: &str = include_str!("attacks/attack.py");
const LISTED: &str = "listed.example.com:8080";
const PREY: &str = "canary-of-the-prey";
const GATEWAY: &str = "canary-of-the-gateway";

/// Holds a credential for a while, in every way that there is.
const HOLD: &str = r#"FROM debian:bookworm-slim
ENTRYPOINT ["sh", "-c", "cat /tmp/token > /tmp/copy; sleep 90 & wait"]
"#;

/// A server that answers nobody and keeps what it hears.
fn server() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
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
                }
            });
        }
    });
    (address, heard)
}

fn told(listed: &str, server: SocketAddr, gateway: u16) -> String {
    let backwards = |word: &str| word.chars().rev().collect::<String>();
    let here = ["127.0.0.1", "[::1]", "172.17.0.1", "10.250.0.1", "10.244.0.1"].map(|host| format!("{host}:{gateway}"));
    let mut places = vec![server.to_string(), "169.254.169.254:80".into(), "[fd00:ec2::254]:80".into()];
    places.extend(["127.0.0.1:2375", "172.17.0.1:22", "10.96.0.1:443", "10.250.0.1:10250", "127.0.0.1:10250"].map(str::to_owned));
    places.extend(["evil.example.com:443", "1.1.1.1:53", "[2606:4700:4700::1111]:53"].map(str::to_owned));
    places.extend(here);
    json!({"hunted": [backwards(PREY), backwards(GATEWAY)], "places": places, "listed": listed, "gateway": gateway}).to_string()
}

async fn gets_nothing(engine: &Engine) {
    let (address, heard) = server();
    let name = if engine.kind == Kind::Docker { "docker" } else { "kubernetes" };
    let prey = format!("prey_of_{name}");
    let setup = Setup::new().container(engine, &prey, HOLD, "timeout: 100s").shipped(engine, "code_executor", |yaml| {
        let backend = format!("backend: {name}\n  network: ['{LISTED}']");
        yaml.replace("backend: docker", &backend).replace("timeout: 30s", "timeout: 90s")
    });
    let uses = "  - {source: prey, deliver: env, variable: TOKEN}\n  - {source: prey, deliver: file, path: /tmp/token}\n";
    add(&setup, &prey, &format!("credentials:\n{uses}"));
    let prints = |value: &str| json!({"kind": "command", "command": ["/bin/echo", json!({"token": value}).to_string()]});
    let mayfly = setup
        .set("/credentials", json!({"prey": prints(PREY)}))
        .set("/egress", json!({"routes": {LISTED: address.to_string()}}))
        .env("HARNESS_SECRET", GATEWAY)
        .start();
    let ann = mayfly.agent("ann");
    let held = ann.start(&prey, json!({})).await;
    let id = held.body["id"].as_str().unwrap_or_else(|| panic!("{held:?}")).to_owned();
    while ann.get(&id).await.body["state"] != "running" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let gateway = mayfly.url.rsplit(':').next().unwrap().parse().unwrap();
    let arguments = json!({"code": ATTACK, "stdin": told(LISTED, address, gateway)});
    let attacked = ann.call("code_executor", arguments).await;
    let result = &attacked.body["result"];
    let found: Value =
        serde_json::from_str(result["stdout"].as_str().unwrap_or_default()).unwrap_or_else(|_| panic!("{attacked:?}"));
    assert_eq!((&found["got"], &found["tried"]), (&json!({}), &json!(35)), "{found:#}");

    // What it left running is gone with its call, and what its connections said did not lead astray.
    heard.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let late = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert_eq!(late, "", "it outlived its call");
    let line = mayfly.call_line(attacked.body["id"].as_str().unwrap());
    let contacted = line["contacted"].as_array().unwrap();
    assert!(contacted.iter().all(|one| one["destination"] == LISTED || one["connections"] == 0), "{line}");
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

/// The same attempts where nothing holds them: what succeeds nowhere proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_attacks_are_real() {
    let Some(engine) = Engine::docker() else { return };
    let (address, _) = server();
    let setup = Setup::new().shipped(&engine, "code_executor", |yaml| yaml);
    let lock = std::fs::read_to_string(setup.dir.path().join("tools/code_executor/tool.lock")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    let image = lock["image"].as_str().unwrap().to_owned();
    let mayfly = setup.start();
    let gateway: u16 = mayfly.url.rsplit(':').next().unwrap().parse().unwrap();
    // Somebody to look into, as PID 1.
    let prey = ["run", "-d", "--rm", "--user", "0", "--env", &format!("WORD={GATEWAY}"), "--entrypoint", "sleep", &image, "120"];
    let prey = engine.run("docker", &prey, "").trim().to_owned();
    let capabilities =
        ["SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_TIME", "DAC_READ_SEARCH"].map(|name| format!("--cap-add={name}"));
    let pids = format!("container:{prey}");
    let mut open = vec!["run", "--rm", "-i", "--user", "0", "--pid", &pids, "--network", "host"];
    open.extend(capabilities.iter().map(String::as_str));
    open.extend(["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]);
    let program = ["--entrypoint", "/usr/bin/python3", &image, "-c", ATTACK];
    let (_, found, told) = engine.attempt("docker", &[&open[..], &program[..]].concat(), &told("", address, gateway));
    engine.run("docker", &["rm", "-f", &prey], "");
    let found: Value = serde_json::from_str(&found).unwrap_or_else(|_| panic!("{told}"));
    let got = found["got"].as_object().unwrap();
    for held in [
        "processes",
        "PID 1",
        "ptrace",
        "mount",
        "chroot",
        "mknodat",
        "bpf",
        "perf_event_open",
        "open_by_handle_at",
        "fsopen",
        "a user namespace of its own",
        "a network namespace of its own",
        "a mounts namespace of its own",
        "the namespace of PID 1",
        "memory of PID 1",
        "a descriptor of PID 1",
        "root",
        "socket families",
        "places",
    ] {
        assert!(got.contains_key(held), "{held} is held everywhere: {found:#}");
    }
}
