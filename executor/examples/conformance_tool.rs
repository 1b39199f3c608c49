//! The tool of the conformance suite: does what its first argument says, for containers and wasm alike.
//!
//! It needs the standard library alone, so that one `rustc` call builds it for any target. Each scenario is described at
//! `mayfly_executor::conformance::Scenario`.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
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
        Some("ask") => ask(),
        Some("knock") => knock(),
        Some("crowd") => crowd(),
        Some("blurt") => blurt(),
        Some("chatter") => chatter(),
        Some("requests") => requests(),
        Some("bulk") => bulk(),
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

/// An argument behind the scenario's name.
fn argument(index: usize) -> String {
    env::args().nth(2 + index).unwrap_or_default()
}

fn connect(place: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(place)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Not of the suite: connects to a place, says something, and writes what comes back until it pauses or ends.
fn ask() {
    let mut answer = Vec::new();
    let asked = connect(&argument(0)).and_then(|mut stream| {
        stream.write_all(argument(1).as_bytes())?;
        stream.set_read_timeout(Some(Duration::from_millis(700)))?;
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                length => answer.extend_from_slice(&piece[..length]),
            }
        }
    });
    if let (Err(error), true) = (asked, answer.is_empty()) {
        answer = format!("error: {error}").into_bytes();
    }
    write(&answer);
}

/// Not of the suite: which of the places that it is given let it connect and answer anything to a line, by TCP or, ahead of `/udp`,
/// by UDP.
fn knock() {
    let answered = |place: &str| match place.strip_suffix("/udp") {
        Some(place) => udp(place),
        None => tcp(place),
    };
    let reached: Vec<_> = env::args().skip(2).filter(|place| answered(place)).collect();
    write(format!("{{\"reached\": {}}}", list(&reached)).as_bytes());
}

fn tcp(place: &str) -> bool {
    let Ok(addresses) = place.to_socket_addrs() else { return false };
    addresses.into_iter().any(|address| {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.read(&mut [0]).is_ok_and(|length| length > 0)
    })
}

fn udp(place: &str) -> bool {
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return false };
    let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
    // A question for the address of a name (RFC 1035).
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
    socket.send_to(question, place).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}

/// Not of the suite: opens so many connections to a place and keeps them; writes how many of them were answered.
fn crowd() {
    let (place, count): (_, usize) = (argument(0), argument(1).parse().unwrap_or(1));
    let mut streams: Vec<_> = (0..count).filter_map(|_| connect(&place).ok()).collect();
    let served = streams.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"ping").ok()?;
        stream.read(&mut [0]).ok().filter(|length| *length > 0)
    });
    let served = served.count();
    write(served.to_string().as_bytes());
}

/// Not of the suite: says so many bytes to a place, on a connection each of so many, and is gone.
fn blurt() {
    let (place, length, count): (_, usize, usize) =
        (argument(0), argument(1).parse().unwrap_or(1), argument(2).parse().unwrap_or(1));
    let mut streams: Vec<_> = (0..count).filter_map(|_| connect(&place).ok()).collect();
    let said = streams.iter_mut().filter_map(|stream| stream.write_all(&vec![0; length]).ok()).count();
    write(said.to_string().as_bytes());
    exit(0);
}

/// Not of the suite: talks to a place for as long as it is let.
fn chatter() {
    while let Ok(mut stream) = connect(&argument(0)) {
        while stream.write_all(b"\0").is_ok() {}
    }
}

/// Not of the suite: so many requests over one connection, and how long each took, in microseconds.
fn requests() {
    let (place, count): (_, usize) = (argument(0), argument(1).parse().unwrap_or(1));
    let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let measured = connect(&place).and_then(|mut stream| {
        let mut took = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for _ in 0..count {
            let begun = std::time::Instant::now();
            stream.write_all(request.as_bytes())?;
            let mut read = 0;
            // The answer's end, and that of its body of two letters.
            while !answer[..read].ends_with(b"\r\n\r\nok") {
                match stream.read(&mut answer[read..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => read += length,
                }
            }
            took.push(begun.elapsed().as_micros());
        }
        Ok(took)
    });
    match measured {
        Ok(took) => write(format!("{took:?}").as_bytes()),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Not of the suite: sends so many MiB to a place, or reads them from it, and says how many microseconds that took.
fn bulk() {
    let (place, way, mebibytes): (_, _, u64) = (argument(0), argument(1), argument(2).parse().unwrap_or(1));
    let mut piece = vec![0; 256 << 10];
    let moved = connect(&place).and_then(|mut stream| {
        let begun = std::time::Instant::now();
        let mut left = mebibytes << 20;
        // What is wanted comes first, in 8 bytes: how much to send, or 0 to be sent to until the end.
        stream.write_all(&if way == "down" { left } else { 0 }.to_be_bytes())?;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let moved = if way == "down" { stream.read(&mut piece[..most])? } else { stream.write(&piece[..most])? };
            if moved == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= moved as u64;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // Whoever was sent to says that it has it all.
        if way != "down" {
            stream.read_exact(&mut [0])?;
        }
        Ok(begun.elapsed().as_micros())
    });
    match moved {
        Ok(took) => write(took.to_string().as_bytes()),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Network interfaces beside the loopback one, where they are of any use.
fn interfaces() -> Vec<String> {
    if std::net::UdpSocket::bind("127.0.0.1:0").is_err() {
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

/// What only a program can do.
#[cfg(unix)]
mod programs {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    pub(super) fn run(scenario: &str) {
        match scenario {
            "daemon" => daemon(),
            "forge" => forge(),
            "parent" => parent(),
            "disk" => disk(),
            "forks" => forks(),
            "show" => show(),
            _ => exit(64),
        }
    }

    fn again(scenario: &str) -> io::Result<std::process::Child> {
        // In a group of its own, and with our streams.
        Command::new("/proc/self/exe").arg(scenario).stdin(Stdio::null()).process_group(0).spawn()
    }

    /// Not of the suite: shows the files and folders that it is given, and whether it can write into them.
    fn show() {
        for path in env::args().skip(2) {
            let entries = fs::read_dir(&path)
                .map(|entries| entries.flatten().map(|entry| format!("{}\n", entry.file_name().to_string_lossy())).collect());
            let text = entries.or_else(|_| fs::read_to_string(&path)).unwrap_or_else(|error| error.to_string());
            let wrote = fs::write(format!("{path}/written"), "").is_ok();
            write(format!("{path} (wrote: {wrote})\n{text}\n").as_bytes());
        }
    }

    fn daemon() {
        let left = (0..3).filter(|n| again(if n % 2 == 0 { "sleep" } else { "spin" }).is_ok()).count();
        write(format!("{{\"left\": {left}}}").as_bytes());
    }

    /// A frame in the clear, as the executor would have written it: a length and a CBOR text or map.
    fn frames() -> Vec<u8> {
        let ping = [&[0x64][..], b"ping"].concat();
        let log = [&[0xa1, 0x63][..], b"log", &[0xa1, 0x64], b"line", &[0x66], b"forged"].concat();
        [ping, log].iter().flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], body].concat()).collect()
    }

    fn forge() {
        let frames = frames();
        for place in
            ["/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/2", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/fd/5", "/dev/console"]
        {
            if let Ok(mut file) = fs::File::options().write(true).open(place) {
                let _ = file.write_all(&frames);
            }
        }
        write(&frames);
        exit(3);
    }

    fn parent() {
        const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
        for signal in SIGNALS {
            kill_parent(signal);
        }
        let of_parent = ["mem", "environ", "maps", "fd", "cwd", "root", "exe", "stack", "syscall", "auxv", "map_files", "fd/3"];
        let opened: Vec<_> = of_parent
            .into_iter()
            .filter(|name| {
                let path = format!("/proc/1/{name}");
                let as_file = fs::File::open(&path).is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|n| n > 0));
                as_file || fs::read_dir(&path).is_ok() || fs::read_link(&path).is_ok()
            })
            .collect();
        // Time for a signal to do what it would.
        std::thread::sleep(Duration::from_millis(200));
        write(format!("{{\"opened\": {}}}", list(&opened)).as_bytes());
    }

    #[expect(unsafe_code, reason = "the standard library sends no signals, and this file has to build without any other")]
    fn kill_parent(signal: i32) {
        unsafe extern "C" {
            fn kill(pid: i32, signal: i32) -> i32;
        }
        // SAFETY: kill(2) takes two numbers and touches no memory of ours.
        unsafe { kill(1, signal) };
    }

    fn disk() {
        let piece = vec![1; 64 << 10];
        let filled: io::Result<()> = fs::File::create("/tmp/filler").and_then(|mut file| {
            loop {
                file.write_all(&piece)?;
            }
        });
        let full = filled.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        write(format!("{{\"full\": {full}}}").as_bytes());
    }

    fn forks() {
        let for_ever = env::var_os("FOR_EVER").is_some();
        let (mut started, mut refused) = (0, 0);
        while for_ever || refused < 20 {
            // The children of a bomb that goes on do so too.
            match again(if for_ever { "forks" } else { "sleep" }) {
                Ok(_) => started += 1,
                Err(_) => refused += 1,
            }
        }
        write(format!("{{\"started\": {started}}}").as_bytes());
    }
}
