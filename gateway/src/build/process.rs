//! Running a program of the tool chain: what it says on standard error is progress, what it writes to standard output is its answer.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::{BuildError, Progress};

/// How many of its last lines an error shows.
const TAIL_LINES: usize = 40;
/// Longest line that is passed on.
const MAX_LINE: usize = 4096;
/// Most bytes of an answer. Cargo names every artifact of every dependency.
const MAX_ANSWER: u64 = 64 << 20;

/// Runs `program` in `dir` to its end and returns what it wrote to standard output.
pub(super) async fn run(program: &str, arguments: &[&str], dir: &Path, progress: Progress<'_>) -> Result<Vec<u8>, BuildError> {
    let not_started = |source| BuildError::NotStarted { program: program.to_owned(), source, advice: advice(program) };
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("CARGO_TERM_COLOR", "never")
        // These speak of the program that started us, and would make cargo build everything twice.
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut answer = Vec::new();
    let read_answer = async {
        match stdout {
            Some(pipe) => pipe.take(MAX_ANSWER).read_to_end(&mut answer).await.map(|_| ()),
            None => Ok(()),
        }
    };
    let (read, tail) = tokio::join!(read_answer, follow(stderr, progress));
    let status = child.wait().await.map_err(not_started)?;
    read.map_err(not_started)?;
    if status.success() {
        return Ok(answer);
    }
    let command = std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
    Err(BuildError::Failed { command, output: tail })
}

/// Passes lines on as they come, and keeps the last ones.
async fn follow(pipe: Option<tokio::process::ChildStderr>, progress: Progress<'_>) -> String {
    let Some(pipe) = pipe else { return String::new() };
    let mut reader = BufReader::new(pipe);
    let mut tail: VecDeque<String> = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        line.truncate(MAX_LINE);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress(&text);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
    tail.into_iter().collect::<Vec<_>>().join("\n")
}

fn advice(program: &str) -> &'static str {
    match program {
        "rustup" => "install rustup from https://rustup.rs",
        _ => "install Rust from https://rustup.rs, or put its `bin` folder on PATH",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn lines_are_progress_and_the_last_ones_explain_a_failure() {
        let lines = Mutex::new(Vec::new());
        let progress = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let answer = run("sh", &["-c", "echo answer; echo one >&2; echo two >&2"], Path::new("/"), &progress).await.unwrap();
        assert_eq!(answer, b"answer\n");
        assert_eq!(*lines.lock().unwrap(), ["one", "two"]);

        let error = run("sh", &["-c", "seq 100 >&2; exit 3"], Path::new("/"), &|_| {}).await.unwrap_err();
        let BuildError::Failed { command, output } = error else { panic!("{error}") };
        assert!(command.starts_with("sh -c") && output.ends_with("99\n100"), "{output}");
        assert_eq!(output.lines().count(), TAIL_LINES);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named_with_what_to_do() {
        let error = run("no-such-cargo", &[], Path::new("/"), &|_| {}).await.unwrap_err().to_string();
        assert!(error.contains("`no-such-cargo`") && error.contains("rustup.rs"), "{error}");
    }
}
