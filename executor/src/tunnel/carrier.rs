//! The byte stream that all connections share: made of frames, or a stream of its own.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufWriter, Join, join};
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{CHUNK, MOST_HELD};
use crate::frame::{FrameReader, FrameWriter, Outbox, pump};
use crate::seal::{Direction, Seal};
use crate::wire::WireKey;

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
        let size = size(&chunk);
        if self.held.fetch_add(size, Ordering::Relaxed) + size > MOST_HELD {
            return Err(Overrun);
        }
        if self.chunks.send(chunk).is_err() {
            self.held.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The room that a chunk takes, an empty one too.
const fn size(chunk: &Bytes) -> usize {
    chunk.len() + 128
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
                held.fetch_sub(size(&chunk), Ordering::Relaxed);
                Some(Ok::<_, io::Error>(chunk))
            })
        });
        let reader: Reader = Box::new(StreamReader::new(arriving));
        (inlet, Self(join(reader, BufWriter::with_capacity(CHUNK, writer))))
    }

    /// The bytes of it.
    pub(super) fn into_stream(self) -> Join<Reader, Writer> {
        self.0
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
        let mut reading = pin!(reading);
        tokio::select! {
            () = &mut reading => {}
            // Whoever does not read any more may have said something before.
            _ = pump(queue, &mut writer) => reading.await,
        }
    };
    (carrier, moving)
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
        assert_eq!(taken, (MOST_HELD - 1) >> 20);
        let (inlet, _carrier) = Carrier::over(&outbox, |chunk| chunk);
        let taken = (0..10_000_000).take_while(|_| inlet.push(Bytes::new()).is_ok()).count();
        assert!(taken < 200_000, "{taken}");
        drop(carrier);
        let (inlet, carrier) = Carrier::over(&outbox, |chunk| chunk);
        drop(carrier);
        assert!((0..1000).all(|_| inlet.push(chunk.clone()).is_ok()), "what nobody wants takes no room");
    }
}
