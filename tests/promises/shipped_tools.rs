//! The tools that ship do what they say, run by a gateway with the policy that ships.
//!
//! Those of Docker need an engine and their images (`tests/run` sees to both). Without one the tests fail, unless
//! MAYFLY_TEST_SKIP_DOCKER=1 says that this is meant.

use std::path::Path;
use std::process::Command;

use mayfly_tests::harness::{Agent, Engine, Mayfly, Setup, cli, root};
use serde_json::{Value, json};

fn build(tool: &str) {
    let (code, _, err) = cli(&["tool", "build", "--network", "host", &format!("images/{tool}")]);
    assert_eq!(code, 0, "{err}");
}

/// `images/TOOL` in a gateway with the shipped policy, `change`d if need be.
fn gateway(tool: &str, change: impl FnOnce(String) -> String) -> Setup {
    build(tool);
    let setup = Setup::new();
    let (from, to) = (root().join("images").join(tool), setup.dir.path().join("tools").join(tool));
    std::fs::create_dir(&to).unwrap();
    for file in ["tool.yaml", "tool.lock", &format!("{tool}.wasm")] {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    let yaml = std::fs::read_to_string(to.join("tool.yaml")).unwrap();
    std::fs::write(to.join("tool.yaml"), change(yaml)).unwrap();
    setup.set("/policy/path", json!(root().join("policies/default"))).set("/docker/enabled", json!("auto"))
}

async fn ok(agent: &Agent, tool: &str, arguments: Value) -> Value {
    let answer = agent.call(tool, arguments).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("succeeded")), "{answer:?}");
    answer.body["result"].clone()
}

#[tokio::test]
async fn json_query_answers_and_secrets_are_refused() {
    let mayfly = gateway("json_query", |yaml| yaml).start();
    let demo = mayfly.agent("demo");
    let pods = json!({"items": [{"name": "a", "ready": true}, {"name": "b", "ready": false}]});
    let result = ok(&demo, "json_query", json!({"query": ".items[] | select(.ready | not) | .name", "document": pods})).await;
    assert_eq!((&result["results"], &result["count"]), (&json!(["b"]), &json!(1)));
    let refused = demo.call("json_query", json!({"query": ".data", "document": {"kind": "Secret"}})).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let wrong = demo.call("json_query", json!({"query": ".[", "document": 1})).await;
    assert_eq!((wrong.status, &wrong.body["is_error"]), (200, &json!(true)), "{wrong:?}");
    let endless = demo.call("json_query", json!({"query": "last(repeat(1))", "document": null})).await;
    assert_eq!(endless.status, 504, "{endless:?}");
    assert_eq!(demo.call("json_query", json!({"query": 5, "document": null})).await.status, 422);
}

/// A server that counts its requests: `/redirect` leads to `elsewhere`, everything else says `all well`.
async fn server(elsewhere: String) -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let hits = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let counted = hits.clone();
    let app = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let (status, location) = if uri.path() == "/redirect" { (302, elsewhere) } else { (200, String::new()) };
        (axum::http::StatusCode::from_u16(status).unwrap(), [("location", location)], "all well")
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (port, hits)
}

#[tokio::test]
async fn http_probe_reaches_what_is_listed_and_nothing_else() {
    let (unlisted, untouched) = server(String::new()).await;
    let (listed, _) = server(format!("http://127.0.0.1:{unlisted}/")).await;
    let mayfly = gateway("http_probe", |yaml| yaml.replace("127.0.0.1:8421", &format!("127.0.0.1:{listed}"))).start();
    let demo = mayfly.agent("demo");
    let probe = |port: u16, path: &str| json!({"scheme": "http", "host": "127.0.0.1", "port": port, "path": path, "body_match": "all w.ll"});
    let well = ok(&demo, "http_probe", probe(listed, "/")).await;
    assert_eq!(well["status"], 200, "{well}");
    let moved = ok(&demo, "http_probe", probe(listed, "/redirect")).await;
    assert_eq!(moved["status"], 302, "a redirect is reported, not followed: {moved}");
    let other = demo.call("http_probe", probe(unlisted, "/")).await;
    assert_eq!(other.body["is_error"], true, "{other:?}");
    let metadata = demo.call("http_probe", json!({"scheme": "http", "host": "169.254.169.254", "port": 80})).await;
    assert_eq!(metadata.status, 403, "policy lists hosts: {metadata:?}");
    assert_eq!(untouched.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing unlisted was reached");
}

#[tokio::test]
async fn code_executor_runs_python_within_its_limits() {
    if Engine::docker().is_none() {
        return;
    }
    let mayfly = gateway("code_executor", |yaml| yaml.replace("timeout: 30s", "timeout: 8s")).start();
    let bot = mayfly.agent("analysis-bot");
    let run = |code: &str| json!({"code": code, "files": {"in.txt": "6 7"}, "outputs": ["out.txt"]});
    let result = ok(
        &bot,
        "code_executor",
        run("a, b = open('in.txt').read().split()\nopen('out.txt', 'w').write(str(int(a) * int(b)))\nprint('hi')"),
    )
    .await;
    assert_eq!((&result["exit_code"], &result["files"]["out.txt"]["content"]), (&json!(0), &json!("42")), "{result}");
    let network = ok(&bot, "code_executor", run("import socket\nsocket.create_connection(('1.1.1.1', 53), 2)")).await;
    assert_ne!(network["exit_code"], 0, "there is no network: {network}");
    let vsock = "import socket\nfor family in (40, 16):\n    try: socket.socket(family, 1 if family == 40 else 3); print('open')\n    except PermissionError: print('shut')";
    assert_eq!(ok(&bot, "code_executor", run(vsock)).await["stdout"], "shut\nshut\n", "neither vsock nor netlink");
    let starve = "import os, resource\nfor harm in (lambda: resource.prlimit(1, resource.RLIMIT_AS, (0, 0)), lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.sched_setaffinity(1, {0})):\n    try: harm(); print('done')\n    except PermissionError: print('refused')";
    assert_eq!(ok(&bot, "code_executor", run(starve)).await["stdout"], "refused\nrefused\nrefused\n", "PID 1 is out of reach");
    let root = ok(&bot, "code_executor", run("import os\nprint(os.getuid())\nopen('/etc/x', 'w')")).await;
    assert!(root["exit_code"] != 0 && !root["stdout"].as_str().unwrap().starts_with('0'), "{root}");
    let hog = bot.call("code_executor", run("x = bytearray(10 ** 9)")).await;
    assert!(hog.body["is_error"] == true || hog.body["result"]["exit_code"] != 0, "{hog:?}");
    let spin = bot.call("code_executor", run("while True: pass")).await;
    assert!(spin.status == 504 || spin.body["result"]["exit_code"] != 0, "{spin:?}");
    for name in ["../x", "/etc/passwd", "a/../../b"] {
        let answer = bot.call("code_executor", json!({"code": "1", "files": {name: "x"}})).await;
        assert_eq!(answer.status, 422, "{name}: {answer:?}");
    }
    nothing_left(&mayfly).await;
}

#[tokio::test]
async fn git_log_reads_a_mounted_repository_and_refs_are_no_options() {
    if Engine::docker().is_none() {
        return;
    }
    let repository = tempfile::tempdir_in("/var/tmp").unwrap();
    let git = |args: &[&str]| {
        let git = Command::new("git")
            .arg("-C")
            .arg(repository.path())
            .args(["-c", "user.name=ann", "-c", "user.email=ann@example.com"])
            .args(args)
            .output();
        assert!(git.unwrap().status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&["commit", "-q", "--allow-empty", "-m", "second"]);
    open_to_all(repository.path());
    let path = repository.path().to_str().unwrap();
    let mayfly = gateway("git_log", |yaml| yaml.replace("/srv/git/repo", path)).set("/allowed_mounts", json!([path])).start();
    let bot = mayfly.agent("runbook-bot");
    let log = ok(&bot, "git_log", json!({})).await;
    assert!(log.to_string().contains("second") && log.to_string().contains("first"), "{log}");
    for reference in ["--output=/tmp/x", "-n1", "HEAD..main", "a b", "--"] {
        let answer = bot.call("git_log", json!({"ref": reference})).await;
        assert_eq!(answer.status, 422, "{reference}: {answer:?}");
    }
    let missing = bot.call("git_log", json!({"ref": "nosuch"})).await;
    assert_eq!(missing.body["is_error"], true, "{missing:?}");
    nothing_left(&mayfly).await;
}

fn open_to_all(dir: &Path) {
    let chmod = Command::new("chmod").args(["-R", "a+rX"]).arg(dir).status().unwrap();
    assert!(chmod.success());
}

/// No container of this gateway stands a moment later.
async fn nothing_left(mayfly: &Mayfly) {
    for _ in 0..100 {
        let standing = mayfly.metric("mayfly_sandboxes", "backend=\"docker\"").await;
        if standing == 0.0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("a sandbox was left");
}
