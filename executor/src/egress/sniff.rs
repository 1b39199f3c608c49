//! What the first bytes of a connection say of where it leads: the name in a TLS greeting, or that it is HTTP, which names its host.

mod sniffer;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

pub(super) use self::sniffer::First;
use self::sniffer::Sniffer;
use super::{List, Refusal};
use crate::spec::Destination;

/// The longest greeting or request line.
const MOST: usize = 64 << 10;
/// How long the rest of a greeting or of a line is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// Reads into `buffer` until it is clear what it is.
pub(super) async fn first(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<First, Refusal> {
    let mut sniffer = Sniffer::default();
    loop {
        if let Some(first) = sniffer.look(buffer)? {
            return Ok(first);
        }
        if buffer.len() > MOST {
            return Err(Refusal::Unclear);
        }
        // Whoever has said nothing yet may wait for the other side. Whoever has begun may wait for an answer.
        let patience = if buffer.is_empty() { Duration::MAX } else { PATIENCE };
        match timeout(patience, stream.read_buf(buffer)).await {
            Ok(Ok(0) | Err(_)) => return sniffer.ended(buffer.clone()).map(|()| First::Other),
            Ok(Ok(_)) => {}
            Err(_) if sniffer::is_greeting(buffer) => return Err(Refusal::Unclear),
            Err(_) => return Ok(First::Text),
        }
    }
}

/// A stream whose first line must not turn out to be a request line: what was said of it is with the server already.
pub(super) struct Watched<S> {
    stream: S,
    /// The line, as long as it goes on.
    line: Option<(Vec<u8>, Sniffer)>,
}

impl<S> Watched<S> {
    /// Goes on watching behind `said`.
    pub(super) fn new(said: Vec<u8>, stream: S) -> Self {
        Self { stream, line: Some((said, Sniffer::default())) }
    }

    fn heard(&mut self, more: &[u8]) -> Result<(), Refusal> {
        let Some((mut line, mut sniffer)) = self.line.take() else { return Ok(()) };
        if more.is_empty() {
            return sniffer.ended(line);
        }
        line.extend_from_slice(more);
        match sniffer.look(&line)? {
            Some(First::Other) => Ok(()),
            None if line.len() <= MOST => {
                self.line = Some((line, sniffer));
                Ok(())
            }
            _ => Err(Refusal::Unclear),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let heard = self.heard(&buffer.filled()[before..]);
        if heard.is_err() {
            buffer.set_filled(before);
        }
        Poll::Ready(heard.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether the name that TLS asks for is where the connection leads. One destination may serve many names, and the list has one.
pub(super) fn agrees(name: Option<&str>, destination: &Destination, list: &List) -> Result<(), Refusal> {
    match (name, destination.address()) {
        (Some(name), None) if name == destination.host => Ok(()),
        (None, Some(_)) => Ok(()),
        (Some(name), Some(_)) => {
            list.permit(&Destination { host: name.to_owned(), port: destination.port }).map_err(|_| Refusal::Misdirected)
        }
        _ => Err(Refusal::Misdirected),
    }
}

#[cfg(test)]
mod tests;
