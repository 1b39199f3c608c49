//! The pods of this installation, as the cluster tells of them: listed, then watched, and listed again whenever that breaks.
//!
//! A pod is known by the Job that controls it, and by nothing that it says of itself: whoever may make pods in the namespace may give
//! them our labels. (That only the Job controller makes pods there is the admission policy's to enforce.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::InstanceId;
use crate::labels::LABEL_INSTANCE;

/// Follows them until it is dropped.
#[derive(Debug)]
pub(super) struct Pods {
    seen: Arc<Seen>,
    watching: AbortHandle,
}

#[derive(Debug)]
struct Seen {
    /// By the uid of their Job.
    pods: Mutex<HashMap<String, Arc<Pod>>>,
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

    /// A Job's pod as it was seen last.
    pub(super) fn of(&self, job: &str) -> Option<Arc<Pod>> {
        self.seen.pods.lock().get(job).cloned()
    }

    /// Asks about a Job's pod until there is an answer: now, and after every change.
    pub(super) async fn until<T>(&self, job: &str, mut answer: impl FnMut(Option<&Pod>) -> Option<T>) -> T {
        let mut changes = self.seen.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(answer) = answer(self.of(job).as_deref()) {
                return answer;
            }
            // Its sender lives in `self`.
            let _ = changes.changed().await;
        }
    }
}

/// The watcher lists anew after a closed stream and an error event, and waits longer and longer while the API server is not there.
async fn watch(api: Api<Pod>, config: watcher::Config, seen: Arc<Seen>) {
    let mut events = watcher::watcher(api, config).backoff(Soon(Duration::ZERO)).boxed();
    let mut listed: Option<HashMap<String, Arc<Pod>>> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(HashMap::new()),
            Ok(Event::InitApply(pod)) => {
                if let Some(listed) = &mut listed {
                    enter(listed, pod);
                }
                continue;
            }
            Ok(Event::InitDone) => {
                if let Some(listed) = listed.take() {
                    *seen.pods.lock() = listed;
                }
            }
            Ok(Event::Apply(pod)) => {
                enter(&mut seen.pods.lock(), pod);
            }
            Ok(Event::Delete(pod)) => {
                if let Some(job) = job(&pod) {
                    let mut pods = seen.pods.lock();
                    if pods.get(&job).is_some_and(|known| known.metadata.uid == pod.metadata.uid) {
                        pods.remove(&job);
                    }
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

/// The first pod of a Job is the Job's: a sandbox is started once.
fn enter(pods: &mut HashMap<String, Arc<Pod>>, pod: Pod) {
    let Some(job) = job(&pod) else { return };
    let known = pods.get(&job).map(|known| &known.metadata.uid);
    if known.is_none_or(|uid| *uid == pod.metadata.uid) {
        pods.insert(job, Arc::new(pod));
    }
}

/// The uid of the Job that controls a pod.
fn job(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let job = owners.into_iter().find(|owner| owner.kind == "Job" && owner.controller == Some(true))?;
    Some(job.uid.clone())
}

/// How long the watch rests after a failure: soon again, because starts wait for what it tells.
struct Soon(Duration);

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = (self.0 * 2).clamp(Duration::from_millis(200), Duration::from_secs(2));
        Some(self.0)
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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

    fn pod(job: &str, phase: &str) -> Value {
        named(&format!("{job}-abcde"), job, phase)
    }

    fn named(name: &str, job: &str, phase: &str) -> Value {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job, "controller": true});
        let metadata = json!({"name": name, "uid": name, "resourceVersion": "7", "ownerReferences": [owner]});
        json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": phase}, "metadata": metadata})
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
        let [gone, first, second, third] = ["gone", "first", "second", "third"];
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

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_the_one_that_its_job_made_first() {
        let mut unowned = pod("job", "Running");
        unowned["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        unowned["metadata"]["labels"] = json!({"mayfly.dev/sandbox": "job", "mayfly.dev/instance": "ours"});
        let mut adopted = named("adopted", "job", "Running");
        adopted["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        let event = |kind: &str, pod: &Value| json!({"type": kind, "object": pod});
        let events = [
            event("ADDED", &unowned),
            event("ADDED", &adopted),
            event("ADDED", &pod("job", "Pending")),
            event("ADDED", &named("second", "job", "Running")),
            event("DELETED", &named("second", "job", "Running")),
            event("ADDED", &pod("last", "Running")),
        ];
        let (client, _) = server(vec![list(&[]), (200, events.into())]);
        let pods = Pods::follow(Api::namespaced(client, "sandboxes"), InstanceId(uuid::Uuid::nil()));
        pods.until("last", |pod| pod.map(|_| ())).await;
        assert_eq!(phase(pods.of("job").as_deref()).unwrap(), "Pending");
    }
}
