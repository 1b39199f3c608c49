//! `mayfly access`: who may call what, as a running gateway would decide it.

use clap::Subcommand;
use reqwest::Method;

use super::agent::AdminOptions;
use super::output::{Format, note, print, table};
use super::{Exit, Failure};
use crate::http::admin::access::{Access, AccessView};

/// Ask who may call what.
#[derive(Debug, clap::Args)]
pub struct AccessCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    options: AdminOptions,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the agents that may ask for a tool
    WhoCan {
        /// The tool
        tool: String,
    },
    /// List the tools that an agent may ask for, with what their calls are given and may reach
    WhatCan {
        /// The agent
        agent: String,
    },
}

impl AccessCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let client = self.options.client()?;
        let path = match &self.verb {
            Verb::WhoCan { tool } => ["access", "tools", tool],
            Verb::WhatCan { agent } => ["access", "agents", agent],
        };
        let view: AccessView = client.ask(Method::GET, &path, None).await?;
        if self.options.output == Format::Text && !view.decided {
            note("this policy does not say who sees what (`visible`): only each call's decision tells");
        }
        print(&self.options.output.render(&view, |view| listed(&view.access))?)?;
        Ok(Exit::Ok)
    }
}

fn listed(access: &[Access]) -> String {
    if access.is_empty() {
        return "none".to_owned();
    }
    let some = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
    let row = |one: &Access| {
        let state = if one.suspended { "suspended" } else { "active" };
        let tier = one.tier.as_str().to_owned();
        [one.agent.clone(), state.into(), one.tool.clone(), one.version.clone(), tier, some(&one.credentials), some(&one.network)]
    };
    table(["AGENT", "STATE", "TOOL", "VERSION", "TIER", "CREDENTIALS", "NETWORK"], &access.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::definition::Tier;

    #[test]
    fn access_is_listed_with_what_comes_with_it() {
        let one = Access {
            agent: "bot".into(),
            user: None,
            suspended: true,
            tool: "postgres_query".into(),
            version: "1.0.0".into(),
            tier: Tier::Free,
            credentials: vec!["reporting".into()],
            network: Vec::new(),
        };
        assert_eq!(
            listed(&[one]),
            "AGENT  STATE      TOOL            VERSION  TIER  CREDENTIALS  NETWORK\nbot    suspended  postgres_query  1.0.0    free  reporting    -"
        );
        assert_eq!(listed(&[]), "none");
    }
}
