//! One connection, as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::CHUNK;
use super::connection::failed;

/// What comes in.
enum Receiving {
    /// The other side has not answered yet.
    Later(ResponseFuture),
    /// It has.
    Now(RecvStream),
}

/// One connection. Dropped before its end, it is reset.
pub(crate) struct Stream {
    receiving: Receiving,
    received: Bytes,
    sending: SendStream<Bytes>,
}

impl Stream {
    #[cfg(feature = "dispatch")]
    pub(super) const fn new(receiving: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self { receiving: Receiving::Now(receiving), received: Bytes::new(), sending }
    }

    pub(super) const fn answered_later(answer: ResponseFuture, sending: SendStream<Bytes>) -> Self {
        Self { receiving: Receiving::Later(answer), received: Bytes::new(), sending }
    }

    /// The next piece; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match &mut self.receiving {
                Receiving::Later(answer) => {
                    let answer = ready!(Pin::new(answer).poll(cx)).map_err(failed)?;
                    if !answer.status().is_success() {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
                    }
                    self.receiving = Receiving::Now(answer.into_body());
                }
                Receiving::Now(body) => {
                    let piece = ready!(body.poll_data(cx)).transpose().map_err(failed)?;
                    if let Some(piece) = &piece {
                        body.flow_control().release_capacity(piece.len()).map_err(failed)?;
                    }
                    return Poll::Ready(Ok(piece));
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(self.poll_piece(cx))? {
                Some(piece) => self.received = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.received.len());
        buffer.put_slice(&self.received[..length]);
        self.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.sending.reserve_capacity(bytes.len().min(CHUNK));
        let room = match self.sending.capacity() {
            0 => match ready!(self.sending.poll_capacity(cx)) {
                Some(room) => room.map_err(failed)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => room,
        };
        let length = bytes.len().min(room);
        self.sending.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(failed)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(failed))
    }
}
