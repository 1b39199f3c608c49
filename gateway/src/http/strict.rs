//! JSON as strict as it must be where several parties have to see the same value.
//!
//! `serde_json` alone keeps the last of two equal names, and turns an integer that is too large into the float next to it: a
//! policy and a tool written in another language could see something else. Both are refused here, each with its place.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may be nested at most, the outermost included.
pub(crate) const MAX_DEPTH: usize = 64;

/// Names by which serde's number and raw-value types recognize themselves in generic data. A reader that knows them (a policy
/// engine, `serde_json::Value` itself) would see another value than one that does not, and embedded JSON escapes every bound.
const SERDES_OWN: &str = "$serde_json::private::";

/// Longest JSON Pointer shown in a message, in characters.
const MAX_POINTER: usize = 200;

/// What is wrong with a text that should be JSON, to be read after "it is": names the place and never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

/// Reads one JSON value and nothing after it, at most [`MAX_DEPTH`] levels deep.
///
/// # Errors
/// As [`parse_within`].
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Malformed> {
    parse_within(bytes, MAX_DEPTH)
}

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// On invalid UTF-8 (with the byte offset), on anything RFC 8259 does not allow, and on what it leaves open: a member given
/// twice, NUL in a member's name, a name that serde keeps for itself, more than `most` levels, an integer beyond 64 bits.
pub(crate) fn parse_within(bytes: &[u8], most: usize) -> Result<Value, Malformed> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| Malformed(format!("not UTF-8 at byte offset {}", error.valid_up_to())))?;
    if text.trim_ascii().is_empty() {
        return Err(Malformed("empty; a JSON object is wanted".into()));
    }
    let malformed = |error: serde_json::Error| Malformed(format!("not JSON as it is taken here: {error}"));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { place: &Place::Root, depth: 0, most }.deserialize(&mut deserializer).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    match oversized_integer(text) {
        Some(offset) => {
            let (line, column) = line_and_column(text, offset);
            Err(Malformed(format!(
                "not taken: the integer at line {line} column {column} does not fit in 64 bits; send it as a string"
            )))
        }
        None => Ok(value),
    }
}

/// Where we are in the value; written as a JSON Pointer (RFC 6901).
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(parent, name) => write!(f, "{parent}/{}", name.replace('~', "~0").replace('/', "~1")),
            Self::Element(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

impl Place<'_> {
    /// The pointer, cut to what fits in a message.
    fn shown(&self) -> String {
        let pointer = self.to_string();
        match pointer.char_indices().nth(MAX_POINTER) {
            Some((end, _)) => format!("{}…", &pointer[..end]),
            None => pointer,
        }
    }
}

/// One value at a place, still to be read.
struct Node<'a> {
    place: &'a Place<'a>,
    depth: usize,
    /// The deepest that is taken.
    most: usize,
}

impl Node<'_> {
    fn enter<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= self.most {
            return Err(E::custom(format_args!("more than {} levels of nesting in {}", self.most, self.place.shown())));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut array = Vec::new();
        let most = self.most;
        while let Some(value) = access.next_element_seed(Node { place: &Place::Element(self.place, array.len()), depth, most })? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut object = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let place = Place::Member(self.place, &name);
            if name.contains('\0') {
                return Err(A::Error::custom(format_args!("NUL in the name of a member of \"{}\"", self.place.shown())));
            }
            if name.starts_with(SERDES_OWN) {
                return Err(A::Error::custom(format_args!("a reserved name, {SERDES_OWN}…, in \"{}\"", self.place.shown())));
            }
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the member {} is given twice", place.shown())));
            }
            let value = access.next_value_seed(Node { place: &place, depth, most: self.most })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// The byte offset of the first integer in valid JSON that neither `i64` nor `u64` holds.
fn oversized_integer(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at += string_length(&bytes[at..]),
            b'-' | b'0'..=b'9' => {
                let length =
                    bytes[at..].iter().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
                let number = &text[at..at + length];
                let is_integer = !number.contains(['.', 'e', 'E']);
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(at);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// The length of the string literal that `bytes` starts with, quotes included.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    (before.iter().filter(|b| **b == b'\n').count() + 1, offset - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(body: impl AsRef<[u8]>) -> String {
        parse(body.as_ref()).unwrap_err().to_string()
    }

    #[test]
    fn good_json_reads_as_serde_json_reads_it() {
        let text = r#" {"a": [1, -2, 0.5, 1e3, 18446744073709551615, -9223372036854775808, true, null], "b~/\"": {"c": "é\u0000"}, "": {}} "#;
        assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()));
    }

    #[test]
    fn a_member_given_twice_is_named() {
        assert_eq!(
            wrong(r#"{"arguments": {"a/b": 1, "n": [{}, {"x": 1, "x": 2}]}}"#),
            "not JSON as it is taken here: the member /arguments/n/1/x is given twice at line 1 column 47"
        );
        assert!(wrong(r#"{"a/~": 1, "a\u002f~": 2}"#).contains("the member /a~1~0 is given twice"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(wrong(nested(MAX_DEPTH + 1)).contains("more than 64 levels"));
        assert!(wrong("[".repeat(10_000)).contains("more than 64 levels"));
        assert!(wrong(r#"{"a":"#.repeat(10_000)).contains("more than 64 levels"));
        assert!(parse_within(nested(4).as_bytes(), 4).is_ok());
        assert!(parse_within(nested(5).as_bytes(), 4).unwrap_err().to_string().contains("more than 4 levels"));
    }

    #[test]
    fn a_message_stays_short_whatever_the_names() {
        let name = "n".repeat(100_000);
        assert!(wrong(format!(r#"{{"{name}": 1, "{name}": 1}}"#)).len() < 400);
    }

    #[test]
    fn integers_beyond_64_bits_are_refused_with_their_place() {
        assert_eq!(
            wrong("{\n \"n\": 18446744073709551616}"),
            "not taken: the integer at line 2 column 7 does not fit in 64 bits; send it as a string"
        );
        assert!(wrong("[\"\\\"1\", -9223372036854775809]").contains("column 9"));
        assert!(parse(br#"{"18446744073709551616": "18446744073709551616", "f": 1.8446744073709551616e19}"#).is_ok());
        assert!(wrong("1e999").contains("number out of range"));
    }

    #[test]
    fn everything_else_that_is_not_json_is_refused_with_its_place() {
        assert_eq!(wrong(b"{\"a\": \"\xff\"}"), "not UTF-8 at byte offset 7");
        assert!(wrong("").contains("empty") && wrong(" \n").contains("empty"));
        assert!(wrong("{} {}").contains("trailing characters at line 1 column 4"));
        assert!(wrong(r#"{"a\u0000b": 1}"#).contains("NUL in the name of a member"));
        for own in ["Number", "RawValue"] {
            assert!(wrong(format!(r#"{{"a": [{{"$serde_json::private::{own}": "1"}}]}}"#)).contains("reserved name"));
            assert!(wrong(format!(r#"{{"\u0024serde_json::private::{own}": "1"}}"#)).contains("reserved name"));
        }
        for text in ["{", "{\"a\"}", "nul", "NaN", "[1,]", "'a'", "\u{feff}{}", "\"\\ud800\"", "01", "\"\n\"", "\0"] {
            assert!(wrong(text).contains(" at line "), "{text:?}: {}", wrong(text));
        }
    }
}
