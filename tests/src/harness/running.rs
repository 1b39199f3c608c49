//! The process: started, killed, stopped, read.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Agent, Setup, cli, client, mayfly};

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
    /// Starts what `setup` describes.
    pub(super) fn of(setup: Setup) -> Self {
        let (url, observability) = (String::new(), String::new());
        let mut mayfly = Self { setup, child: None, leaves_running: false, url, observability, log: Default::default() };
        mayfly.launch();
        mayfly
    }

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

    /// Its pools, as `mayfly pool list` shows them; `null` while it does not answer.
    pub fn pools(&self) -> Value {
        let socket = self.admin_socket();
        let (_, out, _) = cli(&["pool", "list", "-o", "json", "--socket", socket.to_str().expect("UTF-8")]);
        serde_json::from_str(&out).unwrap_or_default()
    }

    /// Waits until every pool is as full as it is to be.
    pub fn until_pools_are_full(&self, patience: Duration) {
        super::until("the pools are full", patience, || {
            let pools = self.pools();
            pools.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|pool| pool["idle"] == pool["size"]))
        });
    }

    /// Stores a secret with the CLI.
    pub fn set_secret(&self, name: &str, value: &str) {
        let socket = self.admin_socket();
        let file = self.dir().join("secret");
        std::fs::write(&file, value).expect("a file");
        let file = file.to_str().expect("UTF-8");
        let (code, _, err) = cli(&["secret", "set", name, "--from-file", file, "--socket", socket.to_str().expect("UTF-8")]);
        assert_eq!(code, 0, "{err}");
    }

    /// Registers an agent with the CLI and gives its key.
    pub fn agent(&self, name: &str) -> Agent {
        self.agent_with(name, &[])
    }

    /// The same, with more options of the CLI.
    pub fn agent_with(&self, name: &str, options: &[&str]) -> Agent {
        let socket = self.admin_socket();
        let socket = socket.to_str().expect("UTF-8");
        let (code, out, err) = cli(&[&["agent", "add", name, "-o", "json", "--socket", socket], options].concat());
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
                // Warm ones wait for the next call; that they go with their gateway is a promise of its own.
                .filter(|l| l.starts_with("mayfly_sandboxes{") && !l.contains("state=\"warm\""))
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
