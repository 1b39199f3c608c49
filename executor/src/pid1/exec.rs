//! The process that becomes the tool: a fresh one of this binary, started ahead of the call. It limits itself, and waits.
//!
//! It is started with one end of a socket as standard input. Through it come the tool's three pipes and then its [`Program`], to the
//! end of the stream; through it goes why the tool could not be started. When the tool starts, the socket closes with the exec: the
//! tool inherits the pipes and nothing else.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fs::statvfs;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::stdio;
use serde::{Deserialize, Serialize};

use super::launch::SCRATCH;
use crate::wire::{SecretText, Sockets};

/// What the tool is: all that is known only when its call comes.
#[derive(Serialize, Deserialize)]
pub(super) struct Program {
    /// Its command line.
    pub(super) argv: Vec<String>,
    /// All of its environment.
    pub(super) environment: BTreeMap<String, SecretText>,
    /// Which sockets it may open.
    pub(super) sockets: Sockets,
}

/// As a limit on core dumps, 1 stands for none at all: with 0, a kernel that pipes them to a program still does, and that program may
/// keep the environment (`core(5)`).
const NO_CORE: u64 = 1;
/// Most open files of one process of the tool.
const MAX_FILES: u64 = 4096;
/// How much longer than all of the scratch space a file may be: what is full is to say so, before this does.
const FILE_BEYOND_SCRATCH: u64 = 1 << 20;

/// Becomes the tool that it is told. Returns only when that fails.
pub(super) fn exec(processes: Option<u64>) -> ExitCode {
    // Its exec closes this, which tells the parent that the tool runs.
    let Ok(parent) = fcntl_dupfd_cloexec(stdio::stdin(), 3) else { return ExitCode::FAILURE };
    let error = become_tool(&parent, processes);
    let _ = UnixStream::from(parent).write_all(error.to_string().as_bytes());
    ExitCode::FAILURE
}

fn become_tool(parent: &OwnedFd, processes: Option<u64>) -> io::Error {
    // All that takes time and does not depend on the call comes before it.
    let prepared = limit(processes).and_then(|()| super::unshield().map_err(io::Error::from)).and_then(|()| {
        super::seccomp::narrow()?;
        super::seccomp::Inside::prepare()
    });
    let told = prepared.and_then(|inside| {
        let [stdin, stdout, stderr] = receive(parent)?;
        let program = program(parent)?;
        stdio::dup2_stdin(stdin)?;
        stdio::dup2_stdout(stdout)?;
        stdio::dup2_stderr(stderr)?;
        match program.sockets {
            Sockets::Unix => inside.stay()?,
            Sockets::Internet => {}
            Sockets::Loopback => hand_over(parent, &inside.ask()?)?,
        }
        Ok(program)
    });
    let Program { argv, environment, .. } = match told {
        Ok(program) => program,
        Err(error) => return error,
    };
    let Some((name, arguments)) = argv.split_first() else { return io::Error::other("there is no command") };
    let environment = environment.iter().map(|(name, value)| (name, value.expose()));
    Command::new(name).args(arguments).env_clear().envs(environment).exec()
}

fn program(parent: &OwnedFd) -> io::Result<Program> {
    let mut told = Vec::new();
    UnixStream::from(parent.try_clone()?).read_to_end(&mut told)?;
    ciborium::from_reader(&told[..]).map_err(|_| io::Error::other("the executor did not say what to run"))
}

/// The one byte that goes with a descriptor, and is no text.
pub(super) const WITH_LISTENER: u8 = 0;

/// Gives the executor what its tool will ask it through.
fn hand_over(parent: &OwnedFd, listener: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(parent, &[IoSlice::new(&[WITH_LISTENER])], &mut control, SendFlags::empty())?;
    Ok(())
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
    // A longer one would lie where nobody counts it, such as the place for a pod's last words.
    let scratch = statvfs(SCRATCH).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize));
    let longest = scratch.saturating_add(FILE_BEYOND_SCRATCH);
    let always = [(Resource::Core, NO_CORE), (Resource::Nofile, MAX_FILES), (Resource::Fsize, longest)];
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
