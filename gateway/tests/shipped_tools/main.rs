//! The tools that ship: their definitions, and what comes of them in real sandboxes. No gateway: that is what `tests/promises` is for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by a panic")]

mod definitions;
mod docker;
mod wasm;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_executor::{Backend, InstanceId};
use mayfly_gateway::build::{BuildOptions, build};
use mayfly_gateway::catalog::{Rules, Tool};
use mayfly_gateway::trial::{self, Trial};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../images").join(name)
}

/// The tool of a folder; without a mistake, and allowed to see every host folder.
fn load(folder: &Path) -> Tool {
    let (tool, problems) = Tool::load(folder, &Rules::now(&[PathBuf::from("/")]));
    assert!(problems.is_empty(), "{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    tool.unwrap()
}

/// A tool that ships, built if it was not.
async fn built(name: &str) -> Tool {
    let options = BuildOptions { network: Some("host".into()), ..BuildOptions::default() };
    let print = |line: &str| println!("{name}: {line}");
    build(&folder(name), &load(&folder(name)).definition, &options, &print).await.unwrap();
    load(&folder(name))
}

/// A backend to try tools on.
struct Bench {
    backend: Arc<dyn Backend>,
    instance: InstanceId,
}

impl Bench {
    async fn run(&self, tool: &Tool, arguments: Value) -> Trial {
        let arguments = tool.validate(arguments.as_object().unwrap().clone()).unwrap();
        let tried =
            trial::run(tool, &arguments, self.backend.clone(), self.instance, &|_| {}, CancellationToken::new()).await.unwrap();
        let ours = self.backend.list().await.unwrap().into_iter().filter(|found| found.instance == self.instance).count();
        assert_eq!(ours, 0, "nothing is left");
        tried
    }

    /// The result of a run that has to succeed and to keep the tool's own promise.
    async fn answer(&self, tool: &Tool, arguments: Value) -> Value {
        let tried = self.run(tool, arguments).await;
        assert!(tried.succeeded(), "{:?} {}", tried.report, tried.result());
        assert_eq!(tried.output_mismatch, None);
        tried.result()
    }

    /// The error of a run that has to fail by itself.
    async fn error(&self, tool: &Tool, arguments: Value) -> String {
        let tried = self.run(tool, arguments).await;
        assert_eq!(tried.report.exit, mayfly_executor::wire::Exit::Code(1), "{:?}", tried.report.detail);
        tried.result()["error"].as_str().unwrap().to_owned()
    }
}
