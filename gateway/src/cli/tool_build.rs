//! `mayfly tool build DIR...`: builds the module or image of tools.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::build::{Artifact, BuildOptions, Built, build};
use crate::catalog::{Rules, Tool};
use crate::document::Problem;

/// Builds the module or image of tools, and pins it.
#[derive(Debug, Clone, clap::Args)]
pub struct ToolBuild {
    /// Folders with a tool.yaml each.
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// The static `mayfly-executor` to put on images; without it, the one beside this program, else one built from the source.
    #[arg(long, value_name = "PATH", env = "MAYFLY_EXECUTOR")]
    pub executor: Option<PathBuf>,
    /// The network of a Dockerfile's RUN steps, such as `host`.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
}

impl ToolBuild {
    /// Builds every folder in turn. Exit code 5 if any could not be built; the others are built all the same.
    pub async fn run(self) -> ExitCode {
        let options = BuildOptions { executor: self.executor, network: self.network, target_dir: None };
        let mut failed = 0_u8;
        for dir in &self.dirs {
            match one(dir, &options).await {
                Ok(built) => println!("{}", sentence(&built)),
                Err(reason) => {
                    failed = 5;
                    eprintln!("{}: not built\n{reason}", dir.display());
                }
            }
        }
        ExitCode::from(failed)
    }
}

async fn one(dir: &Path, options: &BuildOptions) -> Result<Built, String> {
    let tool = load(dir)?;
    let name = tool.definition.name.clone();
    let live = std::io::stderr().is_terminal();
    let progress = move |line: &str| {
        // A log gets every line; a person the last one.
        if live { eprint!("\r\x1b[2K{name}: {}", line.trim()) } else { eprintln!("{name}: {line}") }
    };
    let built = build(dir, &tool.definition, options, &progress).await;
    if live {
        eprint!("\r\x1b[2K");
    }
    built.map_err(|error| error.to_string())
}

/// The definition, whether or not its module or image is there. Which host folders may be mounted is asked when a tool runs.
pub(super) fn load(dir: &Path) -> Result<Tool, String> {
    let (tool, problems) = Tool::load(dir, &Rules::now(&[PathBuf::from("/")]));
    tool.ok_or_else(|| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
}

fn sentence(built: &Built) -> String {
    let took = built.took.as_secs_f64();
    match &built.artifact {
        Artifact::Module { path, bytes, changed } => {
            let state = if *changed { "built" } else { "up to date" };
            format!("{}: {state}: {} ({} KiB) in {took:.1} s", built.tool, path.display(), bytes.div_ceil(1024))
        }
        Artifact::Image { tag, id } => format!("{}: built: {tag} is {id} in {took:.1} s", built.tool),
    }
}
