//! What a sandbox's container is made of: the isolation floor, in one pure function.

use std::collections::HashMap;
use std::time::SystemTime;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::source::ExecutorImage;
use crate::labels::labels;
use crate::pid1;
use crate::spec::{self, ByteSize, SandboxSpec};
use crate::{InstanceId, SandboxId};

/// Neither root nor any user that an image is likely to know; the one that distroless images call `nonroot`.
const USER: &str = "65532:65532";
/// Sandboxes die before the host's own services when the host runs out of memory.
const OOM_SCORE: i64 = 500;
/// The shared memory that programs expect to find, at most.
const SHARED_MEMORY: u64 = 64 << 20;
const MAX_FILES: i64 = 4096;
/// The lowest port that anybody may listen on.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// The name of a sandbox's container, which exists before the container does.
pub fn container_name(id: SandboxId) -> String {
    format!("mayfly-{id}")
}

/// The container of one sandbox. Holds nothing of any call.
///
/// # Errors
/// A sentence, when the spec cannot be written as a container.
pub fn container_request(
    spec: &SandboxSpec,
    image: &ExecutorImage,
    id: SandboxId,
    instance: InstanceId,
    expires_at: SystemTime,
) -> Result<ContainerCreateBody, String> {
    let labels = labels(spec, id, instance, expires_at)?.map(|(name, value)| (name.to_owned(), value));
    Ok(ContainerCreateBody {
        image: Some(image.reference.clone()),
        entrypoint: Some(pid1::with_life(&image.entrypoint, spec.life).ok_or("its image's entrypoint is not the executor")?),
        cmd: Some(image.command.clone()),
        user: Some(USER.into()),
        hostname: Some("sandbox".into()),
        labels: Some(labels.into()),
        tty: Some(false),
        open_stdin: Some(true),
        // The engine closes it when the one attached stream goes: that is how the executor learns that the gateway died.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        // Without one either way: its network is `none`. An engine that is told so twice writes no names.
        network_disabled: Some(spec.network.is_empty()),
        // A check from the image would run a second process in there.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host_config(spec)?),
        ..ContainerCreateBody::default()
    })
}

fn host_config(spec: &SandboxSpec) -> Result<HostConfig, String> {
    let memory = signed(spec.memory);
    Ok(HostConfig {
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".into()]),
        privileged: Some(false),
        // Seccomp is left to the engine's default profile, and an engine without one is refused.
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        network_mode: Some("none".into()),
        extra_hosts: Some(names(spec)),
        // Whoever listens for the tool there is nobody in particular. Most engines have it so.
        sysctls: (!spec.network.is_empty()).then(|| HashMap::from([(UNPRIVILEGED_PORTS.into(), "0".into())])),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        memory: Some(memory),
        // Memory and swap together: no swap beyond it.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(spec.cpu_millis) * 1_000_000),
        pids_limit: Some(i64::from(spec.pids)),
        oom_score_adj: Some(OOM_SCORE),
        ulimits: Some(vec![ulimit("core", 1), ulimit("nofile", MAX_FILES)]),
        tmpfs: Some(HashMap::from([("/tmp".into(), format!("rw,nosuid,nodev,exec,size={},mode=1777", spec.scratch.0))])),
        shm_size: Some(signed(ByteSize(spec.scratch.0.min(SHARED_MEMORY)))),
        mounts: Some(spec.mounts.iter().map(bind).collect::<Result<_, _>>()?),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        // Ours is PID 1. And a container that is gone shows no OOM kill: it is looked at first, removed then.
        init: Some(false),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    })
}

/// What the tool finds behind the names that it may connect to.
fn names(spec: &SandboxSpec) -> Vec<String> {
    spec::loopbacks(&spec.network).into_iter().map(|(name, address)| format!("{name}:{address}")).collect()
}

fn bind(mount: &spec::Mount) -> Result<Mount, String> {
    let text = |path: &std::path::Path| match path.to_str() {
        Some(text) if path.is_absolute() => Ok(Some(text.to_owned())),
        _ => Err(format!("`{}` is no absolute path in UTF-8", path.display())),
    };
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: text(&mount.source)?,
        target: text(&mount.target)?,
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            // A read-only bind does not make what is mounted below it read-only.
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    })
}

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.into()), soft: Some(most), hard: Some(most) }
}

fn signed(size: ByteSize) -> i64 {
    i64::try_from(size.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use uuid::Uuid;

    use super::*;
    use crate::labels::LABEL_SPEC;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            source: spec::Source::Image(format!("sha256:{}", "0".repeat(64))),
            memory: ByteSize::mebibytes(256),
            cpu_millis: 500,
            pids: 64,
            scratch: ByteSize::mebibytes(16),
            mounts: vec![spec::Mount { source: "/srv/repo".into(), target: "/repo".into() }],
            network: ["api.example.com:443", "*.example.com:443"].iter().map(|entry| entry.parse().unwrap()).collect(),
            life: Duration::from_secs(90),
        }
    }

    fn request(spec: &SandboxSpec) -> Result<ContainerCreateBody, String> {
        let image = ExecutorImage {
            reference: format!("sha256:{}", "0".repeat(64)),
            entrypoint: pid1::entrypoint(["PYTHONPATH"]),
            command: vec!["/tool".into(), "--flag".into()],
        };
        let (id, instance) = (SandboxId(Uuid::from_u128(1)), InstanceId(Uuid::from_u128(2)));
        container_request(spec, &image, id, instance, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn a_spec_becomes_exactly_this_container() {
        insta::with_settings!({ sort_maps => true }, {
            insta::assert_json_snapshot!(request(&spec()).unwrap());
        });
    }

    #[test]
    fn what_belongs_to_the_spec_changes_its_digest() {
        let label = |spec: &SandboxSpec| request(spec).unwrap().labels.unwrap()[LABEL_SPEC].clone();
        assert_eq!(label(&spec()), label(&spec()));
        assert_ne!(label(&spec()), label(&SandboxSpec { pids: 65, ..spec() }));
    }

    #[test]
    fn a_mount_that_is_no_absolute_path_is_refused() {
        let mounts = vec![spec::Mount { source: "srv".into(), target: "/repo".into() }];
        assert!(request(&SandboxSpec { mounts, ..spec() }).is_err());
    }

    #[test]
    fn sizes_beyond_the_engines_numbers_do_not_turn_negative() {
        let huge = SandboxSpec { memory: ByteSize(u64::MAX), scratch: ByteSize(u64::MAX), cpu_millis: u32::MAX, ..spec() };
        let host = request(&huge).unwrap().host_config.unwrap();
        assert!(host.memory > Some(0) && host.nano_cpus > Some(0) && host.shm_size > Some(0));
    }
}
