//! What the pipeline does when something below it misbehaves: an engine that panics, a tool that fails talkatively, a policy
//! that quotes, a store that takes no rows for a while. Everything but the engine is real.

mod credentials;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use mayfly_executor::error::{BackendError, RunError, StartError};
use mayfly_executor::spec::SandboxSpec;
use mayfly_executor::wire::{Exit, Invocation, Report, Usage};
use mayfly_executor::{Backend, BackendKind, Dispatcher, Event, Found, Host, InstanceId, Sandbox, SandboxId};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Gateway;
use crate::call::{CallRequest, CallState, CallView};
use crate::caller::{Authenticator, Caller};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::error::CallError;
use crate::generation::Generation;
use crate::limits::{LimitSettings, Limits};
use crate::live::{CallFailure, LiveCalls};
use crate::runner::Runner;
use crate::secrets::Secrets;
use crate::store::{Durability, Store};
use crate::telemetry::{Log, Telemetry};

const TOOL: &str = "format: 1
name: look
version: 1.0.0
description: Looks.
tier: free
justification: It only looks.
review_by: 2999-01-01
action: get
resource: thing
input_schema: {type: object, properties: {password: {type: string, maxLength: 64, writeOnly: true}}}
rows: /rows
executor: {backend: wasm, module: look.wasm, timeout: 10s, memory: 64Mi, output_limit: 1Mi}
";
/// The header of a core module, and nothing in it.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const ALLOW: &str = "allow := true";

/// What the engine does with a call.
#[derive(Clone)]
enum Engine {
    PanicsAtStart,
    PanicsInTheTool,
    Reports {
        exit: Exit,
        stdout: &'static str,
    },
    /// Says what it was given: its environment, and on standard error the same.
    Tells,
}

#[async_trait]
impl Backend for Engine {
    fn kind(&self) -> BackendKind {
        BackendKind::Wasm
    }

    fn outlives_process(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<String, BackendError> {
        Ok("a fake".into())
    }

    async fn prepare(&self, _: &SandboxSpec) -> Result<(), StartError> {
        Ok(())
    }

    async fn start(&self, id: SandboxId, _: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        assert!(!matches!(self, Self::PanicsAtStart), "an engine's own bug");
        Ok(Box::new(Started { id, engine: self.clone() }))
    }

    async fn list(&self) -> Result<Vec<Found>, BackendError> {
        Ok(Vec::new())
    }

    async fn destroy(&self, _: SandboxId) -> Result<(), BackendError> {
        Ok(())
    }
}

struct Started {
    id: SandboxId,
    engine: Engine,
}

#[async_trait]
impl Sandbox for Started {
    fn id(&self) -> SandboxId {
        self.id
    }

    async fn invoke(self: Box<Self>, invocation: Invocation, host: &dyn Host) -> Result<Report, RunError> {
        let (exit, stdout, stderr) = match self.engine {
            Engine::Reports { exit, stdout } => (exit, Bytes::from_static(stdout.as_bytes()), Bytes::new()),
            Engine::Tells => {
                let had: BTreeMap<_, _> =
                    invocation.environment.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
                let told = Bytes::from(json!(had).to_string());
                host.observe(Event::Log(format!("given {had:?}")));
                (Exit::Code(i32::from(had.contains_key("FAIL"))), told.clone(), told)
            }
            _ => panic!("a tool's doing"),
        };
        Ok(Report {
            exit,
            detail: None,
            stdout,
            stderr,
            stderr_truncated: false,
            exhausted: BTreeSet::new(),
            usage: Usage::default(),
            spans: Vec::new(),
        })
    }
}

/// A gateway with one tool, one policy and one engine, on a folder of its own.
struct Room {
    gateway: Arc<Gateway>,
    folder: TempDir,
    secrets: Arc<Secrets>,
}

impl Room {
    async fn new(rules: &str, engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), rules);
        Self::configured(folder, config, engine).await
    }

    async fn configured(folder: TempDir, config: Config, engine: Engine) -> Self {
        let store = Store::open(&config.data_dir, Durability::Relaxed).await.unwrap();
        let instance = InstanceId(Uuid::from_u128(1));
        let dispatcher = Dispatcher::new(vec![Arc::new(engine)], store.clone(), instance, Duration::from_secs(5));
        let telemetry = Arc::new(Telemetry::without_export(Log::to(std::io::sink(), true).unwrap()));
        let secrets = Secrets::open(&config.secrets, &config.data_dir, store.clone()).await.unwrap();
        let gateway = Arc::new(Gateway {
            credentials: Credentials::new(&config, &secrets, store.clone(), telemetry.clone()),
            callers: Authenticator::open(&config.data_dir, store.clone()).await.unwrap(),
            generation: ArcSwap::from_pointee(Generation::load(&config).unwrap()),
            limits: Limits::new(LimitSettings::default()),
            runner: Runner::new(
                dispatcher,
                store.clone(),
                telemetry.clone(),
                crate::config::EgressConfig::default().terms().unwrap(),
            ),
            store,
            telemetry,
            live: LiveCalls::default(),
            tasks: TaskTracker::new(),
        });
        Self { gateway, folder, secrets }
    }

    async fn call(&self, arguments: Value) -> Result<CallView, CallFailure> {
        let Value::Object(arguments) = arguments else { panic!("{arguments} is no object") };
        let request = CallRequest { tool: "look".into(), arguments, ..CallRequest::unreadable() };
        self.gateway.submit(Arc::new(Caller::fixture("ada-bot")), request).await?.outcome().await
    }

    /// The database as somebody else has it open.
    async fn database(&self) -> SqliteConnection {
        let file = std::fs::read_dir(self.folder.path().join("data")).unwrap();
        let file = file.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "db")).unwrap();
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap()
    }

    async fn recorded(&self, id: crate::call::CallId) -> (CallState, Option<bool>) {
        let row = self.gateway.store.call(id).await.unwrap().unwrap();
        (row.state, row.outcome.and_then(|outcome| outcome.may_have_run))
    }
}

fn config(folder: &Path, rules: &str) -> Config {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("tools/look/tool.yaml", TOOL.as_bytes());
    write("tools/look/look.wasm", MODULE);
    write("policy/authz.rego", format!("package agent.authz\n{rules}\n").as_bytes());
    let mut config = Config { data_dir: folder.join("data"), tools: vec![folder.join("tools")], ..Config::default() };
    config.policy.path = folder.join("policy");
    config
}

#[tokio::test]
async fn a_panic_below_the_pipeline_is_an_outcome_and_not_a_stuck_call() {
    for engine in [Engine::PanicsAtStart, Engine::PanicsInTheTool] {
        let room = Room::new(ALLOW, engine).await;
        let failure = room.call(json!({})).await.unwrap_err();
        assert!(matches!(failure.error, CallError::Interrupted { may_have_run: true }), "{:?}", failure.error);
        assert_eq!(room.recorded(failure.id).await, (CallState::Interrupted, Some(true)));
        assert_eq!((room.gateway.live.len(), room.gateway.limits.running()), (0, 0), "nothing of it is left");
    }
}

#[tokio::test]
async fn a_rule_that_quotes_a_hidden_argument_does_not_show_it() {
    let rules = "deny contains sprintf(\"%s is too short\", [input.arguments.password])";
    let room = Room::new(rules, Engine::PanicsAtStart).await;
    let failure = room.call(json!({"password": "hunter22"})).await.unwrap_err();
    let CallError::Denied { reasons } = &failure.error else { panic!("{:?}", failure.error) };
    assert_eq!(*reasons, ["[redacted] is too short"]);
    let row = room.gateway.store.call(failure.id).await.unwrap().unwrap();
    assert!(!format!("{row:?}").contains("hunter22"), "{row:?}");
}

#[tokio::test]
async fn a_failed_tool_shows_no_more_than_a_successful_one_may() {
    let rules = "allow := true\nobligations := {\"row_cap\": 2}";
    let failed = |stdout| Engine::Reports { exit: Exit::Code(3), stdout };
    let said = async |engine| Room::new(rules, engine).await.call(json!({})).await.unwrap().result.unwrap();
    let message = json!({"error": "the tool exited with code 3"});
    assert_eq!(said(failed(r#"{"why": "no such thing"}"#)).await, json!({"why": "no such thing"}));
    assert_eq!(said(failed(r#"{"rows": [1, 2]}"#)).await, json!({"rows": [1, 2]}));
    assert_eq!(said(failed(r#"{"rows": [1, 2, 3]}"#)).await, message, "more rows than the decision allows");
    let deep: &'static str = Box::leak(format!("{}1{}", "[".repeat(65), "]".repeat(65)).into_boxed_str());
    assert_eq!(said(failed(deep)).await, json!(deep), "deeper than a result may be: text");

    let failure = Room::new(rules, Engine::Reports { exit: Exit::Code(0), stdout: r#"{"rows": [1, 2, 3]}"# }).await;
    let failure = failure.call(json!({})).await.unwrap_err();
    assert!(matches!(failure.error, CallError::OutputRejected(_)), "{:?}", failure.error);
}

#[tokio::test]
async fn an_outcome_that_the_store_refuses_for_a_while_is_written_all_the_same() {
    let room = Room::new(ALLOW, Engine::Reports { exit: Exit::Code(0), stdout: "{\"rows\": []}" }).await;
    let mut database = room.database().await;
    let refuse = "CREATE TRIGGER full BEFORE UPDATE ON calls BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    sqlx::query(refuse).execute(&mut database).await.unwrap();
    let (view, ()) = tokio::join!(room.call(json!({})), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        sqlx::query("DROP TRIGGER full").execute(&mut database).await.unwrap();
    });
    let view = view.unwrap();
    assert_eq!((view.state, view.is_error), (CallState::Succeeded, Some(false)));
    assert!(view.duration_ms.unwrap() > 0.0);
    assert_eq!(room.recorded(view.id).await, (CallState::Succeeded, Some(true)));
}

#[tokio::test]
async fn an_intent_that_the_store_refuses_runs_nothing() {
    // The engine would panic if it were asked.
    let room = Room::new(ALLOW, Engine::PanicsAtStart).await;
    let mut database = room.database().await;
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON calls WHEN NEW.state = 'running'
                  BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    sqlx::query(refuse).execute(&mut database).await.unwrap();
    let failure = room.call(json!({})).await.unwrap_err();
    assert!(matches!(failure.error, CallError::LedgerUnavailable), "{:?}", failure.error);
}
