//! The executor's end of the wire.

use std::env;
use std::os::fd::OwnedFd;

use tokio::io::AsyncRead;
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::command::Run;
use super::streams::{Input, Output};
use crate::frame::{FrameReader, FrameWriter, Outbox, PING, SILENCE, pump};
use crate::seal::{Direction, Seal};
use crate::wire::{FromExecutor, Invocation, PROTOCOL, ToExecutor};

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

/// Greets, waits for the one invocation, runs it, reports.
pub(super) async fn serve(stdin: OwnedFd, stdout: OwnedFd, options: Run, born: Instant) -> Result<(), Ended> {
    let mut reader: Reader = FrameReader::new(Input::new(stdin).map_err(before)?);
    let mut writer: Writer = FrameWriter::new(Output::new(stdout).map_err(before)?);
    let end_of_life = born + options.life;
    writer.send(&FromExecutor::Hello { protocol: PROTOCOL }).await.map_err(before)?;
    let invocation = match timeout_at(end_of_life, reader.next()).await {
        Ok(Ok(Some(ToExecutor::Invocation(invocation)))) => invocation,
        Ok(Ok(Some(_))) => return Err(before("the first frame was no invocation")),
        Ok(Ok(None)) => return Err(before("the gateway left")),
        Ok(Err(error)) => return Err(before(error)),
        Err(_) => return Err(before("nobody wanted it in its life")),
    };
    reader.seal(Seal::new(&invocation.key, Direction::ToExecutor));
    writer.seal(Seal::new(&invocation.key, Direction::FromExecutor));
    // Nothing is started before this is written: who does not see it may trust that nothing ran, if it sees our exit code.
    writer.send(&FromExecutor::Accepted).await.map_err(before)?;
    let deadline = (Instant::now() + invocation.timeout).min(end_of_life);
    converse(reader, writer, invocation, options, deadline).await
}

/// Runs the call while it listens and gives signs of life. When the stream fails or falls silent it returns at once: this process
/// ends, and the kernel ends the tool.
async fn converse(
    mut reader: Reader,
    mut writer: Writer,
    invocation: Invocation,
    options: Run,
    deadline: Instant,
) -> Result<(), Ended> {
    let cancel = CancellationToken::new();
    let (outbox, queue) = Outbox::new();
    let image_environment = options.keep.iter().filter_map(|name| Some((name.clone(), env::var(name).ok()?))).collect();
    let call =
        Call { invocation, argv: options.argv, image_environment, deadline, cancel: cancel.clone(), outbox: outbox.clone() };
    let calling = async {
        let report = tokio::select! {
            report = call.run() => report.map_err(after)?,
            never = beat(outbox.clone()) => never,
        };
        outbox.send(FromExecutor::Report(report)).await.map_err(after)?;
        // The last sender: the pump writes what is queued and ends.
        drop(outbox);
        Ok(())
    };
    let pumping = async { pump(queue, &mut writer).await.map_err(after) };
    tokio::select! {
        why = listen(&mut reader, &cancel) => Err(after(why)),
        done = async { tokio::try_join!(calling, pumping) } => done.map(|_| ()),
    }
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
async fn listen<R: AsyncRead + Unpin>(reader: &mut FrameReader<R, ToExecutor>, cancel: &CancellationToken) -> String {
    loop {
        match timeout(SILENCE, reader.next()).await {
            Ok(Ok(Some(ToExecutor::Ping))) => {}
            Ok(Ok(Some(ToExecutor::Cancel))) => cancel.cancel(),
            Ok(Ok(Some(ToExecutor::Invocation(_)))) => return "a second invocation".into(),
            Ok(Ok(None)) => return "the gateway left".into(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the gateway was silent for {SILENCE:?}"),
        }
    }
}
