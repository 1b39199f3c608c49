//! The sockets of a tool whose sandbox has a network that is not for it.
//!
//! A pod's network cannot be taken away from what runs in it without privileges, so the tool gets no socket that could use it: it
//! asks for one, and this process makes it, bound to the loopback device. Who is not privileged can bind a socket to a device once
//! (since Linux 5.7), and never again: the tool can do with it what it likes, and nothing of it leaves the sandbox.
//!
//! Streams only. Datagram sockets forget their device when they are disconnected.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::notify;

/// Makes the sockets that a tool asks for, until nobody is left to ask.
pub(super) async fn serve(listener: OwnedFd) {
    let Ok(listener) = notify::watched(listener) else { return };
    loop {
        let Ok(mut ready) = listener.readable().await else { return };
        match waiting(listener.get_ref()) {
            Ok(Some(true)) => {
                one(listener.get_ref());
                // A tool that asks without end must not be all that is listened to.
                tokio::task::yield_now().await;
            }
            Ok(Some(false)) => ready.clear_ready(),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Whether there is somebody who waits; `None`: nobody is left.
fn waiting(listener: &OwnedFd) -> io::Result<Option<bool>> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let found = fds[0].revents();
    let gone = found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) && !found.contains(PollFlags::IN);
    Ok((!gone).then_some(found.contains(PollFlags::IN)))
}

fn one(listener: &OwnedFd) {
    // One that was killed meanwhile needs no answer.
    let Ok(asked) = notify::receive(listener) else { return };
    let [family, kind, ..] = asked.arguments;
    let given = bound(family, kind).and_then(|(socket, close_on_exec)| notify::give(listener, &asked, socket, close_on_exec));
    if let Err(error) = given {
        notify::refuse(listener, &asked, error.raw_os_error().unwrap_or(libc::EACCES));
    }
}

/// A stream socket of the loopback device. What else the arguments say was looked at by the filter.
fn bound(family: u64, kind: u64) -> io::Result<(OwnedFd, bool)> {
    let family = match i32::try_from(family & 0xffff_ffff) {
        Ok(libc::AF_INET) => AddressFamily::INET,
        Ok(libc::AF_INET6) => AddressFamily::INET6,
        _ => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    };
    let has = |flag: i32| kind & u64::from(flag.cast_unsigned()) != 0;
    let nonblocking = if has(libc::SOCK_NONBLOCK) { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | nonblocking, Some(ipproto::TCP))?;
    setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
    Ok((socket, has(libc::SOCK_CLOEXEC)))
}
