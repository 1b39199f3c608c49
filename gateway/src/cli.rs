//! The commands. Each is a `clap` type with a `run` that answers with an [`Exit`] or a [`Failure`]; nothing here decides
//! anything that a gateway decides.

pub mod access;
pub mod agent;
pub mod arguments;
pub mod backends;
pub mod call;
pub mod client;
pub mod config;
pub mod credential;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod output;
pub mod policy;
pub mod pool;
pub mod secret;
pub mod serve;
pub mod tool;
pub mod tool_build;
pub mod tool_list;
pub mod tool_run;
pub mod waterfall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{Exit, Failure};

/// The gateway that authorizes every tool call of an AI agent and runs it in a sandbox that lives for exactly that call.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeCommand),
    /// See what Mayfly does, in one screen: builds two tools, runs three calls, leaves nothing
    Demo(demo::DemoCommand),
    /// Run a tool and print its result
    Call(call::CallCommand),
    /// Register, list and lock out agents
    Agent(agent::AgentCommand),
    /// Make, check, build and try tools
    #[command(subcommand)]
    Tool(ToolVerb),
    /// Check a policy, or ask it
    Policy(policy::PolicyCommand),
    /// Look at warm sandboxes
    Pool(pool::PoolCommand),
    /// Ask who may call what
    Access(access::AccessCommand),
    /// Keep the secrets that calls may be given
    Secret(secret::SecretCommand),
    /// Look at what was minted for calls
    Credential(credential::CredentialCommand),
    /// Check a configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Say which backends work on this machine, and what to do about those that don't
    Doctor(doctor::DoctorCommand),
}

#[derive(Debug, Subcommand)]
enum ToolVerb {
    #[command(flatten)]
    Author(tool::ToolCommand),
    /// Build the module or image of tools
    Build(tool_build::ToolBuild),
    /// Try a tool in a real sandbox, without a gateway
    Run(tool_run::ToolRun),
    /// List the tools of the running gateway, and why one cannot run
    List(tool_list::ToolListCommand),
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> ExitCode {
        match self.command.run().await {
            Ok(exit) => exit.into(),
            Err(failure) => {
                eprintln!("error: {failure}");
                failure.exit.into()
            }
        }
    }
}

impl Command {
    async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Serve(command) => command.run().await,
            Self::Demo(command) => command.run().await,
            Self::Call(command) => command.run().await,
            Self::Agent(command) => command.run().await,
            Self::Tool(ToolVerb::Author(command)) => command.run(&mut std::io::stdout()).map_err(unwritten),
            Self::Tool(ToolVerb::Build(command)) => command.run().await,
            Self::Tool(ToolVerb::Run(command)) => command.run().await,
            Self::Tool(ToolVerb::List(command)) => command.run().await,
            Self::Policy(command) => command.run().await,
            Self::Pool(command) => command.run().await,
            Self::Access(command) => command.run().await,
            Self::Secret(command) => command.run().await,
            Self::Credential(command) => command.run().await,
            Self::Config(command) => command.run(&mut std::io::stdout()).map_err(unwritten),
            Self::Doctor(command) => command.run().await,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn unwritten(error: std::io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("standard output cannot be written: {error}"))
}
