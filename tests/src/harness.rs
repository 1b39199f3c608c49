//! A real `mayfly serve` in a process of its own, with folders of its own, spoken to through its real doors.
//!
//! Dropping a [`Mayfly`] stops it and fails the test if it left a sandbox behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// The target folder of this build.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    exe.ancestors().find(|dir| dir.ends_with("target")).map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// The `mayfly` binary of the profile that the caller was built with, built if need be.
pub fn mayfly() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let release = !cfg!(debug_assertions);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--quiet", "--workspace", "--bins"]);
        if release {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo").success(), "mayfly does not build");
        target().join(if release { "release" } else { "debug" }).join("mayfly")
    })
}

/// Runs `mayfly` with `args` to its end: exit code, standard output, standard error.
pub fn cli(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(mayfly()).args(args).current_dir(root()).output().expect("mayfly runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What a gateway is to be started with.
pub struct Setup {
    /// Its folder: tools, policy, data, configuration.
    pub dir: tempfile::TempDir,
    config: Value,
    env: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// An empty folder with a policy that allows everything to everybody.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
        for folder in ["tools", "policy"] {
            std::fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let config = json!({
            "listen": "127.0.0.1:0",
            "observability_listen": "127.0.0.1:0",
            "data_dir": path("data"),
            "tools": [path("tools")],
            "policy": { "path": path("policy") },
            "wasm": { "cache_dir": target().join("tests/modules") },
            "docker": { "enabled": "never" },
            "log": { "format": "json" },
        });
        Self { dir, config, env: Vec::new() }.policy("package agent.authz\nallow := true\n")
    }

    /// Replaces the policy.
    #[must_use]
    pub fn policy(self, rego: &str) -> Self {
        std::fs::write(self.dir.path().join("policy/authz.rego"), rego).expect("the policy");
        self
    }

    /// Adds policy data.
    #[must_use]
    pub fn data(self, data: &Value) -> Self {
        std::fs::write(self.dir.path().join("policy/data.json"), data.to_string()).expect("the data");
        self
    }

    /// Adds a tool: `tool.yaml` and, for a wasm tool, its module as `.wat` text.
    #[must_use]
    pub fn tool(self, name: &str, yaml: &str, wat: Option<&str>) -> Self {
        let folder = self.dir.path().join("tools").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("tool.yaml"), yaml).expect("tool.yaml");
        if let Some(wat) = wat {
            std::fs::write(folder.join("tool.wasm"), wat::parse_str(wat).expect("wat")).expect("the module");
        }
        self
    }

    /// Uses a folder of tools as it is, such as `images/`.
    #[must_use]
    pub fn tools_from(mut self, folder: &Path) -> Self {
        self.config["tools"] = json!([folder, self.dir.path().join("tools")]);
        self
    }

    /// Changes a key of the configuration, named by JSON Pointer.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.config.pointer_mut(parent).expect("a section");
        parent.as_object_mut().expect("a section").insert(key.into(), value);
        self
    }

    /// Sets a variable of the gateway's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Mayfly {
        let file = self.dir.path().join("mayfly.json");
        std::fs::write(&file, self.config.to_string()).expect("the configuration");
        let mut mayfly = Mayfly {
            setup: self,
            child: None,
            leaves_running: false,
            url: String::new(),
            observability: String::new(),
            log: Default::default(),
        };
        mayfly.launch();
        mayfly
    }
}

/// A running gateway.
pub struct Mayfly {
    setup: Setup,
    child: Option<Child>,
    /// Whether the test ends with calls under way on purpose; otherwise a sandbox that is left fails it.
    pub leaves_running: bool,
    /// The agents' door.
    pub url: String,
    /// The observability listener.
    pub observability: String,
    log: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Mayfly {
    /// Starts the process (again, after [`kill`](Self::kill) or [`stop`](Self::stop)).
    pub fn launch(&mut self) {
        let mut command = Command::new(mayfly());
        command.args(["serve", "--config"]).arg(self.setup.dir.path().join("mayfly.json"));
        command.envs(self.setup.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mayfly starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (ready, listening) = std::sync::mpsc::channel();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Read later, if at all: under load this thread must not compete with what is measured.
                if line.contains("\"event\":\"listening\"") {
                    let _ = ready.send(parsed(&line));
                }
                log.lock().expect("the log").push(line);
            }
        });
        self.child = Some(child);
        let Ok(line) = listening.recv_timeout(Duration::from_secs(60)) else {
            panic!("the gateway did not start: {:#?}", self.log());
        };
        self.url = format!("http://{}", line["agents"].as_str().expect("an address"));
        self.observability = format!("http://{}", line["observability"].as_str().expect("an address"));
    }

    /// Everything it logged, in order; lines that are not JSON as strings.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().expect("the log").iter().map(|line| parsed(line)).collect()
    }

    /// The `tool_call` line of a call, waited for.
    pub fn call_line(&self, id: &str) -> Value {
        self.wait_log(|line| line["event"] == "tool_call" && line["call_id"] == id)
    }

    /// The first line for which `wanted` is true, waited for.
    pub fn wait_log(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.log().into_iter().find(|line| wanted(line)) {
                return line;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no such line in {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.setup.dir.path()
    }

    /// The administration socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir().join("data/admin.sock")
    }

    /// Registers an agent with the CLI and gives its key.
    pub fn agent(&self, name: &str) -> Agent {
        let socket = self.admin_socket();
        let (code, out, err) = cli(&["agent", "add", name, "-o", "json", "--socket", socket.to_str().expect("UTF-8")]);
        assert_eq!(code, 0, "{err}");
        let added: Value = serde_json::from_str(&out).expect("JSON");
        Agent { url: self.url.clone(), key: added["key"].as_str().expect("a key").to_owned(), http: client() }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    /// SIGTERM, and waits for the drain; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(status) = child.try_wait().expect("waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("killed");
        panic!("the gateway did not drain within a minute");
    }

    /// The resident memory of the process, in bytes.
    pub fn resident(&self) -> u64 {
        let pid = self.child.as_ref().expect("running").id();
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("statm");
        statm.split(' ').nth(1).expect("resident").parse::<u64>().expect("a number") * 4096
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// The value of a metric line that starts with `name`, summed over its labels that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text =
            client().get(format!("{}/metrics", self.observability)).send().await.expect("metrics").text().await.expect("text");
        text.lines()
            .filter(|line| {
                line.starts_with(name) && line.contains(labels) && matches!(line.as_bytes().get(name.len()), Some(b'{' | b' '))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Mayfly {
    /// How many sandboxes it says there are; `None` when it does not answer any more.
    fn sandboxes(&self) -> Option<f64> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.observability.trim_start_matches("http://")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(
            text.lines()
                .filter(|l| l.starts_with("mayfly_sandboxes{"))
                .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
                .sum(),
        )
    }

    /// Whether every call is over and nothing of any stands, within a few seconds.
    fn is_empty(&self) -> bool {
        let begun = Instant::now();
        loop {
            match self.sandboxes() {
                None | Some(0.0) => return true,
                Some(_) if begun.elapsed() > Duration::from_secs(15) => return false,
                Some(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Mayfly {
    fn drop(&mut self) {
        let running = self.log().iter().filter(|line| line["event"] == "tool_call").count();
        if !std::thread::panicking() && self.child.is_some() && !self.leaves_running {
            assert!(self.is_empty(), "after {running} calls a sandbox was left: {:#?}", self.log());
        }
        let code = self.stop();
        if !std::thread::panicking() && code.is_some() {
            assert_eq!(code, Some(0), "the gateway did not end well: {:#?}", self.log());
        }
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()))
}

/// An HTTP client that trusts nobody but this machine.
pub fn client() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// A registered agent.
#[derive(Clone)]
pub struct Agent {
    /// The agents' door.
    pub url: String,
    /// Its key.
    pub key: String,
    /// Its client.
    pub http: reqwest::Client,
}

/// A status and a JSON body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers of interest.
    pub headers: reqwest::header::HeaderMap,
    /// The body; `null` when it is not JSON.
    pub body: Value,
}

impl Agent {
    /// A request with this agent's key.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Sends it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.json().await.unwrap_or(Value::Null) }
    }

    /// One call, to its end.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.send(self.request("POST", "/v1/calls").json(&json!({ "tool": tool, "arguments": arguments }))).await
    }

    /// One call that is not waited for.
    pub async fn start(&self, tool: &str, arguments: Value) -> Answer {
        let request = self.request("POST", "/v1/calls").header("Prefer", "respond-async");
        self.send(request.json(&json!({ "tool": tool, "arguments": arguments }))).await
    }

    /// A call of this agent.
    pub async fn get(&self, id: &str) -> Answer {
        self.send(self.request("GET", &format!("/v1/calls/{id}"))).await
    }

    /// Waits until a call of this agent is over.
    pub async fn wait(&self, id: &str) -> Value {
        for _ in 0..600 {
            let view = self.get(id).await.body;
            if view["state"] != "running" {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} does not end");
    }
}

/// Tools made of a few lines of `.wat`, for promises about the gateway rather than about a tool.
pub mod tools {
    /// A `tool.yaml` for a module `tool.wasm`, with `extra` lines at the end and any argument `text` up to 4 KiB.
    pub fn yaml(name: &str, extra: &str) -> String {
        format!(
            "format: 1\nname: {name}\nversion: 1.0.0\ndescription: A tool of the tests.\ntier: free\n\
             justification: It can do nothing.\nreview_by: 2099-01-01\naction: get\nresource: text\n\
             input_schema:\n  type: object\n  properties:\n    text: {{ type: string, maxLength: 4096 }}\n\
             executor:\n  backend: wasm\n  module: tool.wasm\n  timeout: 2s\n  memory: 16Mi\n  output_limit: 64Ki\n{extra}"
        )
    }

    /// Writes its standard input to its standard output.
    pub const ECHO: &str = r#"(module
      (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 2)
      (func (export "_start")
        (loop $more
          (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000))
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
          (if (i32.load (i32.const 16)) (then
            (i32.store (i32.const 4) (i32.load (i32.const 16)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
            (br $more))))))"#;

    /// Never ends.
    pub const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;
}
