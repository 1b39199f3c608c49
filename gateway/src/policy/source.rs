//! Policy from source: regorus.
//!
//! Two ways to one answer. The interpreter reports every error of a builtin, and is the reference. The bytecode machine is four
//! times as fast, but takes an error inside a rule for "undefined", which in a `deny` rule would be an allow; so it answers only
//! for policies in which nothing can fail ([`fast`](super::fast) decides that), and the interpreter for all others.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regorus::Engine;
use regorus::utils::limits::ExecutionTimerConfig;
use serde::Deserialize;
use serde_json::Value;

use super::fast::{Fast, Machine};
use super::load::{Contents, PolicyLoadError, Problem, Source};
use super::syntax::{self, Rules};
use super::verdict::Answer;
use super::{PolicyError, PolicyInput};

/// The rules that make a decision.
pub(super) const RULES: [&str; 4] = ["allow", "deny", "approval", "obligations"];

/// Engines kept for the next question. More run at once only for a moment, and are dropped afterwards.
const IDLE: usize = 64;
/// Steps of the interpreter between two looks at the clock.
const STEPS: NonZeroU32 = match NonZeroU32::new(64) {
    Some(steps) => steps,
    None => NonZeroU32::MIN,
};
/// The package of the one rule that asks all others, so that what they share is evaluated once.
const QUESTION: &str = "mayfly.question";

pub(super) struct SourcePolicy {
    interpreter: Engine,
    interpreters: Mutex<Vec<Engine>>,
    decision: Lane,
    view: Lane,
    /// Whether anything says which tools are visible.
    has_view: bool,
    time_limit: Duration,
    pub(super) package: String,
    pub(super) sources: Vec<Source>,
    pub(super) data: regorus::Value,
    pub(super) rules: Rules,
}

impl SourcePolicy {
    pub(super) fn load(contents: Contents, package: &str, time_limit: Duration) -> Result<(Self, Vec<Problem>), PolicyLoadError> {
        let (mut engine, rules) = syntax::parse(&contents.sources)?;
        let mut problems = rules.refused();
        problems.extend(rules.unknown());
        problems.extend(misplaced(&contents, package, &rules));
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let data = regorus::Value::from(Value::Object(contents.data));
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: time_limit, check_interval: STEPS });
        let failed = |error: &dyn std::fmt::Display| PolicyLoadError::from(syntax::located(&error, "policy"));
        engine.add_data(data.clone()).map_err(|error| failed(&error))?;
        engine.add_policy(QUESTION.to_owned(), question(package)).map_err(|error| failed(&error))?;
        let compiled =
            engine.compile_with_entrypoint(&format!("data.{QUESTION}.decision").into()).map_err(|error| failed(&error))?;
        let lane = |asked: &[&str]| Fast::compile(&compiled, package, asked, &rules, data.clone(), time_limit);
        let (decision, why) = Lane::new(lane(&RULES));
        let (view, _) = Lane::new(lane(&["visible"]));
        let mut notes: Vec<Problem> = why
            .map(|why| Problem::general(format!("note: is interpreted, not compiled to bytecode: {why}")))
            .into_iter()
            .collect();
        notes.extend(rules.shaky());
        if !rules.all.iter().any(|rule| rule.is(package, "allow") && !rule.is_default) {
            notes
                .push(Problem::general(format!("note: no rule of package {package} is called `allow`, so every call is denied")));
        }
        let policy = Self {
            // Whoever defines it, in whatever package and by whatever path, writes the word.
            has_view: contents.sources.iter().any(|source| source.text.contains("visible")),
            interpreter: engine,
            interpreters: Mutex::default(),
            decision,
            view,
            time_limit,
            package: package.to_owned(),
            sources: contents.sources,
            data,
            rules,
        };
        Ok((policy, notes))
    }

    /// Whether there can be an answer to which tools are visible; where not, all are, and nobody need ask.
    pub(super) const fn has_view(&self) -> bool {
        self.has_view
    }

    /// Whether the bytecode machine answers.
    pub(super) const fn is_compiled(&self) -> bool {
        self.decision.fast.is_some()
    }

    pub(super) fn ask(&self, input: &PolicyInput) -> Result<Answer, PolicyError> {
        let input = regorus::Value::deserialize(&input.0).map_err(failed)?;
        match &self.decision.fast {
            Some(fast) => self.ask_machine(fast, &self.decision.machines, input).and_then(|answer| answered(&answer)),
            None => self.ask_interpreter(input),
        }
    }

    pub(super) fn ask_interpreter(&self, input: regorus::Value) -> Result<Answer, PolicyError> {
        let answer = self.interpret(format!("data.{QUESTION}.decision"), input)?;
        let rule = |name: &str| {
            // Each is an array of one value, or of none where the rule is undefined.
            let values = answer[name].as_array().map_err(failed)?;
            values.first().map_or(Ok(None), json)
        };
        let [allow, deny, approval, obligations] = RULES;
        Ok(Answer { allow: rule(allow)?, deny: rule(deny)?, approval: rule(approval)?, obligations: rule(obligations)? })
    }

    /// `visible`, or `None` where it is undefined.
    pub(super) fn visible(&self, input: &PolicyInput) -> Result<Option<Value>, PolicyError> {
        let input = regorus::Value::deserialize(&input.0).map_err(failed)?;
        let answer = match &self.view.fast {
            Some(fast) => self.ask_machine(fast, &self.view.machines, input)?,
            None => {
                let answer = self.interpret(format!("data.{QUESTION}.visible"), input)?;
                answer.as_array().map_err(failed)?.to_vec()
            }
        };
        answer.first().map_or(Ok(None), json)
    }

    fn ask_machine(
        &self,
        fast: &Fast,
        idle: &Mutex<Vec<Machine>>,
        input: regorus::Value,
    ) -> Result<Vec<regorus::Value>, PolicyError> {
        let taken = idle.lock().pop();
        let mut machine = taken.map_or_else(|| fast.machine(), Ok).map_err(PolicyError::Evaluation)?;
        let started = Instant::now();
        let answer = machine.ask(input).map_err(|error| self.explained(started, error))?;
        // A machine that failed is not used again.
        keep(idle, machine);
        Ok(answer)
    }

    fn interpret(&self, rule: String, input: regorus::Value) -> Result<regorus::Value, PolicyError> {
        let taken = self.interpreters.lock().pop();
        let mut engine = taken.unwrap_or_else(|| self.interpreter.clone());
        engine.set_input(input);
        let started = Instant::now();
        let answer = engine.eval_rule(rule).map_err(|error| self.explained(started, error))?;
        keep(&self.interpreters, engine);
        Ok(answer)
    }

    fn explained(&self, started: Instant, error: impl std::fmt::Display) -> PolicyError {
        if started.elapsed() >= self.time_limit {
            return PolicyError::TimeLimit(self.time_limit);
        }
        PolicyError::Evaluation(syntax::located(&error, "policy").to_string())
    }
}

/// A program and its machines, where there is one.
#[derive(Default)]
struct Lane {
    fast: Option<Fast>,
    machines: Mutex<Vec<Machine>>,
}

impl Lane {
    fn new(compiled: Result<Fast, String>) -> (Self, Option<String>) {
        match compiled {
            Ok(fast) => (Self { fast: Some(fast), ..Self::default() }, None),
            Err(why) => (Self::default(), Some(why)),
        }
    }
}

/// The four rules in their order.
fn answered(values: &[regorus::Value]) -> Result<Answer, PolicyError> {
    let [allow, deny, approval, obligations] = values else {
        return Err(PolicyError::Evaluation("the machine answered another question".to_owned()));
    };
    Ok(Answer { allow: json(allow)?, deny: json(deny)?, approval: json(approval)?, obligations: json(obligations)? })
}

fn keep<T>(pool: &Mutex<Vec<T>>, engine: T) {
    let mut pool = pool.lock();
    if pool.len() < IDLE {
        pool.push(engine);
    }
}

fn failed(error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Evaluation(error.to_string())
}

/// `None` for undefined.
pub(super) fn json(value: &regorus::Value) -> Result<Option<Value>, PolicyError> {
    match value {
        regorus::Value::Undefined => Ok(None),
        regorus::Value::Bool(yes) => Ok(Some(Value::Bool(*yes))),
        value => serde_json::to_value(value).map(Some).map_err(failed),
    }
}

/// Asks every rule once. An array of one value tells a rule that is `null` from one that is undefined.
fn question(package: &str) -> String {
    let rule = |name: &str| format!("[value | value := data.{package}.{name}]");
    let members: Vec<String> = RULES.iter().map(|name| format!("\"{name}\": {}", rule(name))).collect();
    format!("package {QUESTION}\n\ndecision := {{{}}}\n\nvisible := {}\n", members.join(", "), rule("visible"))
}

/// A package that is not there, a package of ours, and data where rules are.
fn misplaced(contents: &Contents, package: &str, rules: &Rules) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !rules.has_package(package) {
        let there = rules.packages().into_iter().collect::<Vec<_>>().join(", ");
        problems.push(Problem::general(format!(
            "package `{package}` has no rule in this policy; it has: {there}. Rename the package, or set `policy.package`"
        )));
    }
    for rule in rules.all.iter().filter(|rule| rule.package == QUESTION) {
        problems.push(Problem::at(&rule.file, rule.line, format!("package `{QUESTION}` is the gateway's own; rename it")));
    }
    let pointer = format!("/{}", package.replace('.', "/"));
    if Value::Object(contents.data.clone()).pointer(&pointer).is_some() {
        let message = format!("data gives a document at `{package}`, where the rules are; move it elsewhere");
        problems.push(Problem::general(message));
    }
    problems
}
