//! One connection, as a stream of bytes.

use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::Either;
use h2::client::ResponseFuture;
use h2::{FlowControl, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, SimplexStream, WriteHalf, simplex};
use tokio_util::task::AbortOnDropHandle;

use super::connection::failed;
use super::{CHUNK, WINDOW};

/// What the other side sends: at hand, or behind an answer of its own.
type Receiving = Either<Ready<io::Result<RecvStream>>, ResponseFuture>;

/// One connection. Dropped before its end, it is reset.
pub(crate) struct Stream {
    received: ReadHalf<SimplexStream>,
    /// Fills `received`, and says at its end how it ended, once.
    receiving: Option<AbortOnDropHandle<io::Result<()>>>,
    /// Gives the other side room, once it has answered.
    room: Arc<OnceLock<FlowControl>>,
    sending: SendStream<Bytes>,
}

impl Stream {
    #[cfg(feature = "dispatch")]
    pub(super) fn new(receiving: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self::of(Either::Left(std::future::ready(Ok(receiving))), sending)
    }

    pub(super) fn answered_later(answer: ResponseFuture, sending: SendStream<Bytes>) -> Self {
        Self::of(Either::Right(answer), sending)
    }

    fn of(receiving: Receiving, sending: SendStream<Bytes>) -> Self {
        let room = Arc::<OnceLock<FlowControl>>::default();
        let (received, into) = simplex(WINDOW as usize);
        let receiving = AbortOnDropHandle::new(tokio::spawn(fill(receiving, into, room.clone())));
        Self { received, receiving: Some(receiving), room, sending }
    }
}

/// Takes what comes as it comes, so that a byte takes the room of a byte: where nobody reads, HTTP/2 would keep every small piece by
/// itself. The window bounds it, for it is given back as it is read.
async fn fill(receiving: Receiving, mut into: WriteHalf<SimplexStream>, room: Arc<OnceLock<FlowControl>>) -> io::Result<()> {
    let received = receive(receiving, &mut into, &room).await;
    // Only then whoever reads comes to an end.
    into.shutdown().await.and(received)
}

async fn receive(receiving: Receiving, into: &mut WriteHalf<SimplexStream>, room: &OnceLock<FlowControl>) -> io::Result<()> {
    let mut body = match receiving {
        Either::Left(body) => body.await?,
        Either::Right(answer) => {
            let answer = answer.await.map_err(failed)?;
            if !answer.status().is_success() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            answer.into_body()
        }
    };
    let _ = room.set(body.flow_control().clone());
    while let Some(piece) = body.data().await {
        into.write_all(&piece.map_err(failed)?).await?;
    }
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.received).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            if let Some(room) = self.room.get() {
                // It has none to give back once the connection has ended.
                let _ = room.clone().release_capacity(read);
            }
            return Poll::Ready(Ok(()));
        }
        let Some(receiving) = self.receiving.as_mut().filter(|_| buffer.remaining() > 0) else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(receiving).poll(cx)).unwrap_or_else(|ended| Err(io::Error::other(ended)));
        self.receiving = None;
        Poll::Ready(ended)
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

    /// Until none of it waits for its turn: what does is gone when this is dropped.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.reserve_capacity(CHUNK);
        // There is room for a chunk, and no more.
        while self.sending.capacity() < CHUNK {
            match ready!(self.sending.poll_capacity(cx)) {
                Some(room) => room.map_err(failed)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        // Others may need it.
        self.sending.reserve_capacity(0);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(failed))
    }
}
