//! Connections inside a conversation: how a sandbox without a network has one after all.
//!
//! Any number of byte streams share the wall's one, by yamux (its specification is HashiCorp's): each has a window of its own, so
//! that one that is not read holds up no other, and none of them the report. The executor opens them, one for each connection of
//! its tool, and writes an [`Opening`] ahead; the gateway connects.
//!
//! # Guarantees
//! Whoever reads frames never waits here: what comes in is taken at once, and bounded by the windows. A peer that sends more than
//! it was given is none of ours.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::{SinkExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, Join, join};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use yamux::{Config, Connection, Mode};

use crate::frame::{FrameReader, FrameWriter, Outbox, pump};
use crate::seal::{Direction, Seal};
use crate::wire::{Opening, WireKey};

/// Most connections of a tool at once.
pub const CONNECTIONS: usize = 64;
/// Those, and as many that one side has ended and the other does not know of yet.
const STREAMS: usize = 4 * CONNECTIONS;
/// The smallest window of a stream.
const WINDOW: usize = yamux::DEFAULT_CREDIT as usize;
/// What a frame carries at most.
const CHUNK: usize = 64 << 10;
/// The header that yamux puts ahead of a piece.
const HEADER: usize = 12;
/// More than windows and headers can add up to.
const MOST_HELD: usize = STREAMS * WINDOW + (4 << 20);

/// The way in of what came in frames.
#[derive(Debug, Clone)]
pub(crate) struct Inlet {
    chunks: mpsc::UnboundedSender<Bytes>,
    held: Arc<AtomicUsize>,
}

/// The peer sent more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Inlet {
    /// Takes a chunk. One that nobody wants any more is dropped.
    pub(crate) fn push(&self, chunk: Bytes) -> Result<(), Overrun> {
        let held = self.held.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
        if held > MOST_HELD {
            return Err(Overrun);
        }
        let _ = self.chunks.send(chunk);
        Ok(())
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = BufWriter<Box<dyn AsyncWrite + Send + Unpin>>;

/// The byte stream that all connections share.
pub(crate) struct Carrier(Join<Reader, Writer>);

impl Carrier {
    /// Carried by frames: `frame` makes one of each chunk that leaves, and the inlet takes those that arrive.
    pub(crate) fn over<T>(outbox: &Outbox<T>, frame: fn(Bytes) -> T) -> (Inlet, Self)
    where
        T: Send + 'static,
    {
        let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let framed = outbox.sink().sink_map_err(closed).with(move |chunk| std::future::ready(Ok::<_, io::Error>(frame(chunk))));
        let writer: Box<dyn AsyncWrite + Send + Unpin> = Box::new(SinkWriter::new(CopyToBytes::new(framed)));
        let (chunks, mut arrived) = mpsc::unbounded_channel::<Bytes>();
        let held = Arc::new(AtomicUsize::new(0));
        let inlet = Inlet { chunks, held: held.clone() };
        let arriving = stream::poll_fn(move |cx| {
            arrived.poll_recv(cx).map(|chunk| {
                let chunk = chunk?;
                held.fetch_sub(chunk.len(), Ordering::Relaxed);
                Some(Ok::<_, io::Error>(chunk))
            })
        });
        let reader: Reader = Box::new(StreamReader::new(arriving));
        (inlet, Self(join(reader, BufWriter::with_capacity(CHUNK, writer))))
    }

    /// The executor's end, which opens streams for as long as the future is polled.
    pub(crate) fn client(self) -> (Opener, impl Future<Output = ()> + Send + 'static) {
        let mut connection = Connection::new(self.0.compat(), config(), Mode::Client);
        let (wanting, mut wanted) = mpsc::channel::<Wanted>(CONNECTIONS);
        let driving = poll_fn(move |cx| {
            while let Poll::Ready(Some(wanted)) = wanted.poll_recv(cx) {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => drop(wanted.send(stream)),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    // So many that the gateway has not taken yet: this one is closed.
                    Poll::Pending => {}
                }
            }
            // The gateway opens none.
            connection.poll_next_inbound(cx).map(drop)
        });
        (Opener(wanting), driving)
    }

    /// The gateway's end, which accepts them.
    #[cfg(feature = "dispatch")]
    pub(crate) fn server(self) -> Connection<Compat<Join<Reader, Writer>>> {
        Connection::new(self.0.compat(), config(), Mode::Server)
    }
}

type Wanted = oneshot::Sender<yamux::Stream>;

/// Opens streams.
#[derive(Debug, Clone)]
pub(crate) struct Opener(mpsc::Sender<Wanted>);

impl Opener {
    /// Opens one, and says what it is for.
    pub(crate) async fn open(&self, opening: &Opening) -> io::Result<Compat<yamux::Stream>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (wanted, opened) = oneshot::channel();
        self.0.send(wanted).await.map_err(|_| closed())?;
        let mut stream = opened.await.map_err(|_| closed())?.compat();
        opening.write(&mut stream).await?;
        Ok(stream)
    }
}

/// What a stream for bulk begins with, from the executor: it is there.
pub(crate) const READY: u8 = 0x2a;
/// What keeps it open until it is used, from the gateway: whoever is in between closes what is silent. No frame begins like this.
pub(crate) const KEEP: u8 = 0xff;

/// Any stream of bytes.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Which way the frames of a stream for bulk go, ours first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// We are the executor.
    Executor,
    /// We are the gateway.
    #[cfg(feature = "dispatch")]
    Gateway,
}

/// A carrier on a stream of its own, sealed under the call's key, for as long as the future is polled.
pub(crate) fn beside(
    stream: impl ByteStream + 'static,
    key: &WireKey,
    end: End,
) -> (Carrier, impl Future<Output = ()> + Send + 'static) {
    let (ours, theirs) = match end {
        End::Executor => (Direction::BulkFromExecutor, Direction::BulkToExecutor),
        #[cfg(feature = "dispatch")]
        End::Gateway => (Direction::BulkToExecutor, Direction::BulkFromExecutor),
    };
    let (mut read, write) = tokio::io::split(stream);
    let (outbox, queue) = Outbox::<Bytes>::new();
    let (inlet, carrier) = Carrier::over(&outbox, |chunk| chunk);
    let mut writer = FrameWriter::new(write);
    writer.seal(Seal::new(key, ours));
    let seal = Seal::new(key, theirs);
    let moving = async move {
        let reading = async move {
            let first = loop {
                match read.read_u8().await {
                    Ok(KEEP) => {}
                    Ok(byte) => break byte,
                    Err(_) => return,
                }
            };
            let mut reader = FrameReader::<_, Bytes>::new(io::Cursor::new([first]).chain(read));
            reader.seal(seal);
            while let Ok(Some(chunk)) = reader.next().await {
                if inlet.push(chunk).is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            _ = pump(queue, &mut writer) => {}
        }
    };
    (carrier, moving)
}

fn config() -> Config {
    let mut config = Config::default();
    // In this order: each is checked against the other.
    config.set_max_num_streams(STREAMS);
    config.set_max_connection_receive_window(Some(STREAMS * WINDOW));
    config.set_split_send_size(CHUNK - HEADER);
    config
}

impl Opening {
    /// Writes it ahead of a connection's bytes: a length (unsigned 16-bit, big-endian) and CBOR.
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut told = Vec::new();
        ciborium::into_writer(self, &mut told).map_err(io::Error::other)?;
        let length = u16::try_from(told.len()).map_err(io::Error::other)?;
        told.splice(0..0, length.to_be_bytes());
        stream.write_all(&told).await
    }

    /// Reads it, and not a byte of what follows.
    #[cfg(feature = "dispatch")]
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        /// A name has at most 253 bytes.
        const LONGEST: u16 = 512;
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let length = stream.read_u16().await?;
        if length > LONGEST {
            return Err(invalid());
        }
        let mut told = vec![0; length.into()];
        stream.read_exact(&mut told).await?;
        ciborium::from_reader(&told[..]).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_bounded() {
        let (outbox, _queue) = Outbox::<Bytes>::new();
        let (inlet, carrier) = Carrier::over(&outbox, |chunk| chunk);
        let chunk = Bytes::from(vec![0; 1 << 20]);
        let taken = (0..1000).take_while(|_| inlet.push(chunk.clone()).is_ok()).count();
        assert_eq!(taken, MOST_HELD >> 20);
        drop(carrier);
    }

    #[cfg(feature = "dispatch")]
    #[tokio::test]
    async fn an_opening_is_read_to_its_end_and_no_further() {
        for opening in [Opening::Proxy, Opening::Direct("api.example.com:443".parse().unwrap())] {
            let mut told = Vec::new();
            opening.write(&mut told).await.unwrap();
            told.extend_from_slice(b"rest");
            let mut told = &told[..];
            assert_eq!(Opening::read(&mut told).await.unwrap(), opening);
            assert_eq!(told, b"rest");
        }
        for wrong in [&b""[..], b"\0", b"\xff\xff", b"\0\x01\xff", b"\0\x05hello"] {
            assert!(Opening::read(&mut &wrong[..]).await.is_err(), "{wrong:?}");
        }
    }
}
