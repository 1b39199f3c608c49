//! Takes out of what leaves towards the agent what must not leave: the call's `writeOnly` arguments and its credentials.
//!
//! A credential is searched for in every form in which an honest mistake prints it (see [`forms`]), and finding one is remembered
//! for the call's record. It is no defence against a tool that wants to give its credential away: against that stands what the
//! credential may do, where the sandbox may connect to, and that it ends with the call.

mod forms;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use memchr::memmem;
use parking_lot::Mutex;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::catalog::{Arguments, REDACTED};
use crate::credentials::Held;

/// Values shorter than this are not searched for: they would redact half the output and protect nothing.
const SHORTEST: usize = 4;

/// Where a text was cut before it came here: half of a value may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is whole.
    Nowhere,
    /// Something is missing in front of it.
    Start,
    /// Something is missing behind it.
    End,
}

/// A text that must not leave, and the credential it is of, if it is of one.
struct Needle {
    text: Zeroizing<String>,
    source: Option<Arc<str>>,
}

/// What must not leave, of one call. Wiped when dropped.
#[derive(Default)]
pub struct Redactor {
    /// Longest first: a value inside another must not leave the rest of it behind.
    needles: Vec<Needle>,
    /// Those that a number of JSON could be, and where they are.
    numbers: HashMap<String, usize>,
    found: Mutex<BTreeSet<Arc<str>>>,
}

impl Redactor {
    /// What the arguments hide: the places where their redacted form differs from the value.
    pub fn of(arguments: &Arguments) -> Self {
        let mut hidden = Vec::new();
        collect(&arguments.value, &arguments.redacted, &mut hidden);
        Self::default().and(hidden.into_iter().map(|text| Needle { text: Zeroizing::new(text), source: None }))
    }

    /// That, and the credentials that the call holds.
    #[must_use]
    pub fn with(self, held: &Held) -> Self {
        let mut needles = Vec::new();
        for (source, value) in held.values() {
            let source: Arc<str> = source.into();
            needles.extend(forms::of(value).into_iter().map(|text| Needle { text, source: Some(source.clone()) }));
        }
        self.and(needles)
    }

    fn and(mut self, more: impl IntoIterator<Item = Needle>) -> Self {
        self.needles.extend(more.into_iter().filter(|needle| needle.text.len() >= SHORTEST));
        self.needles.sort_by_key(|needle| std::cmp::Reverse(needle.text.len()));
        let is_number = |text: &str| text.len() < 32 && serde_json::from_str::<serde_json::Number>(text).is_ok();
        let numbers = self.needles.iter().enumerate().filter(|(_, needle)| is_number(&needle.text));
        self.numbers = numbers.map(|(at, needle)| (needle.text.to_string(), at)).collect();
        self
    }

    /// `text` without them.
    pub fn text(&self, text: String) -> String {
        self.needles.iter().fold(text, |text, needle| {
            // One at a time, each in time linear in the text and in no memory of its own: an automaton over all of them would
            // take many times what a caller may send.
            if needle.text.len() > text.len() || memmem::find(text.as_bytes(), needle.text.as_bytes()).is_none() {
                return text;
            }
            self.remember(needle);
            text.replace(needle.text.as_str(), REDACTED)
        })
    }

    /// The same for a text that was cut. Half of a value may stand where it was cut, so as much as that could be is dropped, whatever
    /// stands there: to drop what looks like half of one would tell a caller who chooses the rest what it looks like.
    pub fn cut_text(&self, text: String, cut: Cut) -> String {
        let half = self.needles.first().map_or(0, |longest| longest.text.len() - 1);
        let clean = self.text(text);
        match cut {
            Cut::End if half > 0 => {
                format!("{}{REDACTED}", &clean[..clean.floor_char_boundary(clean.len().saturating_sub(half))])
            }
            Cut::Start if half > 0 => format!("{REDACTED}{}", &clean[clean.ceil_char_boundary(half.min(clean.len()))..]),
            _ => clean,
        }
    }

    /// `value` without them, in every string, name and number of it.
    pub fn value(&self, value: &mut Value) {
        if self.needles.is_empty() {
            return;
        }
        match value {
            Value::String(text) => *text = self.text(std::mem::take(text)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => {
                let cleaned = std::mem::take(members).into_iter().map(|(name, mut member)| {
                    self.value(&mut member);
                    (self.text(name), member)
                });
                *members = cleaned.collect();
            }
            Value::Number(number) => {
                if let Some(needle) = self.numbers.get(&number.to_string()).and_then(|at| self.needles.get(*at)) {
                    self.remember(needle);
                    *value = Value::String(REDACTED.to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn remember(&self, needle: &Needle) {
        if let Some(source) = &needle.source {
            self.found.lock().insert(source.clone());
        }
    }

    /// The sources of the credentials that were found so far.
    pub fn found(&self) -> Vec<String> {
        self.found.lock().iter().map(|source| source.to_string()).collect()
    }
}

fn collect(value: &Value, redacted: &Value, hidden: &mut Vec<String>) {
    match (value, redacted) {
        (value, redacted) if value == redacted => {}
        (Value::Object(members), Value::Object(shown)) => {
            for (name, member) in members {
                collect(member, shown.get(name).unwrap_or(&Value::Null), hidden);
            }
        }
        (Value::Array(items), Value::Array(shown)) if items.len() == shown.len() => {
            items.iter().zip(shown).for_each(|(item, shown)| collect(item, shown, hidden));
        }
        (value, _) => leaves(value, hidden),
    }
}

fn leaves(value: &Value, hidden: &mut Vec<String>) {
    match value {
        Value::String(text) => hidden.push(text.clone()),
        Value::Number(number) => hidden.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, hidden)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, hidden)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hiding(value: Value, redacted: Value) -> Redactor {
        Redactor::of(&Arguments { bytes: value.to_string().into(), value: value.into(), redacted: redacted.into() })
    }

    fn keeping(secret: &[u8]) -> Redactor {
        let needles = forms::of(secret).into_iter().map(|text| Needle { text, source: Some("github".into()) });
        Redactor::default().and(needles)
    }

    #[test]
    fn hidden_arguments_do_not_come_back() {
        let redactor = hiding(
            json!({"user": "ann", "password": "hunter22", "pins": [123456]}),
            json!({"user": "ann", "password": REDACTED, "pins": REDACTED}),
        );
        let mut value = json!({"echo": "pw=hunter22;", "hunter22": 1, "list": ["ann", 123456]});
        redactor.value(&mut value);
        assert_eq!(value, json!({"echo": "pw=[redacted];", REDACTED: 1, "list": ["ann", REDACTED]}));
        assert!(redactor.found().is_empty(), "an argument is no credential");
    }

    #[test]
    fn a_value_inside_another_leaves_nothing_of_it() {
        let redactor = hiding(json!({"a": "hunter", "b": "hunter22-long"}), json!({"a": REDACTED, "b": REDACTED}));
        assert_eq!(redactor.text("x hunter22-long y hunter z".into()), format!("x {REDACTED} y {REDACTED} z"));
    }

    #[test]
    fn finding_a_credential_is_remembered() {
        let redactor = keeping(b"ghp_abcdefgh");
        assert_eq!(redactor.text("nothing".into()), "nothing");
        assert!(redactor.found().is_empty());
        assert_eq!(redactor.text("token=ghp_abcdefgh".into()), format!("token={REDACTED}"));
        assert_eq!(redactor.found(), ["github"]);
        let mut number = json!({"n": 12345678});
        let redactor = keeping(b"12345678");
        redactor.value(&mut number);
        assert_eq!((number, redactor.found().len()), (json!({"n": REDACTED}), 1));
    }

    #[test]
    fn where_a_text_was_cut_as_much_goes_as_could_be_half_a_value() {
        let redactor = Redactor::default().and([Needle { text: Zeroizing::new("hunter22".into()), source: None }]);
        for (text, cut, left) in [
            ("a long line hunter2", Cut::End, "a long line [redacted]"),
            ("a long line and more", Cut::End, "a long line a[redacted]"),
            ("unter22 the rest", Cut::Start, "[redacted] the rest"),
            ("short", Cut::End, REDACTED),
            ("a long line hunter2", Cut::Nowhere, "a long line hunter2"),
        ] {
            assert_eq!(redactor.cut_text(text.into(), cut), left);
        }
        assert_eq!(Redactor::default().cut_text("as it is".into(), Cut::End), "as it is");
    }
}
