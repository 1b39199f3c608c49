//! `mayfly policy`: checks a policy, and asks it. Both work on files, without a gateway.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::output::{Format, print};
use super::{Exit, Failure};
use crate::policy::{Explained, Policy, PolicyLoadError, PolicySettings, Problem};

/// Most bytes of an input.
const MOST_INPUT: u64 = 16 << 20;

/// Check a policy, or ask it.
#[derive(Debug, clap::Args)]
pub struct PolicyCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Load a policy as the gateway would, and name everything that is wrong with file and line
    Check,
    /// Ask a policy about one raw input, and print the decision and the rules that fired
    Eval {
        /// The policy input, a JSON file; `-` reads standard input
        #[arg(long)]
        input: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// A folder of .rego files, or an OPA bundle with a policy.wasm
    #[arg(long, global = true, value_name = "DIR|BUNDLE", default_value = "policies/default")]
    policy: PathBuf,
    /// A JSON or YAML file whose top-level keys replace those of the policy's own data
    #[arg(long, global = true, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The package that decides
    #[arg(long, global = true, default_value = "agent.authz")]
    package: String,
    /// The form of the output; `eval` prints JSON where nothing else is asked for
    #[arg(short, long, global = true, value_enum)]
    output: Option<Format>,
}

/// What `policy check` found.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl PolicyCommand {
    /// Does it.
    ///
    /// # Errors
    /// Files that cannot be read, a policy that does not load, and one that fails on the input.
    pub async fn run(self) -> Result<Exit, Failure> {
        let Self { verb, options } = self;
        let work = move || match verb {
            Verb::Check => options.check(),
            Verb::Eval { input } => options.eval(&input),
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(Exit::ToolFailed, error.to_string()))?
    }
}

impl Options {
    fn check(&self) -> Result<Exit, Failure> {
        let (exit, checked) = match self.load() {
            Ok(policy) => {
                let (engine, digest) = (Some(policy.engine()), Some(policy.digest().to_owned()));
                (Exit::Ok, Checked { ok: true, engine, digest, problems: Vec::new(), notes: policy.notes().to_vec() })
            }
            Err(error) => {
                let exit = if error.not_found { Exit::NotFound } else { Exit::Invalid };
                (exit, Checked { ok: false, engine: None, digest: None, problems: error.problems, notes: Vec::new() })
            }
        };
        let text = |checked: &Checked| checked.text(&self.policy.display().to_string(), &self.package);
        print(&self.output.unwrap_or_default().render(&checked, text)?)?;
        Ok(exit)
    }

    fn eval(&self, input: &Path) -> Result<Exit, Failure> {
        let policy = self.load().map_err(|error| {
            let exit = if error.not_found { Exit::NotFound } else { Exit::Invalid };
            Failure::new(exit, format!("the policy was refused\n{error}"))
        })?;
        let input = read(input)?;
        let explained = policy.explain(input).map_err(|error| {
            Failure::new(Exit::Invalid, format!("{error}\nIn a gateway this is a denial, whatever `allow` says."))
        })?;
        print(&self.output.unwrap_or(Format::Json).render(&explained, text)?)?;
        Ok(Exit::Ok)
    }

    fn load(&self) -> Result<Policy, PolicyLoadError> {
        let settings = PolicySettings { package: self.package.clone(), ..PolicySettings::default() };
        Policy::load(&self.policy, self.data.as_deref(), &settings)
    }
}

impl Checked {
    fn text(&self, path: &str, package: &str) -> String {
        let mut lines: Vec<String> = self.problems.iter().chain(&self.notes).map(ToString::to_string).collect();
        match (self.engine, &self.digest) {
            (Some(engine), Some(digest)) => lines.push(format!("{path}: ok, package {package} on {engine}, sha256:{digest}")),
            _ => lines.push(format!("{path}: refused, {} found", count(self.problems.len()))),
        }
        lines.join("\n")
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    let mut text = Vec::new();
    let source: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(|error| {
            let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Invalid };
            Failure::new(exit, format!("{shown}: {error}"))
        })?;
        Box::new(file)
    };
    source
        .take(MOST_INPUT + 1)
        .read_to_end(&mut text)
        .map_err(|error| Failure::new(Exit::Invalid, format!("{shown}: {error}")))?;
    if text.len() as u64 > MOST_INPUT {
        return Err(Failure::new(Exit::Invalid, format!("{shown}: is larger than {} MiB", MOST_INPUT >> 20)));
    }
    serde_json::from_slice(&text).map_err(|error| Failure::new(Exit::Invalid, format!("{shown}: is not JSON: {error}")))
}

fn text(explained: &Explained) -> String {
    let mut lines = vec![match (explained.allow, explained.approval) {
        (true, true) => "allowed, once a human approves".to_owned(),
        (true, false) => "allowed".to_owned(),
        (false, _) => "denied".to_owned(),
    }];
    lines.extend(explained.reasons.iter().map(|reason| format!("  reason: {reason}")));
    lines.extend(explained.unenforceable.iter().map(|key| format!("  obligation that cannot be kept: {key}")));
    if !explained.obligations.is_null() {
        lines.push(format!("  obligations: {}", explained.obligations));
    }
    match &explained.fired {
        Some(fired) if fired.is_empty() => lines.push("  no rule fired".to_owned()),
        Some(fired) => lines.extend(fired.iter().map(|rule| format!("  fired: {rule}"))),
        None => {}
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        command: PolicyCommand,
    }

    async fn run(arguments: &[&str]) -> Result<Exit, Failure> {
        Line::try_parse_from([&["policy"], arguments].concat()).unwrap().command.run().await
    }

    fn folder(rules: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.rego"), rules).unwrap();
        std::fs::write(folder.path().join("input.json"), r#"{"x": 1}"#).unwrap();
        folder
    }

    async fn on(rules: &str, verb: &[&str]) -> Exit {
        let folder = folder(rules);
        let policy = folder.path().to_str().unwrap();
        let input = folder.path().join("input.json");
        let verb: Vec<&str> = verb.iter().map(|word| if *word == "INPUT" { input.to_str().unwrap() } else { word }).collect();
        run(&[&verb[..], &["--policy", policy]].concat()).await.unwrap_or_else(|failure| failure.exit)
    }

    #[tokio::test]
    async fn the_exit_code_says_how_it_went() {
        let good = "package agent.authz\nallow if input.x == 1";
        assert_eq!(on(good, &["check"]).await, Exit::Ok);
        assert_eq!(on(good, &["check", "-o", "yaml"]).await, Exit::Ok);
        assert_eq!(on("package agent.authz\nallow if {", &["check"]).await, Exit::Invalid);
        assert_eq!(on(good, &["check", "--package", "other"]).await, Exit::Invalid);
        assert_eq!(on(good, &["eval", "--input", "INPUT"]).await, Exit::Ok);
        assert_eq!(on(good, &["eval", "--input", "INPUT", "-o", "text"]).await, Exit::Ok);
        assert_eq!(on(good, &["eval", "--input", "/nowhere.json"]).await, Exit::NotFound);
        assert_eq!(on(good, &["eval", "--input", "INPUT", "--data", "/nowhere.json"]).await, Exit::NotFound);
        assert_eq!(on("package agent.authz\nallow if lower(input.x) == 1", &["eval", "--input", "INPUT"]).await, Exit::Invalid);
        assert_eq!(run(&["check", "--policy", "/nowhere"]).await, Ok(Exit::NotFound));
    }

    #[test]
    fn the_text_says_what_happened_and_why() {
        let explained = Explained {
            allow: false,
            deny: true,
            reasons: vec!["no".to_owned()],
            approval: false,
            obligations: serde_json::json!({"timeout": "5s"}),
            unenforceable: None,
            fired: Some(vec!["a.rego:3: deny".to_owned()]),
        };
        assert_eq!(text(&explained), "denied\n  reason: no\n  obligations: {\"timeout\":\"5s\"}\n  fired: a.rego:3: deny");
    }
}
