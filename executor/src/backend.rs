//! The two traits every kind of sandbox implements, and the two that the gateway implements for them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::egress::Wall;
use crate::error::{BackendError, LedgerError, RunError, StartError};
use crate::spec::{BackendKind, SandboxSpec};
use crate::wire::{Invocation, Progress, Report};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One sandbox. We choose it before the engine hears of it, so that the ledger can know it first.
    SandboxId
);
uuid_id!(
    /// One installation of the gateway: what it started carries this id. It lives in the store, so a restart keeps it.
    InstanceId
);

impl SandboxId {
    /// A new id, ordered by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

/// A sandbox as its engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id, from its label.
    pub id: SandboxId,
    /// Who started it.
    pub instance: InstanceId,
    /// When it is anyone's to destroy.
    pub expires_at: SystemTime,
}

/// A source of sandboxes. Object-safe; one implementation a technology.
///
/// Guarantees: `destroy` is idempotent, and after it returns `Ok` the sandbox is not listed any more. `list` shows what the
/// engine has, not what we remember. Dropping a [`Sandbox`] is not teardown: whoever started it keeps its id.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Which one this is.
    fn kind(&self) -> BackendKind;

    /// Whether its sandboxes outlive this process, and so need a durable row before they are created.
    fn outlives_process(&self) -> bool;

    /// Whether the engine answers: a sentence with its version.
    async fn probe(&self) -> Result<String, BackendError>;

    /// Makes sure that `spec` can start (image present and an executor image, module compiled and cached), so that the first call
    /// does not find out.
    async fn prepare(&self, spec: &SandboxSpec) -> Result<(), StartError>;

    /// Starts a sandbox under `id`, ready for its one invocation.
    async fn start(&self, id: SandboxId, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError>;

    /// Every sandbox of this kind that the engine has, whoever started it and in whatever state.
    async fn list(&self) -> Result<Vec<Found>, BackendError>;

    /// Ends and removes a sandbox, or finds that it is gone already.
    async fn destroy(&self, id: SandboxId) -> Result<(), BackendError>;
}

/// One started, isolated place that can run one invocation.
#[async_trait]
pub trait Sandbox: Send {
    /// Its id.
    fn id(&self) -> SandboxId;

    /// Waits, with the sandbox, for its invocation; answers why when it is lost before that. May be dropped at any time, and called
    /// again.
    async fn idle(&mut self) -> String {
        std::future::pending().await
    }

    /// Gets what only this call may have and only the engine can give (a token), before the call's own clock runs and before
    /// anything of it is delivered.
    async fn mint(&mut self, _: &Invocation) -> Result<(), StartError> {
        Ok(())
    }

    /// Runs the one invocation, and consumes the sandbox: a second use does not compile.
    ///
    /// Guarantees: when it returns a report, nothing of the call runs any more. It watches `host.canceled()` and ends the tool
    /// soon after. It does not return later than the invocation's timeout and a few seconds.
    async fn invoke(self: Box<Self>, invocation: Invocation, host: &dyn Host) -> Result<Report, RunError>;
}

/// What a running sandbox may ask of the gateway and tell it.
#[async_trait]
pub trait Host: Send + Sync {
    /// Told in order; must not block.
    fn observe(&self, event: Event);

    /// Resolves when the call is to end early.
    fn canceled(&self) -> &CancellationToken;

    /// What the call may connect to; `None`: nothing.
    fn wall(&self) -> Option<Arc<Wall>> {
        None
    }

    /// The sandbox's end begins. What is returned is dropped when it is gone, which may be after the answer.
    fn tearing_down(&self) -> Box<dyn Send> {
        Box::new(())
    }

    /// Asked once, right before the first byte of the invocation leaves. An error ends the call undelivered.
    async fn delivering(&self) -> Result<(), LedgerError>;
}

/// What happens to a call inside the dispatcher.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A warm sandbox is being asked for.
    Claiming,
    /// There was one, and it is the call's now.
    Claimed(SandboxId),
    /// A sandbox is being started under this id.
    Starting(SandboxId),
    /// It is up and waits for its invocation.
    Started,
    /// The executor has the invocation; the tool starts.
    Accepted,
    /// The tool said how far it is.
    Progress(Progress),
    /// A line of its standard error.
    Log(String),
    /// The report is here (or will not come); teardown begins.
    Ended,
}

/// The durable row of a sandbox that outlives our process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRow {
    /// Its id.
    pub id: SandboxId,
    /// Where it runs.
    pub backend: BackendKind,
    /// The call it was started for, when there was one.
    pub call_id: Option<String>,
    /// When it is anyone's to destroy.
    pub expires_at: SystemTime,
}

/// The part of the ledger that sandboxes need. Written before creation, cleared after destruction.
#[async_trait]
pub trait SandboxLedger: Send + Sync {
    /// Durable when it returns.
    async fn opening(&self, row: &SandboxRow) -> Result<(), LedgerError>;
    /// The engine has it no more.
    async fn closed(&self, id: SandboxId) -> Result<(), LedgerError>;
    /// Every row that is open.
    async fn open_rows(&self) -> Result<Vec<SandboxRow>, LedgerError>;
}

/// How long after its deadline a report may still arrive: the executor kills, reaps and collects in that time.
pub(crate) const REPORT_GRACE: Duration = Duration::from_secs(5);
