//! The executor's end of the wire.

use std::env;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::bulk::Bulk;
use super::call::Call;
use super::command::Run;
use super::launch::Launcher;
use super::streams::{Input, Output};
use crate::frame::{FrameReader, FrameWriter, Outbox, PING, SILENCE, pump};
use crate::seal::{Direction, Seal};
use crate::tunnel::{self, Carrier, End, Inlet};
use crate::wire::{FromExecutor, Invocation, PROTOCOL, ToExecutor};

/// How long it waits to be greeted. The greeting comes right after the start, or, where a gateway has to attach to what runs
/// already, as soon as it has seen it run.
const NOBODY: Duration = Duration::from_secs(30);

/// How long it waits for the gateway to have read its report.
const PARTING: Duration = Duration::from_secs(30);

/// It ended without a report.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether a tool may have run.
    pub(super) accepted: bool,
    /// For the operator. Nothing of the call.
    pub(super) why: String,
}

fn before(why: impl ToString) -> Ended {
    Ended { accepted: false, why: why.to_string() }
}

fn after(why: impl ToString) -> Ended {
    Ended { accepted: true, why: why.to_string() }
}

type Reader = FrameReader<Input, ToExecutor>;
type Writer = FrameWriter<Output, FromExecutor>;

/// Waits for the one invocation, runs it, reports.
pub(super) async fn serve(stdin: OwnedFd, stdout: OwnedFd, options: Run, born: Instant) -> Result<(), Ended> {
    let mut reader: Reader = FrameReader::new(Input::new(stdin).map_err(before)?);
    let mut writer: Writer = FrameWriter::new(Output::new(stdout).map_err(before)?);
    let end_of_life = born + options.life;
    let launcher = Launcher::start(options.processes).map_err(before)?;
    let bulk = match options.bulk {
        Some(port) => Some(Bulk::listen(port).await.map_err(before)?),
        None => None,
    };
    let invocation = wait(&mut reader, &mut writer, end_of_life).await?;
    let bulk = match bulk.filter(|_| invocation.faces.is_some()) {
        Some(bulk) => Some(bulk.stream().await.map_err(before)?),
        None => None,
    };
    reader.seal(Seal::new(&invocation.key, Direction::ToExecutor));
    writer.seal(Seal::new(&invocation.key, Direction::FromExecutor));
    // Nothing is started before this is written: who does not see it may trust that nothing ran, if it sees our exit code.
    writer.send(&FromExecutor::Accepted).await.map_err(before)?;
    let deadline = (Instant::now() + invocation.timeout).min(end_of_life);
    converse(reader, writer, bulk, invocation, options, launcher, deadline).await
}

/// Answers until there is an invocation. A gateway that died may leave a stream that does not end: nobody is waited for long.
async fn wait(reader: &mut Reader, writer: &mut Writer, end_of_life: Instant) -> Result<Invocation, Ended> {
    let mut heard = Instant::now() + NOBODY;
    loop {
        let frame = timeout_at(heard.min(end_of_life), reader.next()).await;
        let answer = match frame {
            Ok(Ok(Some(ToExecutor::Hello { .. }))) => FromExecutor::Hello { protocol: PROTOCOL },
            Ok(Ok(Some(ToExecutor::Ping))) => FromExecutor::Ping,
            Ok(Ok(Some(ToExecutor::Invocation(invocation)))) => return Ok(invocation),
            Ok(Ok(Some(ToExecutor::Cancel | ToExecutor::Tunnel { .. }))) => return Err(before("canceled before it was invoked")),
            Ok(Ok(None)) => return Err(before("the gateway left")),
            Ok(Err(error)) => return Err(before(error)),
            Err(_) if Instant::now() >= end_of_life => return Err(before("nobody wanted it in its life")),
            Err(_) => return Err(before("the gateway is silent")),
        };
        heard = Instant::now() + SILENCE;
        timeout(SILENCE, writer.send(&answer)).await.map_err(before)?.map_err(before)?;
    }
}

/// Runs the call while it listens and gives signs of life. When the stream fails or falls silent it returns at once: this process
/// ends, and the kernel ends the tool.
async fn converse(
    mut reader: Reader,
    mut writer: Writer,
    bulk: Option<TcpStream>,
    invocation: Invocation,
    options: Run,
    launcher: Launcher,
    deadline: Instant,
) -> Result<(), Ended> {
    let cancel = CancellationToken::new();
    let (outbox, queue) = Outbox::new();
    let kept = options.keep.iter().map(String::as_str);
    let image_environment = kept.filter_map(|name| Some((name.to_owned(), env::var(name).ok()?))).collect();
    let (inlet, carrier, _moving) = match (&invocation.faces, bulk) {
        (None, _) => (None, None, None),
        (Some(_), None) => {
            let (inlet, carrier) = Carrier::over(&outbox, |chunk| FromExecutor::Tunnel { chunk });
            (Some(inlet), Some(carrier), None)
        }
        (Some(_), Some(bulk)) => {
            let (carrier, moving) = tunnel::beside(bulk, &invocation.key, End::Executor);
            (None, Some(carrier), Some(AbortOnDropHandle::new(tokio::spawn(moving))))
        }
    };
    let (argv, cancel_call, outbox_call) = (options.argv, cancel.clone(), outbox.clone());
    let call = Call { invocation, argv, image_environment, deadline, cancel: cancel_call, outbox: outbox_call, carrier };
    let calling = async {
        let report = tokio::select! {
            report = call.run(launcher) => report.map_err(after)?,
            never = beat(outbox.clone()) => never,
        };
        outbox.send(FromExecutor::Report(report)).await.map_err(after)
    };
    let talking = async {
        tokio::select! {
            pumped = pump(queue, &mut writer) => Err(pumped.map_or_else(after, |()| after("nobody has anything to say"))),
            why = listen(&mut reader, &cancel, inlet.as_ref()) => Err::<(), _>(after(why)),
        }
    };
    let mut talking = pin!(talking);
    tokio::select! {
        biased;
        reported = calling => reported?,
        ended = &mut talking => return ended,
    }
    // What was written is not yet read, and an engine may drop what its container leaves behind. The gateway closes the stream when
    // it has the report, and what was said last on the tool's connections.
    let _ = timeout(PARTING, talking).await;
    Ok(())
}

/// Signs of life, as long as it is polled.
async fn beat<T>(outbox: Outbox<FromExecutor>) -> T {
    let mut ticks = interval_at(Instant::now() + PING, PING);
    loop {
        ticks.tick().await;
        // A full queue is a sign of life by itself.
        outbox.offer(FromExecutor::Ping);
    }
}

/// Takes what the gateway says until there is a reason to end.
async fn listen<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R, ToExecutor>,
    cancel: &CancellationToken,
    inlet: Option<&Inlet>,
) -> String {
    loop {
        match timeout(SILENCE, reader.next()).await {
            Ok(Ok(Some(ToExecutor::Ping))) => {}
            Ok(Ok(Some(ToExecutor::Cancel))) => cancel.cancel(),
            Ok(Ok(Some(ToExecutor::Tunnel { chunk }))) => {
                if inlet.is_none_or(|inlet| inlet.push(chunk).is_err()) {
                    return "more for its connections than they take".into();
                }
            }
            Ok(Ok(Some(ToExecutor::Hello { .. } | ToExecutor::Invocation(_)))) => return "a second invocation".into(),
            Ok(Ok(None)) => return "the gateway left".into(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the gateway was silent for {SILENCE:?}"),
        }
    }
}
