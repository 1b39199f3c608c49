//! `mayfly call`: one call, from a shell.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::arguments::{Argument, merge};
use super::client::{AgentsClient, ClientError, exit_of};
use super::output::{Format, note, print};
use super::{Exit, Failure, waterfall};
use crate::call::{CallState, CallView};
use crate::http::strict;

/// Run a tool and print its result.
///
/// The agent's key comes from MAYFLY_KEY or a file, never from the command line, where everybody on the machine could read it.
/// Ctrl-C cancels the call.
#[derive(Debug, clap::Args)]
pub struct CallCommand {
    /// The tool's name
    tool: String,
    /// An argument: `name=value` (the tool's schema says of which type), or `name:=JSON`
    #[arg(long = "arg", value_name = "K=V")]
    arguments: Vec<Argument>,
    /// All arguments as a JSON object: the text itself, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    args_json: Option<String>,
    /// The task this call belongs to
    #[arg(long)]
    task: Option<String>,
    /// Why you want it
    #[arg(long)]
    reason: Option<String>,
    /// Wait so many seconds at most; the call goes on after that
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
    /// Also print the call's trace, to standard error
    #[arg(long)]
    trace: bool,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The gateway's address
    #[arg(long, env = "MAYFLY_URL", default_value = "http://127.0.0.1:8420")]
    url: String,
    /// A file that holds the agent's key, instead of MAYFLY_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl CallCommand {
    /// Makes the call and prints what came of it.
    ///
    /// # Errors
    /// [`Failure`] when there is nothing to print.
    pub async fn run(self) -> Result<Exit, Failure> {
        let client = AgentsClient::new(&self.url, self.key()?)?;
        let body = self.body(&client).await?;
        let answer = tokio::select! {
            answer = client.call(&body, self.wait) => answer,
            // Dropping the request hangs up, and hanging up cancels.
            _ = tokio::signal::ctrl_c() => return Err(Failure::new(Exit::ToolFailed, "canceled")),
        };
        let (exit, call) = match answer {
            Ok(view) => {
                print(&self.output.render(&view, text)?)?;
                self.explain(&view);
                (exit_of(&view), Some(view.id.to_string()))
            }
            Err(ClientError::Refused(refusal)) => {
                match self.output {
                    Format::Text => note(&format!("error: {}", refusal.text())),
                    form => print(&form.render(&refusal, |_| String::new())?)?,
                }
                (refusal.exit(), refusal.call_id().map(str::to_owned))
            }
            Err(ClientError::Failed(failure)) => return Err(failure),
        };
        if let (true, Some(call)) = (self.trace, call) {
            self.draw(&client, &call).await;
        }
        Ok(exit)
    }

    fn key(&self) -> Result<SecretString, Failure> {
        let key = match &self.key_file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| {
                Failure::new(Exit::Usage, format!("the key file {} could not be read: {error}", file.display()))
            })?,
            None => std::env::var("MAYFLY_KEY").unwrap_or_default(),
        };
        match key.trim() {
            "" => Err(Failure::new(
                Exit::Usage,
                "no key: set MAYFLY_KEY, or name a file with --key-file; `mayfly agent add` makes one",
            )),
            key => Ok(key.into()),
        }
    }

    async fn body(&self, client: &AgentsClient) -> Result<Value, Failure> {
        let whole = self.args_json.as_deref().map_or_else(|| Ok(Map::new()), object)?;
        // Only a text needs the schema.
        let schema = match self.arguments.iter().any(|argument| matches!(argument, Argument::Text(..))) {
            true => client.input_schema(&self.tool).await?,
            false => Value::Null,
        };
        let arguments = merge(whole, self.arguments.clone(), &schema)?;
        let mut body = json!({ "tool": self.tool, "arguments": arguments });
        for (name, text) in [("task_id", &self.task), ("reason", &self.reason)] {
            if let Some(text) = text {
                body[name] = Value::from(text.as_str());
            }
        }
        Ok(body)
    }

    /// On standard error, what the result alone does not say.
    fn explain(&self, view: &CallView) {
        if self.output != Format::Text {
            return;
        }
        match view.state {
            CallState::Running => {
                note(&format!("still running; look at {}/v1/calls/{}", self.url.trim_end_matches('/'), view.id))
            }
            CallState::AwaitingApproval => note(&format!("waits for approval; call {}", view.id)),
            state if view.is_error == Some(true) => {
                note(&format!("the tool {}; call {}", state.as_str().replace('_', " "), view.id))
            }
            _ => {}
        }
    }

    async fn draw(&self, client: &AgentsClient, call: &str) {
        match client.trace(call).await {
            Ok(spans) => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                // The renderer takes out what could command the terminal, and puts its own colours in.
                eprint!("{}", waterfall::render(&spans, waterfall::width_from_environment(), colour));
            }
            Err(error) => note(&format!("no trace: {}", Failure::from(error))),
        }
    }
}

/// The result as people want it: a text as it is, anything else as indented JSON.
fn text(view: &CallView) -> String {
    match &view.result {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => format!("{value:#}"),
    }
}

/// Reads `--args-json`.
pub(super) fn object(source: &str) -> Result<Map<String, Value>, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(Exit::Usage, format!("--args-json could not be read: {error}"));
    let bytes = match source.strip_prefix('@') {
        Some(file) => std::fs::read(file).map_err(unreadable)?,
        None if source == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
            bytes
        }
        None => source.as_bytes().to_vec(),
    };
    match strict::parse(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::new(Exit::Invalid, "--args-json must be a JSON object")),
        Err(malformed) => Err(Failure::new(Exit::Invalid, format!("--args-json is {malformed}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        call: CallCommand,
    }

    fn parsed(line: &[&str]) -> Result<CallCommand, clap::Error> {
        Line::try_parse_from([&["call"], line].concat()).map(|line| line.call)
    }

    #[tokio::test]
    async fn a_line_becomes_a_body() {
        let line = ["x", "--args-json", r#"{"a": 1}"#, "--arg", "b:=[2]", "--task", "t", "--reason", "r"];
        let client = AgentsClient::new("http://127.0.0.1:9", "k".into()).unwrap();
        let body = parsed(&line).unwrap().body(&client).await.unwrap();
        assert_eq!(body, json!({"tool": "x", "arguments": {"a": 1, "b": [2]}, "task_id": "t", "reason": "r"}));
        let twice = parsed(&["x", "--args-json", r#"{"a": 1}"#, "--arg", "a:=2"]).unwrap().body(&client).await.unwrap_err();
        assert_eq!(twice.exit, Exit::Usage);
    }

    #[test]
    fn a_key_is_never_an_argument() {
        assert!(parsed(&["x", "--key", "mf_secret"]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let with_file = |name: &std::path::Path| parsed(&["x", "--key-file", name.to_str().unwrap()]).unwrap();
        std::fs::write(&file, " mf_key\n").unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&with_file(&file).key().unwrap()), "mf_key");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(with_file(&file).key().unwrap_err().exit, Exit::Usage);
        assert_eq!(with_file(&folder.path().join("none")).key().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn args_json_comes_from_a_file_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let from_file = |content: &str| {
            std::fs::write(file.path(), content).unwrap();
            object(&format!("@{}", file.path().display()))
        };
        assert_eq!(from_file(r#"{"a": 1}"#).unwrap().len(), 1);
        assert_eq!(from_file("[]").unwrap_err().exit, Exit::Invalid);
        assert!(from_file(r#"{"a": 1, "a": 2}"#).unwrap_err().message.contains("/a is given twice"));
        assert_eq!(object("@/nowhere").unwrap_err().exit, Exit::Usage);
        assert_eq!(object("").unwrap_err().exit, Exit::Invalid);
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            &[] as &[&str],
            &["x", "--arg", "a"],
            &["x", "--arg", "a:={"],
            &["x", "--wait", "-1"],
            &["x", "-o", "xml"],
            &["x", "y"],
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), Exit::Usage as i32, "{line:?}");
        }
    }
}
