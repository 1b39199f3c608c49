//! What a program prints for one call: the way to every credential that has no source of its own.
//!
//! It gets `{"credential_id", "call_id", "tool", "agent_id", "user", "scopes", "life_seconds"}` as one line of JSON on standard input, and
//! prints one JSON object whose members are strings: the parts of the credential. The program that revokes gets the same line
//! with `credential_id` alone.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::source::{Keep, Minted, Order, Source, SourceError};
use crate::program;

/// How long either program has.
const PATIENCE: Duration = Duration::from_secs(10);

/// `kind: command`.
pub(super) struct Command {
    pub(super) command: Vec<String>,
    pub(super) revoke: Vec<String>,
    /// Variables that are the gateway's own secrets, and not theirs.
    pub(super) hidden: Vec<String>,
}

#[async_trait]
impl Source for Command {
    fn revocable(&self) -> bool {
        !self.revoke.is_empty()
    }

    /// It is told them; what it makes of them is its own.
    fn narrows(&self) -> bool {
        true
    }

    fn outlives_expiry(&self) -> bool {
        true
    }

    async fn mint(&self, order: &Order, _: &dyn Keep) -> Result<Minted, SourceError> {
        let question = json!({
            "credential_id": order.id,
            "call_id": order.call_id.to_string(),
            "tool": order.tool,
            "agent_id": order.agent_id,
            "user": order.user,
            "scopes": order.scopes,
            "life_seconds": order.life.as_secs(),
        });
        let printed = self.ask(&self.command, &question).await?;
        read(&printed)
    }

    async fn revoke(&self, id: Uuid, _: Option<&str>) -> Result<(), SourceError> {
        self.ask(&self.revoke, &json!({"credential_id": id})).await.map(|_| ())
    }

    fn target(&self) -> String {
        self.revoke.first().cloned().unwrap_or_default()
    }

    /// A program outlives a gateway that is killed.
    fn lag(&self) -> Duration {
        PATIENCE * 2
    }
}

impl Command {
    async fn ask(&self, argv: &[String], question: &serde_json::Value) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let name = argv.first().map_or("", String::as_str);
        let input = format!("{question}\n");
        let printed = program::run(argv, input.as_bytes(), PATIENCE, &self.hidden).await;
        printed.map_err(|error| SourceError(format!("`{name}` {error}")))
    }
}

/// Reads what was printed. An error never repeats it.
fn read(printed: &[u8]) -> Result<Minted, SourceError> {
    let wrong = || SourceError("what it printed is not one JSON object whose members are strings that are not empty".into());
    let texts: BTreeMap<String, Zeroizing<String>> = serde_json::from_slice(printed).map_err(|_| wrong())?;
    Minted::texts(texts).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::credentials::Unkept;
    use crate::credentials::fixture::{order, text};

    fn shell(mint: &str, revoke: &str) -> Command {
        let argv = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Command {
            command: argv(mint),
            revoke: if revoke.is_empty() { vec![] } else { argv(revoke) },
            hidden: vec!["HOME".into()],
        }
    }

    #[tokio::test]
    async fn a_program_is_told_for_whom_and_prints_the_parts() {
        let order = order();
        let source = shell(r#"read line; printf '{"user": "u", "token": "%s"}' "$(echo $line | tr -dc a-z0-9_-)""#, "");
        let minted = source.mint(&order, &Unkept).await.unwrap();
        let token = String::from_utf8(minted.field(None).unwrap().expose_secret().to_vec()).unwrap();
        for told in [order.id.to_string(), order.call_id.to_string(), "git_log".into(), "bot".into(), "ann".into(), "60".into()] {
            assert!(token.contains(&told), "{told} {token}");
        }
        assert_eq!(minted.field(Some("user")).unwrap().expose_secret(), b"u");
        assert!(minted.field(Some("none")).is_none() && !format!("{minted:?}").contains(&token));
        assert!(!source.revocable() && shell("", "true").revocable());
    }

    #[tokio::test]
    async fn the_gateways_own_secrets_are_not_in_its_environment() {
        let source = shell(r#"echo "{\"value\": \"home=$HOME path=$PATH\"}""#, "");
        let told = text(&source.mint(&order(), &Unkept).await.unwrap(), None);
        assert!(told.starts_with("home= path=/"), "{told}");
    }

    #[tokio::test]
    async fn rubbish_is_refused_without_being_shown() {
        for rubbish in
            ["canary", r#"{"a": 1, "canary": "x"}"#, r#"["canary"]"#, "{}", "", r#"{"value": ""}"#, r#"{"a": "canary"} x"#]
        {
            let error = shell(&format!("cat <<'E'\n{rubbish}\nE"), "").mint(&order(), &Unkept).await.unwrap_err().to_string();
            assert!(error.contains("JSON object") && !error.contains("canary"), "{rubbish}: {error}");
        }
        let failed = shell("echo canary >&2; exit 1", "").mint(&order(), &Unkept).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 1") && !failed.contains("canary"), "{failed}");
    }

    #[tokio::test]
    async fn revoking_names_what_was_minted() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let (source, id) = (shell("", &format!("cat > {}", told.display())), Uuid::now_v7());
        source.revoke(id, None).await.unwrap();
        assert_eq!(std::fs::read_to_string(told).unwrap(), format!("{{\"credential_id\":\"{id}\"}}\n"));
        assert!(shell("", "exit 1").revoke(id, None).await.is_err());
    }
}
