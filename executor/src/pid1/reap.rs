//! Dead children, and making sure that all are.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// Ends whatever runs when there will be no report, so that it says nothing more in the place where a pod's last words are kept.
pub(super) fn silence() {
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    super::files::unsay();
}

/// Collects dead processes: the tool, and every orphan that the kernel hands to PID 1.
pub(super) struct Reaper(Signals);

impl Reaper {
    /// Listens from here on; make it before the first child.
    pub(super) fn new() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    /// Waits for `tool` to die. Orphans are collected on the way: as zombies they would count towards the process limit.
    pub(super) async fn tool(&mut self, tool: Pid) -> io::Result<WaitStatus> {
        loop {
            match wait(WaitOptions::NOHANG) {
                // One that asked to be traced is reported when it stops, too.
                Ok(Some((pid, status))) if pid == tool && !status.stopped() => return Ok(status),
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.0.recv().await;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills every other process of the container, and returns when none is left.
    ///
    /// The kernel signals all that exist at one moment, and a fork under way notices its parent's signal: nothing slips out.
    pub(super) async fn everything(&mut self) -> io::Result<()> {
        loop {
            match kill_process_group(Pid::INIT, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => {
                    self.0.recv().await;
                }
                Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
