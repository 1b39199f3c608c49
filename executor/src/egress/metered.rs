//! A connection whose bytes are counted, and end where the call's bound is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::contact::Meter;
use super::wall::Wall;

/// A connection to a destination.
#[derive(Debug)]
pub(crate) struct Metered {
    stream: TcpStream,
    wall: Arc<Wall>,
    meter: Arc<Meter>,
    /// Whether its end is still to come.
    unended: bool,
    /// Its place among those that stand.
    _place: OwnedSemaphorePermit,
}

impl Metered {
    pub(super) const fn new(stream: TcpStream, wall: Arc<Wall>, meter: Arc<Meter>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, wall, meter, unended: false, _place: place }
    }

    /// Waits until it says something, or ends.
    pub(super) async fn speaks(&self) -> io::Result<()> {
        self.stream.peek(&mut [0]).await.map(|_| ())
    }

    /// Whether anything was said to its destination, on this connection or another one.
    pub(super) fn has_sent(&self) -> bool {
        self.meter.sent.load(Ordering::Relaxed) > 0
    }

    /// From here on its end is to come, until it has `ended`. Dropped before that, it is reset: what was cut must not look like an end to
    /// the other side.
    pub(super) const fn unended(&mut self) {
        self.unended = true;
    }

    pub(super) const fn ended(&mut self) {
        self.unended = false;
    }

    fn crossed(&self, bytes: usize) -> io::Result<()> {
        if self.wall.crossed(bytes as u64) {
            Ok(())
        } else {
            Err(io::Error::other("the call has no more bytes to send or receive"))
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.unended {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.meter.received.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(self.crossed(read))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.meter.sent.fetch_add(written as u64, Ordering::Relaxed);
        self.crossed(written)?;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bytes))?;
        self.meter.sent.fetch_add(written as u64, Ordering::Relaxed);
        self.crossed(written)?;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection, with or without TLS of ours.
pub(crate) type Stream = Either<Metered, TlsStream<Metered>>;
