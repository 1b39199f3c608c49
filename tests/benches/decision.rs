//! One policy decision on the policy that ships, with 200 and with 10,000 grants, beside the plain interpreter.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::path::Path;
use std::sync::Arc;

use mayfly_gateway::caller::{Authenticator, Caller};
use mayfly_gateway::catalog::{Rules, Tool};
use mayfly_gateway::policy::{Policy, PolicySettings, Question, Verdict};
use mayfly_gateway::store::{Durability, Store};
use mayfly_tests::bench::{Aim, Figure, Quantiles, publish, series};
use mayfly_tests::harness::{root, tools};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

const ROUNDS: usize = 20_000;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(compare());
}

async fn compare() {
    let folder = tempfile::tempdir().unwrap();
    let caller = caller(folder.path()).await;
    let (tool, problems) = Tool::parse(folder.path(), &tools::yaml("echo", ""), &Rules::now(&[]));
    let tool = Arc::new(tool.unwrap_or_else(|| unreachable!("{problems:?}")));
    let (few, bare_few) = measure(200, &caller, &tool).await;
    let (many, bare_many) = measure(10_000, &caller, &tool).await;
    publish(&[
        Figure::new("policy decision, 200 grants", "us", few, ("regorus interpreter, same policy", bare_few), Aim::AtMost(25.0)),
        Figure::new("policy decision, 10,000 grants", "us", many, ("regorus interpreter, same policy", bare_many), Aim::AtMost(25.0)),
        Figure::new("policy decision, 10,000 grants", "us", many, ("200 grants", few), Aim::RatioAtMost(1.25)),
    ]);
}

async fn caller(folder: &Path) -> Arc<Caller> {
    let store = Store::open(&folder.join("data"), Durability::Relaxed).await.unwrap();
    let callers = Authenticator::open(&folder.join("data"), store).await.unwrap();
    let key = callers.add("ann", None).await.unwrap();
    callers.authenticate(Some(&format!("Bearer {}", key.secret().expose_secret()))).unwrap()
}

/// `grants` agents with four tools each; `ann` is one of them.
fn data(grants: usize) -> Value {
    let four = json!({"echo": {}, "json_query": {}, "git_log": {}, "http_probe": {"arguments": {"host": ["example.com"]}}});
    let mut agents: serde_json::Map<_, _> = (0..grants / 4 - 1).map(|n| (format!("agent-{n}"), four.clone())).collect();
    agents.insert("ann".into(), four);
    json!({ "grants": agents })
}

/// Ours, and regorus' interpreter asked for the same package with an input of the same shape.
async fn measure(grants: usize, caller: &Arc<Caller>, tool: &Arc<Tool>) -> (Quantiles, Quantiles) {
    let folder = tempfile::tempdir().unwrap();
    let rego = std::fs::read_to_string(root().join("policies/default/authz.rego")).unwrap();
    std::fs::write(folder.path().join("authz.rego"), &rego).unwrap();
    std::fs::write(folder.path().join("data.json"), data(grants).to_string()).unwrap();
    let policy = Policy::load(folder.path(), None, &PolicySettings::default()).unwrap();
    let arguments = tool.validate(json!({"text": "hello"}).as_object().unwrap().clone()).unwrap();
    let ours = series(ROUNDS, async || {
        let (caller, tool, arguments) = (caller.clone(), tool.clone(), arguments.clone());
        let question = Question { caller, tool, arguments, task_id: None, now: OffsetDateTime::now_utc() };
        let (decision, verdict) = policy.authorize(question).unwrap();
        assert!(decision.allow && matches!(verdict, Verdict::Permitted(_)));
    })
    .await;

    let mut engine = regorus::Engine::new();
    engine.add_policy("authz.rego".into(), rego).unwrap();
    engine.add_data(regorus::Value::from_json_str(&data(grants).to_string()).unwrap()).unwrap();
    let input = json!({"agent_id": "ann", "user": null, "actors": [], "task_id": null, "tool": "echo", "version": "1.0.0", "tier": "free",
        "action": "get", "resource": "text", "arguments": {"text": "hello"}, "environment": "development", "hour": 1, "weekday": "monday"});
    let bare = series(ROUNDS / 10, async || {
        engine.set_input(regorus::Value::from_json_str(&input.to_string()).unwrap());
        assert_eq!(engine.eval_rule("data.agent.authz.allow".into()).unwrap(), regorus::Value::Bool(true));
        let _ = engine.eval_rule("data.agent.authz.deny".into()).unwrap();
    })
    .await;
    (ours, bare)
}
