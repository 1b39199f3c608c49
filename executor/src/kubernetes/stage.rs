//! What a pod's status means: for a start, and for a sandbox that was lost.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::BackendKind;
use crate::error::{RunError, StartError};
use crate::pid1;

/// How far a pod is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Not there yet.
    Waiting,
    /// No node has room for it, or none is meant for it. That may change.
    Unschedulable(String),
    /// It has a node, whose kubelet has not told yet that its container runs. It may.
    Placed,
    /// Its container runs.
    Running,
    /// It will never run.
    Failed(StartError),
}

/// Waiting reasons that do not go away by waiting: the image, or what the pod asks of the node, is wrong.
const IMAGE: [&str; 6] =
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"];
const CONTAINER: [&str; 4] = ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"];

/// How a process ends that was sent SIGKILL.
const KILLED: i32 = 128 + 9;

pub(super) fn stage(pod: &Pod) -> Stage {
    let refused = |detail: String| Stage::Failed(StartError::Refused { backend: BackendKind::Kubernetes, detail });
    if pod.metadata.deletion_timestamp.is_some() {
        return refused("its pod was deleted before it was ready".into());
    }
    let status = pod.status.clone().unwrap_or_default();
    if let Some(container) = container(pod) {
        let state = container.state.clone().unwrap_or_default();
        if state.running.is_some() {
            return Stage::Running;
        }
        if let Some(ended) = state.terminated {
            return refused(format!(
                "its container ended before it was ready, with {} ({})",
                ended.exit_code,
                ended.reason.unwrap_or_default()
            ));
        }
        if let Some(waiting) = state.waiting {
            let (reason, message) = (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default());
            if IMAGE.contains(&reason.as_str()) {
                let detail = format!("the node cannot pull it ({reason}): {message}");
                return Stage::Failed(StartError::SourceMissing { source_name: container.image.clone(), detail });
            }
            if CONTAINER.contains(&reason.as_str()) {
                return refused(format!("{reason}: {message}"));
            }
        }
    }
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return refused(format!("its pod ended before it was ready: {}", why(pod)));
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    match scheduled {
        Some(condition) if condition.status == "False" => {
            Stage::Unschedulable(condition.message.clone().unwrap_or_else(|| "no node takes it".into()))
        }
        _ if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) => Stage::Placed,
        _ => Stage::Waiting,
    }
}

/// Why a session was lost, from the pod as it was seen last; `None` while it seems to run.
pub(super) fn verdict(why_lost: &str, pod: Option<&Pod>) -> Option<RunError> {
    let lost = |words: &str| RunError::Lost(format!("{why_lost}; {words}"));
    let Some(pod) = pod else { return Some(lost("its pod is gone")) };
    let ended = container(pod).and_then(|container| container.state.clone()?.terminated);
    match ended {
        Some(ended) if ended.exit_code == i32::from(pid1::EXIT_NOT_ACCEPTED) => {
            Some(RunError::NotDelivered(format!("{why_lost}; its container exited with {}", ended.exit_code)))
        }
        // The reason stays when only a child of the executor was killed.
        Some(ended) if ended.reason.as_deref() == Some("OOMKilled") && ended.exit_code == KILLED => Some(RunError::OutOfMemory),
        Some(ended) => {
            let pod_says = why(pod);
            let words = format!("its container exited with {} ({})", ended.exit_code, ended.reason.unwrap_or_default());
            Some(lost(&if pod_says.is_empty() { words } else { format!("{words}: {pod_says}") }))
        }
        None if matches!(phase(pod), Some("Failed" | "Succeeded")) => Some(lost(&format!("its pod ended: {}", why(pod)))),
        None if pod.metadata.deletion_timestamp.is_some() => Some(lost("its pod is being deleted")),
        None => None,
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// What the pod itself says: `Evicted: The node was low on resource: memory`.
fn why(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == super::job::CONTAINER)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn in_state(state: Value) -> Pod {
        pod(json!({"phase": "Pending", "containerStatuses": [
            {"name": "tool", "image": "tool@sha256:0", "imageID": "", "ready": false, "restartCount": 0, "state": state}
        ]}))
    }

    #[test]
    fn a_pod_is_told_by_its_status() {
        assert!(matches!(stage(&pod(json!({}))), Stage::Waiting));
        assert!(matches!(stage(&in_state(json!({"waiting": {"reason": "ContainerCreating"}}))), Stage::Waiting));
        assert!(matches!(stage(&in_state(json!({"running": {}}))), Stage::Running));
        let mut placed = in_state(json!({"waiting": {"reason": "ContainerCreating"}}));
        placed.spec = Some(k8s_openapi::api::core::v1::PodSpec { node_name: Some("n".into()), ..Default::default() });
        assert!(matches!(stage(&placed), Stage::Placed));
        let no_node = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        assert!(matches!(stage(&pod(no_node)), Stage::Unschedulable(why) if why.contains("0/1")));
        let missing = stage(&in_state(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}})));
        assert!(matches!(missing, Stage::Failed(StartError::SourceMissing { detail, .. }) if detail.contains("not found")));
        let wrong = stage(&in_state(json!({"waiting": {"reason": "CreateContainerConfigError", "message": "runAsNonRoot"}})));
        assert!(matches!(wrong, Stage::Failed(StartError::Refused { detail, .. }) if detail.contains("runAsNonRoot")));
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert!(
            matches!(stage(&evicted), Stage::Failed(StartError::Refused { detail, .. }) if detail.contains("Evicted: low on memory"))
        );
    }

    #[test]
    fn a_lost_sandbox_is_told_by_how_its_pod_ended() {
        let ended = |code: i32, reason: &str| in_state(json!({"terminated": {"exitCode": code, "reason": reason}}));
        assert!(matches!(verdict("gone", Some(&ended(137, "OOMKilled"))), Some(RunError::OutOfMemory)));
        assert!(matches!(verdict("gone", Some(&ended(64, "Error"))), Some(RunError::NotDelivered(_))));
        assert!(matches!(verdict("gone", Some(&ended(64, "OOMKilled"))), Some(RunError::NotDelivered(_))));
        assert!(matches!(verdict("gone", Some(&ended(65, "OOMKilled"))), Some(RunError::Lost(_))));
        assert!(matches!(verdict("gone", Some(&ended(65, "Error"))), Some(RunError::Lost(_))));
        assert!(matches!(verdict("gone", None), Some(RunError::Lost(why)) if why.contains("its pod is gone")));
        // Its end is not known while it seems to run.
        assert!(verdict("gone", Some(&in_state(json!({"running": {}})))).is_none());
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert!(matches!(verdict("gone", Some(&evicted)), Some(RunError::Lost(why)) if why.contains("Evicted")));
    }
}
