//! What a sandbox's Job is made of: the isolation floor, in one pure function.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, HostAlias, LocalObjectReference, PodDNSConfig, PodSecurityContext,
    PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Sysctl, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::GRACE_SECONDS;
use super::bulk::PORT;
use super::token::FOLDER;
use crate::labels::labels;
use crate::pid1;
use crate::spec::{ByteSize, Pod, SandboxSpec, Source, loopbacks};
use crate::{InstanceId, SandboxId};

/// The label that a NetworkPolicy selects a tool's pods by.
pub(super) const LABEL_SERVICE_ACCOUNT: &str = "mayfly.dev/service-account";
/// What a tool without an account of its own runs as. It may do nothing.
const NO_ACCOUNT: &str = "mayfly-tool-none";
/// The only container of a pod.
pub(super) const CONTAINER: &str = "tool";
/// The group, and with it what an image may let its user read: the one that distroless images call `nonroot`.
const GROUP: i64 = 65532;
/// Users from here on are nobody's: above what systems give out, below what containers' user namespaces are mapped to.
const FIRST_USER: i64 = 100_000;
/// How long Kubernetes keeps a finished Job that nobody deleted.
const TTL_SECONDS: i32 = 30;
/// What a container may put on its node's disk: the log of its standard output, which carries the wire, so the largest output limit
/// and the log lines beside it. It asks for less than it may use.
const DISK: [&str; 2] = ["16Mi", "256Mi"];
/// Room for a token, a certificate and a name.
const CREDENTIALS: ByteSize = ByteSize(64 << 10);
/// The lowest port that anybody may listen on; a sysctl that Kubernetes calls safe.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
/// A name server that is none: an address of the pod's own loopback.
const NOBODY: &str = "127.128.0.1";

/// The name of a sandbox's Job, which exists before the Job does.
pub fn job_name(id: SandboxId) -> String {
    format!("mayfly-{id}")
}

/// The Job of one sandbox. Holds nothing of any call.
///
/// # Errors
/// A sentence, when the spec cannot be written as a Job.
pub fn job(spec: &SandboxSpec, id: SandboxId, instance: InstanceId, expires_at: SystemTime) -> Result<Job, String> {
    let Source::Pod(pod) = &spec.source else { return Err("it is not made for a pod".into()) };
    let mut labels: BTreeMap<String, String> =
        labels(spec, id, instance, expires_at)?.map(|(name, value)| (name.to_owned(), value)).into();
    let account = pod.service_account.as_deref().unwrap_or(NO_ACCOUNT);
    labels.insert(LABEL_SERVICE_ACCOUNT.to_owned(), account.to_owned());
    let life = i64::try_from(spec.life.as_secs().max(1)).map_err(|_| "its life is too long")?;
    Ok(Job {
        metadata: ObjectMeta { name: Some(job_name(id)), labels: Some(labels.clone()), ..ObjectMeta::default() },
        spec: Some(JobSpec {
            parallelism: Some(1),
            completions: Some(1),
            // A sandbox is used once. What did not start is not started again behind our back.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(life),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod_spec(spec, pod, id, account, life)),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// Each sandbox is another user: on a node, what the kernel counts or shares by user is then the sandbox's alone.
fn user(id: SandboxId) -> i64 {
    let [.., a, b, c, d] = *id.0.as_bytes();
    FIRST_USER + i64::from(u32::from_be_bytes([a, b, c, d]) & 0x1fff_ffff)
}

fn pod_spec(spec: &SandboxSpec, pod: &Pod, id: SandboxId, account: &str, life: i64) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".into()),
        // The Job's own deadline is a controller's to enforce; this one is the kubelet's.
        active_deadline_seconds: Some(life),
        termination_grace_period_seconds: Some(i64::from(GRACE_SECONDS)),
        service_account_name: Some(account.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        hostname: Some("sandbox".into()),
        host_aliases: (!spec.network.is_empty()).then(|| names(spec)),
        // Whatever it may reach has a name in there. Nobody answers for others.
        dns_policy: (!spec.network.is_empty()).then(|| "None".into()),
        dns_config: (!spec.network.is_empty())
            .then(|| PodDNSConfig { nameservers: Some(vec![NOBODY.into()]), ..PodDNSConfig::default() }),
        runtime_class_name: pod.runtime_class.clone(),
        node_selector: some(pod.node_selector.clone()),
        tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.iter().map(toleration).collect()),
        image_pull_secrets: (!pod.image_pull_secrets.is_empty())
            .then(|| pod.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user(id)),
            run_as_group: Some(GROUP),
            fs_group: Some(GROUP),
            seccomp_profile: Some(seccomp()),
            // Whoever listens for the tool there is nobody in particular.
            sysctls: (!spec.network.is_empty()).then(|| vec![Sysctl { name: UNPRIVILEGED_PORTS.into(), value: "0".into() }]),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(spec, pod)],
        volumes: Some(vec![memory("scratch", spec.scratch), memory("credentials", CREDENTIALS)]),
        ..PodSpec::default()
    }
}

fn container(spec: &SandboxSpec, pod: &Pod) -> Container {
    let mount = |name: &str, path: &str| VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() };
    Container {
        name: CONTAINER.into(),
        image: Some(pod.image.clone()),
        // Entrypoint and command are the image's: the executor, and the tool's own command line.
        env: Some(environment(spec)),
        stdin: Some(true),
        // The kubelet closes it when the one attached stream goes: that is how the executor learns that the gateway died.
        stdin_once: Some(true),
        tty: Some(false),
        resources: Some(ResourceRequirements {
            limits: Some(resources(spec, spec.cpu_millis, DISK[1])),
            requests: Some(resources(spec, pod.cpu_request_millis.unwrap_or(spec.cpu_millis).min(spec.cpu_millis), DISK[0])),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            seccomp_profile: Some(seccomp()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount("scratch", "/tmp"), mount("credentials", FOLDER)]),
        ..Container::default()
    }
}

fn environment(spec: &SandboxSpec) -> Vec<EnvVar> {
    let bulk = (!spec.network.is_empty()).then(|| variable(pid1::BULK_VARIABLE, PORT.into()));
    let always = [
        variable(pid1::LIFE_VARIABLE, spec.life.as_secs().max(1)),
        // The executor itself counts too.
        variable(pid1::PROCESSES_VARIABLE, u64::from(spec.pids)),
    ];
    always.into_iter().chain(bulk).collect()
}

/// What the tool finds behind the names that it may connect to.
fn names(spec: &SandboxSpec) -> Vec<HostAlias> {
    let alias =
        |(name, address): (String, std::net::Ipv4Addr)| HostAlias { ip: address.to_string(), hostnames: Some(vec![name]) };
    loopbacks(&spec.network).into_iter().map(alias).collect()
}

fn variable(name: &str, value: u64) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.to_string()), value_from: None }
}

fn resources(spec: &SandboxSpec, cpu_millis: u32, disk: &str) -> BTreeMap<String, Quantity> {
    let quantity = |text: String| Quantity(text);
    BTreeMap::from([
        ("memory".to_owned(), quantity(spec.memory.0.to_string())),
        ("cpu".to_owned(), quantity(format!("{cpu_millis}m"))),
        ("ephemeral-storage".to_owned(), quantity(disk.to_owned())),
    ])
}

fn memory(name: &str, size: ByteSize) -> Volume {
    let size_limit = Some(Quantity(size.0.to_string()));
    let empty_dir = Some(EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit });
    Volume { name: name.into(), empty_dir, ..Volume::default() }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }
}

fn toleration(of: &crate::spec::Toleration) -> Toleration {
    Toleration {
        key: of.key.clone(),
        operator: of.operator.clone(),
        value: of.value.clone(),
        effect: of.effect.clone(),
        toleration_seconds: None,
    }
}

fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use uuid::Uuid;

    use super::*;

    fn spec(pod: Pod) -> SandboxSpec {
        SandboxSpec {
            source: Source::Pod(pod),
            memory: ByteSize::mebibytes(256),
            cpu_millis: 500,
            pids: 64,
            scratch: ByteSize::mebibytes(16),
            mounts: vec![],
            network: std::collections::BTreeSet::new(),
            life: Duration::from_secs(90),
        }
    }

    fn image() -> String {
        format!("registry.example:5000/tool@sha256:{}", "0".repeat(64))
    }

    fn made(pod: Pod) -> Job {
        let (id, instance) = (SandboxId(Uuid::from_u128(1)), InstanceId(Uuid::from_u128(2)));
        job(&spec(pod), id, instance, UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap()
    }

    #[test]
    fn a_spec_becomes_exactly_this_job() {
        insta::assert_json_snapshot!(made(Pod { image: image(), ..Pod::default() }));
    }

    #[test]
    fn what_a_tool_says_of_its_pod_is_in_it() {
        let pod = Pod {
            image: image(),
            service_account: Some("mayfly-tool-look".into()),
            runtime_class: Some("gvisor".into()),
            node_selector: BTreeMap::from([("pool".into(), "sandboxes".into())]),
            tolerations: vec![crate::spec::Toleration {
                key: Some("sandboxes".into()),
                operator: Some("Exists".into()),
                value: None,
                effect: Some("NoSchedule".into()),
            }],
            image_pull_secrets: vec!["registry".into()],
            cpu_request_millis: Some(50),
        };
        let template = made(pod).spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[LABEL_SERVICE_ACCOUNT], "mayfly-tool-look");
        let pod = template.spec.unwrap();
        assert_eq!(
            (pod.service_account_name.as_deref(), pod.automount_service_account_token),
            (Some("mayfly-tool-look"), Some(false))
        );
        assert_eq!((pod.runtime_class_name.as_deref(), pod.image_pull_secrets.unwrap().len()), (Some("gvisor"), 1));
        let resources = pod.containers[0].resources.clone().unwrap();
        let (limits, requests) = (resources.limits.unwrap(), resources.requests.unwrap());
        assert_eq!(
            (&limits["cpu"].0, &requests["cpu"].0, &requests["memory"]),
            (&"500m".into(), &"50m".into(), &limits["memory"])
        );
        assert_eq!(pod.node_selector.unwrap()["pool"], "sandboxes");
        assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("sandboxes"));
    }

    #[test]
    fn what_is_made_for_another_engine_is_no_job() {
        let other = SandboxSpec { source: Source::Image("sha256:0".into()), ..spec(Pod::default()) };
        assert!(job(&other, SandboxId::generate(), InstanceId(Uuid::from_u128(2)), UNIX_EPOCH).is_err());
    }
}
