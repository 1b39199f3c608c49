//! `mayfly access`: the answers of the policy that decides.

use mayfly_tests::harness::{Mayfly, Setup, cli, tools};
use serde_json::Value;

const GRANTS: &str = "package agent.authz\nimport rego.v1\ndefault allow := false\n\
    allow if input.tool in visible\nvisible := {tool | data.grants[input.agent_id][tool]}\n";

fn access(mayfly: &Mayfly, args: &[&str]) -> (i32, Value, String) {
    let socket = mayfly.admin_socket();
    let (code, out, err) = cli(&[&["access", "-o", "json", "--socket", socket.to_str().unwrap()], args].concat());
    (code, serde_json::from_str(&out).unwrap_or_default(), err)
}

/// Agents and tools of an answer, in pairs.
fn pairs(view: &Value) -> Vec<(String, String)> {
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    view["access"].as_array().unwrap().iter().map(|one| (text(one, "agent"), text(one, "tool"))).collect()
}

#[tokio::test]
async fn who_can_and_what_can_say_what_the_decision_says() {
    let grants = serde_json::json!({"grants": {"ann": {"open": {}, "other": {}}, "bob": {"open": {}}}});
    let given = "credentials: [{source: github, deliver: env, variable: TOKEN}]\n";
    let mayfly = Setup::new()
        .policy(GRANTS)
        .data(&grants)
        .tool("open", &tools::yaml("open", ""), Some(tools::ECHO))
        .tool("other", &tools::yaml("other", given), Some(tools::ECHO))
        .tool("closed", &tools::yaml("closed", "").replace("tier: free", "tier: forbidden"), Some(tools::ECHO))
        .start();
    let (ann, bob) = (mayfly.agent("ann"), mayfly.agent("bob"));
    let pair = |agent: &str, tool: &str| (agent.to_owned(), tool.to_owned());

    let (_, who, _) = access(&mayfly, &["who-can", "open"]);
    assert_eq!((pairs(&who), &who["decided"]), (vec![pair("ann", "open"), pair("bob", "open")], &true.into()));
    let (_, what, _) = access(&mayfly, &["what-can", "ann"]);
    assert_eq!(pairs(&what), [pair("ann", "open"), pair("ann", "other")]);
    assert_eq!(what["access"][1]["credentials"], serde_json::json!(["github"]));
    assert_eq!(pairs(&access(&mayfly, &["who-can", "closed"]).1), []);

    // And so does the door.
    for (agent, tool, status) in [(&ann, "open", 200), (&bob, "open", 200), (&bob, "other", 404), (&ann, "closed", 404)] {
        assert_eq!(agent.call(tool, serde_json::json!({"text": "x"})).await.status, status, "{tool}");
    }
    let (code, _, told) = access(&mayfly, &["who-can", "none"]);
    assert!(code == 4 && told.contains("mayfly tool list"), "{code} {told}");
    let (code, _, told) = access(&mayfly, &["what-can", "nobody"]);
    assert!(code == 4 && told.contains("mayfly agent list"), "{code} {told}");
}

#[tokio::test]
async fn a_policy_that_does_not_say_who_sees_what_is_told_to_be_one() {
    let mayfly = Setup::new().tool("open", &tools::yaml("open", ""), Some(tools::ECHO)).start();
    mayfly.agent("ann");
    let (_, view, _) = access(&mayfly, &["what-can", "ann"]);
    assert_eq!((pairs(&view).len(), &view["decided"]), (1, &false.into()));
}
