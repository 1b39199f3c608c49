//! The executor's first act: out of its child's reach.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::stdio;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// The streams that the container was started with, on descriptors that no child inherits.
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: File,
}

/// Makes this process unreadable to others of its uid (`/proc/1/{mem,fd,environ}`, ptrace), and takes its streams away from where
/// a child would find them.
///
/// As PID 1 of its namespace it need not ignore signals: the kernel drops every signal from inside the namespace that has no
/// handler, `SIGKILL` and `SIGSTOP` included, and the one that gets a handler, `SIGCHLD`, only makes it look for dead children.
pub(super) fn harden() -> io::Result<Streams> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let stdin = fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
    let stdout = fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    let stderr = fcntl_dupfd_cloexec(stdio::stderr(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    stdio::dup2_stderr(&null)?;
    Ok(Streams { stdin, stdout, stderr: stderr.into() })
}

/// The gateway's words. A pipe under every engine we know; read without a thread there.
pub(super) enum Input {
    Pipe(pipe::Receiver),
    Other(tokio::fs::File),
}

/// Our words to the gateway.
pub(super) enum Output {
    Pipe(pipe::Sender),
    Other(tokio::fs::File),
}

impl Input {
    pub(super) fn new(stream: OwnedFd) -> io::Result<Self> {
        let stream = File::from(stream);
        Ok(match pipe::Receiver::from_file(stream.try_clone()?) {
            Ok(pipe) => Self::Pipe(pipe),
            Err(_) => Self::Other(stream.into()),
        })
    }
}

impl Output {
    pub(super) fn new(stream: OwnedFd) -> io::Result<Self> {
        let stream = File::from(stream);
        Ok(match pipe::Sender::from_file(stream.try_clone()?) {
            Ok(pipe) => Self::Pipe(pipe),
            Err(_) => Self::Other(stream.into()),
        })
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Self::Other(file) => Pin::new(file).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            Self::Other(file) => Pin::new(file).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
            Self::Other(file) => Pin::new(file).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
            Self::Other(file) => Pin::new(file).poll_shutdown(cx),
        }
    }
}
