//! The sandboxes that exist right now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Found, InstanceId, SandboxId};

/// Longest time that a killed sandbox may take to be gone. It takes one tick and the freeing of its memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// All of them.
#[derive(Default)]
pub(super) struct Live {
    entries: Mutex<HashMap<SandboxId, Entry>>,
    /// Woken whenever one is gone.
    gone: Notify,
}

struct Entry {
    expires_at: SystemTime,
    kill: CancellationToken,
    running: bool,
}

/// Keeps one sandbox listed for as long as it lives.
pub(super) struct Listed {
    live: Arc<Live>,
    pub(super) id: SandboxId,
    /// Canceled when the sandbox is to end.
    pub(super) kill: CancellationToken,
}

impl Live {
    pub(super) fn enter(self: &Arc<Self>, id: SandboxId, expires_at: SystemTime) -> Listed {
        let kill = CancellationToken::new();
        self.entries.lock().insert(id, Entry { expires_at, kill: kill.clone(), running: false });
        Listed { live: self.clone(), id, kill }
    }

    pub(super) fn list(&self, instance: InstanceId) -> Vec<Found> {
        self.entries.lock().iter().map(|(id, entry)| Found { id: *id, instance, expires_at: entry.expires_at }).collect()
    }

    /// Kills a sandbox and waits until it is gone. Says whether it is.
    pub(super) async fn kill(&self, id: SandboxId) -> bool {
        let waiting = async {
            loop {
                let mut gone = std::pin::pin!(self.gone.notified());
                // Listening before looking: what goes in between is not missed.
                gone.as_mut().enable();
                if !self.ask_to_end(id) {
                    return;
                }
                gone.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.is_ok()
    }

    /// Whether there is something to wait for: one that does not run yet never will, and is gone at once.
    fn ask_to_end(&self, id: SandboxId) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get(&id) else { return false };
        entry.kill.cancel();
        if !entry.running {
            entries.remove(&id);
            return false;
        }
        true
    }
}

impl Listed {
    /// Marks it as running. False: it was destroyed before.
    pub(super) fn begin(&self) -> bool {
        self.live.entries.lock().get_mut(&self.id).map(|entry| entry.running = true).is_some()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.live.entries.lock().remove(&self.id);
        self.live.gone.notify_waiters();
    }
}
