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
//! The deadline is the executor's, and behind it the dispatcher's. The stream is dropped with the session, which ends the executor.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::pending;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::egress::{self, Ends};
use crate::error::RunError;
use crate::frame::{FrameError, FrameReader, FrameWriter, Outbox, PING, SILENCE, pump};
use crate::seal::{Direction, Seal};
use crate::spec::ByteSize;
use crate::tunnel::{self, ByteStream, Carrier, End, Inlet};
use crate::wire::{self, FromExecutor, Invocation, MAX_SPANS, PROTOCOL, Progress, Report, STDERR_TAIL, ToExecutor};
use crate::{Event, Host};

/// How long a canceled executor has for its report.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// How long what a tool said last on its connections has to get where it goes, once its report is here.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most progress and log lines that are passed on from one call; the rest is in the report's tail.
pub const MAX_LINES: usize = 10_000;

/// The clocks of one session.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    ping: Duration,
    silence: Duration,
    cancel_grace: Duration,
}

const CLOCKS: Clocks = Clocks { ping: PING, silence: SILENCE, cancel_grace: CANCEL_GRACE };

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
        let (key, limit, timeout) = (invocation.key.clone(), invocation.output_limit, invocation.timeout);
        let wall = invocation.faces.as_ref().and_then(|_| host.wall());
        self.deliver(invocation).await?;
        self.answered().await?;
        self.writer.seal(Seal::new(&key, Direction::ToExecutor));
        self.reader.seal(Seal::new(&key, Direction::FromExecutor));
        let (outbox, queue) = Outbox::new();
        let (inlet, tunnel) = match (wall, bulk) {
            (None, _) => (None, None),
            (Some(wall), None) => {
                let (inlet, carrier) = Carrier::over(&outbox, |chunk| ToExecutor::Tunnel { chunk });
                (Some(inlet), Some((carrier, pending().boxed(), wall)))
            }
            (Some(wall), Some(bulk)) => {
                let (carrier, moving) = tunnel::beside(bulk, &key, End::Gateway);
                (None, Some((carrier, moving.boxed(), wall)))
            }
        };
        let ends = Ends::default();
        let served = CancellationToken::new();
        let talking = async {
            let mut conversation = Conversation::new(self.clocks, outbox, limit, inlet, host);
            let mut conversing = pin!(async {
                let report = conversation.run(&mut self.reader).await?;
                ends.gone.cancel();
                conversation.last_words(&mut self.reader, &served).await;
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
            if let Some((carrier, moving, wall)) = tunnel {
                let mut serving = pin!(egress::serve(carrier, wall, &ends));
                tokio::select! {
                    () = &mut serving => {}
                    // A stream that ended or broke ends the connections, with what they still carry, and not the call.
                    () = moving => serving.await,
                }
            }
            served.cancel();
        };
        // Its executor may take a moment to end the tool. What it does outside ends now.
        let cutting = async {
            tokio::select! {
                () = host.canceled().cancelled() => {}
                () = sleep(timeout) => {}
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

/// What has been said since the invocation.
struct Conversation<'a> {
    clocks: Clocks,
    outbox: Outbox<ToExecutor>,
    limit: ByteSize,
    /// Where what its connections carry goes, where it may have any.
    inlet: Option<Inlet>,
    host: &'a dyn Host,
    accepted: bool,
    stdout: BytesMut,
    lines: usize,
}

impl<'a> Conversation<'a> {
    fn new(clocks: Clocks, outbox: Outbox<ToExecutor>, limit: ByteSize, inlet: Option<Inlet>, host: &'a dyn Host) -> Self {
        Self { clocks, outbox, limit, inlet, host, accepted: false, stdout: BytesMut::new(), lines: 0 }
    }

    async fn run<R: AsyncRead + Unpin>(&mut self, reader: &mut FrameReader<R, FromExecutor>) -> Result<Report, RunError> {
        let Clocks { ping, silence, cancel_grace } = self.clocks;
        let mut pings = interval_at(Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut give_up: Option<Instant> = None;
        loop {
            tokio::select! {
                frame = timeout_at(heard + silence, reader.next()) => {
                    let frame = frame.map_err(|_| RunError::Lost(format!("the executor was silent for {silence:?}")))?;
                    heard = Instant::now();
                    if let Some(report) = self.take(frame)? {
                        return Ok(report);
                    }
                }
                _ = pings.tick() => { self.outbox.offer(ToExecutor::Ping); }
                () = self.host.canceled().cancelled(), if give_up.is_none() => {
                    // It has to get there, however much of what connections carry is queued ahead of it.
                    let outbox = self.outbox.clone();
                    tokio::spawn(async move { outbox.send(ToExecutor::Cancel).await });
                    give_up = Some(Instant::now() + cancel_grace);
                }
                () = sleep_until(give_up.unwrap_or(heard)), if give_up.is_some() => {
                    return Err(RunError::Lost(format!("canceled, and no report within {cancel_grace:?}")));
                }
            }
        }
    }

    /// Takes what the tool had said on its connections when it ended, until that is `served`. Nothing more is taken of a call that
    /// was canceled.
    async fn last_words<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R, FromExecutor>, served: &CancellationToken) {
        let taking = async {
            while let Ok(Some(frame)) = reader.next().await {
                if let FromExecutor::Tunnel { chunk } = frame
                    && self.tunnel(chunk).is_err()
                {
                    return;
                }
            }
            // A stream of its own may be open still.
            served.cancelled().await;
        };
        tokio::select! {
            () = served.cancelled() => {}
            () = sleep(LAST_WORDS) => {}
            () = taking => {}
        }
    }

    fn take(&mut self, frame: Result<Option<FromExecutor>, FrameError>) -> Result<Option<Report>, RunError> {
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(RunError::Lost("the stream ended without a report".into())),
            Err(FrameError::Stream(error)) => return Err(RunError::Lost(error.to_string())),
            Err(error) => return Err(RunError::Protocol(error.to_string())),
        };
        match frame {
            FromExecutor::Ping => {}
            FromExecutor::Accepted if !self.accepted => {
                self.accepted = true;
                self.host.observe(Event::Accepted);
            }
            FromExecutor::Hello { .. } | FromExecutor::Accepted => return Err(out_of_order()),
            _ if !self.accepted => return Err(out_of_order()),
            FromExecutor::Progress(progress) => self.line(bounded_progress(progress).map(Event::Progress)),
            FromExecutor::Log { line } => self.line(Some(Event::Log(wire::clip(&line).to_owned()))),
            FromExecutor::Output { chunk } => self.output(&chunk)?,
            FromExecutor::Tunnel { chunk } => self.tunnel(chunk)?,
            FromExecutor::Report(report) => return self.finish(report).map(Some),
        }
        Ok(None)
    }

    fn line(&mut self, event: Option<Event>) {
        self.lines += 1;
        if let Some(event) = event.filter(|_| self.lines <= MAX_LINES) {
            self.host.observe(event);
        }
    }

    fn tunnel(&self, chunk: Bytes) -> Result<(), RunError> {
        let inlet = self.inlet.as_ref().ok_or_else(out_of_order)?;
        inlet.push(chunk).map_err(|_| RunError::Protocol("more from its connections than they were given room for".into()))
    }

    fn output(&mut self, chunk: &Bytes) -> Result<(), RunError> {
        if (self.stdout.len() + chunk.len()) as u64 > self.limit.0 {
            return Err(RunError::Protocol("more output than the call's limit".into()));
        }
        self.stdout.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(&mut self, mut report: Report) -> Result<Report, RunError> {
        self.output(&std::mem::take(&mut report.stdout))?;
        report.stdout = std::mem::take(&mut self.stdout).freeze();
        Ok(bounded(report))
    }
}

fn out_of_order() -> RunError {
    RunError::Protocol("a frame came out of order".into())
}

fn clip(text: &mut String) {
    text.truncate(wire::clip(text).len());
}

fn bounded_progress(mut progress: Progress) -> Option<Progress> {
    progress.message.as_mut().map(clip);
    (progress.progress.is_finite() && progress.total.is_none_or(f64::is_finite)).then_some(progress)
}

/// Cuts what a report may hold beside its output to the size that honest executors keep to.
fn bounded(mut report: Report) -> Report {
    report.detail.as_mut().map(clip);
    if report.stderr.len() > STDERR_TAIL {
        report.stderr = report.stderr.split_off(report.stderr.len() - STDERR_TAIL);
        report.stderr_truncated = true;
    }
    report.spans.truncate(MAX_SPANS);
    for span in &mut report.spans {
        clip(&mut span.name);
        span.end_unix_nanos = span.end_unix_nanos.max(span.start_unix_nanos);
        let attributes = std::mem::take(&mut span.attributes).into_iter().take(MAX_SPANS);
        span.attributes = attributes.map(|(name, value)| (wire::clip(&name).to_owned(), wire::clip(&value).to_owned())).collect();
    }
    report
}

#[cfg(test)]
mod tests;
