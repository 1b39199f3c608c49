//! Arguments in, results out. The language is jq as [jaq](https://gedenkt.at/jaq/manual/) implements it.

use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, compile, data};
use jaq_json::{Val, read, write};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Most bytes of a query; `tool.yaml` says the same in characters.
const MAX_QUERY: usize = 4096;
/// Most results of one call.
const MAX_LIMIT: usize = 1000;
/// Deepest document. Values are walked by recursion, and the stack of a sandbox is small.
const MAX_DEPTH: usize = 128;
/// Longest error; a message of jq may quote the document.
const MAX_ERROR: usize = 1024;

/// What the caller sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments<'a> {
    query: String,
    /// Kept as written, so that no digit of a number is lost before jq sees it.
    #[serde(borrow)]
    document: &'a RawValue,
    #[serde(default = "default_limit")]
    limit: usize,
}

const fn default_limit() -> usize {
    100
}

type Filter = jaq_core::Filter<data::JustLut<Val>>;

/// Runs the query in `input`, the arguments as JSON. Returns `{"results": [...], "count": n, "truncated": bool}`.
///
/// # Errors
/// One line for the caller: arguments that do not fit, a query that does not compile, one that fails, or a result that is no JSON.
pub fn answer(input: &[u8]) -> Result<Vec<u8>, String> {
    let arguments: Arguments<'_> =
        serde_json::from_slice(input).map_err(|error| one_line(&format!("the arguments do not fit: {error}")))?;
    if arguments.query.is_empty() || arguments.query.len() > MAX_QUERY {
        return Err(format!("`query` must have 1 to {MAX_QUERY} bytes"));
    }
    if !(1..=MAX_LIMIT).contains(&arguments.limit) {
        return Err(format!("`limit` must be from 1 to {MAX_LIMIT}"));
    }
    if depth(arguments.document.get()) > MAX_DEPTH {
        return Err(format!("`document` is nested deeper than {MAX_DEPTH}"));
    }
    let document =
        read::parse_single(arguments.document.get().as_bytes()).map_err(|error| one_line(&format!("`document`: {error}")))?;
    let filter = compile(&arguments.query)?;
    let (results, truncated) = run(&filter, document, arguments.limit)?;
    serialize(&results, truncated)
}

fn compile(query: &str) -> Result<Filter, String> {
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    // A query sees its document, and nothing of the process.
    let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs()).filter(|(name, ..)| *name != "env");
    let arena = Arena::default();
    // A loader without a reader: `import` and `include` find nothing.
    let modules =
        Loader::new(defs).load(&arena, File { code: query, path: () }).map_err(|errors| syntax_error(query, &errors))?;
    Compiler::default().with_funs(funs).compile(modules).map_err(|errors| undefined(&errors))
}

fn run(filter: &Filter, document: Val, limit: usize) -> Result<(Vec<Val>, bool), String> {
    let context = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    let mut results = Vec::new();
    for outcome in filter.id.run((context, document)) {
        if results.len() == limit {
            return Ok((results, true));
        }
        match outcome.map_err(jaq_core::Exn::get_err) {
            Ok(value) => results.push(value),
            Err(Ok(error)) => return Err(one_line(&format!("the query failed: {error}"))),
            Err(Err(_)) => return Err("the query failed: `halt` ends nothing here; use `error` or `limit`".into()),
        }
    }
    Ok((results, false))
}

/// jq knows values that JSON does not (NaN, byte strings, objects whose keys are no strings), so what was written is read back.
fn serialize(results: &[Val], truncated: bool) -> Result<Vec<u8>, String> {
    let mut output = b"{\"results\":[".to_vec();
    for (index, value) in results.iter().enumerate() {
        if index > 0 {
            output.push(b',');
        }
        let start = output.len();
        write::write(&mut output, &write::Pp::default(), 0, value).map_err(|error| error.to_string())?;
        if serde_json::from_str::<IgnoredAny>(&String::from_utf8_lossy(&output[start..])).is_err()
            || std::str::from_utf8(&output[start..]).is_err()
        {
            return Err(format!(
                "result {} is no JSON value: it holds a NaN, an infinity, bytes, or a key that is no string",
                index + 1
            ));
        }
    }
    output.extend_from_slice(format!("],\"count\":{},\"truncated\":{truncated}}}", results.len()).as_bytes());
    Ok(output)
}

/// How deep arrays and objects nest. `json` is known to be well-formed.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn syntax_error(query: &str, errors: &load::Errors<&str, ()>) -> String {
    let place = |part: &str| query[..load::span(query, part).start].chars().count() + 1;
    let first = errors.iter().find_map(|(_, error)| match error {
        load::Error::Lex(errors) => errors.first().map(|(expected, at)| (expected.as_str(), Some(place(at)))),
        load::Error::Parse(errors) => {
            errors.first().map(|(expected, at)| (expected.as_str(), (!at.is_empty()).then(|| place(at))))
        }
        load::Error::Io(errors) => errors.first().map(|(at, _)| ("no import: there are no modules", Some(place(at)))),
    });
    match first {
        Some((expected, Some(at))) => format!("the query has a syntax error at character {at}: expected {expected}"),
        Some((expected, None)) => format!("the query has a syntax error at its end: expected {expected}"),
        None => "the query has a syntax error".into(),
    }
}

fn undefined(errors: &compile::Errors<&str, ()>) -> String {
    let first = errors.iter().flat_map(|(_, undefined)| undefined).next();
    first.map_or_else(
        || "the query does not compile".into(),
        |(name, kind)| one_line(&format!("the query does not compile: there is no {} `{name}`", kind.as_str())),
    )
}

/// Without line breaks, and not longer than [`MAX_ERROR`].
fn one_line(text: &str) -> String {
    let mut line = text.replace(['\n', '\r'], " ");
    line.truncate(line.floor_char_boundary(MAX_ERROR));
    line
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ask(query: &str, document: &Value) -> Result<Value, String> {
        let output = answer(json!({ "query": query, "document": document }).to_string().as_bytes())?;
        Ok(serde_json::from_slice(&output).unwrap())
    }

    fn error(input: &str) -> String {
        let error = answer(input.as_bytes()).unwrap_err();
        assert!(!error.contains('\n') && error.len() <= MAX_ERROR, "{error}");
        error
    }

    #[test]
    fn results_are_listed_and_counted() {
        let document = json!({"pods": [{"name": "a", "ready": true}, {"name": "b", "ready": false}]});
        let found = ask(".pods[] | select(.ready | not) | .name", &document).unwrap();
        assert_eq!(found, json!({"results": ["b"], "count": 1, "truncated": false}));
        assert_eq!(ask("empty", &document).unwrap()["count"], 0);
    }

    #[test]
    fn numbers_keep_every_digit() {
        let input = r#"{"query": ".[]", "document": [12345678901234567890123, 1.10, 1e400]}"#;
        let output = String::from_utf8(answer(input.as_bytes()).unwrap()).unwrap();
        assert!(output.starts_with(r#"{"results":[12345678901234567890123,1.10,1e400]"#), "{output}");
    }

    #[test]
    fn the_limit_bites_on_a_stream_without_end() {
        let output = answer(br#"{"query": "repeat(1)", "document": null, "limit": 3}"#).unwrap();
        assert_eq!(output, br#"{"results":[1,1,1],"count":3,"truncated":true}"#);
        let output = answer(br#"{"query": "1,2,3", "document": null, "limit": 3}"#).unwrap();
        assert_eq!(output, br#"{"results":[1,2,3],"count":3,"truncated":false}"#);
    }

    #[test]
    fn a_query_that_does_not_compile_names_the_place() {
        assert_eq!(ask(".a |", &json!(1)).unwrap_err(), "the query has a syntax error at its end: expected term");
        assert_eq!(ask("\"é\" | §", &json!(1)).unwrap_err(), "the query has a syntax error at character 7: expected token");
        assert_eq!(ask("no_such(1)", &json!(1)).unwrap_err(), "the query does not compile: there is no filter `no_such`");
        assert!(ask("import \"a\" as a; .", &json!(1)).is_err());
        assert!(ask("input", &json!(1)).is_err(), "there is one input only");
    }

    #[test]
    fn a_query_that_fails_says_how() {
        assert_eq!(ask(".a.b", &json!({"a": 1})).unwrap_err(), "the query failed: cannot index 1 with \"b\"");
        assert_eq!(ask("error(\"mine\\nyours\")", &json!(1)).unwrap_err(), "the query failed: \"mine\\nyours\"");
        assert!(ask("halt", &json!(1)).unwrap_err().contains("halt"));
        assert!(ask(".[0].x", &json!(["y".repeat(5000)])).unwrap_err().len() <= MAX_ERROR);
    }

    #[test]
    fn what_json_cannot_say_is_an_error_not_another_value() {
        for query in ["nan", "infinite", "{(1): 2}", "[1, nan]", "\"+1.5\" | tonumber"] {
            assert!(ask(query, &json!(null)).unwrap_err().starts_with("result 1 is no JSON value"), "{query}");
        }
    }

    #[test]
    fn the_environment_is_not_there_to_ask() {
        assert!(ask("env", &json!(null)).unwrap_err().contains("`env`"));
        assert!(ask("$ENV", &json!(null)).unwrap_err().contains("`$ENV`"));
    }

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        assert!(error("").contains("arguments do not fit"));
        assert!(error("[]").contains("arguments do not fit"));
        assert!(error(r#"{"query": "."}"#).contains("missing field `document`"));
        assert!(error(r#"{"query": 1, "document": 1}"#).contains("expected a string"));
        assert!(error(r#"{"query": ".", "document": 1, "evil": 1}"#).contains("unknown field `evil`"));
        assert!(error(r#"{"query": ".", "query": ".", "document": 1}"#).contains("duplicate field"));
        assert!(error(r#"{"query": "", "document": 1}"#).contains("`query` must have"));
        assert!(error(r#"{"query": ".", "document": 1, "limit": 0}"#).contains("`limit`"));
        assert!(error(r#"{"query": ".", "document": 1, "limit": 1001}"#).contains("`limit`"));
        assert!(error(&json!({"query": "1+".repeat(2049) + "1", "document": 1}).to_string()).contains("`query` must have"));
        assert!(answer(b"{\"query\": \"\xff\", \"document\": 1}").is_err());
    }

    #[test]
    fn a_document_too_deep_is_refused_before_it_is_walked() {
        let nested = |levels: usize| format!(r#"{{"query": "1", "document": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(answer(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(error(&nested(MAX_DEPTH + 1)).contains("nested deeper"));
        assert!(error(&nested(100_000)).contains("nested deeper"));
        assert_eq!(depth(r#"{"[[[[\"[[": [1]}"#), 2);
    }
}
