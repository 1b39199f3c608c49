//! `mayfly tool list`: what a running gateway has in its catalog, and why some of it cannot run.

use reqwest::Method;

use super::agent::AdminOptions;
use super::output::{print, table};
use super::{Exit, Failure};
use crate::http::admin::ToolStatus;

/// List the tools of the running gateway.
#[derive(Debug, clap::Args)]
pub struct ToolListCommand {
    #[command(flatten)]
    options: AdminOptions,
}

impl ToolListCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let tools: Vec<ToolStatus> = self.options.client()?.ask(Method::GET, &["tools"], None).await?;
        print(&self.options.output.render(&tools, |tools| listed(tools))?)?;
        Ok(Exit::Ok)
    }
}

fn listed(tools: &[ToolStatus]) -> String {
    let rows: Vec<[String; 5]> = tools
        .iter()
        .map(|tool| {
            let tier = format!("{:?}", tool.tier).to_lowercase();
            let state = tool.unavailable.as_ref().map_or_else(|| "available".into(), |reason| format!("unavailable: {reason}"));
            [tool.name.clone(), tool.version.clone(), tier, tool.backend.to_string(), state]
        })
        .collect();
    table(["NAME", "VERSION", "TIER", "BACKEND", "STATE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::admin::{Admin as _, fixture::InMemory};

    #[test]
    fn tools_are_listed_with_what_is_wrong_with_them() {
        assert_eq!(
            listed(&InMemory::default().tools()),
            "NAME        VERSION  TIER  BACKEND  STATE\n\
             git_log     1.0.0    free  docker   unavailable: Docker does not answer\n\
             http_probe  1.0.0    free  wasm     available"
        );
    }
}
