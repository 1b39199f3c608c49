//! One call inside a store of its own.
//!
//! # Flow
//! store -> instantiate -> run, until it ends, its deadline passes, it is canceled or destroyed -> store dropped -> report
//!
//! # Guarantees
//! The guest runs on the task that awaits the invocation and on no other, so that it is gone when that future is. It pauses
//! at every tick of the epoch, which is when lines are told, and a cancel or the deadline is seen; while it waits in the
//! host they are seen at once.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use crate::egress::Begun;
use crate::error::RunError;
use crate::spec::ByteSize;
use crate::wire::{Exit, Invocation, Report, Resource, Span, Usage, clip};
use crate::{Event, Host, Sandbox, SandboxId};

use super::Shared;
use super::guest::Guest;
use super::http::{Http, Outgoing};
use super::live::Listed;
use super::program::{Program, first_line};
use super::streams::Streams;

/// The number that a trap reports as its signal.
const SIGILL: i32 = 4;

/// Why we ended a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Stop {
    #[error("its deadline has passed")]
    Deadline,
    #[error("the call was canceled")]
    Canceled,
    #[error("it wrote more than its output limit")]
    OutputLimit,
}

/// A place in the pool, and the program that will take it. Dropped, it gives the place back.
pub(super) struct WasmSandbox {
    pub(super) shared: Arc<Shared>,
    pub(super) program: Arc<Program>,
    pub(super) source: PathBuf,
    pub(super) memory: ByteSize,
    pub(super) dies_at: Instant,
    // Fields are dropped in this order: no longer listed, then the place is free.
    pub(super) listed: Listed,
    pub(super) _place: OwnedSemaphorePermit,
}

#[async_trait]
impl Sandbox for WasmSandbox {
    fn id(&self) -> SandboxId {
        self.listed.id
    }

    async fn invoke(self: Box<Self>, invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        if !self.listed.begin() {
            return Err(RunError::NotDelivered("the sandbox was destroyed before".into()));
        }
        host.observe(Event::Accepted);
        Ok(self.run(invocation, host).await)
    }
}

/// How the run went, before it is put into the words of a report.
struct Ended {
    result: Result<i32, wasmtime::Error>,
    instantiated: Option<Duration>,
    cpu: Duration,
}

impl WasmSandbox {
    async fn run(&self, invocation: Invocation, host: &dyn Host) -> Report {
        let begun = Begun::now();
        let streams = Streams::new(invocation.output_limit.0);
        if let Some(detail) = not_expressible(&invocation) {
            let ended = Ended { result: Err(wasmtime::Error::msg(detail)), instantiated: None, cpu: Duration::ZERO };
            return report(ended, begun, None, streams, host);
        }
        let now = Instant::now();
        let deadline = now.checked_add(invocation.timeout).unwrap_or(self.dies_at).min(self.dies_at);
        let outgoing = self.outgoing(host);
        let http = Http(outgoing.clone());
        let limits = (&streams, http, deadline);
        let mut store = Guest::store(&self.shared.engine, &invocation, &self.source, self.memory, limits);
        let ended = self.drive(&mut store, &streams, deadline, host, begun).await;
        // From here on the instance is gone, and with it the tasks of its requests.
        let guest = store.into_data();
        let ceiling = (guest.ceiling().peak(), guest.ceiling().denied());
        drop(guest);
        if let Some(outgoing) = outgoing {
            outgoing.finish().await;
        }
        report(ended, begun, Some(ceiling), streams, host)
    }

    /// The call's way out, when it has one. Core modules have none: preview 1 knows no HTTP.
    fn outgoing(&self, host: &dyn Host) -> Option<Arc<Outgoing>> {
        let wall = host.wall().filter(|wall| matches!(*self.program, Program::Component(_)) && !wall.is_closed())?;
        Some(Outgoing::new(wall, self.shared.http))
    }

    async fn drive(
        &self,
        store: &mut wasmtime::Store<Guest>,
        streams: &Streams,
        deadline: Instant,
        host: &dyn Host,
        begun: Begun,
    ) -> Ended {
        let mut instantiated = None;
        let mut cpu = Duration::ZERO;
        let result = {
            let mut run = pin!(self.program.run(store, || instantiated = Some(begun.elapsed())));
            // The guest runs inside `poll`, and nowhere else: what these polls take is its time, host functions included.
            let run = poll_fn(|cx| {
                let polled = Instant::now();
                let result = run.as_mut().poll(cx);
                cpu += polled.elapsed();
                streams.deliver(host);
                result
            });
            tokio::select! {
                biased;
                () = host.canceled().cancelled() => Err(Stop::Canceled.into()),
                () = self.listed.kill.cancelled() => Err(Stop::Canceled.into()),
                () = tokio::time::sleep_until(deadline) => Err(Stop::Deadline.into()),
                result = run => result,
            }
        };
        Ended { result, instantiated, cpu }
    }
}

/// Arguments and variables end at a NUL for the guest, so one inside would say something else than was authorized.
fn not_expressible(invocation: &Invocation) -> Option<&'static str> {
    let has_nul = |text: &str| text.contains('\0');
    if invocation.command.iter().any(|argument| has_nul(argument)) {
        return Some("an argument contains a NUL byte");
    }
    if !invocation.files.is_empty() {
        return Some("a wasm sandbox has no files");
    }
    let bad_name = |name: &String| name.is_empty() || name.contains('=');
    let bad = invocation.environment.iter().any(|(name, value)| has_nul(name) || has_nul(value.expose()) || bad_name(name));
    bad.then_some("an environment variable has a NUL byte, or a name that is empty or contains `=`")
}

/// Puts the end into words.
fn exit_of(result: &Result<i32, wasmtime::Error>, instantiated: bool, denied: bool) -> (Exit, Option<String>) {
    let error = match result {
        Ok(code) => return (Exit::Code(*code), None),
        Err(error) => error,
    };
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return (Exit::Code(*code), None);
    }
    match error.downcast_ref() {
        Some(Stop::Deadline) => return (Exit::Deadline, None),
        Some(Stop::Canceled) => return (Exit::Canceled, None),
        Some(Stop::OutputLimit) => return (Exit::OutputLimit, None),
        None => {}
    }
    let trap = error.downcast_ref::<Trap>();
    let detail = trap.map_or_else(|| first_line(error), ToString::to_string);
    let exit = if denied {
        Exit::OutOfMemory
    } else if instantiated || trap.is_some() {
        Exit::Signal(SIGILL)
    } else {
        Exit::NotStarted
    };
    (exit, Some(clip(&detail).to_owned()))
}

fn report(ended: Ended, begun: Begun, ceiling: Option<(usize, bool)>, streams: Streams, host: &dyn Host) -> Report {
    let collected = streams.collect(host);
    let (peak, denied) = ceiling.unwrap_or_default();
    let (exit, detail) = exit_of(&ended.result, ended.instantiated.is_some(), denied);
    let mut exhausted = BTreeSet::new();
    if denied {
        exhausted.insert(Resource::Memory);
    }
    if collected.overflowed {
        exhausted.insert(Resource::Output);
    }
    let instantiation = begun.span(
        "wasm.instantiate".to_owned(),
        ended.instantiated.unwrap_or_else(|| begun.elapsed()),
        std::collections::BTreeMap::new(),
        ended.instantiated.is_none(),
    );
    Report {
        exit,
        detail,
        stdout: collected.stdout,
        stderr: collected.stderr,
        stderr_truncated: collected.stderr_truncated,
        exhausted,
        usage: Usage { cpu: ended.cpu, peak_memory: ceiling.map(|_| peak as u64) },
        spans: vec![Span { id: 1, ..instantiation }],
    }
}
