//! What the engine's own seccomp profile leaves open and a tool has no business with.
//!
//! The tool shares PID 1's uid, and some calls ask for nothing but that: they could slow the executor down or starve it, so that
//! the tool's own end looks like a failure of ours. And an AF_VSOCK socket reaches past every network namespace, to other
//! sandboxes and to the hypervisor. Older engines allow it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::notify;

/// The socket families a sandbox has a use for, the ones that stay inside first.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// How many of them stay inside. A pod has a network whatever it asks for, and nothing that all clusters enforce takes it away:
/// a tool without sockets has none.
const INSIDE: usize = 1;
const PID_1: u64 = 1;

/// Narrows what this process, and everything it becomes and starts, may ask of the kernel. What is refused answers EPERM.
pub(super) fn narrow() -> io::Result<()> {
    apply(&program(rules().map_err(unbuilt)?).map_err(unbuilt)?)
}

/// The rest of it, which depends on the call: built ahead of it.
pub(super) struct Inside {
    no_internet: BpfProgram,
    streams_only: BpfProgram,
    asking: BpfProgram,
}

impl Inside {
    pub(super) fn prepare() -> io::Result<Self> {
        let no_internet = families(&FAMILIES[..INSIDE]).and_then(program).map_err(unbuilt)?;
        let streams_only = not_streams().and_then(program).map_err(unbuilt)?;
        let asking = streams().and_then(|rules| compiled(rules, SeccompAction::Trace(0))).map_err(unbuilt)?;
        Ok(Self { no_internet, streams_only, asking: asking.into_iter().map(notified).collect() })
    }

    /// Nothing that this process becomes opens an internet socket.
    pub(super) fn stay(&self) -> io::Result<()> {
        apply(&self.no_internet)
    }

    /// What this process becomes opens none by itself: it asks whoever has what is returned, for streams alone.
    pub(super) fn ask(&self) -> io::Result<OwnedFd> {
        apply(&self.streams_only)?;
        notify::install(&self.asking)
    }
}

/// The compiler knows no notification; the action that hands over to a tracer stands for it.
fn notified(mut instruction: sock_filter) -> sock_filter {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_TRACE {
        instruction.k = libc::SECCOMP_RET_USER_NOTIF;
    }
    instruction
}

fn apply(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| io::Error::other(format!("the seccomp filter was refused: {error}")))
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unbuilt(error: BackendError) -> io::Error {
    io::Error::other(format!("the seccomp filter cannot be built: {error}"))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What is refused to every tool.
fn rules() -> Result<Rules, BackendError> {
    let about_pid_1 =
        |argument| Ok::<_, BackendError>(vec![SeccompRule::new(vec![compare(argument, SeccompCmpOp::Eq, PID_1)?])?]);
    let mut rules = families(&FAMILIES)?;
    rules.extend([
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
    Ok(rules)
}

/// Sockets of other families than these.
fn families(allowed: &[i32]) -> Result<Rules, BackendError> {
    let foreign = allowed.iter().map(|family| compare(0, SeccompCmpOp::Ne, *family as u64));
    let foreign = SeccompRule::new(foreign.collect::<Result<_, _>>()?)?;
    Ok(BTreeMap::from([(libc::SYS_socket, vec![foreign.clone()]), (libc::SYS_socketpair, vec![foreign])]))
}

/// The part of a socket's type that is no flag.
const TYPE: u64 = 0xf;

/// Streams of the internet.
fn streams() -> Result<Rules, BackendError> {
    let stream = SeccompCmpOp::MaskedEq(TYPE);
    let of = |family: &i32| {
        SeccompRule::new(vec![
            compare(0, SeccompCmpOp::Eq, *family as u64)?,
            compare(1, stream.clone(), libc::SOCK_STREAM as u64)?,
        ])
    };
    Ok(BTreeMap::from([(libc::SYS_socket, FAMILIES[INSIDE..].iter().map(of).collect::<Result<_, _>>()?)]))
}

/// Everything else of the internet: other types, and streams that are not TCP.
fn not_streams() -> Result<Rules, BackendError> {
    let mut refused = Vec::new();
    for family in FAMILIES[INSIDE..].iter().map(|family| *family as u64) {
        for kind in (0..=TYPE).filter(|kind| *kind != libc::SOCK_STREAM as u64) {
            refused.push(SeccompRule::new(vec![
                compare(0, SeccompCmpOp::Eq, family)?,
                compare(1, SeccompCmpOp::MaskedEq(TYPE), kind)?,
            ])?);
        }
        refused.push(SeccompRule::new(vec![
            compare(0, SeccompCmpOp::Eq, family)?,
            compare(2, SeccompCmpOp::Ne, 0)?,
            compare(2, SeccompCmpOp::Ne, libc::IPPROTO_TCP as u64)?,
        ])?);
    }
    Ok(BTreeMap::from([(libc::SYS_socket, refused)]))
}

fn compare(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn program(rules: Rules) -> Result<BpfProgram, BackendError> {
    compiled(rules, SeccompAction::Errno(libc::EPERM as u32))
}

fn compiled(rules: Rules, action: SeccompAction) -> Result<BpfProgram, BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(on_every_abi(rules), SeccompAction::Allow, action, arch)?.try_into()
}

/// x32 has the architecture of x86-64 and system call numbers of its own: where a kernel has it, it is a second door to each.
fn on_every_abi(rules: Rules) -> Rules {
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
        assert!(
            [rules(), families(&FAMILIES[..INSIDE]), streams(), not_streams()]
                .into_iter()
                .all(|rules| program(rules.unwrap()).is_ok_and(|p| !p.is_empty()))
        );
    }
}
