//! `mayfly agent`: who may call. Speaks to the administration of a running gateway.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::json;

use super::client::AdminClient;
use super::output::{Format, note, print, table};
use super::{Exit, Failure};
use crate::config::Config;
use crate::http::admin::{AgentRequest, AgentView, NewAgent};

/// What every command needs that speaks to administration.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminOptions {
    /// The administration socket of the running gateway [default: where the configuration says, with `MAYFLY_CONFIG` and
    /// `MAYFLY_DATA_DIR` as for `serve`]
    #[arg(long, global = true, env = "MAYFLY_SOCKET")]
    socket: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

impl AdminOptions {
    /// A client of the gateway that was meant.
    ///
    /// # Errors
    /// A configuration that does not load.
    pub fn client(&self) -> Result<AdminClient, Failure> {
        let configured = || Config::load(None).map(|config| config.admin_socket());
        let socket = self.socket.clone().map_or_else(configured, Ok);
        Ok(AdminClient::new(socket.map_err(|error| Failure::new(Exit::Invalid, error.to_string()))?))
    }
}

/// Manage the agents that may call.
#[derive(Debug, clap::Args)]
pub struct AgentCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    options: AdminOptions,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Register an agent and print its key, this once
    Add {
        /// Its name: what policy knows as `agent_id`
        name: String,
        /// The user it acts for
        #[arg(long)]
        user: Option<String>,
    },
    /// List the registered agents
    List,
    /// Remove an agent; its key is worth nothing from then on
    Remove {
        /// Its name
        name: String,
    },
    /// Refuse an agent at the door until it is resumed
    Suspend {
        /// Its name
        name: String,
    },
    /// Let a suspended agent in again
    Resume {
        /// Its name
        name: String,
    },
}

impl AgentCommand {
    /// Does it and prints what came of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let client = self.options.client()?;
        let output = self.options.output;
        match self.verb {
            Verb::Add { name, user } => {
                let body = json!(AgentRequest { name, user });
                let added: NewAgent = client.ask(Method::POST, &["agents"], Some(&body)).await?;
                if output == Format::Text {
                    note("This key is shown this once; keep it where only the agent can read it:");
                }
                print(&output.render(&added, |added| added.key.clone())?)?;
            }
            Verb::List => {
                let agents: Vec<AgentView> = client.ask(Method::GET, &["agents"], None).await?;
                print(&output.render(&agents, |agents| listed(agents))?)?;
            }
            Verb::Remove { name } => {
                let () = client.ask(Method::DELETE, &["agents", &name], None).await?;
                note(&format!("removed {name}"));
            }
            Verb::Suspend { name } => switch(&client, output, &name, "suspend").await?,
            Verb::Resume { name } => switch(&client, output, &name, "resume").await?,
        }
        Ok(Exit::Ok)
    }
}

async fn switch(client: &AdminClient, output: Format, name: &str, verb: &str) -> Result<(), Failure> {
    let agent: AgentView = client.ask(Method::POST, &["agents", name, verb], None).await?;
    print(&output.render(&agent, |agent| listed(std::slice::from_ref(agent)))?)
}

fn listed(agents: &[AgentView]) -> String {
    let rows: Vec<[String; 4]> = agents
        .iter()
        .map(|agent| {
            let state = if agent.suspended { "suspended" } else { "active" };
            [
                agent.name.clone(),
                agent.user.clone().unwrap_or_else(|| "-".into()),
                state.into(),
                agent.created_at.date().to_string(),
            ]
        })
        .collect();
    table(["NAME", "USER", "STATE", "SINCE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use time::macros::datetime;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        agent: AgentCommand,
    }

    #[test]
    fn options_may_stand_anywhere() {
        for line in
            [&["agent", "add", "a", "-o", "json", "--socket", "/s"], &["agent", "--socket", "/s", "-o", "json", "add", "a"]]
        {
            let command = Line::try_parse_from(line).unwrap().agent;
            assert_eq!((command.options.output, command.options.socket), (Format::Json, Some(PathBuf::from("/s"))));
        }
        assert!(Line::try_parse_from(["agent"]).is_err());
    }

    #[test]
    fn agents_are_listed_as_a_table() {
        let agent = |name: &str, suspended: bool| AgentView {
            name: name.into(),
            user: suspended.then(|| "ada".into()),
            suspended,
            created_at: datetime!(2026-01-02 03:04:05 UTC),
        };
        assert_eq!(
            listed(&[agent("deploy-bot", false), agent("x", true)]),
            "NAME        USER  STATE      SINCE\ndeploy-bot  -     active     2026-01-02\nx           ada   suspended  2026-01-02"
        );
    }
}
