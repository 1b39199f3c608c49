//! A PostgreSQL server of a test's own, on a port of its own.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::until;

/// The password of everybody that the harness makes.
pub const PASSWORD: &str = "harness-password";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// A running server with a database `shop`, a role `reader` that may read `orders` in it, and a role `mayfly` that may make roles like
/// it. Speaks TLS to whoever asks. Ended when dropped.
pub struct Postgres {
    dir: tempfile::TempDir,
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

const SETUP: &str = "
    CREATE DATABASE shop;
    CREATE ROLE reader NOLOGIN;
    CREATE ROLE mayfly LOGIN CREATEROLE PASSWORD 'harness-password';
    GRANT reader TO mayfly WITH ADMIN OPTION;
    GRANT pg_signal_backend TO mayfly;
    \\c shop
    GRANT CREATE ON SCHEMA public TO PUBLIC;
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL);
    INSERT INTO orders SELECT n, 'customer ' || n, n * 1.5 FROM generate_series(1, 1000) n;
    CREATE TABLE salaries (id int PRIMARY KEY);
    GRANT SELECT ON orders TO reader;
";

impl Postgres {
    /// Makes and starts one that logs every statement.
    ///
    /// # Panics
    /// When this machine has no PostgreSQL; `tests/run` installs it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let secret = dir.path().join("password");
        std::fs::write(&secret, PASSWORD).expect("a file");
        let identity = rcgen::generate_simple_self_signed(["postgres.internal".to_owned()]).expect("a certificate");
        std::fs::write(dir.path().join(CERTIFICATE), identity.cert.pem()).expect("a file");
        std::fs::write(dir.path().join(KEY), identity.signing_key.serialize_pem()).expect("a file");
        hand_over(dir.path());
        let made = command("initdb")
            .args(["--auth=scram-sha-256", "--username=root_admin", "--no-sync", "-D"])
            .arg(&data)
            .arg(format!("--pwfile={}", secret.display()))
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let child = launch(dir.path(), port);
        let server = Self { dir, child, port };
        until("PostgreSQL answers", Duration::from_secs(30), || {
            server.attempt("root_admin", PASSWORD, "postgres", "SELECT 1").is_ok()
        });
        server.attempt("root_admin", PASSWORD, "postgres", SETUP).expect("set up");
        server
    }

    /// What `psql` prints as `user`, unaligned and without headers; or its errors.
    pub fn attempt(&self, user: &str, password: &str, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            user,
            database,
        ]);
        psql.env("PGPASSWORD", password)
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql");
        let written = std::io::Write::write_all(child.stdin.as_mut().expect("piped"), sql.as_bytes());
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("it ends");
        // It may end without reading.
        drop(written);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The same as the server's own administrator, who has to succeed.
    pub fn ask(&self, sql: &str) -> String {
        self.attempt("root_admin", PASSWORD, "shop", sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The roles that were made for calls.
    pub fn roles(&self) -> Vec<String> {
        self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'mayfly\\_%'").lines().map(str::to_owned).collect()
    }

    /// The certificate that it shows, which vouches for itself.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE)
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("the log")
    }

    /// Ends it at once, with everybody who is in.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port.
    pub fn restart(&mut self) {
        self.child = launch(self.dir.path(), self.port);
        until("PostgreSQL answers again", Duration::from_secs(30), || {
            self.attempt("root_admin", PASSWORD, "postgres", "SELECT 1").is_ok()
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(dir: &std::path::Path, port: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).expect("the log");
    let mut server = command("postgres");
    server.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    server.args(["-c", "ssl=on", "-c"]).arg(format!("ssl_cert_file={}", dir.join(CERTIFICATE).display()));
    server.arg("-c").arg(format!("ssl_key_file={}", dir.join(KEY).display()));
    server.args(["-c", "log_statement=all", "-c", "fsync=off", "-c"]).arg(format!("unix_socket_directories={}", dir.display()));
    server.stdout(Stdio::null()).stderr(log).spawn().expect("postgres starts")
}

/// A program of the server's, as somebody who is not root: it refuses to run as that.
fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    command
}

/// Where Debian keeps them, or the PATH.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| PathBuf::from(name))
}

/// The user of Debian's package, for a test that runs as root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let line =
        users.lines().find(|line| line.starts_with("postgres:")).expect("a user postgres; `tests/run` installs PostgreSQL");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    Some((ids.next().expect("a uid"), ids.next().expect("a gid")))
}

/// Gives the folder to whoever the server runs as. Nobody else may read its key: it insists on that.
fn hand_over(dir: &std::path::Path) {
    let secret = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.join(KEY), secret).expect("chmod");
    let Some((uid, gid)) = unprivileged() else { return };
    for path in [dir.to_owned(), dir.join("password"), dir.join(KEY)] {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("chown");
    }
}
