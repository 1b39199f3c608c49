//! A small closed-loop HTTP/1.1 load generator: the same for ours and for the baseline.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::Quantiles;

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Answers with status 200 per second.
    pub per_second: f64,
    /// Time from the first byte sent to the last byte read, in microseconds.
    pub latency: Quantiles,
}

/// Sends `request` over `connections` kept-alive connections for `time`, each sending the next when it has its answer.
///
/// # Panics
/// When an answer is not a 200 with a `Content-Length`: a load of errors measures nothing.
pub async fn run(address: &str, request: &[u8], connections: usize, time: Duration) -> Load {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request) = (address.to_owned(), request.to_vec());
            tokio::spawn(async move { one(&address, &request, begun + time).await })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.expect("a connection of the load"));
    }
    let per_second = taken.len() as f64 / begun.elapsed().as_secs_f64();
    Load { per_second, latency: Quantiles::micros(taken) }
}

async fn one(address: &str, request: &[u8], until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("nodelay");
    let (mut taken, mut buffer) = (Vec::new(), Vec::with_capacity(8192));
    while Instant::now() < until {
        let sent = Instant::now();
        stream.write_all(request).await.expect("sent");
        buffer.clear();
        while !complete(&buffer) {
            assert!(stream.read_buf(&mut buffer).await.expect("read") > 0, "the server hung up");
        }
        taken.push(sent.elapsed());
    }
    taken
}

fn complete(buffer: &[u8]) -> bool {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&buffer[..end]).expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "not a 200: {}", String::from_utf8_lossy(buffer));
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>()));
    buffer.len() >= end + 4 + length.expect("a Content-Length").expect("a number")
}

/// The bytes of a JSON POST.
pub fn post(path: &str, bearer: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
