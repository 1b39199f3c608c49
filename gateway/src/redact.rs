//! Takes out of what leaves towards the agent what must not leave: the call's `writeOnly` arguments and its credentials.
//!
//! A credential is searched for in every form in which an honest mistake prints it (see [`forms`]), and finding one is remembered
//! for the call's record. It is no defence against a tool that wants to give its credential away: against that stands what the
//! credential may do, where the sandbox may connect to, and that it ends with the call.

mod forms;

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
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

/// What must not leave, of one call. Wiped when dropped, as far as the search lets it.
#[derive(Default)]
pub struct Redactor {
    needles: Vec<Needle>,
    search: Option<AhoCorasick>,
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
        if !self.needles.is_empty() {
            // A value inside another must not leave the rest of it behind.
            let texts = self.needles.iter().map(|needle| needle.text.as_bytes());
            // It fails beyond 2^31 states only, which no call's values have.
            self.search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok();
        }
        self
    }

    /// `text` without them.
    pub fn text(&self, text: String) -> String {
        let Some(search) = &self.search else { return text };
        if !search.is_match(&text) {
            return text;
        }
        let mut clean = String::with_capacity(text.len());
        search.replace_all_with(&text, &mut clean, |found, _, clean| {
            self.remember(&self.needles[found.pattern().as_usize()]);
            clean.push_str(REDACTED);
            true
        });
        clean
    }

    /// The same for a text that was cut: what may be half of one goes too.
    pub fn cut_text(&self, text: String, cut: Cut) -> String {
        let clean = self.text(text);
        match cut {
            Cut::Nowhere => clean,
            Cut::Start => match self.half(|half| clean.starts_with(half), |needle, from| needle.get(from..)) {
                0 => clean,
                half => format!("{REDACTED}{}", &clean[half..]),
            },
            Cut::End => match self.half(|half| clean.ends_with(half), |needle, from| needle.get(..needle.len() - from)) {
                0 => clean,
                half => format!("{}{REDACTED}", &clean[..clean.len() - half]),
            },
        }
    }

    /// The length of the longest part of a value that stands where the text was cut.
    fn half(&self, stands: impl Fn(&str) -> bool, part: impl Fn(&str, usize) -> Option<&str>) -> usize {
        let longest = |needle: &Needle| {
            let most = needle.text.len().saturating_sub(SHORTEST);
            let found = (1..=most).filter_map(|from| part(&needle.text, from)).find(|half| stands(half)).map_or(0, str::len);
            if found > 0 {
                self.remember(needle);
            }
            found
        };
        self.needles.iter().map(longest).max().unwrap_or_default()
    }

    /// `value` without them, in every string, name and number of it.
    pub fn value(&self, value: &mut Value) {
        if self.search.is_none() {
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
                let text = number.to_string();
                if let Some(needle) = self.needles.iter().find(|needle| *needle.text == text) {
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
    fn half_a_value_where_a_text_was_cut_goes_too() {
        let redactor = keeping(b"ghp_abcdefgh");
        assert_eq!(redactor.cut_text("line ghp_abc".into(), Cut::End), format!("line {REDACTED}"));
        assert_eq!(redactor.cut_text("defgh rest".into(), Cut::Start), format!("{REDACTED} rest"));
        assert_eq!(redactor.found(), ["github"]);
        for (text, cut) in [("line ghp_abc", Cut::Nowhere), ("ghp_ is a prefix", Cut::End), ("a defgh", Cut::Start)] {
            assert_eq!(redactor.cut_text(text.into(), cut), text);
        }
    }
}
