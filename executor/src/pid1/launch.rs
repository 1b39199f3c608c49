//! Starts the tool as a child.
//!
//! To start a program twice, first the one that limits itself and then the tool, takes longer than most tools run. So the first half
//! is done ahead: a [`Launcher`] waits, as long as its executor waits, for what to become.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use zeroize::Zeroizing;

use super::command::exec_arguments;
use super::exec::{Program, WITH_LISTENER};
use crate::wire::{SecretText, Sockets};

/// What the tool finds when neither its image nor the invocation says otherwise. `HOME` and `TMPDIR` are ours to say: nothing else
/// is writable.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
/// Where programs look for a proxy, in both spellings that there are of each.
const PROXY: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
/// And for what not to ask it for: what a tool talks to itself about.
const NOT_PROXIED: [(&str, &str); 2] = [("NO_PROXY", "localhost,127.0.0.0/8,::1"), ("no_proxy", "localhost,127.0.0.0/8,::1")];
/// The one writable folder.
pub(super) const SCRATCH: &str = "/tmp";
/// Longest sentence about a tool that could not be started.
const MAX_ERROR: u64 = 1024;

/// A running tool: its process, and our ends of its pipes.
pub(super) struct Tool {
    pub(super) pid: Pid,
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    /// What it asks for its sockets through, where it may not make them itself.
    pub(super) asks: Option<OwnedFd>,
}

/// The environment of the tool: the defaults, then what the image sets, then what is always so, then what the invocation adds.
pub(super) fn environment(
    image: impl IntoIterator<Item = (String, String)>,
    traceparent: &str,
    proxy: Option<SocketAddrV4>,
    invocation: BTreeMap<String, SecretText>,
) -> BTreeMap<String, SecretText> {
    let ours = [("HOME", SCRATCH), ("TMPDIR", SCRATCH), ("TRACEPARENT", traceparent)];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let proxied = proxy.into_iter().flat_map(|at| {
        let at = format!("http://{at}");
        PROXY.map(|name| (name.to_owned(), at.clone())).into_iter().chain(NOT_PROXIED.map(owned))
    });
    let known = ENVIRONMENT.map(owned).into_iter().chain(image).chain(ours.map(owned)).chain(proxied);
    known.map(|(name, value)| (name, SecretText::new(value))).chain(invocation).collect()
}

/// A process that waits to become the tool.
pub(super) struct Launcher {
    pid: Pid,
    socket: UnixStream,
}

impl Launcher {
    /// Starts it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn start(processes: Option<u64>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .args(exec_arguments(processes))
            .env_clear()
            .current_dir(working_directory())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, socket: ours })
    }

    /// Makes it the tool.
    ///
    /// # Errors
    /// A sentence for the operator, when the program could not be started. Whatever was started by then is for the reaper.
    pub(super) async fn launch(self, program: &Program) -> Result<Tool, String> {
        if program.argv.is_empty() {
            return Err("neither the call nor the image names a command".into());
        }
        let no_variable = |(name, value): (&String, &SecretText)| {
            name.is_empty() || name.contains(['=', '\0']) || value.expose().contains('\0')
        };
        if program.environment.iter().any(no_variable) {
            return Err("the environment holds a name or value that no process can have".into());
        }
        self.tell(program).await.map_err(|error| error.to_string()).and_then(|(tool, why)| match why {
            why if why.is_empty() => Ok(tool),
            why => Err(why),
        })
    }

    /// The tool, and why it did not start. The socket closes without a word when it does, and also when something kills it before:
    /// its exit status tells.
    async fn tell(self, program: &Program) -> io::Result<(Tool, String)> {
        let (stdin_read, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
        send(&self.socket, [&stdin_read, &stdout_write, &stderr_write])?;
        // Its ends are its own now: a tool that closes them is heard.
        drop((stdin_read, stdout_write, stderr_write));
        let mut told = Zeroizing::new(Vec::new());
        ciborium::into_writer(program, &mut *told).map_err(|_| io::Error::other("the program cannot be told"))?;
        self.socket.set_nonblocking(true)?;
        let mut socket = tokio::net::UnixStream::from_std(self.socket)?;
        let mut why = String::new();
        // It may have given up before it has read all: then it says why.
        let written = async {
            socket.write_all(&told).await?;
            socket.shutdown().await
        };
        let written = written.await;
        let asks = match program.sockets {
            Sockets::Loopback => listener(&socket, &mut why).await?,
            Sockets::Unix | Sockets::Internet => None,
        };
        (&mut socket).take(MAX_ERROR).read_to_string(&mut why).await?;
        if why.is_empty() {
            written?;
        }
        if program.sockets == Sockets::Loopback && asks.is_none() && why.is_empty() {
            return Err(io::Error::other("the tool did not say what it asks for its sockets through"));
        }
        let tool = Tool {
            pid: self.pid,
            stdin: pipe::Sender::from_owned_fd(stdin)?,
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
            asks,
        };
        Ok((tool, why))
    }
}

/// The descriptor that comes first, or the beginning of why there is none.
async fn listener(socket: &tokio::net::UnixStream, why: &mut String) -> io::Result<Option<OwnedFd>> {
    let received = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let fds = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((byte[..received.bytes].first().copied(), fds))
    };
    let (byte, listener) = socket.async_io(Interest::READABLE, received).await?;
    if let Some(byte) = byte.filter(|byte| *byte != WITH_LISTENER) {
        why.push(char::from(byte));
    }
    Ok(listener)
}

/// The image's working directory, where it has one; the writable folder otherwise.
fn working_directory() -> std::path::PathBuf {
    match std::env::current_dir() {
        Ok(directory) if directory != Path::new("/") => directory,
        _ => SCRATCH.into(),
    }
}

fn send(socket: &UnixStream, fds: [&OwnedFd; 3]) -> io::Result<()> {
    let fds = fds.map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for three descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Whether the scratch space is used up, in bytes or in files.
pub(super) fn scratch_is_full() -> bool {
    /// Less than this is nothing: a write of a common buffer fails.
    const NOTHING: u64 = 64 << 10;
    let is_mount = File::open("/proc/self/mounts")
        .and_then(io::read_to_string)
        .is_ok_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(1) == Some(SCRATCH)));
    is_mount
        && rustix::fs::statvfs(SCRATCH)
            .is_ok_and(|s| s.f_blocks > 0 && s.f_bavail.saturating_mul(s.f_frsize) < NOTHING || s.f_files > 0 && s.f_favail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn secret(map: &BTreeMap<String, String>) -> BTreeMap<String, SecretText> {
        map.iter().map(|(name, value)| (name.clone(), SecretText::new(value.clone()))).collect()
    }

    #[test]
    fn the_environment_is_ours_then_the_images_then_the_calls() {
        let image = map(&[("PATH", "/opt/bin"), ("HOME", "/root"), ("PYTHONPATH", "/app")]);
        let call = secret(&map(&[("MODE", "fast"), ("LANG", "de")]));
        let found = environment(image, "00-1-2-01", None, call);
        let expected = [
            ("PATH", "/opt/bin"),
            ("LANG", "de"),
            ("PYTHONPATH", "/app"),
            ("HOME", "/tmp"),
            ("TMPDIR", "/tmp"),
            ("TRACEPARENT", "00-1-2-01"),
            ("MODE", "fast"),
        ];
        assert_eq!(found, secret(&map(&expected)));
    }

    #[tokio::test]
    async fn what_no_process_can_be_started_with_is_refused() {
        let (pid, argv) = (Pid::INIT, vec!["true".to_owned()]);
        let launch = async |argv: &[String], environment: &[(&str, &str)]| {
            let (socket, _gone) = UnixStream::pair().unwrap();
            let program = Program { argv: argv.to_vec(), environment: secret(&map(environment)), sockets: Sockets::Internet };
            Launcher { pid, socket }.launch(&program).await
        };
        assert!(launch(&[], &[]).await.is_err());
        for wrong in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
            assert!(launch(&argv, &[wrong]).await.is_err(), "{wrong:?}");
        }
    }
}
