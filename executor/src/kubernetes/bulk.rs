//! The second stream to a pod, for what its tool's connections carry: the first is its container's standard output, which its node
//! writes to a file.
//!
//! A port-forward, and no exec: it starts no program in the pod, and needs the right to connect and no right to run anything.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::cluster::Cluster;
use super::forward::forward;
use crate::BackendKind;
use crate::error::StartError;
use crate::tunnel::{ByteStream, KEEP, READY};

/// Where the executor listens for it, on the pod's loopback.
pub(super) const PORT: u16 = 3127;
/// How long it may take to stand.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one that waits is used, so that nobody in between takes it for dead.
const EVERY: Duration = Duration::from_secs(15);

/// The stream, to an executor that has said that it is there.
pub(super) struct Bulk(Box<dyn ByteStream>);

impl Bulk {
    pub(super) async fn open(cluster: &Cluster, pod: &str) -> Result<Self, StartError> {
        let refused = |detail: &str| StartError::Refused { backend: BackendKind::Kubernetes, detail: detail.to_owned() };
        let mut stream = forward(cluster, pod, PORT).await?;
        match timeout(PATIENCE, stream.read_u8()).await {
            Ok(Ok(READY)) => Ok(Self(Box::new(stream))),
            Ok(_) => {
                Err(refused("its executor does not take a second stream; was it built by this version's `mayfly tool build`?"))
            }
            Err(_) => Err(refused("its executor did not answer on its second stream")),
        }
    }

    pub(super) fn stream(self) -> Box<dyn ByteStream> {
        self.0
    }
}

/// Keeps one open until it is used; answers when it is broken. May be dropped and called again.
pub(super) async fn kept(bulk: &mut Option<Bulk>) {
    let Some(Bulk(stream)) = bulk else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // It has nothing to say before it is used.
            _ = stream.read_u8() => return,
        }
        if stream.write_u8(KEEP).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
