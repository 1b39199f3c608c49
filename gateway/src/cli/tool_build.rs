//! `mayfly tool build DIR...`: builds the module or image of tools.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::output::{note, print};
use super::{Exit, Failure};
use crate::build::{Artifact, BuildOptions, Built, build};
use crate::catalog::{Rules, Tool};
use crate::document::Problem;

/// Longest piece of a line that is shown in place.
const LIVE_WIDTH: usize = 100;

/// Builds the module or image of tools, and pins it.
#[derive(Debug, Clone, clap::Args)]
pub struct ToolBuild {
    /// Folders with a tool.yaml each
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The static `mayfly-executor` to put on images; without it, the one beside this program, else one built from the source
    #[arg(long, value_name = "PATH", env = "MAYFLY_EXECUTOR")]
    executor: Option<PathBuf>,
    /// The network of a Dockerfile's RUN steps, such as `host`
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Push images to this registry, such as registry.example.com/tools, and pin what was pushed: what a cluster needs
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
}

impl ToolBuild {
    /// Builds every folder in turn; one that fails does not keep the others.
    ///
    /// # Errors
    /// Every folder that could not be built, with what to do.
    pub async fn run(self) -> Result<Exit, Failure> {
        let options = BuildOptions { executor: self.executor, network: self.network, push: self.push, ..BuildOptions::default() };
        let mut failures = Vec::new();
        for dir in &self.dirs {
            match one(dir, &options).await {
                Ok(built) => print(&sentence(&built))?,
                Err(failure) => failures.push(format!("{} was not built: {failure}", dir.display())),
            }
        }
        if failures.is_empty() { Ok(Exit::Ok) } else { Err(Failure::new(Exit::Invalid, failures.join("\n"))) }
    }
}

async fn one(dir: &Path, options: &BuildOptions) -> Result<Built, Failure> {
    let tool = load(dir)?;
    let name = tool.definition.name.clone();
    let live = std::io::stderr().is_terminal();
    let progress = move |line: &str| {
        // A log gets every line; a person sees the last one.
        if live {
            let shown: String = line.trim().chars().filter(|c| !c.is_control()).take(LIVE_WIDTH).collect();
            eprint!("\r\x1b[2K{name}: {shown}");
            let _ = std::io::stderr().flush();
        } else {
            note(&format!("{name}: {line}"));
        }
    };
    let built = build(dir, &tool.definition, options, &progress).await;
    if live {
        eprint!("\r\x1b[2K");
    }
    built.map_err(|error| Failure::new(Exit::Invalid, error.to_string()))
}

/// The tool of a folder, whether or not its module or image is there. Which host folders may be mounted is for the gateway's
/// configuration to say: whoever builds or tries a tool here could read them anyway.
///
/// # Errors
/// Every mistake in its definition.
pub fn load(dir: &Path) -> Result<Tool, Failure> {
    if !dir.join("tool.yaml").is_file() {
        return Err(Failure::new(Exit::NotFound, format!("{} has no tool.yaml; `mayfly tool new` makes one", dir.display())));
    }
    let (tool, problems) = Tool::load(dir, &Rules::now(&[PathBuf::from("/")]));
    tool.ok_or_else(|| Failure::new(Exit::Invalid, problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")))
}

fn sentence(built: &Built) -> String {
    let took = built.took.as_secs_f64();
    match &built.artifact {
        Artifact::Module { path, bytes, changed } => {
            let state = if *changed { "built" } else { "up to date" };
            format!("{}: {state}: {} ({} KiB) in {took:.1} s", built.tool, path.display(), bytes.div_ceil(1024))
        }
        Artifact::Image { tag, id, pushed } => {
            let pushed = pushed.as_ref().map(|pushed| format!(", pushed as {pushed}")).unwrap_or_default();
            format!("{}: built: {tag} is {id}{pushed} in {took:.1} s", built.tool)
        }
    }
}
