//! One call, from the start of its tool until nothing of it is left.

use std::collections::BTreeMap;
use std::io;
use std::mem::take;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::process::{Signal, WaitStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cgroup::{Counters, Growth};
use super::exec::Program;
use super::faces::Faces;
use super::files;
use super::launch::{self, Launcher, Tool};
use super::loopback;
use super::output::{self, Tail};
use super::reap::Reaper;
use crate::frame::Outbox;
use crate::tunnel::Carrier;
use crate::wire::{Exit, FromExecutor, Invocation, Report, Resource, Span};

/// How long the gateway has to take what is left in the pipes, and on the connections, once the tool is dead.
const DRAIN: Duration = Duration::from_secs(4);

/// Everything a call needs.
pub(super) struct Call {
    pub(super) invocation: Invocation,
    /// What the image runs when the invocation names no command.
    pub(super) argv: Vec<String>,
    /// Variables that the image sets and its tool is to have.
    pub(super) image_environment: Vec<(String, String)>,
    pub(super) deadline: Instant,
    pub(super) cancel: CancellationToken,
    pub(super) outbox: Outbox<FromExecutor>,
    /// What its connections are carried by, where it may have any.
    pub(super) carrier: Option<Carrier>,
}

/// Why the tool is over.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Ended(WaitStatus),
    NotStarted,
    Canceled,
    Deadline,
    OutputLimit,
}

impl Call {
    /// Makes `launcher` the tool, and sees it to its end. When it returns, this process is alone.
    ///
    /// # Errors
    /// When that cannot be made sure, or the gateway does not take the output: then there must be no report.
    pub(super) async fn run(mut self, launcher: Launcher) -> io::Result<Report> {
        let before = Counters::read();
        let mut spans = Spans::default();
        let mut reaper = Reaper::new()?;
        let started = spans.begin();
        let gone = CancellationToken::new();
        let _over = gone.clone().drop_guard();
        let launched = match self.open(gone) {
            Ok(()) => self.launch(launcher).await,
            Err(why) => Ok(Err(why)),
        };
        spans.end("process.start", started, !matches!(launched, Ok(Ok(_))));
        let running = spans.begin();
        let outcome = match launched {
            Ok(Ok(tool)) => self.attend(tool, &mut reaper, &mut spans, running).await?,
            Ok(Err(why)) => {
                reaper.everything().await?;
                Outcome { detail: Some(why), ..Outcome::new(Cause::NotStarted) }
            }
            Err(_) => {
                reaper.everything().await?;
                Outcome::new(Cause::Deadline)
            }
        };
        Ok(outcome.report(&Counters::read().since(before), launch::scratch_is_full(), spans.0))
    }

    /// Opens the way out, before there is anybody to take it. What the tool said on it still gets out once it is `gone`.
    fn open(&mut self, gone: CancellationToken) -> Result<(), String> {
        let (Some(faces), Some(carrier)) = (&self.invocation.faces, self.carrier.take()) else { return Ok(()) };
        let listening = Faces::open(faces)?;
        tokio::spawn(async move {
            let late = async {
                gone.cancelled().await;
                sleep(DRAIN).await;
            };
            tokio::select! {
                () = listening.serve(carrier, gone.clone()) => {}
                () = late => {}
            }
        });
        Ok(())
    }

    /// Hands the call's credentials over. From here on the tool has them, and this process does not.
    async fn launch(&mut self, launcher: Launcher) -> Result<Result<Tool, String>, Elapsed> {
        let (files, environment) = (take(&mut self.invocation.files), take(&mut self.invocation.environment));
        if let Err(why) = files::write(&files) {
            return Ok(Err(why));
        }
        let image = take(&mut self.image_environment);
        let proxy = self.invocation.faces.as_ref().map(|faces| faces.proxy);
        let environment = launch::environment(image, &self.invocation.traceparent, proxy, environment);
        let argv = if self.invocation.command.is_empty() { &mut self.argv } else { &mut self.invocation.command };
        let program = Program { argv: take(argv), environment, sockets: self.invocation.sockets };
        timeout_at(self.deadline, launcher.launch(&program)).await
    }

    /// Serves the tool's pipes until it is over, then ends everything and empties them. No end of a pipe is waited for before
    /// that: a daemon may hold one forever.
    async fn attend(&self, tool: Tool, reaper: &mut Reaper, spans: &mut Spans, running: SystemTime) -> io::Result<Outcome> {
        let Tool { pid, stdin, stdout, stderr, asks } = tool;
        let _asked = asks.map(|asks| AbortOnDropHandle::new(tokio::spawn(loopback::serve(asks))));
        let feeding = tokio::spawn(feed(stdin, self.invocation.stdin.clone()));
        let mut stdout = tokio::spawn(output::stdout(stdout, self.invocation.output_limit.0, self.outbox.clone()));
        let stderr = tokio::spawn(output::stderr(stderr, self.outbox.clone()));
        let mut over = None;
        let cause = loop {
            tokio::select! {
                biased;
                status = reaper.tool(pid) => break Cause::Ended(status?),
                () = self.cancel.cancelled() => break Cause::Canceled,
                () = sleep_until(self.deadline) => break Cause::Deadline,
                ended = &mut stdout, if over.is_none() => {
                    over = Some(ended?);
                    if over == Some(true) {
                        break Cause::OutputLimit;
                    }
                }
            }
        };
        spans.end("process.run", running, !matches!(cause, Cause::Ended(status) if status.exit_status() == Some(0)));
        let reaping = spans.begin();
        reaper.everything().await?;
        files::unsay();
        feeding.abort();
        let until = Instant::now() + DRAIN;
        let over = match over {
            Some(over) => over,
            None => timeout_at(until, stdout).await??,
        };
        let tail = timeout_at(until, stderr).await??;
        spans.end("process.reap", reaping, false);
        Ok(Outcome { over, tail, ..Outcome::new(cause) })
    }
}

/// Writes what the tool reads, and closes it. A tool that does not care to read it all is free to.
async fn feed(mut stdin: pipe::Sender, bytes: Bytes) {
    let _ = stdin.write_all(&bytes).await;
}

/// A tool that is over and all that it left behind.
struct Outcome {
    cause: Cause,
    detail: Option<String>,
    over: bool,
    tail: Tail,
}

impl Outcome {
    fn new(cause: Cause) -> Self {
        Self { cause, detail: None, over: false, tail: Tail::default() }
    }

    fn report(self, growth: &Growth, scratch_full: bool, spans: Vec<Span>) -> Report {
        let exit = exit(self.cause, self.over, growth.oom_killed);
        let mut exhausted = growth.exhausted();
        let hit = [(Resource::Disk, scratch_full), (Resource::Output, self.over), (Resource::Memory, exit == Exit::OutOfMemory)];
        exhausted.extend(hit.into_iter().filter_map(|(resource, hit)| hit.then_some(resource)));
        Report {
            exit,
            detail: self.detail,
            stdout: Bytes::new(),
            stderr: self.tail.bytes,
            stderr_truncated: self.tail.truncated,
            exhausted,
            usage: growth.usage.clone(),
            spans,
        }
    }
}

/// How the tool ended, in the wire's words.
///
/// A `SIGKILL` that is not ours is the kernel's, for memory, if the kernel counted one; where its counters cannot be read
/// (`oom_killed` is `None`) it is taken for that too, since nothing else in the container has a reason to send it.
fn exit(cause: Cause, over: bool, oom_killed: Option<bool>) -> Exit {
    let status = match cause {
        Cause::NotStarted => return Exit::NotStarted,
        Cause::Canceled => return Exit::Canceled,
        Cause::Deadline => return Exit::Deadline,
        Cause::OutputLimit => return Exit::OutputLimit,
        // It ended by itself, and only then was the rest of its output seen.
        Cause::Ended(_) if over => return Exit::OutputLimit,
        Cause::Ended(status) => status,
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) if signal == Signal::KILL.as_raw() && oom_killed != Some(false) => Exit::OutOfMemory,
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// The spans of this call.
#[derive(Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn begin(&self) -> SystemTime {
        SystemTime::now()
    }

    fn end(&mut self, name: &str, begun: SystemTime, error: bool) {
        let nanos = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or_default()
        };
        let start_unix_nanos = nanos(begun);
        self.0.push(Span {
            id: self.0.len() as u64 + 1,
            parent: None,
            name: name.to_owned(),
            start_unix_nanos,
            end_unix_nanos: nanos(SystemTime::now()).max(start_unix_nanos),
            attributes: BTreeMap::new(),
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// What the kernel says of a shell that ran `script`.
    #[expect(clippy::zombie_processes, reason = "it is waited for, by the call that the executor uses")]
    fn ended(script: &str) -> Cause {
        use rustix::process::{Pid, WaitOptions, waitpid};
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        Cause::Ended(waitpid(pid, WaitOptions::empty()).unwrap().unwrap().1)
    }

    #[test]
    fn an_end_is_told_as_what_it_was() {
        assert_eq!(exit(ended("exit 7"), false, Some(false)), Exit::Code(7));
        assert_eq!(exit(ended("exit 0"), true, Some(false)), Exit::OutputLimit);
        assert_eq!(exit(ended("kill -TERM $$"), false, Some(true)), Exit::Signal(15));
        assert_eq!(exit(ended("kill -KILL $$"), false, Some(true)), Exit::OutOfMemory);
        assert_eq!(exit(ended("kill -KILL $$"), false, None), Exit::OutOfMemory);
        assert_eq!(exit(ended("kill -KILL $$"), false, Some(false)), Exit::Signal(9));
        // A shell that survived its child says so in its own exit code.
        assert_eq!(exit(ended("exit 137"), false, Some(true)), Exit::Code(137));
        assert_eq!(exit(Cause::Deadline, true, Some(true)), Exit::Deadline);
        assert_eq!(std::process::ExitStatus::from_raw(9).signal(), Some(9));
    }
}
