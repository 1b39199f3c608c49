//! The executor's command line, which a container's entrypoint is made of.

use std::time::Duration;

/// Where the executor lies in an image.
pub const EXECUTOR_PATH: &str = "/.mayfly/executor";
/// The variable that tells an executor its life where nobody can look into its image to extend the entrypoint. The command line
/// goes first.
pub const LIFE_VARIABLE: &str = "MAYFLY_LIFE_SECONDS";
/// Likewise the most processes and threads of the tool, where the engine cannot limit them: on Kubernetes the kubelet has one
/// limit for all pods. It counts everything that runs as the sandbox's user, so the user must be the sandbox's alone.
pub const PROCESSES_VARIABLE: &str = "MAYFLY_PROCESSES";
/// Likewise the port of the loopback at which the gateway's second stream arrives, where the first is not for bulk: on Kubernetes it
/// is written to a file of the node.
pub const BULK_VARIABLE: &str = "MAYFLY_BULK_PORT";
/// How long an executor lives that was not told: long enough for any call, short enough to be no leak.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Be PID 1.
    Run(Run),
    /// Become the tool, once told which.
    Exec {
        /// The most processes and threads of its user; `None`: the engine's limit holds.
        processes: Option<u64>,
    },
    /// Say which executor this is.
    Version,
}

/// The command line of [`Command::Exec`].
pub(super) fn exec_arguments(processes: Option<u64>) -> Vec<String> {
    let processes = processes.map(|most| ["--processes".to_owned(), most.to_string()]);
    ["exec".to_owned()].into_iter().chain(processes.into_iter().flatten()).collect()
}

/// How to be PID 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How long to exist at most.
    pub(super) life: Duration,
    /// Which variables of the image the tool inherits.
    pub(super) keep: Vec<String>,
    /// The most processes and threads of the tool, where the engine does not say.
    pub(super) processes: Option<u64>,
    /// Where the gateway connects for what the tool's connections carry, where that has a stream of its own.
    pub(super) bulk: Option<u16>,
    /// What runs when the invocation names no command.
    pub(super) argv: Vec<String>,
}

/// The entrypoint of an image whose tool inherits the variables `keep` of the image. The tool's own command line follows as the
/// image's `CMD`.
pub fn entrypoint<'a>(keep: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let keep = keep.into_iter().flat_map(|name| ["--keep-env".to_owned(), name.to_owned()]);
    [EXECUTOR_PATH.to_owned(), "run".to_owned()].into_iter().chain(keep).chain(["--".to_owned()]).collect()
}

/// An [`entrypoint`] with the life that one sandbox has; `None` when it is not an entrypoint of this executor.
pub fn with_life(entrypoint: &[String], life: Duration) -> Option<Vec<String>> {
    let options = match entrypoint {
        [path, run, options @ .., end] if path == EXECUTOR_PATH && run == "run" && end == "--" => options,
        _ => return None,
    };
    let head = [EXECUTOR_PATH.to_owned(), "run".to_owned(), "--life-seconds".to_owned(), life.as_secs().max(1).to_string()];
    Some(head.into_iter().chain(options.iter().cloned()).chain(["--".to_owned()]).collect())
}

pub(super) fn parse(arguments: Vec<String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    match arguments.next().as_deref() {
        Some("run") => run(arguments).map(Command::Run),
        Some("exec") => exec(arguments),
        Some("--version") => Ok(Command::Version),
        _ => Err("usage: run [--life-seconds N] [--keep-env NAME]... -- COMMAND...".into()),
    }
}

fn exec(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let processes = match arguments.next().as_deref() {
        None => None,
        Some("--processes") => {
            Some(arguments.next().and_then(|most| most.parse().ok()).ok_or("--processes takes a whole number")?)
        }
        Some(_) => return Err("usage: exec [--processes N]".into()),
    };
    match arguments.next() {
        None => Ok(Command::Exec { processes }),
        Some(_) => Err("usage: exec [--processes N]".into()),
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<Run, String> {
    let life = told(LIFE_VARIABLE)?.map_or(DEFAULT_LIFE, Duration::from_secs);
    let bulk = told(BULK_VARIABLE)?.map(u16::try_from).transpose().map_err(|_| format!("{BULK_VARIABLE} is no port"))?;
    let mut run = Run { life, keep: vec![], processes: told(PROCESSES_VARIABLE)?, bulk, argv: vec![] };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--life-seconds" => {
                run.life = whole(&value()?).map(Duration::from_secs).ok_or("--life-seconds takes a whole number above 0")?;
            }
            "--keep-env" => run.keep.push(value()?),
            "--" => {
                run.argv = arguments.collect();
                return Ok(run);
            }
            _ => return Err(format!("unknown option {argument}; the tool's own command line follows --")),
        }
    }
    Err("-- is missing; the tool's own command line follows it".into())
}

/// A variable of ours, if it is set.
fn told(variable: &str) -> Result<Option<u64>, String> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    whole(&text).map(Some).ok_or_else(|| format!("{variable} is no whole number above 0"))
}

fn whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_entrypoint_with_a_life_is_read_back() {
        let line = with_life(&entrypoint(["PYTHONPATH"]), Duration::from_secs(90)).unwrap();
        let arguments = [&line[1..], &words("python -u --life-seconds")].concat();
        let argv = words("python -u --life-seconds");
        let expected = Run { life: Duration::from_secs(90), keep: words("PYTHONPATH"), processes: None, bulk: None, argv };
        assert_eq!(parse(arguments), Ok(Command::Run(expected)));
    }

    #[test]
    fn what_a_tool_is_held_to_is_read_back() {
        for processes in [None, Some(64)] {
            assert_eq!(parse(exec_arguments(processes)), Ok(Command::Exec { processes }));
        }
    }

    #[test]
    fn an_entrypoint_of_something_else_gets_no_life() {
        for other in ["/bin/sh -c", "", "/.mayfly/executor exec --", "/.mayfly/executor run"] {
            assert_eq!(with_life(&words(other), Duration::from_secs(1)), None, "{other}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for wrong in [
            "",
            "run",
            "run --life-seconds 0 --",
            "run --life-seconds x --",
            "run --life-seconds",
            "run --shell --",
            "exec sh",
            "exec --processes x",
            "exec --processes 1 sh",
        ] {
            assert!(parse(words(wrong)).is_err(), "{wrong}");
        }
    }
}
