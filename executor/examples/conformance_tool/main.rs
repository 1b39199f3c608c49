//! The tool of the conformance suite: does what its first argument says, for containers and wasm alike.
//!
//! It needs the standard library alone, so that one `rustc` call builds it for any target. Each scenario is described at
//! `mayfly_executor::conformance::Scenario`; what is in none of them is in `clients`.

mod clients;
#[cfg(unix)]
mod programs;

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::process::exit;
use std::time::Duration;

fn main() {
    match env::args().nth(1).as_deref() {
        Some("echo") => echo(),
        Some("lines") => lines(),
        Some("exit") => {
            eprintln!("because");
            exit(7)
        }
        Some("spin") => loop {
            std::hint::black_box(0);
        },
        Some("sleep") => sleep(),
        Some("memory") => memory(),
        Some("flood") => flood(),
        Some("large") => (0..20).for_each(|n| write(&vec![n; 1 << 20])),
        Some("network") => network(),
        Some("look") => look(),
        Some("deaf") => write(b"{}"),
        Some(other) if clients::run(other) => {}
        #[cfg(unix)]
        Some(other) => programs::run(other),
        #[cfg(not(unix))]
        Some(_) => exit(64),
        None => exit(64),
    }
}

fn write(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        exit(1);
    }
}

/// `["a","b"]`, of names that need no escape.
fn list<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{:?}", name.as_ref())).collect();
    format!("[{}]", quoted.join(","))
}

fn echo() {
    let mut input = Vec::new();
    if io::stdin().read_to_end(&mut input).is_err() {
        exit(1);
    }
    write(&[b"{\"echo\": ", &input[..], b"}"].concat());
}

fn lines() {
    eprintln!("first");
    eprintln!("{{\"progress\": 1, \"total\": 2, \"message\": \"half\"}}");
    eprintln!("{{\"progress\": 2, \"total\": 2}}");
    eprintln!("last");
    write(b"\xff");
}

fn sleep() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn memory() {
    let mut held = Vec::new();
    loop {
        let mut piece = vec![0u8; 1 << 20];
        piece.iter_mut().step_by(512).for_each(|byte| *byte = 1);
        held.push(piece);
        std::hint::black_box(&held);
    }
}

fn flood() {
    let piece = vec![b'x'; 8 << 10];
    loop {
        write(&piece);
    }
}

fn network() {
    let reached: Vec<_> = ["1.1.1.1:53", "127.0.0.1:2375", "169.254.169.254:80", "172.17.0.1:22", "[::1]:22", "example.com:80"]
        .into_iter()
        .filter(|place| place.to_socket_addrs().is_ok_and(|mut found| found.any(|address| TcpStream::connect(address).is_ok())))
        .map(str::to_owned)
        .chain(interfaces())
        .collect();
    write(format!("{{\"reached\": {}}}", list(&reached)).as_bytes());
}

/// Network interfaces beside the loopback one, where they are of any use.
fn interfaces() -> Vec<String> {
    if UdpSocket::bind("127.0.0.1:0").is_err() {
        return Vec::new();
    }
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name == "eth0").collect()
}

fn look() {
    let environment: Vec<_> = env::vars().map(|(name, value)| format!("{name:?}: {value:?}")).collect();
    let read: Vec<_> =
        ["/var/run/docker.sock", "/run/docker.sock", "/etc/shadow", "/root", "/dev/mem", "/dev/sda", "/proc/kcore"]
            .into_iter()
            .filter(|path| {
                fs::read_dir(path).is_ok() || fs::File::open(path).is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|n| n > 0))
            })
            .collect();
    let places =
        ["/", "/etc", "/usr", "/.mayfly", "/dev", "/proc", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/var", "/home"];
    let wrote: Vec<_> = places.into_iter().filter(|place| fs::write(format!("{place}/visited"), "here").is_ok()).collect();
    // Its own space is the one place where it may leave something, for itself alone.
    let visited = fs::metadata("/tmp/visited").is_ok();
    let _ = fs::write("/tmp/visited", "here");
    let environment = environment.join(", ");
    let (read, wrote) = (list(&read), list(&wrote));
    write(
        format!("{{\"environment\": {{{environment}}}, \"read\": {read}, \"wrote\": {wrote}, \"visited\": {visited}}}")
            .as_bytes(),
    );
}
