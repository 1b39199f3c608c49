//! What the engine's own seccomp profile leaves open and a tool has no business with.
//!
//! The tool shares PID 1's uid, and some calls ask for nothing but that: they could slow the executor down or starve it, so that
//! the tool's own end looks like a failure of ours. And an AF_VSOCK socket reaches past every network namespace, to other
//! sandboxes and to the hypervisor. Older engines allow it.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The socket families a sandbox has a use for, the ones that stay inside first.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// How many of them stay inside. A pod has a network whatever it asks for, and nothing that all clusters enforce takes it away:
/// a tool without sockets has none.
const INSIDE: usize = 1;
const PID_1: u64 = 1;

/// Narrows what this process, and everything it becomes and starts, may ask of the kernel. What is refused answers EPERM.
pub(super) fn narrow(inet: bool) -> io::Result<()> {
    let program = program(inet).map_err(|error| io::Error::other(format!("the seccomp filter cannot be built: {error}")))?;
    seccompiler::apply_filter(&program).map_err(|error| io::Error::other(format!("the seccomp filter was refused: {error}")))
}

fn program(inet: bool) -> Result<BpfProgram, BackendError> {
    let equals = |argument, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    let about_pid_1 = |argument| Ok::<_, BackendError>(vec![SeccompRule::new(vec![equals(argument, PID_1)?])?]);
    let families = if inet { &FAMILIES[..] } else { &FAMILIES[..INSIDE] };
    let foreign =
        families.iter().map(|family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *family as u64));
    let foreign_family = SeccompRule::new(foreign.collect::<Result<_, _>>()?)?;
    let rules = BTreeMap::from([
        (libc::SYS_socket, vec![foreign_family.clone()]),
        (libc::SYS_socketpair, vec![foreign_family]),
        (libc::SYS_prlimit64, about_pid_1(0)?),
        (libc::SYS_sched_setaffinity, about_pid_1(0)?),
        (libc::SYS_sched_setscheduler, about_pid_1(0)?),
        (libc::SYS_sched_setparam, about_pid_1(0)?),
        (libc::SYS_sched_setattr, about_pid_1(0)?),
        // With every kind of target: the group and the user of PID 1 are the tool's too.
        (libc::SYS_setpriority, Vec::new()),
        (libc::SYS_ioprio_set, Vec::new()),
        // A second way to most system calls.
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    let rules = on_every_abi(rules);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}

/// x32 has the architecture of x86-64 and system call numbers of its own: where a kernel has it, it is a second door to each.
fn on_every_abi(rules: BTreeMap<i64, Vec<SeccompRule>>) -> BTreeMap<i64, Vec<SeccompRule>> {
    const X32: i64 = 0x4000_0000;
    if !cfg!(target_arch = "x86_64") {
        return rules;
    }
    let doubled = rules.clone().into_iter().map(|(number, of)| (number | X32, of));
    doubled.chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_can_be_built_for_this_machine() {
        assert!([true, false].into_iter().all(|inet| program(inet).is_ok_and(|program| !program.is_empty())));
    }
}
