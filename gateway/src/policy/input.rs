//! What policy is asked.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::load::{PolicyLoadError, Problem};
use super::{PolicyError, Question};
use crate::caller::Caller;
use crate::catalog::definition::{Classifier, Tier};

/// The names at the top of the policy input that are ours. A tool's `policy_input` may not lift onto one of them.
pub const RESERVED_NAMES: [&str; 15] = [
    "action",
    "actors",
    "agent_id",
    "arguments",
    "credentials",
    "environment",
    "hour",
    "resource",
    "task_id",
    "tier",
    "time",
    "tool",
    "user",
    "version",
    "weekday",
];

/// The policy input of section 6 of the design, as one JSON object.
///
/// Every name of ours is always there (`user` and `task_id` are `null` when there is none), so that `!=` in a deny rule is never undefined.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyInput(pub Value);

impl PolicyInput {
    /// The input of one call.
    pub(super) fn of_call(question: &Question, clock: &Clock, environment: &str) -> Result<Self, PolicyError> {
        let definition = &question.tool.definition;
        let arguments = &question.arguments.value;
        let mut input = Map::new();
        for (name, pointer) in &definition.policy_input {
            if let Some(value) = arguments.pointer(pointer) {
                input.insert(name.clone(), value.clone());
            }
        }
        // Ours come second: whatever a tool lifts, it cannot stand in for one of these.
        identify(&mut input, &question.caller, environment);
        clock.tell(&mut input, question.now)?;
        input.insert("task_id".to_owned(), question.task_id.clone().into());
        input.insert("tool".to_owned(), definition.name.as_str().into());
        input.insert("version".to_owned(), definition.version.as_str().into());
        input.insert("tier".to_owned(), tier(definition.tier).into());
        input.insert("action".to_owned(), classified("action", &definition.action, arguments)?);
        input.insert("resource".to_owned(), classified("resource", &definition.resource, arguments)?);
        input.insert("arguments".to_owned(), Value::clone(arguments));
        let sources: BTreeSet<_> = definition.credentials.iter().map(|one| one.source.as_str()).collect();
        input.insert("credentials".to_owned(), sources.into_iter().collect());
        Ok(Self(Value::Object(input)))
    }

    /// The input of the question which tools a caller may see: no tool and no arguments.
    pub(super) fn of_view(caller: &Caller, now: OffsetDateTime, clock: &Clock, environment: &str) -> Result<Self, PolicyError> {
        let mut input = Map::new();
        identify(&mut input, caller, environment);
        clock.tell(&mut input, now)?;
        Ok(Self(Value::Object(input)))
    }
}

fn identify(input: &mut Map<String, Value>, caller: &Caller, environment: &str) {
    input.insert("agent_id".to_owned(), caller.agent_id().into());
    input.insert("user".to_owned(), caller.user().into());
    input.insert("actors".to_owned(), caller.actors().iter().map(String::as_str).collect());
    input.insert("environment".to_owned(), environment.into());
}

const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Free => "free",
        Tier::Supervised => "supervised",
        Tier::Forbidden => "forbidden",
    }
}

fn classified(name: &'static str, classifier: &Classifier, arguments: &Value) -> Result<Value, PolicyError> {
    match classifier {
        Classifier::Constant(text) => Ok(text.as_str().into()),
        Classifier::From { from } => {
            arguments.pointer(from).filter(|value| value.is_string()).cloned().ok_or(PolicyError::Unclassified(name))
        }
    }
}

/// Tells the time in the policy's zone. The zone data is built in, so that a host without it decides alike.
#[derive(Debug, Clone)]
pub(super) struct Clock(TimeZone);

impl Clock {
    pub(super) fn new(name: &str) -> Result<Self, PolicyLoadError> {
        jiff::tz::TimeZoneDatabase::bundled().get(name).map(Self).map_err(|_| {
            PolicyLoadError::from(Problem::general(format!(
                "`policy.timezone: {name}` is not an IANA time zone; write one such as UTC or Europe/Berlin"
            )))
        })
    }

    fn tell(&self, input: &mut Map<String, Value>, now: OffsetDateTime) -> Result<(), PolicyError> {
        let nanosecond = i32::try_from(now.nanosecond()).map_err(|_| PolicyError::Clock)?;
        let timestamp = jiff::Timestamp::new(now.unix_timestamp(), nanosecond).map_err(|_| PolicyError::Clock)?;
        let local = timestamp.to_zoned(self.0.clone());
        let text = timestamp.display_with_offset(local.offset()).to_string();
        input.insert("time".to_owned(), text.into());
        input.insert("hour".to_owned(), local.hour().into());
        input.insert("weekday".to_owned(), weekday(local.weekday()).into());
        Ok(())
    }
}

const fn weekday(day: jiff::civil::Weekday) -> &'static str {
    use jiff::civil::Weekday;
    match day {
        Weekday::Monday => "monday",
        Weekday::Tuesday => "tuesday",
        Weekday::Wednesday => "wednesday",
        Weekday::Thursday => "thursday",
        Weekday::Friday => "friday",
        Weekday::Saturday => "saturday",
        Weekday::Sunday => "sunday",
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn told(zone: &str, now: OffsetDateTime) -> Value {
        let mut input = Map::new();
        Clock::new(zone).unwrap().tell(&mut input, now).unwrap();
        Value::Object(input)
    }

    #[test]
    fn the_time_is_told_in_the_policy_zone() {
        let now = datetime!(2027-07-04 22:30:05 UTC);
        assert_eq!(told("UTC", now), serde_json::json!({"time": "2027-07-04T22:30:05+00:00", "hour": 22, "weekday": "sunday"}));
        assert_eq!(
            told("Europe/Berlin", now),
            serde_json::json!({"time": "2027-07-05T00:30:05+02:00", "hour": 0, "weekday": "monday"})
        );
    }

    #[test]
    fn an_unknown_zone_is_refused_by_name() {
        let error = Clock::new("Europe/Atlantis").unwrap_err().to_string();
        assert!(error.contains("Europe/Atlantis"), "{error}");
    }
}
