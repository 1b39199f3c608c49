//! `mayfly credential`: what was minted for calls and is not known to be gone.

use clap::Subcommand;
use reqwest::Method;
use uuid::Uuid;

use super::agent::AdminOptions;
use super::output::{note, print, table};
use super::{Exit, Failure};
use crate::http::admin::custody::CredentialView;

/// Look at the credentials of calls.
#[derive(Debug, clap::Args)]
pub struct CredentialCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    options: AdminOptions,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what calls hold, and what is being revoked
    List,
    /// List what should be gone and could not be revoked yet; none is as it should be
    Leaked,
    /// Take it that a credential is gone, which you have ended by hand where it is good
    Forget {
        /// Its id
        id: Uuid,
    },
}

impl CredentialCommand {
    /// Asks and prints.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let path: &[&str] = match self.verb {
            Verb::List => &["credentials"],
            Verb::Leaked => &["credentials", "leaked"],
            Verb::Forget { id } => {
                let () = self.options.client()?.ask(Method::DELETE, &["credentials", &id.to_string()], None).await?;
                note(&format!("forgot {id}"));
                return Ok(Exit::Ok);
            }
        };
        let found: Vec<CredentialView> = self.options.client()?.ask(Method::GET, path, None).await?;
        print(&self.options.output.render(&found, |found| listed(found))?)?;
        Ok(Exit::Ok)
    }
}

fn listed(found: &[CredentialView]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let row = |one: &CredentialView| {
        let minutes = |at: time::OffsetDateTime| format!("{} {:02}:{:02}", at.date(), at.hour(), at.minute());
        [
            one.id.to_string(),
            format!("{} at {}", one.source, one.target),
            one.call_id.to_string(),
            minutes(one.created_at),
            minutes(one.expires_at),
            one.attempts.to_string(),
            one.error.clone().unwrap_or_else(|| "-".into()),
        ]
    };
    table(["ID", "SOURCE", "CALL", "MINTED", "EXPIRES", "FAILED", "ERROR"], &found.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::call::CallId;

    #[test]
    fn what_is_not_gone_is_listed_with_the_reason() {
        let one = CredentialView {
            id: Uuid::nil(),
            source: "reporting".into(),
            target: "db.internal".into(),
            call_id: CallId(Uuid::nil()),
            created_at: datetime!(2026-01-02 03:04:05 UTC),
            expires_at: datetime!(2026-01-02 03:06:05 UTC),
            attempts: 2,
            error: Some("no answer within 10 s".into()),
        };
        let text = listed(&[one]);
        assert!(
            text.contains("reporting") && text.contains("2026-01-02 03:06") && text.ends_with("no answer within 10 s"),
            "{text}"
        );
        assert_eq!(listed(&[]), "none");
    }
}
