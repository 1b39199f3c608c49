//! The gateway's end of the wire: one executor, one invocation, one report.
//!
//! # Flow
//! `Hello` each way -> (a `Ping` each way every [`PING`], while it waits) -> `Invocation` -> `Accepted` ->
//! (`Progress` | `Log` | `Output` | `Tunnel`)* -> `Report` -> `Tunnel`*, with a `Ping` each way every [`PING`].
//!
//! # Guarantees
//! - [`RunError::NotDelivered`] only where the executor cannot have read the invocation. Everything later may have run.
//! - A peer that is silent for [`SILENCE`], or does not report within [`CANCEL_GRACE`] of a cancel, is lost.
//! - What the executor sends is bounded here once more: it shares a kernel with the tool.
//!
//! # Assumptions
//! The tool's deadline is the executor's, and behind it the dispatcher's; only its connections end by our clock. The stream is dropped with
//! the session, which ends the executor.

mod connections;
mod conversation;

use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::connections::Connections;
pub use self::conversation::MAX_LINES;
use self::conversation::{Clocks, Conversation, out_of_order};
use crate::Host;
use crate::egress::Ends;
use crate::error::RunError;
use crate::frame::{FrameError, FrameReader, FrameWriter, Outbox, PING, SILENCE, pump};
use crate::seal::{Direction, Seal};
use crate::tunnel::ByteStream;
use crate::wire::{FromExecutor, Invocation, PROTOCOL, Report, ToExecutor};

/// How long a canceled executor has for its report.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// How long what a tool said last on its connections has to get where it goes, once its report is here.
const LINGER: Duration = Duration::from_secs(1);

/// The clocks, outside tests.
const CLOCKS: Clocks = Clocks { ping: PING, silence: SILENCE, cancel_grace: CANCEL_GRACE, linger: LINGER };

/// A stream whose executor has said hello, and that has carried nothing else.
#[derive(Debug)]
pub struct Session<R, W> {
    clocks: Clocks,
    reader: FrameReader<R, FromExecutor>,
    writer: FrameWriter<W, ToExecutor>,
    /// When a ping left that has no answer yet.
    unanswered: Option<Instant>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Ungreeted {
    /// Nothing answered, or nothing that can be read.
    #[error("{0}")]
    Silent(String),
    /// Something answered that is not our executor.
    #[error("{0}")]
    Foreign(String),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Session<R, W> {
    /// Says hello, and waits for the executor's.
    ///
    /// # Errors
    /// [`Ungreeted`].
    pub async fn greet(read: R, write: W) -> Result<Self, Ungreeted> {
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        // A container that ends at once breaks the stream under our hello; what it said before that tells more.
        let greeted = writer.send(&ToExecutor::Hello { protocol: PROTOCOL }).await;
        match reader.next().await {
            Ok(Some(FromExecutor::Hello { protocol: PROTOCOL })) => {
                greeted.map_err(|error| Ungreeted::Silent(format!("no executor listens: {error}")))?;
                Ok(Self { clocks: CLOCKS, reader, writer, unanswered: None })
            }
            Ok(Some(FromExecutor::Hello { protocol })) => Err(Ungreeted::Foreign(format!(
                "its executor speaks protocol {protocol}, this gateway {PROTOCOL}; build the tool again"
            ))),
            Ok(Some(_)) => Err(Ungreeted::Foreign("its first frame was no hello".into())),
            Ok(None) => Err(Ungreeted::Silent("it ended before it was ready".into())),
            Err(error) => Err(Ungreeted::Silent(format!("no executor answered: {error}"))),
        }
    }

    /// Keeps the executor company until it has something to do: answers why when it is lost. May be dropped and called again.
    pub async fn idle(&mut self) -> String {
        let Clocks { ping, silence, .. } = self.clocks;
        loop {
            let rings = self.unanswered.map_or_else(|| Instant::now() + ping, |since| since + silence);
            match timeout_at(rings, self.reader.next()).await {
                Ok(Ok(Some(FromExecutor::Ping))) if self.unanswered.is_some() => self.unanswered = None,
                Ok(Ok(Some(_))) => return "it spoke before it was asked".into(),
                Ok(Ok(None)) => return "its stream ended".into(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) if self.unanswered.is_some() => return format!("it was silent for {silence:?}"),
                Err(_) => {
                    // Noted first: dropped half-way, the rest of the ping leaves with the next frame.
                    self.unanswered = Some(Instant::now());
                    if let Ok(Err(error)) = timeout(silence, self.writer.send(&ToExecutor::Ping)).await {
                        return error.to_string();
                    }
                }
            }
        }
    }

    /// Delivers the invocation and sees the call through to its report.
    ///
    /// # Errors
    /// As the module says. What the engine knows beyond (an OOM kill, an exit code) is for the caller to add.
    pub async fn run(self, invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        self.run_beside(None, invocation, host).await
    }

    /// The same, with a stream of its own for what the tool's connections carry.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn run_beside(
        mut self,
        bulk: Option<Box<dyn ByteStream>>,
        invocation: Invocation,
        host: &dyn Host,
    ) -> Result<Report, RunError> {
        let (key, limit, time) = (invocation.key.clone(), invocation.output_limit, invocation.timeout);
        let wall = invocation.faces.as_ref().and_then(|_| host.wall());
        self.deliver(invocation).await?;
        self.answered().await?;
        self.writer.seal(Seal::new(&key, Direction::ToExecutor));
        self.reader.seal(Seal::new(&key, Direction::FromExecutor));
        let (outbox, queue) = Outbox::new();
        let (inlet, connections) = wall.map(|wall| Connections::open(wall, bulk, &outbox, &key)).unzip();
        let ends = Ends::default();
        let served = CancellationToken::new();
        let mut conversation = Conversation::new(self.clocks, outbox, limit, inlet.flatten(), host);
        let talking = async {
            let mut conversing = pin!(async {
                let report = conversation.run(&mut self.reader).await?;
                ends.gone.cancel();
                conversation.linger(&mut self.reader, &served).await;
                Ok(report)
            });
            let result = tokio::select! {
                result = &mut conversing => result,
                // An executor that reported and left may break our writing: what it sent is still to be read.
                _ = pump(queue, &mut self.writer) => conversing.await,
            };
            ends.over.cancel();
            result
        };
        let connecting = async {
            if let Some(connections) = connections {
                connections.serve(&ends).await;
            }
            served.cancel();
        };
        // Its executor may take a moment to end the tool. What it does outside ends now.
        let cutting = async {
            tokio::select! {
                () = host.canceled().cancelled() => {}
                () = sleep(time) => {}
                () = served.cancelled() => {}
            }
            ends.over.cancel();
        };
        tokio::join!(talking, connecting, cutting).0
    }

    async fn deliver(&mut self, invocation: Invocation) -> Result<(), RunError> {
        let frame = ToExecutor::Invocation(invocation);
        let why = match timeout(self.clocks.silence, self.writer.send(&frame)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(FrameError::TooLong)) => return Err(RunError::NotDelivered(FrameError::TooLong.to_string())),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the executor does not read".into(),
        };
        if self.writer.unfinished() { Err(RunError::NotDelivered(why)) } else { Err(RunError::Lost(why)) }
    }
}

impl<R: AsyncRead + Unpin, W> Session<R, W> {
    /// The answer to a ping that was under way when the invocation left. It comes before everything that is sealed.
    async fn answered(&mut self) -> Result<(), RunError> {
        let Some(since) = self.unanswered else { return Ok(()) };
        match timeout_at(since + self.clocks.silence, self.reader.next()).await {
            Ok(Ok(Some(FromExecutor::Ping))) => Ok(()),
            Ok(Ok(Some(_))) => Err(out_of_order()),
            Ok(Ok(None)) => Err(RunError::Lost("the stream ended without a report".into())),
            Ok(Err(error)) => Err(RunError::Lost(error.to_string())),
            Err(_) => Err(RunError::Lost(format!("the executor was silent for {:?}", self.clocks.silence))),
        }
    }
}

#[cfg(test)]
mod tests;
