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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that gives these answers, one a request, and then none; with what it was asked.
    fn server(answers: Vec<(u16, Vec<Value>)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let (answers, asked) = (Arc::new(Mutex::new(VecDeque::from(answers))), Arc::<Mutex<Vec<String>>>::default());
        let requests = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            requests.lock().push(request.uri().to_string());
            let next = answers.lock().pop_front();
            async move {
                let Some((status, lines)) = next else { return std::future::pending().await };
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                Ok::<_, std::io::Error>(Response::builder().status(status).body(Body::from(text.into_bytes())).unwrap())
            }
        });
        (Client::new(service, "sandboxes"), asked)
    }

    fn pod(id: SandboxId, phase: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": phase}, "metadata": {
            "name": format!("mayfly-{id}-abcde"), "resourceVersion": "7", "labels": {LABEL_SANDBOX: id.to_string()},
        }})
    }

    fn list(pods: &[Value]) -> (u16, Vec<Value>) {
        (200, vec![json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": pods})])
    }

    fn failure(code: u16, reason: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason, "metadata": {}})
    }

    fn phase(pod: Option<&Pod>) -> Option<String> {
        pod?.status.as_ref()?.phase.clone()
    }

    /// What an API server does to a watch that is open for long: turns it away, forgets where it was, closes it, breaks.
    #[tokio::test(start_paused = true)]
    async fn a_watch_survives_a_429_an_error_event_and_a_closed_stream() {
        let [gone, first, second, third] = std::array::from_fn(|_| SandboxId::generate());
        let (client, asked) = server(vec![
            (429, vec![failure(429, "TooManyRequests")]),
            list(&[pod(gone, "Running"), pod(first, "Pending")]),
            // It forgot where we were, and the list of after says what has changed.
            (200, vec![json!({"type": "ERROR", "object": failure(410, "Expired")})]),
            list(&[pod(first, "Running")]),
            // It closes the stream after an event.
            (200, vec![json!({"type": "ADDED", "object": pod(second, "Running")})]),
            (500, vec![failure(500, "InternalError")]),
            (
                200,
                vec![
                    json!({"type": "ADDED", "object": pod(third, "Running")}),
                    json!({"type": "DELETED", "object": pod(second, "Running")}),
                ],
            ),
        ]);
        let pods = Pods::follow(Api::namespaced(client, "sandboxes"), InstanceId(uuid::Uuid::nil()));
        let running = |pod: Option<&Pod>| (phase(pod)? == "Running").then_some(());
        let all = async {
            pods.until(first, running).await;
            assert!(pods.of(gone).is_none(), "what the new list does not have is gone");
            pods.until(third, running).await;
            pods.until(second, |pod| pod.is_none().then_some(())).await;
        };
        tokio::time::timeout(Duration::from_secs(300), all).await.unwrap_or_else(|_| panic!("{:#?}", asked.lock()));
        let asked = asked.lock();
        assert!(asked.iter().all(|uri| uri.contains("labelSelector=mayfly.dev")), "{asked:#?}");
    }
}
