//! What an executor says between its invocation and its report, each frame in its order and within its bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error::RunError;
use crate::frame::{FrameError, FrameReader, Outbox};
use crate::spec::ByteSize;
use crate::tunnel::Inlet;
use crate::wire::{self, FromExecutor, MAX_SPANS, Progress, Report, STDERR_TAIL, ToExecutor};
use crate::{Event, Host};

/// Most progress and log lines that are passed on from one call; the rest is in the report's tail.
pub const MAX_LINES: usize = 10_000;

/// The clocks of one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) ping: Duration,
    pub(super) silence: Duration,
    pub(super) cancel_grace: Duration,
    pub(super) linger: Duration,
}

/// What has been said since the invocation.
pub(super) struct Conversation<'a> {
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
    pub(super) fn new(
        clocks: Clocks,
        outbox: Outbox<ToExecutor>,
        limit: ByteSize,
        inlet: Option<Inlet>,
        host: &'a dyn Host,
    ) -> Self {
        Self { clocks, outbox, limit, inlet, host, accepted: false, stdout: BytesMut::new(), lines: 0 }
    }

    pub(super) async fn run<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut FrameReader<R, FromExecutor>,
    ) -> Result<Report, RunError> {
        let Clocks { ping, silence, cancel_grace, .. } = self.clocks;
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
    pub(super) async fn linger<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R, FromExecutor>,
        served: &CancellationToken,
    ) {
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
            () = sleep(self.clocks.linger) => {}
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

pub(super) fn out_of_order() -> RunError {
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
pub(super) fn bounded(mut report: Report) -> Report {
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
