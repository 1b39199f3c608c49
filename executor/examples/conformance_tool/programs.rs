//! What only a program can do.

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
    for place in ["/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/2", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/fd/5", "/dev/console"]
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
