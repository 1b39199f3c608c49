//! The executor's command line, which a container's entrypoint is made of.

use std::time::Duration;

/// Where the executor lies in an image.
pub const EXECUTOR_PATH: &str = "/.mayfly/executor";
/// How long an executor lives that was not told: long enough for any call, short enough to be no leak.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Be PID 1.
    Run(Run),
    /// Become the tool.
    Exec(Vec<String>),
    /// Say which executor this is.
    Version,
}

/// How to be PID 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How long to exist at most.
    pub(super) life: Duration,
    /// Which variables of the image the tool inherits.
    pub(super) keep: Vec<String>,
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
        Some("exec") if arguments.next().as_deref() == Some("--") => Ok(Command::Exec(arguments.collect())),
        Some("--version") => Ok(Command::Version),
        _ => Err("usage: run [--life-seconds N] [--keep-env NAME]... -- COMMAND...".into()),
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<Run, String> {
    let mut run = Run { life: DEFAULT_LIFE, keep: vec![], argv: vec![] };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--life-seconds" => {
                let seconds = value()?.parse().ok().filter(|s| *s > 0).ok_or("--life-seconds takes a whole number above 0")?;
                run.life = Duration::from_secs(seconds);
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
        let expected = Run { life: Duration::from_secs(90), keep: words("PYTHONPATH"), argv: words("python -u --life-seconds") };
        assert_eq!(parse(arguments), Ok(Command::Run(expected)));
    }

    #[test]
    fn an_entrypoint_of_something_else_gets_no_life() {
        for other in ["/bin/sh -c", "", "/.mayfly/executor exec --", "/.mayfly/executor run"] {
            assert_eq!(with_life(&words(other), Duration::from_secs(1)), None, "{other}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for wrong in
            ["", "run", "run --life-seconds 0 --", "run --life-seconds x --", "run --life-seconds", "run --shell --", "exec sh"]
        {
            assert!(parse(words(wrong)).is_err(), "{wrong}");
        }
    }
}
