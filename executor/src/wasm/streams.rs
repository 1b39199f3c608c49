//! What a guest writes: standard output up to its limit, standard error as lines.
//!
//! Guests write on the thread that runs them, so nothing here waits. Lines are kept until the invocation, which runs on the
//! same task, takes them to the host each time the guest pauses; a guest that writes faster than that is made to pause.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::wire::{Line, MAX_TEXT, STDERR_TAIL};
use crate::{Event, Host};

use super::sandbox::Stop;

/// Most bytes taken from the guest at once.
const CHUNK: usize = 64 << 10;
/// With this much of lines waiting for the host, a guest has to pause.
const LINES_WAITING: usize = 256 << 10;
/// What a waiting line costs beside its text, so that a million empty ones are not free.
const LINE_OVERHEAD: usize = 64;

/// Both streams of one call.
#[derive(Clone)]
pub(super) struct Streams(Arc<Mutex<Written>>);

struct Written {
    stdout: Vec<u8>,
    stdout_limit: usize,
    overflowed: bool,
    stderr: Stderr,
}

#[derive(Default)]
struct Stderr {
    tail: Vec<u8>,
    truncated: bool,
    /// The line being written, at most one byte longer than a line may be.
    line: Vec<u8>,
    waiting: Vec<Line>,
    waiting_bytes: usize,
}

/// What is left at the end.
pub(super) struct Collected {
    pub(super) stdout: Bytes,
    pub(super) overflowed: bool,
    pub(super) stderr: Bytes,
    pub(super) stderr_truncated: bool,
}

impl Streams {
    pub(super) fn new(stdout_limit: u64) -> Self {
        let stdout_limit = usize::try_from(stdout_limit).unwrap_or(usize::MAX);
        Self(Arc::new(Mutex::new(Written { stdout: Vec::new(), stdout_limit, overflowed: false, stderr: Stderr::default() })))
    }

    pub(super) fn stdout(&self) -> GuestStream {
        GuestStream { streams: self.clone(), which: Which::Stdout }
    }

    pub(super) fn stderr(&self) -> GuestStream {
        GuestStream { streams: self.clone(), which: Which::Stderr }
    }

    /// Tells the host every whole line that it does not know yet.
    pub(super) fn deliver(&self, host: &dyn Host) {
        let waiting = {
            let stderr = &mut self.0.lock().stderr;
            stderr.waiting_bytes = 0;
            std::mem::take(&mut stderr.waiting)
        };
        for line in waiting {
            host.observe(match line {
                Line::Progress(progress) => Event::Progress(progress),
                Line::Log(line) => Event::Log(line),
            });
        }
    }

    /// Ends both streams: the last line, newline or not, goes to the host.
    pub(super) fn collect(self, host: &dyn Host) -> Collected {
        {
            let stderr = &mut self.0.lock().stderr;
            if !stderr.line.is_empty() {
                stderr.end_line();
            }
        }
        self.deliver(host);
        let written = &mut *self.0.lock();
        let stderr = &mut written.stderr;
        stderr.cut_tail();
        Collected {
            stdout: std::mem::take(&mut written.stdout).into(),
            overflowed: written.overflowed,
            stderr: std::mem::take(&mut stderr.tail).into(),
            stderr_truncated: stderr.truncated,
        }
    }
}

impl Written {
    fn write_stdout(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let room = self.stdout_limit - self.stdout.len();
        self.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.overflowed = true;
            return Err(Stop::OutputLimit);
        }
        Ok(())
    }
}

impl Stderr {
    fn write(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        // Cutting at twice the size keeps the cost per byte constant.
        if self.tail.len() > 2 * STDERR_TAIL {
            self.cut_tail();
        }
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        if let Some(first) = pieces.next() {
            self.extend_line(first);
        }
        for piece in pieces {
            self.end_line();
            self.extend_line(piece);
        }
    }

    fn extend_line(&mut self, piece: &[u8]) {
        // One byte too many is kept, so that `Line::parse` sees that the line is too long.
        let room = (MAX_TEXT + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self) {
        self.waiting_bytes += self.line.len() + LINE_OVERHEAD;
        self.waiting.push(Line::parse(&self.line));
        self.line.clear();
    }

    fn cut_tail(&mut self) {
        if self.tail.len() > STDERR_TAIL {
            self.truncated = true;
            self.tail.drain(..self.tail.len() - STDERR_TAIL);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Stdout,
    Stderr,
}

/// One stream as the guest holds it.
#[derive(Clone)]
pub(super) struct GuestStream {
    streams: Streams,
    which: Which,
}

impl GuestStream {
    fn must_pause(&self) -> bool {
        self.which == Which::Stderr && self.streams.0.lock().stderr.waiting_bytes > LINES_WAITING
    }

    fn take(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut written = self.streams.0.lock();
        match self.which {
            Which::Stdout => written.write_stdout(bytes),
            Which::Stderr => {
                written.stderr.write(bytes);
                Ok(())
            }
        }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes).map_err(|stop| StreamError::Trap(stop.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.must_pause() { 0 } else { CHUNK })
    }
}

#[async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {
        while self.must_pause() {
            tokio::task::yield_now().await;
        }
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.take(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
