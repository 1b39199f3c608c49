//! The kernel's seccomp notifications (`seccomp_unotify(2)`): a system call of the tool waits for this process to answer it.
//!
//! The only unsafe code on this side of the wall. Pods have a network that no unprivileged process can leave, and no other interface
//! lets one process make the sockets of another; no crate offers this one without C or a sandbox of its own around it. What is here
//! passes pointers to the kernel, of structures as the kernel defines them, for the length of one call each.
#![expect(unsafe_code, reason = "system calls that no safe interface has, each explained")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use seccompiler::BpfProgram;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A system call that waits.
pub(super) struct Asked {
    id: u64,
    /// Its arguments, by value: nothing that the tool could still change.
    pub(super) arguments: [u64; 6],
}

/// Installs `program` for this process and all it becomes and starts. What it sends on is answered through what is returned.
pub(super) fn install(program: &BpfProgram) -> io::Result<OwnedFd> {
    let mut filter: Vec<libc::sock_filter> =
        program.iter().map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect();
    let length = filter.len().try_into().map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and the filter that it points to live until the call returns, which copies them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = RawFd::try_from(listener).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel made this descriptor just now, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// The listener, woken when somebody waits.
pub(super) fn watched(listener: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it is held, and it is held by what is returned.
    unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }.map_err(io::Error::from)
}

/// Takes the next system call that waits. There has to be one, or this waits for it.
pub(super) fn receive(listener: impl AsFd) -> io::Result<Asked> {
    let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
    let mut asked = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
    // SAFETY: `asked` is all zeros, as the kernel demands, and is written to within its size alone.
    let received = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(Asked { id: asked.id, arguments: asked.data.args }) }
}

/// Answers with a descriptor of ours, which becomes one of the tool's.
pub(super) fn give(listener: impl AsFd, asked: &Asked, ours: impl AsFd, close_on_exec: bool) -> io::Result<()> {
    let answer = libc::seccomp_notif_addfd {
        id: asked.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: ours.as_fd().as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: `answer` lives until the call returns, which only reads it.
    let given = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const answer) };
    if given < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Answers with an error.
pub(super) fn refuse(listener: impl AsFd, asked: &Asked, errno: i32) {
    let answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: -errno, flags: 0 };
    // SAFETY: `answer` lives until the call returns, which only reads it. A tool that is gone needs no answer.
    unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
}
