//! What crosses the wall: one vocabulary for every backend.
//!
//! Container sandboxes carry these values as frames over the executor's standard streams (see [`crate::frame`] for
//! their encoding and [`crate::seal`] for their secrecy); the wasm backend passes the same [`Invocation`] and
//! [`Report`] by value. A protocol change that an older executor would misread changes [`PROTOCOL`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::spec::{ByteSize, Destination};

/// Version of the frames. An executor that greets with another is refused before delivery.
pub const PROTOCOL: u16 = 3;

/// The key that seals every frame after the invocation. Fresh for each call, wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct WireKey(#[serde(with = "serde_bytes")] pub(crate) [u8; 32]);

impl WireKey {
    /// A key from the operating system's random source.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }
}

impl std::fmt::Debug for WireKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireKey(..)")
    }
}

/// One call, as the sandbox sees it. Everything that is late-bound is here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The call's id, for log lines inside the sandbox.
    pub call_id: String,
    /// Seals what follows.
    pub key: WireKey,
    /// The program and its arguments, placeholders already filled in. Empty: what the image or module is made to run.
    pub command: Vec<String>,
    /// The arguments as JSON, written to the tool's standard input, which is then closed.
    pub stdin: Bytes,
    /// Environment of the tool's own process, beside the executor's small fixed one: this call's credentials, never the gateway's.
    pub environment: BTreeMap<String, SecretText>,
    /// Files for the tool, written before it starts.
    pub files: Vec<SecretFile>,
    /// Time from acceptance until the tool is killed.
    pub timeout: Duration,
    /// Most bytes of standard output; one more ends the tool with [`Exit::OutputLimit`].
    pub output_limit: ByteSize,
    /// Which sockets the tool may open. The backend says: it knows what network its sandboxes have.
    pub sockets: Sockets,
    /// Where the tool finds the outside, if it may reach any of it (containers).
    pub faces: Option<Faces>,
    /// W3C `traceparent` of the `tool.run` span.
    pub traceparent: String,
}

/// Which sockets a tool may open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sockets {
    /// Those that cannot leave the sandbox whatever network it has: Unix sockets.
    #[default]
    Unix,
    /// Internet sockets too: the sandbox has no network but its loopback.
    Internet,
    /// Stream sockets of the loopback device too: the sandbox has a network, and the tool has none.
    Loopback,
}

/// The wall's faces inside a sandbox: addresses of its loopback behind which the gateway connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faces {
    /// An HTTP proxy (RFC 9110, 7.3 and 9.3.6).
    pub proxy: SocketAddrV4,
    /// A connection to each of these is one to its destination.
    pub direct: BTreeMap<SocketAddrV4, Destination>,
}

/// The value of a variable that a call brings along. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// A value.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The value itself: for the process that is to have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// A file that a call brings along: mode 0400, in a folder that is memory. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SecretFile {
    /// Absolute. Its folder is there, and nothing of that name in it.
    pub path: String,
    /// What is in it.
    #[serde(with = "serde_bytes")]
    pub contents: Vec<u8>,
}

impl SecretFile {
    /// A file at `path`.
    pub fn new(path: impl Into<String>, contents: Vec<u8>) -> Self {
        Self { path: path.into(), contents }
    }
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Invocation {
    /// Names the call and nothing it carries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invocation").field("call_id", &self.call_id).finish_non_exhaustive()
    }
}

/// How the tool ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited by itself; 0 is success.
    Code(i32),
    /// A signal that was not ours ended it (containers), or it trapped (wasm: `SIGILL`'s number, with the trap in `detail`).
    Signal(i32),
    /// It was killed at its deadline.
    Deadline,
    /// It was killed because the call was canceled.
    Canceled,
    /// It was killed, or failed to allocate, at its memory ceiling.
    OutOfMemory,
    /// It was killed for writing more than its output limit.
    OutputLimit,
    /// The program could not be started.
    NotStarted,
}

/// A ceiling that the tool ran into, whether or not that ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// The memory ceiling.
    Memory,
    /// The scratch space in `/tmp`.
    Disk,
    /// The number of processes.
    Processes,
    /// The output limit.
    Output,
}

/// What the call used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system CPU time.
    pub cpu: Duration,
    /// Peak memory in bytes, where the backend knows it.
    pub peak_memory: Option<u64>,
}

/// What a sandbox says at the end. A hostile tool may have written every byte of it except `exit`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How the tool ended.
    pub exit: Exit,
    /// One sentence for the operator where `exit` alone does not say enough (a trap, a spawn error).
    pub detail: Option<String>,
    /// Standard output, at most the output limit.
    pub stdout: Bytes,
    /// The last [`STDERR_TAIL`] bytes of standard error.
    pub stderr: Bytes,
    /// Whether earlier standard error was dropped.
    pub stderr_truncated: bool,
    /// Ceilings that were hit.
    pub exhausted: BTreeSet<Resource>,
    /// What it used.
    pub usage: Usage,
    /// Spans made inside the sandbox, at most [`MAX_SPANS`]. Ids are the sandbox's own; the receiver re-parents them.
    pub spans: Vec<Span>,
}

impl std::fmt::Debug for Report {
    /// Sizes, not contents.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("exit", &self.exit).field("stdout_bytes", &self.stdout.len()).finish_non_exhaustive()
    }
}

/// How much standard error a report keeps.
pub const STDERR_TAIL: usize = 16 << 10;
/// Most spans a report may carry; the rest are dropped.
pub const MAX_SPANS: usize = 64;
/// Longest log line, progress message, span name or attribute, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 4 << 10;

/// A span made inside the sandbox. Times are Unix nanoseconds by the sandbox's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Unique within the report.
    pub id: u64,
    /// Another span of this report; `None`: directly under `tool.run`.
    pub parent: Option<u64>,
    /// Its name.
    pub name: String,
    /// Start.
    pub start_unix_nanos: u64,
    /// End, not before the start.
    pub end_unix_nanos: u64,
    /// Attributes, all text.
    pub attributes: BTreeMap<String, String>,
    /// Whether it failed.
    pub error: bool,
}

/// How far a running tool is. A tool says so by writing a line of JSON with a numeric `progress` member to standard error:
/// `{"progress": 3, "total": 10, "message": "copying"}` (the members of MCP's progress notification).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Done so far, in the tool's own unit.
    pub progress: f64,
    /// All there is to do, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// What it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One line of standard error.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// A line in the progress form.
    Progress(Progress),
    /// Any other line, invalid UTF-8 replaced, cut at [`MAX_TEXT`].
    Log(String),
}

impl Line {
    /// Reads one line of a tool's standard error (without its newline).
    pub fn parse(line: &[u8]) -> Self {
        if line.first() == Some(&b'{')
            && line.len() <= MAX_TEXT
            && let Ok(progress) = serde_json::from_slice::<Progress>(line)
        {
            return Self::Progress(progress);
        }
        Self::Log(clip(&String::from_utf8_lossy(line)).to_owned())
    }
}

/// The longest prefix of `text` within [`MAX_TEXT`] bytes that ends on a character.
pub fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT.min(text.len()))]
}

/// Frames from the executor to the gateway. `Hello` and the `Ping`s before the invocation are in the clear; every other one is
/// sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromExecutor {
    /// Ready for an invocation. The answer to [`ToExecutor::Hello`]: whoever attaches to a container that runs already would never
    /// see what was said before.
    Hello {
        /// [`PROTOCOL`] as the executor knows it.
        protocol: u16,
    },
    /// The invocation opened and its tool is about to start.
    Accepted,
    /// See [`Progress`].
    Progress(Progress),
    /// A line of standard error.
    Log {
        /// The line.
        line: String,
    },
    /// A piece of standard output, in order. Streamed, so that neither a frame nor the executor's memory bounds the output; the
    /// receiver puts the pieces together in [`Report::stdout`].
    Output {
        /// The bytes.
        chunk: Bytes,
    },
    /// What the tool's connections carry; see [`crate::tunnel`].
    Tunnel {
        /// The bytes.
        chunk: Bytes,
    },
    /// The end. Nothing of the call runs any more. Its `stdout` is empty: it went ahead in `Output` frames.
    Report(Report),
    /// Sign of life.
    Ping,
}

/// Frames from the gateway to the executor, in the clear up to the `Invocation`, sealed after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one invocation a connection, made once and sent at once")]
pub enum ToExecutor {
    /// The first frame: who is there?
    Hello {
        /// [`PROTOCOL`] as the gateway knows it.
        protocol: u16,
    },
    /// Run this.
    Invocation(Invocation),
    /// What the tool's connections carry; see [`crate::tunnel`].
    Tunnel {
        /// The bytes.
        chunk: Bytes,
    },
    /// Kill the tool and report.
    Cancel,
    /// Sign of life. Before the invocation, each is answered with one.
    Ping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_numeric_progress_member_is_progress() {
        assert_eq!(
            Line::parse(br#"{"progress": 3, "total": 10}"#),
            Line::Progress(Progress { progress: 3.0, total: Some(10.0), message: None })
        );
        assert_eq!(Line::parse(br#"{"progress": "3"}"#), Line::Log(r#"{"progress": "3"}"#.into()));
        assert_eq!(Line::parse(b"plain \xff"), Line::Log("plain \u{fffd}".into()));
    }

    #[test]
    fn debug_shows_neither_key_nor_arguments_nor_output() {
        let invocation = Invocation {
            call_id: "c1".into(),
            key: WireKey([7; 32]),
            command: vec!["canary".into()],
            stdin: Bytes::from_static(b"canary"),
            environment: BTreeMap::from([("TOKEN".into(), SecretText::new("canary"))]),
            files: vec![SecretFile::new("/tmp/token", b"canary".to_vec())],
            sockets: Sockets::Unix,
            timeout: Duration::ZERO,
            output_limit: ByteSize(1),
            faces: None,
            traceparent: String::new(),
        };
        let shown = format!(
            "{invocation:?} {:?} {:?} {:?}",
            ToExecutor::Invocation(invocation.clone()),
            invocation.files,
            invocation.environment
        );
        assert!(!shown.contains("canary") && !shown.contains('7'), "{shown}");
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        let long = "é".repeat(MAX_TEXT);
        assert!(clip(&long).len() <= MAX_TEXT && clip(&long).chars().all(|c| c == 'é'));
    }
}
