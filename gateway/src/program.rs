//! Runs a program of the operator's that prints a secret.
//!
//! It has a limited time and a limited output, and is killed with its whole process group when it exceeds them or nobody waits for
//! it any more. What it printed, on either stream, is in no error: an operator who wants to see it runs it by hand.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

/// The most it may print.
const MOST: u64 = 64 << 10;

/// Why it gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// It is not there, or cannot be run.
    #[error("cannot be run: {0}")]
    NotStarted(String),
    /// It failed.
    #[error("failed ({0}); run it by hand to see why")]
    Failed(String),
    /// It took too long.
    #[error("did not end within {} s", .0.as_secs_f64())]
    Overdue(Duration),
    /// It printed too much.
    #[error("printed more than {MOST} bytes")]
    Verbose,
}

/// Runs `argv` (no shell) with `input` on standard input and the gateway's environment without `hidden`; answers what it printed.
///
/// # Errors
/// [`ProgramError`].
pub async fn run(
    argv: &[String],
    input: &[u8],
    patience: Duration,
    hidden: &[String],
) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
    let (name, arguments) = argv.split_first().ok_or_else(|| ProgramError::NotStarted("there is no program".into()))?;
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    for name in hidden {
        command.env_remove(name);
    }
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| ProgramError::NotStarted(error.to_string()))?;
    let mut group = Group::of(child.id());
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut printed = Zeroizing::new(Vec::with_capacity(4096));
    let conversation = async {
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // One that does not care to read it is free to.
                let _ = stdin.write_all(input).await;
            }
        };
        let reading = async {
            match stdout {
                Some(stdout) => stdout.take(MOST + 1).read_to_end(&mut printed).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let ((), read) = tokio::join!(feeding, reading);
        read.map_err(|error| ProgramError::Failed(error.to_string()))?;
        if printed.len() as u64 > MOST {
            return Err(ProgramError::Verbose);
        }
        let status = child.wait().await.map_err(|error| ProgramError::Failed(error.to_string()))?;
        // Its id may be somebody else's from here on.
        group.disarm();
        if status.success() { Ok(()) } else { Err(ProgramError::Failed(status.to_string())) }
    };
    tokio::time::timeout(patience, conversation).await.unwrap_or(Err(ProgramError::Overdue(patience)))?;
    Ok(printed)
}

/// Whatever a program has started that did not end in time goes with it.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended this very moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, patience: Duration) -> Result<Zeroizing<Vec<u8>>, ProgramError> {
        run(&["/bin/sh".into(), "-c".into(), script.into()], b"question", patience, &[]).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_it_prints_is_the_answer() {
        assert_eq!(shell("echo \"to $(cat)\"", LONG).await.unwrap()[..], b"to question\n"[..]);
        assert_eq!(shell("exec 0<&-; echo deaf", LONG).await.unwrap()[..], b"deaf\n"[..]);
    }

    #[tokio::test]
    async fn each_limit_bites_and_nothing_printed_is_told() {
        let failed = shell("echo canary; echo canary >&2; exit 3", LONG).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 3") && !failed.contains("canary"), "{failed}");
        assert_eq!(shell("yes canary", LONG).await, Err(ProgramError::Verbose));
        let short = Duration::from_millis(200);
        assert_eq!(shell("sleep 60", short).await, Err(ProgramError::Overdue(short)));
        assert!(matches!(run(&["/none".into()], b"", LONG, &[]).await, Err(ProgramError::NotStarted(_))));
    }

    #[tokio::test]
    async fn what_it_left_behind_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        // The pipe is held by a daemon: without an end for the group, the reading would last as long as it does.
        let script = format!("(sleep 2; touch {}) & sleep 60", mark.display());
        assert_eq!(shell(&script, Duration::from_millis(300)).await, Err(ProgramError::Overdue(Duration::from_millis(300))));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!mark.exists());
    }
}
