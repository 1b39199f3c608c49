//! `mayfly pool list`: the warm sandboxes of a running gateway.

use clap::Subcommand;
use reqwest::Method;

use super::agent::AdminOptions;
use super::output::{print, table};
use super::{Exit, Failure};
use crate::http::admin::PoolView;

/// Look at warm sandboxes.
#[derive(Debug, clap::Args)]
pub struct PoolCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the pools: size, claims, misses, age, start times
    List {
        #[command(flatten)]
        options: AdminOptions,
    },
}

impl PoolCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let Verb::List { options } = self.verb;
        let pools: Vec<PoolView> = options.client()?.ask(Method::GET, &["pools"], None).await?;
        print(&options.output.render(&pools, |pools| listed(pools))?)?;
        Ok(Exit::Ok)
    }
}

fn listed(pools: &[PoolView]) -> String {
    if pools.is_empty() {
        return "no tool is kept warm; `executor.warm` in its tool.yaml says how many sandboxes to keep\n".to_owned();
    }
    let rows: Vec<[String; 10]> = pools
        .iter()
        .map(|pool| {
            let number = |value: Option<f64>, unit: &str| value.map_or_else(|| "-".into(), |v| format!("{v:.0}{unit}"));
            [
                pool.tool.clone(),
                pool.backend.to_string(),
                format!("{}/{}", pool.idle, pool.size),
                pool.starting.to_string(),
                pool.claims.to_string(),
                pool.misses.to_string(),
                pool.lost.to_string(),
                number(pool.oldest_seconds, "s"),
                format!("{}/{}", number(pool.start_p50_ms, "ms"), number(pool.start_max_ms, "ms")),
                pool.failure.clone().unwrap_or_else(|| "ok".into()),
            ]
        })
        .collect();
    table(["TOOL", "BACKEND", "READY", "STARTING", "CLAIMS", "MISSES", "LOST", "OLDEST", "START P50/MAX", "STATE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::admin::{Admin as _, fixture::InMemory};

    #[test]
    fn pools_are_listed_with_what_they_have_done() {
        assert_eq!(
            listed(&InMemory::default().pools()),
            "TOOL     BACKEND  READY  STARTING  CLAIMS  MISSES  LOST  OLDEST  START P50/MAX  STATE\n\
             git_log  docker   2/3    1         40      2       1     71s     183ms/421ms    ok"
        );
        assert!(listed(&[]).contains("executor.warm"));
    }
}
