//! Group commit: one task takes whatever waits in the queue and commits it as one transaction.
//!
//! While the disk works for one batch the next one gathers, so that under load dozens of writes share one wait for the disk, and a
//! write that comes alone is committed at once: there is no timer.

use mayfly_executor::{SandboxId, SandboxRow};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::folder::FolderLock;
use super::sqlite::{Checkpointer, Ledger};
use super::{AgentRow, CredentialRow, Intent, Outcome, SecretRow, StoreError};
use crate::call::CallId;

/// Most writes in one transaction.
const MAX_BATCH: usize = 512;

/// Most writes that wait; whoever comes then waits for a place.
const MAX_QUEUE: usize = 1024;

/// One write. It changes exactly one row, or is refused.
#[derive(Debug)]
pub(super) enum Write {
    /// A new call, with its outcome if it ended before it ran.
    Call(Box<Intent>, Option<Box<Outcome>>),
    /// The invocation is about to leave.
    Delivering(CallId),
    /// The outcome of an open call.
    Settle(Box<Outcome>),
    /// A sandbox is about to be created.
    OpenSandbox(SandboxRow),
    /// A sandbox is gone; one that has no row is no error.
    CloseSandbox(SandboxId),
    /// The vault.
    Secret(SecretWrite),
    /// What was minted.
    Credential(CredentialWrite),
    /// A new agent.
    AddAgent(Box<AgentRow>),
    /// An agent goes; its name stays taken.
    RemoveAgent {
        /// Its name.
        name: String,
        /// When.
        at: OffsetDateTime,
    },
    /// An agent is locked out or let in.
    SuspendAgent {
        /// Its name.
        name: String,
        /// Out or in.
        suspended: bool,
    },
}

/// A change of the vault.
#[derive(Debug)]
pub(super) enum SecretWrite {
    /// A secret, new or in its next version.
    Put(Box<SecretRow>),
    /// It goes; one that is not there is no error.
    Remove(String),
}

/// A step in the life of a credential.
#[derive(Debug)]
pub(super) enum CredentialWrite {
    /// It is about to be minted.
    Open(Box<CredentialRow>),
    /// Its source says what it is revoked by.
    Handle(Uuid, String),
    /// An attempt to revoke it failed, and why.
    Failed(Uuid, String),
    /// It is gone.
    Close(Uuid),
}

/// A write and whoever waits for it.
#[derive(Debug)]
struct Job {
    write: Write,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// The way into the queue.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    closing: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Writer {
    /// Starts the task. It holds `lock` until the last write is on the disk, also when the store was dropped before that.
    pub(super) fn spawn(ledger: Ledger, checkpointer: Checkpointer, lock: FolderLock) -> Self {
        let (queue, jobs) = mpsc::channel(MAX_QUEUE);
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (written, stop) = (Notify::new(), CancellationToken::new());
            let writing = async {
                run(ledger, jobs, closed, &written).await;
                stop.cancel();
            };
            tokio::join!(writing, checkpointer.run(&written, stop.clone()));
            drop(lock);
        });
        Self { queue, closing: Mutex::new(Some((close, task))) }
    }

    /// Queues a write and waits until it is durable, or refused.
    pub(super) async fn write(&self, write: Write) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Job { write, done }).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Ends the queue and waits until what was in it is carried out.
    pub(super) async fn close(&self) {
        let Some((close, task)) = self.closing.lock().take() else { return };
        let _ = close.send(());
        let _ = task.await;
    }
}

/// Writes what comes until the queue has ended and is empty.
async fn run(mut ledger: Ledger, mut jobs: mpsc::Receiver<Job>, mut close: oneshot::Receiver<()>, written: &Notify) {
    let mut closing = false;
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let taken = tokio::select! {
            biased;
            // Sent, or its sender dropped together with the queue's: either way the queue ends, and is emptied first.
            _ = &mut close, if !closing => {
                closing = true;
                jobs.close();
                continue;
            }
            taken = jobs.recv_many(&mut batch, MAX_BATCH) => taken,
        };
        if taken == 0 {
            break;
        }
        let (writes, waiting): (Vec<_>, Vec<_>) = batch.drain(..).map(|job: Job| (job.write, job.done)).unzip();
        let answers = ledger.write(&writes).await;
        for (done, answer) in waiting.into_iter().zip(answers) {
            // Whoever waited may have gone; the write stays.
            let _ = done.send(answer);
        }
        written.notify_one();
    }
    ledger.close().await;
}
