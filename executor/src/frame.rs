//! Frames: how the values of [`crate::wire`] travel over a byte stream.
//!
//! A frame is a length (unsigned 32-bit, big-endian) and that many bytes of CBOR (RFC 8949). The first frame each way is in the
//! clear, because the key travels in one of them; [`FrameWriter::seal`] and [`FrameReader::seal`] seal all that follow. What was in
//! a frame in the clear, secrets included, does not stay in its buffers: they are wiped once it is written or read. Of one of more than
//! a few KiB, what a buffer held before it had to move may stay behind.
//!
//! Any number of parties may send at once through clones of an [`Outbox`]; [`pump`] alone owns the stream. The queue is short and
//! first come, first served, so that whoever sends much waits, and a sign of life is never more than a queue behind.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;
use tokio_util::codec::length_delimited::{LengthDelimitedCodec, LengthDelimitedCodecError};
use tokio_util::sync::PollSender;
use zeroize::{Zeroize, Zeroizing};

use crate::seal::{OVERHEAD, Seal, SealError};

/// The longest body of a frame, sealed.
pub const MAX_FRAME: usize = 16 << 20;
/// What most frames fit in.
const ROOM: usize = 4 << 10;
/// How many frames an [`Outbox`] holds before senders wait.
pub const QUEUE: usize = 16;

/// How often each side gives a sign of life.
pub const PING: Duration = Duration::from_secs(5);
/// How long a side may be silent before the other gives it up.
pub const SILENCE: Duration = Duration::from_secs(15);

/// A frame could not be sent or received. After one, the stream is of no use any more.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream failed, or ended inside a frame.
    #[error("the stream failed: {0}")]
    Stream(#[from] io::Error),
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame is longer than {MAX_FRAME} bytes")]
    TooLong,
    /// The frame is not sealed as the next one must be.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The frame opened and is no value of this protocol. Its content is not repeated here.
    #[error("a frame is not of this protocol")]
    Malformed,
}

/// The bytes of a frame's length.
const HEAD: usize = size_of::<u32>();

/// Keeps the length in front of what it yields: a codec that takes it away at once would see a stream that ends right behind it
/// as one that ends between two frames.
fn codec() -> LengthDelimitedCodec {
    let mut codec = LengthDelimitedCodec::builder();
    codec.big_endian().length_field_type::<u32>().max_frame_length(MAX_FRAME);
    codec.num_skip(0).length_adjustment(HEAD as isize).new_codec()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let mut rest = body;
    let frame = ciborium::from_reader(&mut rest).map_err(|_| FrameError::Malformed)?;
    if rest.is_empty() { Ok(frame) } else { Err(FrameError::Malformed) }
}

/// Sends frames of one type.
#[derive(Debug)]
pub struct FrameWriter<W, T> {
    stream: W,
    seal: Option<Seal>,
    /// The current frame, and how much of it is written.
    current: Zeroizing<Vec<u8>>,
    written: usize,
    frames: PhantomData<fn(T)>,
}

impl<W: AsyncWrite + Unpin, T: Serialize> FrameWriter<W, T> {
    /// Writes to `stream`, in the clear.
    pub fn new(stream: W) -> Self {
        Self { stream, seal: None, current: Zeroizing::default(), written: 0, frames: PhantomData }
    }

    /// Seals every frame from here on.
    pub fn seal(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// Sends one frame and flushes.
    ///
    /// # Errors
    /// When the frame is too long or the stream fails.
    pub async fn send(&mut self, frame: &T) -> Result<(), FrameError> {
        // A future that was dropped half-way left its rest here: it goes first, and the stream stays in step.
        self.current.drain(..self.written);
        self.written = 0;
        let start = self.current.len();
        if let Err(error) = self.append(frame) {
            self.current.truncate(start);
            return Err(error);
        }
        while self.unfinished() {
            match self.stream.write(&self.current[self.written..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                written => self.written += written,
            }
        }
        // What is sealed is no secret any more.
        if self.seal.is_none() {
            self.current.zeroize();
        }
        self.current.clear();
        self.written = 0;
        Ok(self.stream.flush().await?)
    }

    fn append(&mut self, frame: &T) -> Result<(), FrameError> {
        let start = self.current.len();
        self.current.reserve(ROOM);
        self.current.extend_from_slice(&[0; HEAD]);
        ciborium::into_writer(frame, &mut *self.current).map_err(|_| FrameError::Malformed)?;
        let body = start + HEAD;
        if self.current.len() - body + OVERHEAD > MAX_FRAME {
            return Err(FrameError::TooLong);
        }
        if let Some(seal) = &mut self.seal {
            let tag = seal.seal(&mut self.current[body..])?;
            self.current.extend_from_slice(&tag);
        }
        let length = u32::try_from(self.current.len() - body).map_err(|_| FrameError::TooLong)?;
        self.current[start..body].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Whether the last frame left in part at most: a peer cannot have read it.
    pub fn unfinished(&self) -> bool {
        self.written < self.current.len()
    }
}

/// Receives frames of one type.
#[derive(Debug)]
pub struct FrameReader<R, T> {
    stream: FramedRead<R, LengthDelimitedCodec>,
    seal: Option<Seal>,
    frames: PhantomData<fn() -> T>,
}

impl<R: AsyncRead + Unpin, T: DeserializeOwned> FrameReader<R, T> {
    /// Reads from `stream`, in the clear.
    pub fn new(stream: R) -> Self {
        Self { stream: FramedRead::new(stream, codec()), seal: None, frames: PhantomData }
    }

    /// Takes only sealed frames from here on.
    pub fn seal(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// The next frame; `None` where the stream ended between two frames. May be dropped and called again.
    ///
    /// # Errors
    /// When the stream fails, or what came is not the next frame of this protocol.
    pub async fn next(&mut self) -> Result<Option<T>, FrameError> {
        let Some(body) = self.stream.next().await else { return Ok(None) };
        let mut body = body.map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<LengthDelimitedCodecError>() => FrameError::TooLong,
            _ => FrameError::Stream(error),
        })?;
        let Some(seal) = &mut self.seal else {
            let frame = decode(&body[HEAD..]);
            body.zeroize();
            return frame.map(Some);
        };
        decode(seal.open(&mut body[HEAD..])?).map(Some)
    }
}

/// One sender's end of the queue that [`pump`] empties.
#[derive(Debug)]
pub struct Outbox<T>(mpsc::Sender<T>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The stream has no writer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream is closed")]
pub struct Closed;

impl<T> Outbox<T> {
    /// A queue: its sending end, and the end for [`pump`].
    pub fn new() -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Queues a frame; waits its turn when the queue is full.
    ///
    /// # Errors
    /// When the stream has no writer any more.
    pub async fn send(&self, frame: T) -> Result<(), Closed> {
        self.0.send(frame).await.map_err(|_| Closed)
    }

    /// The same for who sends as a stream has room.
    pub(crate) fn sink(&self) -> PollSender<T>
    where
        T: Send + 'static,
    {
        PollSender::new(self.0.clone())
    }

    /// Queues a frame if there is room: for what may be lost.
    pub fn offer(&self, frame: T) -> bool {
        self.0.try_send(frame).is_ok()
    }
}

/// Sends what is queued, in order, until every [`Outbox`] is dropped and all is written.
///
/// # Errors
/// When a frame cannot be sent.
pub async fn pump<W, T>(mut queue: mpsc::Receiver<T>, writer: &mut FrameWriter<W, T>) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    while let Some(frame) = queue.recv().await {
        writer.send(&frame).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::seal::Direction;
    use crate::wire::{FromExecutor, WireKey};

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn sealed_bytes(key: &WireKey, frames: &[FromExecutor]) -> Vec<u8> {
        block(async {
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes);
            writer.seal(Seal::new(key, Direction::FromExecutor));
            for frame in frames {
                writer.send(frame).await.unwrap();
            }
            bytes
        })
    }

    fn read_all(key: &WireKey, bytes: &[u8]) -> Result<Vec<FromExecutor>, FrameError> {
        block(async {
            let mut reader = FrameReader::new(bytes);
            reader.seal(Seal::new(key, Direction::FromExecutor));
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await? {
                frames.push(frame);
            }
            Ok(frames)
        })
    }

    fn frames() -> impl Strategy<Value = Vec<FromExecutor>> {
        let frame = prop_oneof![
            Just(FromExecutor::Accepted),
            Just(FromExecutor::Ping),
            ".{0,40}".prop_map(|line| FromExecutor::Log { line }),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|chunk| FromExecutor::Output { chunk: chunk.into() }),
        ];
        prop::collection::vec(frame, 1..6)
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_left(frames in frames()) {
            let key = WireKey::generate().unwrap();
            prop_assert_eq!(read_all(&key, &sealed_bytes(&key, &frames)).unwrap(), frames);
        }

        #[test]
        fn a_flipped_bit_never_passes_for_another_frame(frames in frames(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let key = WireKey::generate().unwrap();
            let mut bytes = sealed_bytes(&key, &frames);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(read_all(&key, &bytes).is_err());
        }

        #[test]
        fn a_cut_stream_never_passes_for_more_than_its_whole_frames(frames in frames(), at in any::<prop::sample::Index>()) {
            let key = WireKey::generate().unwrap();
            let bytes = sealed_bytes(&key, &frames);
            match read_all(&key, &bytes[..at.index(bytes.len())]) {
                Ok(read) => prop_assert!(read.len() < frames.len() && frames.starts_with(&read)),
                Err(error) => prop_assert!(matches!(error, FrameError::Stream(_)), "{error}"),
            }
        }

        #[test]
        fn noise_is_refused_and_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let result = block(async { FrameReader::<_, FromExecutor>::new(&bytes[..]).next().await });
            prop_assert!(!matches!(result, Ok(Some(FromExecutor::Report(_)))));
            prop_assert!(read_all(&WireKey::generate().unwrap(), &bytes).is_err());
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_on_both_sides() {
        let chunk = Bytes::from(vec![0; MAX_FRAME]);
        let sent = block(async { FrameWriter::new(Vec::new()).send(&FromExecutor::Output { chunk }).await });
        assert!(matches!(sent, Err(FrameError::TooLong)));
        let length = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        let read = block(async { FrameReader::<_, FromExecutor>::new(&length[..]).next().await });
        assert!(matches!(read, Err(FrameError::TooLong)), "{read:?}");
    }

    #[test]
    fn a_stream_that_ends_right_behind_a_length_did_not_end_between_two_frames() {
        for cut in 1..=5 {
            let read = block(async { FrameReader::<_, FromExecutor>::new(&[0, 0, 0, 9, 1][..cut]).next().await });
            assert!(matches!(read, Err(FrameError::Stream(_))), "{cut}: {read:?}");
        }
    }

    #[test]
    fn what_follows_a_value_inside_its_frame_is_refused() {
        let mut body = Vec::new();
        ciborium::into_writer(&FromExecutor::Ping, &mut body).unwrap();
        body.push(0);
        assert!(matches!(decode::<FromExecutor>(&body), Err(FrameError::Malformed)));
    }

    #[test]
    fn a_broken_stream_says_whether_the_frame_can_have_been_read() {
        block(async {
            let (near, far) = tokio::io::duplex(4);
            let mut writer = FrameWriter::new(near);
            let frame = FromExecutor::Log { line: "long enough".into() };
            let cut = tokio::time::timeout(std::time::Duration::from_millis(10), writer.send(&frame)).await;
            assert!(cut.is_err() && writer.unfinished());
            drop(far);
            assert!(writer.send(&FromExecutor::Ping).await.is_err() && writer.unfinished());
        });
    }

    #[test]
    fn senders_take_turns() {
        block(async {
            let (near, far) = tokio::io::duplex(64);
            let (outbox, queue) = Outbox::new();
            let flood = outbox.clone();
            let flooding =
                async move { while flood.send(FromExecutor::Output { chunk: Bytes::from_static(&[0; 32]) }).await.is_ok() {} };
            let pumping = async move { pump(queue, &mut FrameWriter::new(near)).await };
            let reading = async move {
                let mut reader = FrameReader::new(far);
                outbox.send(FromExecutor::Ping).await.unwrap();
                let mut ahead = 0;
                while reader.next().await.unwrap() != Some(FromExecutor::Ping) {
                    ahead += 1;
                }
                ahead
            };
            tokio::select! {
                () = flooding => unreachable!(),
                _ = pumping => unreachable!(),
                ahead = reading => assert!(ahead <= 2 * QUEUE, "{ahead}"),
            }
        });
    }
}
