//! What the tool writes, on its way to the gateway. Neither stream is kept here beyond a buffer and a tail, so that the
//! container's memory is the tool's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::frame::Outbox;
use crate::wire::{FromExecutor, Line, MAX_TEXT, STDERR_TAIL};

/// What is read at once: a pipe's capacity.
const CHUNK: usize = 64 << 10;
/// How many lines may go out at once, and how many a second after that. The rest is in the tail only.
const LINE_BURST: f64 = 500.0;
const LINES_PER_SECOND: f64 = 200.0;

/// Passes standard output on until it ends. Returns whether it went over `limit` bytes; the first `limit` bytes were passed on.
pub(super) async fn stdout(mut pipe: pipe::Receiver, limit: u64, outbox: Outbox<FromExecutor>) -> bool {
    let mut left = limit;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        let mut chunk = buffer.split().freeze();
        let over = chunk.len() as u64 > left;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= chunk.len() as u64;
        let sent = chunk.is_empty() || outbox.send(FromExecutor::Output { chunk }).await.is_ok();
        if over || !sent {
            return over;
        }
    }
}

/// The end of standard error, and whether more came before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) bytes: Bytes,
    pub(super) truncated: bool,
}

/// Passes the lines of standard error on until it ends, and keeps its tail.
pub(super) async fn stderr(mut pipe: pipe::Receiver, outbox: Outbox<FromExecutor>) -> Tail {
    let (mut tail, mut truncated) = (BytesMut::new(), false);
    let mut lines = Lines::default();
    let mut rate = Rate::new(Instant::now());
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let ended = !matches!(pipe.read_buf(&mut buffer).await, Ok(1..));
        let read = buffer.split();
        for line in lines.take(&read, ended) {
            let frame = match Line::parse(&line) {
                Line::Progress(progress) => FromExecutor::Progress(progress),
                Line::Log(line) => FromExecutor::Log { line },
            };
            if rate.allows(Instant::now()) {
                // A stream that is closed is noticed elsewhere; the tail is wanted all the same.
                let _ = outbox.send(frame).await;
            }
        }
        tail.extend_from_slice(&read);
        if tail.len() > STDERR_TAIL {
            truncated = true;
            let _ = tail.split_to(tail.len() - STDERR_TAIL);
        }
        if ended {
            return Tail { bytes: tail.freeze(), truncated };
        }
    }
}

/// Cuts a stream into lines. Of a line that is too long, what is too much is dropped.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, mut bytes: &[u8], ended: bool) -> Vec<Vec<u8>> {
        let mut lines = vec![];
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.extend(&bytes[..end]);
            lines.push(std::mem::take(&mut self.0));
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        if ended && !self.0.is_empty() {
            lines.push(std::mem::take(&mut self.0));
        }
        lines
    }

    fn extend(&mut self, bytes: &[u8]) {
        // One byte more than a line may have, so that a line that was cut is no progress line by accident.
        let room = (MAX_TEXT + 1).saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A token bucket.
struct Rate {
    tokens: f64,
    at: Instant,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { tokens: LINE_BURST, at: now }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let passed: Duration = now - self.at;
        self.at = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * LINES_PER_SECOND).min(LINE_BURST);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn through_stdout(written: usize, limit: u64) -> (bool, usize) {
        let (mut near, far) = pipe::pipe().unwrap();
        let (outbox, mut queue) = Outbox::new();
        let writing = async move {
            // Ends early where the reader stops at its limit.
            let _ = near.write_all(&vec![b'x'; written]).await;
        };
        let reading = async {
            let mut bytes = 0;
            while let Some(FromExecutor::Output { chunk }) = queue.recv().await {
                bytes += chunk.len();
            }
            bytes
        };
        let (over, (), bytes) = tokio::join!(stdout(far, limit, outbox), writing, reading);
        (over, bytes)
    }

    #[tokio::test]
    async fn one_byte_over_the_limit_bites_and_the_limit_itself_does_not() {
        for size in [0, 1, CHUNK, 3 * CHUNK + 5] {
            assert_eq!(through_stdout(size, size as u64).await, (false, size));
            assert_eq!(through_stdout(size + 1, size as u64).await, (true, size));
        }
    }

    #[tokio::test]
    async fn stderr_goes_out_in_lines_and_stays_as_a_tail() {
        let (mut near, far) = pipe::pipe().unwrap();
        let (outbox, mut queue) = Outbox::new();
        near.write_all(b"one\n{\"progress\": 1}\nlast").await.unwrap();
        drop(near);
        let tail = stderr(far, outbox).await;
        assert_eq!(tail, Tail { bytes: Bytes::from_static(b"one\n{\"progress\": 1}\nlast"), truncated: false });
        assert_eq!(queue.recv().await, Some(FromExecutor::Log { line: "one".into() }));
        assert!(matches!(queue.recv().await, Some(FromExecutor::Progress(p)) if p.progress == 1.0));
        assert_eq!(queue.recv().await, Some(FromExecutor::Log { line: "last".into() }));
    }

    #[tokio::test]
    async fn a_flood_of_lines_is_thinned_and_its_tail_kept() {
        let (mut near, far) = pipe::pipe().unwrap();
        let (outbox, mut queue) = Outbox::new();
        let writing = async move { near.write_all(&b"0123456789\n".repeat(100_000)).await.unwrap() };
        let counting = async {
            let mut lines = 0;
            while queue.recv().await.is_some() {
                lines += 1;
            }
            lines
        };
        let (tail, (), lines) = tokio::join!(stderr(far, outbox), writing, counting);
        assert_eq!((tail.bytes.len(), tail.truncated), (STDERR_TAIL, true));
        assert!((500..50_000).contains(&lines), "{lines}");
    }

    #[test]
    fn lines_are_cut_across_reads_and_at_their_longest() {
        let mut lines = Lines::default();
        assert!(lines.take(b"he", false).is_empty());
        assert_eq!(lines.take(b"llo\n\nx", false), [b"hello".to_vec(), b"".to_vec()]);
        assert_eq!(lines.take(&[b'y'; 2 * MAX_TEXT], true)[0].len(), MAX_TEXT + 1);
    }

    #[test]
    fn the_rate_refills() {
        let now = Instant::now();
        let mut rate = Rate::new(now);
        assert_eq!((0..1000).filter(|_| rate.allows(now)).count(), LINE_BURST as usize);
        assert_eq!((0..1000).filter(|_| rate.allows(now + Duration::from_secs(1))).count(), LINES_PER_SECOND as usize);
    }
}
