//! The pods of this installation, as the cluster tells of them: listed, then watched, and listed again whenever that breaks.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::labels::{LABEL_INSTANCE, LABEL_SANDBOX};
use crate::{InstanceId, SandboxId};

/// Follows them until it is dropped.
#[derive(Debug)]
pub(super) struct Pods {
    seen: Arc<Seen>,
    watching: AbortHandle,
}

#[derive(Debug)]
struct Seen {
    pods: Mutex<HashMap<SandboxId, Arc<Pod>>>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Pods {
    pub(super) fn follow(api: Api<Pod>, instance: InstanceId) -> Self {
        let seen = Arc::new(Seen { pods: Mutex::default(), changed: watch::Sender::new(()) });
        let ours = watcher::Config::default().labels(&format!("{LABEL_INSTANCE}={instance}"));
        let watching = tokio::spawn(watch(api, ours, seen.clone())).abort_handle();
        Self { seen, watching }
    }

    /// A sandbox's pod as it was seen last.
    pub(super) fn of(&self, id: SandboxId) -> Option<Arc<Pod>> {
        self.seen.pods.lock().get(&id).cloned()
    }

    /// Asks about a sandbox's pod until there is an answer: now, and after every change.
    pub(super) async fn until<T>(&self, id: SandboxId, mut answer: impl FnMut(Option<&Pod>) -> Option<T>) -> T {
        let mut changes = self.seen.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(answer) = answer(self.of(id).as_deref()) {
                return answer;
            }
            // Its sender lives in `self`.
            let _ = changes.changed().await;
        }
    }
}

/// The watcher lists anew after a closed stream and an error event, and waits longer and longer while the API server is not there.
async fn watch(api: Api<Pod>, config: watcher::Config, seen: Arc<Seen>) {
    let mut events = watcher::watcher(api, config).default_backoff().boxed();
    let mut listed: Option<HashMap<SandboxId, Arc<Pod>>> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(HashMap::new()),
            Ok(Event::InitApply(pod)) => {
                if let (Some(listed), Some(id)) = (&mut listed, sandbox(&pod)) {
                    listed.insert(id, Arc::new(pod));
                }
                continue;
            }
            Ok(Event::InitDone) => {
                if let Some(listed) = listed.take() {
                    *seen.pods.lock() = listed;
                }
            }
            Ok(Event::Apply(pod)) => {
                if let Some(id) = sandbox(&pod) {
                    seen.pods.lock().insert(id, Arc::new(pod));
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some(id) = sandbox(&pod) {
                    seen.pods.lock().remove(&id);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of the sandboxes' pods broke; it starts again");
                continue;
            }
        }
        seen.changed.send_replace(());
    }
}

fn sandbox(pod: &Pod) -> Option<SandboxId> {
    pod.metadata.labels.as_ref()?.get(LABEL_SANDBOX)?.parse().ok()
}
