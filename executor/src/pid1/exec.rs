//! The moment between fork and tool: a fresh process of this binary that limits itself and becomes the tool.
//!
//! It is started with one end of a socket as standard input, receives the tool's three pipes through it, and says there why the
//! tool could not be started. When the tool starts, the socket closes with the exec: the tool inherits the pipes and nothing else.

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::stdio;

use super::command::Hold;

/// Most open files of one process of the tool.
const MAX_FILES: u64 = 4096;
/// Longest file that a tool may write. The scratch space is smaller; this is for what is not scratch.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// Becomes `argv`. Returns only when that fails.
pub(super) fn exec(argv: &[String], hold: Hold) -> ExitCode {
    // Its exec closes this, which tells the parent that the tool runs.
    let Ok(parent) = fcntl_dupfd_cloexec(stdio::stdin(), 3) else { return ExitCode::FAILURE };
    let error = become_tool(&parent, argv, hold);
    let _ = std::os::unix::net::UnixStream::from(parent).write_all(error.to_string().as_bytes());
    ExitCode::FAILURE
}

fn become_tool(parent: &OwnedFd, argv: &[String], hold: Hold) -> io::Error {
    let Some((program, arguments)) = argv.split_first() else { return io::Error::other("there is no command") };
    let prepared = receive(parent).and_then(|[stdin, stdout, stderr]| {
        limit(hold.processes)?;
        stdio::dup2_stdin(stdin)?;
        stdio::dup2_stdout(stdout)?;
        stdio::dup2_stderr(stderr)?;
        super::unshield()?;
        super::seccomp::narrow(hold.inet)
    });
    match prepared {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

fn receive(parent: &OwnedFd) -> io::Result<[OwnedFd; 3]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(parent, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds: Vec<_> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    fds.try_into().map_err(|_| io::Error::other("the executor sent no streams"))
}

fn limit(processes: Option<u64>) -> io::Result<()> {
    let always = [(Resource::Core, 0), (Resource::Nofile, MAX_FILES), (Resource::Fsize, MAX_FILE_BYTES)];
    for (resource, most) in always.into_iter().chain(processes.map(|most| (Resource::Nproc, most))) {
        // A hard limit that is lower already stays.
        let most = getrlimit(resource).maximum.map_or(most, |max| max.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // When memory runs out the tool goes first, so that the executor is there to report it. Raising it is anyone's right; where
    // /proc is not writable, the tool's size makes the same choice.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}
