//! Which rules made a decision. For `policy eval`, where time is no matter.
//!
//! A rule has fired if, with every other rule of its name blanked out, its name still has a value. That is told by the engine,
//! not guessed from coverage, which knows lines that were looked at and not those that held.

use regorus::{Engine, Value};

use super::source::{RULES, SourcePolicy};
use super::syntax::Rule;

/// `file:line: name` of every rule of the four that fired for this input, in the order they are written.
pub(super) fn fired(policy: &SourcePolicy, input: &Value) -> Vec<String> {
    let mut asked: Vec<&Rule> = policy
        .rules
        .all
        .iter()
        .filter(|rule| !rule.is_default && RULES.iter().any(|name| rule.is(&policy.package, name)))
        .collect();
    asked.sort_by_key(|rule| (&rule.file, rule.line));
    let fired = asked.into_iter().filter(|rule| alone(policy, rule, input).is_some_and(|value| says_something(&value)));
    fired.map(|rule| format!("{}:{}: {}", rule.file, rule.line, rule.name)).collect()
}

/// The value of a rule's name with this rule alone.
fn alone(policy: &SourcePolicy, kept: &Rule, input: &Value) -> Option<Value> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    for source in &policy.sources {
        let mut text = source.text.clone().into_bytes();
        let others = policy.rules.all.iter().filter(|rule| rule.file == source.file && rule.is(&policy.package, &kept.name));
        for other in others.filter(|other| (&other.file, other.span) != (&kept.file, kept.span)) {
            for byte in text.get_mut(other.span.0..other.span.1)?.iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
        }
        let text = String::from_utf8(text).ok()?;
        engine.set_rego_v0(false);
        if engine.add_policy(source.file.clone(), text.clone()).is_err() {
            engine.set_rego_v0(true);
            engine.add_policy(source.file.clone(), text).ok()?;
        }
    }
    engine.add_data(policy.data.clone()).ok()?;
    engine.set_input(input.clone());
    engine.eval_rule(format!("data.{}.{}", policy.package, kept.name)).ok()
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Undefined | Value::Bool(false) => false,
        Value::Set(set) => !set.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}
