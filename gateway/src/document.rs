//! A YAML file somebody wrote by hand (`tool.yaml`, `mayfly.yaml`): read within bounds, with the line of every key,
//! and compared with a published JSON Schema, so that every mistake is named at once and at its place.
//!
//! YAML is read as its JSON subset: keys are strings, merge keys and repeated keys are mistakes, and `no` is a word.

mod problem;
mod shape;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

pub use problem::{Problem, Severity};
pub use shape::{Format, NotYet, Shape, schema_of};

/// The most bytes such a file may have.
pub const MAX_BYTES: u64 = 1 << 20;
/// The deepest nesting such a file may have.
pub const MAX_DEPTH: usize = 48;

/// A file that was read, and where in it everything stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
    /// JSON Pointer -> line, counted from 1.
    lines: HashMap<String, u64>,
}

impl Document {
    /// Reads a file of at most [`MAX_BYTES`]. Repeated keys come back as problems beside the document, in which the
    /// first one counts; what is no YAML at all is the one problem of an `Err`.
    ///
    /// # Errors
    /// The file cannot be read, is too long, is no UTF-8 or no YAML.
    pub fn read(file: &Path) -> Result<(Self, Vec<Problem>), Problem> {
        let unreadable = |what: String| Problem::error(file, 0, "", what, "a readable YAML file of at most 1 MiB in UTF-8");
        let opened = std::fs::File::open(file).map_err(|e| unreadable(format!("cannot be opened: {e}")))?;
        let mut text = String::new();
        opened.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| unreadable(format!("cannot be read: {e}")))?;
        Self::parse(file, &text)
    }

    /// The same for a text; `file` is what problems name.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn parse(file: &Path, text: &str) -> Result<(Self, Vec<Problem>), Problem> {
        if text.len() as u64 > MAX_BYTES {
            return Err(Problem::error(file, 0, "", "is longer than 1 MiB".to_owned(), "at most 1 MiB"));
        }
        let node: Spanned<Node> = serde_saphyr::from_str_with_options(text, options()).map_err(|e| {
            let line = e.location().map_or(0, |l| l.line());
            Problem::error(
                file,
                line,
                "",
                format!("is not YAML that can be read: {}", e.without_snippet()),
                "one YAML 1.2 document",
            )
        })?;
        let mut document = Self { file: file.to_owned(), value: Value::Null, lines: HashMap::new() };
        let mut problems = Vec::new();
        document.lines.insert(String::new(), node.referenced.line());
        document.value = document.place(node.value, &mut String::new(), &mut problems);
        Ok((document, problems))
    }

    /// A file that says nothing; `file` is what problems name.
    pub fn empty(file: &Path) -> Self {
        Self { file: file.to_owned(), value: Value::Null, lines: HashMap::new() }
    }

    /// The same file with another value.
    #[must_use]
    pub fn with(&self, value: Value) -> Self {
        Self { value, ..self.clone() }
    }

    /// The line of what `pointer` names, or of the nearest thing around it.
    pub fn line(&self, pointer: &str) -> u64 {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.lines.get(pointer) {
                return *line;
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return 0,
            }
        }
    }

    /// An error at `pointer`.
    pub fn error(&self, pointer: &str, what: impl Into<String>, accepted: impl Into<String>) -> Problem {
        Problem::error(&self.file, self.line(pointer), pointer, what, accepted)
    }

    /// A warning at `pointer`.
    pub fn warning(&self, pointer: &str, what: impl Into<String>, accepted: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..self.error(pointer, what, accepted) }
    }

    /// Turns the parsed tree into a value and notes where everything stands.
    fn place(&mut self, node: Node, at: &mut String, problems: &mut Vec<Problem>) -> Value {
        match node {
            Node::Leaf(value) => value,
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    let length = at.len();
                    push_segment(at, &index.to_string());
                    self.lines.insert(at.clone(), item.referenced.line());
                    list.push(self.place(item.value, at, problems));
                    at.truncate(length);
                }
                Value::Array(list)
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, item) in entries {
                    let length = at.len();
                    push_segment(at, &key.value);
                    if map.contains_key(&key.value) {
                        let line = key.referenced.line();
                        let what = format!("is there twice; the first is on line {}", self.line(at));
                        problems.push(Problem::error(&self.file, line, at.as_str(), what, "every key once"));
                    } else {
                        self.lines.insert(at.clone(), key.referenced.line());
                        let value = self.place(item.value, at, problems);
                        map.insert(key.value, value);
                    }
                    at.truncate(length);
                }
                Value::Object(map)
            }
        }
    }
}

/// Appends one reference token to a JSON Pointer, escaped as RFC 6901 has it.
pub fn push_segment(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// A pointer and one more token.
pub fn join(pointer: &str, token: &str) -> String {
    let mut joined = pointer.to_owned();
    push_segment(&mut joined, token);
    joined
}

/// The reference tokens of a JSON Pointer, unescaped; `None` if it is not one.
pub fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let escapes_are_whole = |t: &str| t.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    let rest = pointer.strip_prefix('/')?;
    rest.split('/').map(|t| escapes_are_whole(t).then(|| t.replace("~1", "/").replace("~0", "~"))).collect()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_documents: 1, max_nodes: 50_000, max_aliases: 256 },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// The parsed tree before duplicates are told apart.
enum Node {
    Leaf(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what JSON can say too")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(Value::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(|n| Node::Leaf(Value::Number(n))).ok_or_else(|| E::custom("a number that JSON cannot write"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> (Document, Vec<Problem>) {
        Document::parse(Path::new("t.yaml"), text).unwrap()
    }

    #[test]
    fn every_key_knows_its_line() {
        let (document, problems) = parse("a: 1\nb:\n  c: [x, y]\n  d/e:\n    - 1.5\n    - ~\n");
        assert_eq!(document.value, json!({"a": 1, "b": {"c": ["x", "y"], "d/e": [1.5, null]}}));
        assert_eq!(problems, []);
        assert_eq!(document.line("/a"), 1);
        assert_eq!(document.line("/b/c/1"), 3);
        assert_eq!(document.line("/b/d~1e/1"), 6);
        assert_eq!(document.line("/b/missing/deeper"), 2, "the nearest thing around it");
    }

    #[test]
    fn every_repeated_key_is_named_and_the_first_counts() {
        let (document, problems) = parse("a: 1\nb: {x: 1, x: 2}\na: 3\n");
        assert_eq!(document.value, json!({"a": 1, "b": {"x": 1}}));
        assert_eq!(problems.iter().map(|p| (p.line, p.key.as_str())).collect::<Vec<_>>(), [(2, "b.x"), (3, "a")]);
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(
            parse("a: no\nb: on\nc: 2026-01-01\nd: 'null'\n").0.value,
            json!({"a": "no", "b": "on", "c": "2026-01-01", "d": "null"})
        );
    }

    #[test]
    fn what_is_not_json_is_refused_at_its_line() {
        for (text, line) in [
            ("a: .nan", 1),
            ("a: 1\nb: [", 2),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", 3),
            ("a: 1\n---\nb: 2\n", 0),
            ("? [1]\n: 2\n", 1),
        ] {
            let problem = Document::parse(Path::new("t.yaml"), text).unwrap_err();
            assert!(line == 0 || problem.line == line, "{text:?}: {problem}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = "[".repeat(MAX_DEPTH + 2) + &"]".repeat(MAX_DEPTH + 2);
        assert!(Document::parse(Path::new("t.yaml"), &deep).is_err());
        let long = format!("a: '{}'", "x".repeat(1 << 20));
        assert!(Document::parse(Path::new("t.yaml"), &long).unwrap_err().to_string().contains("1 MiB"));
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
        assert!(Document::parse(Path::new("t.yaml"), bomb).is_err());
    }

    #[test]
    fn pointers_come_apart_as_rfc_6901_says() {
        assert_eq!(tokens("/a~1b/~0c/"), Some(vec!["a/b".to_owned(), "~c".to_owned(), String::new()]));
        assert_eq!(tokens(""), Some(vec![]));
        for wrong in ["a", "/~2", "/x~"] {
            assert_eq!(tokens(wrong), None, "{wrong}");
        }
    }
}
