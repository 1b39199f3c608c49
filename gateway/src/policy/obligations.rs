//! What a decision demands on top of the tool's own limits, and whether it can be kept.
//!
//! Obligations only narrow. A key that is unknown, a value of the wrong type or a demand that this tool cannot meet is answered
//! with the key's name, and the call is not made: an obligation nobody enforces is worse than none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mayfly_executor::BackendKind;
use mayfly_executor::spec::{ByteSize, Reach};
use serde_json::Value;

use super::decision::{CredentialScope, Isolation, Obligations};
use crate::catalog::definition::Definition;
use crate::units::parse_duration;

/// Reads `obligations`; on error, the key that cannot be kept.
pub(super) fn read(answer: Option<&Value>) -> Result<Obligations, String> {
    let mut obligations = Obligations::default();
    let demanded = match answer {
        None => return Ok(obligations),
        Some(Value::Object(demanded)) => demanded,
        Some(_) => return Err("obligations".to_owned()),
    };
    for (key, value) in demanded {
        let text = value.as_str();
        let kept = match key.as_str() {
            "timeout" => set(&mut obligations.timeout, text.and_then(duration)),
            "egress" => set(&mut obligations.egress, destinations(value)),
            "output_limit" => set(&mut obligations.output_limit, text.and_then(|text| text.parse::<ByteSize>().ok())),
            "row_cap" => set(&mut obligations.row_cap, value.as_u64()),
            "credentials" => set(&mut obligations.credentials, credentials(value)),
            "isolation" => set(&mut obligations.isolation, serde_json::from_value(value.clone()).ok()),
            _ => false,
        };
        if !kept {
            return Err(clipped(key));
        }
    }
    Ok(obligations)
}

/// Reads `obligations` and narrows them to what this tool does anyway; on error, the key that cannot be kept.
pub(super) fn enforceable(answer: Option<&Value>, definition: &Definition) -> Result<Obligations, String> {
    let executor = &definition.executor;
    let mut obligations = read(answer)?;
    obligations.timeout = obligations.timeout.map(|timeout| timeout.min(executor.timeout));
    obligations.output_limit = obligations.output_limit.map(|limit| limit.min(executor.output_limit));
    let reaches = executor.reaches();
    if let Some(egress) = &obligations.egress
        && !egress.iter().all(|narrower| reaches.iter().any(|listed| narrower.is_within(listed)))
    {
        return Err("egress".to_owned());
    }
    let named = |(source, left): (&String, &CredentialScope)| {
        let asked = definition.credentials.iter().find(|one| one.source == *source);
        let within = |scopes: &BTreeSet<String>, asked: &[String]| asked.is_empty() || scopes.iter().all(|s| asked.contains(s));
        asked.is_some_and(|one| left.scopes.as_ref().is_none_or(|scopes| within(scopes, &one.scopes)))
    };
    if obligations.credentials.as_ref().is_some_and(|left| !left.iter().all(named)) {
        return Err("credentials".to_owned());
    }
    // Without a word on where its rows are there is nothing to count.
    if obligations.row_cap.is_some() && definition.rows.is_none() {
        return Err("row_cap".to_owned());
    }
    if obligations.isolation.is_some_and(|least| isolation(executor.backend) < Some(least)) {
        return Err("isolation".to_owned());
    }
    Ok(obligations)
}

/// What a backend gives; `None` for one that this room does not know.
const fn isolation(backend: BackendKind) -> Option<Isolation> {
    match backend {
        BackendKind::Wasm => Some(Isolation::Wasm),
        BackendKind::Docker | BackendKind::Kubernetes => Some(Isolation::Container),
        _ => None,
    }
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

/// Never zero, which no tool could meet.
fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).ok().filter(|duration| !duration.is_zero())
}

fn destinations(value: &Value) -> Option<BTreeSet<Reach>> {
    value.as_array()?.iter().map(|one| one.as_str()?.parse().ok()).collect()
}

/// The names of sources; or an object with what is left of each.
fn credentials(value: &Value) -> Option<BTreeMap<String, CredentialScope>> {
    match value {
        Value::Array(names) => names.iter().map(|name| Some((name.as_str()?.to_owned(), CredentialScope::default()))).collect(),
        value => serde_json::from_value(value.clone()).ok(),
    }
}

/// A key comes from policy, and goes into an error.
fn clipped(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    use crate::catalog::fixture::{SCALE, tool};

    fn definition(backend: BackendKind) -> Definition {
        let mut definition =
            tool(&SCALE.replace("tier: free", "tier: free\ncredentials: [{source: a, deliver: env, variable: A}]")).definition;
        definition.rows = Some("/rows".to_owned());
        definition.executor.backend = backend;
        definition.executor.timeout = Duration::from_secs(10);
        definition.executor.output_limit = ByteSize(1 << 16);
        definition.executor.network = vec!["a.example:443".parse().unwrap(), "b.example:443".parse().unwrap()];
        definition
    }

    fn wasm(demanded: Value) -> Result<Obligations, String> {
        enforceable(Some(&demanded), &definition(BackendKind::Wasm))
    }

    #[test]
    fn a_pod_is_a_container_and_an_account_reaches_its_api_server() {
        let demand = |demanded: Value, account: Option<&str>| {
            let mut pod = definition(BackendKind::Kubernetes);
            pod.executor.network = Vec::new();
            pod.executor.service_account = account.map(str::to_owned);
            enforceable(Some(&demanded), &pod)
        };
        assert!(demand(json!({"isolation": "container"}), None).is_ok());
        assert!(demand(json!({"egress": []}), None).is_ok());
        let look = Some("mayfly-tool-look");
        assert!(demand(json!({"egress": []}), look).is_ok());
        assert!(demand(json!({"egress": ["kubernetes.default.svc:443"]}), look).is_ok());
        assert_eq!(demand(json!({"egress": ["kubernetes.default.svc:443"]}), None), Err("egress".to_owned()));
    }

    #[test]
    fn obligations_narrow_and_never_widen() {
        let kept = wasm(json!({"timeout": "5s", "output_limit": "1Ki", "row_cap": 7, "egress": ["A.example:443"]})).unwrap();
        assert_eq!(kept.timeout, Some(Duration::from_secs(5)));
        assert_eq!(kept.output_limit, Some(ByteSize(1024)));
        assert_eq!(kept.row_cap, Some(7));
        assert_eq!(kept.egress.unwrap().len(), 1);
        let kept = wasm(json!({"timeout": "1h", "output_limit": "1Gi"})).unwrap();
        assert_eq!((kept.timeout, kept.output_limit), (Some(Duration::from_secs(10)), Some(ByteSize(1 << 16))));
        assert_eq!(wasm(json!({"egress": []})).unwrap().egress, Some(BTreeSet::new()));
        assert_eq!(wasm(json!({"credentials": []})).unwrap().credentials, Some(BTreeMap::new()));
        assert_eq!(wasm(json!({"credentials": ["a"]})).unwrap().credentials.unwrap().len(), 1);
        let scoped = wasm(json!({"credentials": {"a": {"scopes": ["read"]}}})).unwrap().credentials.unwrap();
        assert_eq!(scoped["a"].scopes, Some(BTreeSet::from(["read".to_owned()])));
        assert_eq!(enforceable(None, &definition(BackendKind::Wasm)), Ok(Obligations::default()));
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        for (demanded, key) in [
            (json!({"budget": 3}), "budget"),
            (json!({"timeout": 5}), "timeout"),
            (json!({"timeout": "5"}), "timeout"),
            (json!({"timeout": "0s"}), "timeout"),
            (json!({"timeout": "-5s"}), "timeout"),
            (json!({"timeout": "99999999999999999999s"}), "timeout"),
            (json!({"timeout": null}), "timeout"),
            (json!({"output_limit": 1024}), "output_limit"),
            (json!({"row_cap": -1}), "row_cap"),
            (json!({"row_cap": 1.5}), "row_cap"),
            (json!({"row_cap": "1"}), "row_cap"),
            (json!({"egress": "a.example:443"}), "egress"),
            (json!({"egress": ["a.example"]}), "egress"),
            (json!({"egress": ["c.example:443"]}), "egress"),
            (json!({"credentials": ["b"]}), "credentials"),
            (json!({"credentials": "a"}), "credentials"),
            (json!({"credentials": [1]}), "credentials"),
            (json!({"credentials": {"a": null}}), "credentials"),
            (json!({"credentials": {"a": {"scope": []}}}), "credentials"),
            (json!({"isolation": "vm"}), "isolation"),
            (json!({"isolation": "container"}), "isolation"),
            (json!(["timeout"]), "obligations"),
            (json!(null), "obligations"),
            (json!(false), "obligations"),
        ] {
            assert_eq!(wasm(demanded.clone()), Err(key.to_owned()), "{demanded}");
        }
    }

    #[test]
    fn a_container_is_isolated_enough_for_both() {
        for least in ["wasm", "container"] {
            assert!(enforceable(Some(&json!({"isolation": least})), &definition(BackendKind::Docker)).is_ok());
        }
    }
}
