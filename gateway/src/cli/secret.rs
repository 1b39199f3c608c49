//! `mayfly secret`: the vault. A value goes in, from standard input or a file, and is never shown again.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::Method;
use serde_json::json;
use zeroize::Zeroizing;

use super::agent::AdminOptions;
use super::output::{Format, note, print, table};
use super::{Exit, Failure};
use crate::config::Config;
use crate::http::admin::custody::{MasterKeyView, SecretView};
use crate::store::{Durability, Store};

/// The longest value that is read; the gateway takes less.
const MOST: u64 = 1 << 20;

/// Manage the secrets that tools' calls may be given.
#[derive(Debug, clap::Args)]
pub struct SecretCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    options: AdminOptions,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Store a value, read from standard input without its last line end, or from a file as it is
    Set {
        /// The secret's name
        name: String,
        /// The file with the value
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// List the secrets, without their values
    List,
    /// Put a new master key in the old one's place
    Rotate,
    /// Remove a secret
    Rm {
        /// The secret's name
        name: String,
    },
    /// Remove every secret, when the master key is lost and the gateway does not start
    Forget {
        /// Yes, all of them
        #[arg(long, required = true)]
        all: bool,
    },
}

impl SecretCommand {
    /// Does it and prints what came of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self) -> Result<Exit, Failure> {
        let output = self.options.output;
        match self.verb {
            Verb::Set { name, from_file } => {
                let value = value(from_file)?;
                let text = Zeroizing::new(BASE64_STANDARD.encode(&*value));
                let client = self.options.client()?;
                let set: SecretView = client.ask(Method::PUT, &["secrets", &name], Some(&json!({"value": *text}))).await?;
                match output {
                    Format::Text => note(&format!("{} is in version {}", set.name, set.version)),
                    _ => print(&output.render(&set, |_| String::new())?)?,
                }
            }
            Verb::List => {
                let secrets: Vec<SecretView> = self.options.client()?.ask(Method::GET, &["secrets"], None).await?;
                print(&output.render(&secrets, |secrets| listed(secrets))?)?;
            }
            Verb::Rotate => {
                let rotated: MasterKeyView = self.options.client()?.ask(Method::POST, &["master-key", "rotate"], None).await?;
                print(&output.render(&rotated, |rotated| format!("the master key is {} now", rotated.key_id))?)?;
            }
            Verb::Rm { name } => {
                let () = self.options.client()?.ask(Method::DELETE, &["secrets", &name], None).await?;
                note(&format!("removed {name}"));
            }
            Verb::Forget { .. } => forget().await?,
        }
        Ok(Exit::Ok)
    }
}

fn value(from_file: Option<PathBuf>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::new(Exit::Usage, format!("{what} cannot be read: {error}"));
    let mut value = Zeroizing::new(Vec::with_capacity(64 << 10));
    if let Some(path) = from_file {
        let what = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| failed(&what, error))?;
        file.take(MOST).read_to_end(&mut value).map_err(|error| failed(&what, error))?;
        return Ok(value);
    }
    if std::io::stdin().is_terminal() {
        let typed = rpassword::prompt_password("value: ").map_err(|error| failed("the value", error))?;
        return Ok(Zeroizing::new(typed.into_bytes()));
    }
    std::io::stdin().take(MOST).read_to_end(&mut value).map_err(|error| failed("standard input", error))?;
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value)
}

/// The one command that opens the store itself: only a gateway that does not run can have lost its master key.
async fn forget() -> Result<(), Failure> {
    let config = Config::load(None).map_err(|error| Failure::new(Exit::Invalid, error.to_string()))?;
    let refused = |error: crate::store::StoreError| Failure::new(Exit::Invalid, error.to_string());
    let store = Store::open(&config.data_dir, Durability::Full).await.map_err(refused)?;
    let secrets = store.secrets().await.map_err(refused)?;
    for secret in &secrets {
        store.remove_secret(&secret.name).await.map_err(refused)?;
    }
    store.close().await;
    note(&format!("removed {} secrets", secrets.len()));
    Ok(())
}

fn listed(secrets: &[SecretView]) -> String {
    if secrets.is_empty() {
        return "there are no secrets; `mayfly secret set NAME` reads one from standard input".to_owned();
    }
    let row = |secret: &SecretView| {
        let (created, updated) = (secret.created_at.date().to_string(), secret.updated_at.date().to_string());
        [secret.name.clone(), secret.version.to_string(), created, updated]
    };
    table(["NAME", "VERSION", "CREATED", "UPDATED"], &secrets.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn secrets_are_listed_without_values() {
        let (created_at, updated_at) = (datetime!(2026-01-02 03:04:05 UTC), datetime!(2026-02-03 03:04:05 UTC));
        let secret = SecretView { name: "github".into(), version: 3, created_at, updated_at };
        assert_eq!(listed(&[secret]), "NAME    VERSION  CREATED     UPDATED\ngithub  3        2026-01-02  2026-02-03");
        assert!(listed(&[]).contains("secret set"));
    }

    #[test]
    fn a_file_is_taken_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"line\n\xff").unwrap();
        assert_eq!(value(Some(file.path().to_owned())).unwrap()[..], b"line\n\xff"[..]);
        assert!(value(Some("/none".into())).is_err());
    }
}
