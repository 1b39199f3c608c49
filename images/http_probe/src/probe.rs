//! What is asked and what is made of the answer: everything but the network.

use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most response headers to return.
const MAX_HEADERS: usize = 16;
/// Most bytes of one returned header.
const MAX_HEADER_VALUE: usize = 1024;
/// Most bytes of the body that are ever read.
const MAX_BODY: usize = 1 << 20;
/// Most memory of a compiled pattern, and longest pattern.
const MAX_PATTERN_MEMORY: usize = 1 << 20;
const MAX_PATTERN: usize = 256;
/// Longest path with its query.
const MAX_PATH: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    #[default]
    Https,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Head,
}

/// What the caller sends. Host, port and path are arguments of their own, not one URL: policy compares each of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    #[serde(default)]
    pub scheme: Scheme,
    pub host: String,
    #[serde(default = "https_port")]
    pub port: u16,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub method: Method,
    /// Names of the response headers to return.
    #[serde(default)]
    pub headers: Vec<String>,
    #[serde(default)]
    pub expect_status: Option<u16>,
    /// A regular expression that the body has to match somewhere.
    #[serde(default)]
    pub body_match: Option<Pattern>,
    /// Most bytes of the body to read.
    #[serde(default = "default_body")]
    pub max_body: usize,
}

const fn https_port() -> u16 {
    443
}

fn root() -> String {
    "/".into()
}

const fn default_body() -> usize {
    64 << 10
}

/// A regular expression within its bounds. Matching takes time linear in the body.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("`body_match` must have 1 to {MAX_PATTERN} bytes"));
        }
        let built = RegexBuilder::new(&text).size_limit(MAX_PATTERN_MEMORY).build();
        built.map(Self).map_err(|error| format!("`body_match` is no regular expression: {error}"))
    }
}

impl Arguments {
    /// Reads and checks the arguments.
    ///
    /// # Errors
    /// One line for the caller.
    pub fn parse(input: &[u8]) -> Result<Self, String> {
        let arguments: Self = serde_json::from_slice(input)
            .map_err(|error| format!("the arguments do not fit: {error}").replace(['\n', '\r'], " "))?;
        arguments.check()?;
        Ok(arguments)
    }

    fn check(&self) -> Result<(), String> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let ends = [self.host.bytes().next(), self.host.bytes().next_back()];
        if self.host.len() > 253
            || !self.host.bytes().all(is_name)
            || ends.iter().any(|end| !end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        {
            return Err("`host` must be a lower-case DNS name or an IPv4 address".into());
        }
        if self.port == 0 {
            return Err("`port` must be from 1 to 65535".into());
        }
        if !self.path.starts_with('/') || self.path.len() > MAX_PATH || !self.path.bytes().all(is_path) {
            return Err(format!(
                "`path` must start with `/` and have at most {MAX_PATH} printable ASCII characters, without spaces, quotes and `#`"
            ));
        }
        if self.headers.len() > MAX_HEADERS || !self.headers.iter().all(|name| is_token(name)) {
            return Err(format!("`headers` must be at most {MAX_HEADERS} header names"));
        }
        if self.expect_status.is_some_and(|status| !(100..=599).contains(&status)) {
            return Err("`expect_status` must be from 100 to 599".into());
        }
        if self.max_body > MAX_BODY {
            return Err(format!("`max_body` must be at most {MAX_BODY}"));
        }
        if self.body_match.is_some() && (self.method == Method::Head || self.max_body == 0) {
            return Err("`body_match` needs a body: use GET and a `max_body` above 0".into());
        }
        Ok(())
    }

    /// `host`, or `host:port` where the port is not the scheme's own (RFC 9110, section 4.2).
    pub fn authority(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

fn is_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// A token of RFC 9110, section 5.6.2, of at most 64 bytes.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What came over the network. A hostile server wrote all of it.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    /// From the request's first byte to the response's headers.
    pub latency: Duration,
    /// In the order of arrival, names in whatever case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// At most `max_body` bytes.
    pub body: Vec<u8>,
    pub body_truncated: bool,
}

/// The result. `ok` says whether everything that was expected came: `expect_status` (without one: any status below 400), and
/// `body_match`.
pub fn judge(arguments: &Arguments, response: &Response) -> Value {
    let body_matched =
        arguments.body_match.as_ref().map(|Pattern(regex)| regex.is_match(&String::from_utf8_lossy(&response.body)));
    let status_fits = arguments.expect_status.map_or(response.status < 400, |expected| expected == response.status);
    json!({
        "ok": status_fits && body_matched != Some(false),
        "status": response.status,
        "latency_ms": (response.latency.as_secs_f64() * 1e6).round() / 1e3,
        "headers": chosen_headers(arguments, response),
        "location": (300..400).contains(&response.status).then(|| header(response, "location")).flatten(),
        "body_bytes": response.body.len(),
        "body_truncated": response.body_truncated,
        "body_matched": body_matched,
    })
}

/// Under the names as they were asked for; one that did not come is left out.
fn chosen_headers(arguments: &Arguments, response: &Response) -> Map<String, Value> {
    arguments.headers.iter().filter_map(|name| Some((name.clone(), Value::from(header(response, name)?)))).collect()
}

/// All values of one header, joined as RFC 9110, section 5.3, joins them, cut at [`MAX_HEADER_VALUE`].
fn header(response: &Response, name: &str) -> Option<String> {
    let values = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let texts: Vec<_> = values.map(|(_, value)| String::from_utf8_lossy(value)).collect();
    let mut joined = (!texts.is_empty()).then(|| texts.join(", "))?;
    joined.truncate(joined.floor_char_boundary(MAX_HEADER_VALUE));
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: Value) -> Result<Arguments, String> {
        Arguments::parse(arguments.to_string().as_bytes())
    }

    fn refused(arguments: Value) -> String {
        let error = parse(arguments).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    fn response(status: u16, body: &str) -> Response {
        let headers = vec![("Server".into(), b"x/1".to_vec()), ("location".into(), b"https://elsewhere/".to_vec())];
        Response { status, headers, body: body.into(), latency: Duration::from_micros(1500), ..Response::default() }
    }

    #[test]
    fn a_host_is_enough() {
        let arguments = parse(json!({"host": "example.com"})).unwrap();
        assert_eq!((arguments.scheme, arguments.port, arguments.path.as_str()), (Scheme::Https, 443, "/"));
        assert_eq!(arguments.authority(), "example.com");
        assert_eq!(parse(json!({"host": "127.0.0.1", "scheme": "http", "port": 8421})).unwrap().authority(), "127.0.0.1:8421");
    }

    #[test]
    fn a_host_that_policy_would_not_recognize_is_refused() {
        for host in [
            "",
            "EXAMPLE.com",
            "example.com.",
            ".example.com",
            "-x",
            "a b",
            "a/b",
            "a@b",
            "a:80",
            "[::1]",
            "é.example",
            "a\u{0}",
            "a%2e",
        ] {
            assert!(refused(json!({"host": host})).contains("`host`"), "{host:?}");
        }
        assert!(refused(json!({"host": "a".repeat(254)})).contains("`host`"));
    }

    #[test]
    fn arguments_out_of_bounds_are_named() {
        let with = |key: &str, value: Value| refused(json!({"host": "example.com", key: value}));
        assert!(with("port", json!(0)).contains("`port`"));
        assert!(with("port", json!(65536)).contains("do not fit"));
        for path in ["", "x", "/ ", "/a\r\nHost: evil", "/#a", "/é", "/\u{7f}"] {
            assert!(with("path", json!(path)).contains("`path`"), "{path:?}");
        }
        assert!(with("path", json!(format!("/{}", "a".repeat(MAX_PATH)))).contains("`path`"));
        assert!(with("scheme", json!("ftp")).contains("do not fit"));
        assert!(with("method", json!("POST")).contains("do not fit"));
        assert!(with("headers", json!(["a b"])).contains("`headers`"));
        assert!(with("headers", json!(vec!["a"; MAX_HEADERS + 1])).contains("`headers`"));
        assert!(with("expect_status", json!(99)).contains("`expect_status`"));
        assert!(with("max_body", json!(MAX_BODY + 1)).contains("`max_body`"));
        assert!(with("max_body", json!(-1)).contains("do not fit"));
        assert!(with("follow", json!(true)).contains("unknown field `follow`"));
        assert!(Arguments::parse(b"\xff").is_err() && Arguments::parse(b"").is_err());
    }

    #[test]
    fn a_pattern_is_a_bounded_expression_that_needs_a_body() {
        let with = |pattern: &str| refused(json!({"host": "example.com", "body_match": pattern}));
        assert!(with("(").contains("regular expression"));
        assert!(with("").contains("`body_match`"));
        assert!(with(&"a".repeat(MAX_PATTERN + 1)).contains("`body_match`"));
        assert!(with("((a{100}){100}){100}").contains("size"), "a pattern that explodes is refused");
        assert!(refused(json!({"host": "a", "method": "HEAD", "body_match": "x"})).contains("GET"));
        assert!(refused(json!({"host": "a", "max_body": 0, "body_match": "x"})).contains("max_body"));
    }

    #[test]
    fn ok_means_that_everything_expected_came() {
        let ok = |arguments: Value, response: &Response| judge(&parse(arguments).unwrap(), response)["ok"].clone();
        assert_eq!(ok(json!({"host": "a"}), &response(200, "")), true);
        assert_eq!(ok(json!({"host": "a"}), &response(404, "")), false);
        assert_eq!(ok(json!({"host": "a", "expect_status": 404}), &response(404, "")), true);
        assert_eq!(ok(json!({"host": "a", "expect_status": 200}), &response(204, "")), false);
        assert_eq!(ok(json!({"host": "a", "body_match": "^o.$"}), &response(200, "ok")), true);
        assert_eq!(ok(json!({"host": "a", "body_match": "never"}), &response(200, "ok")), false);
    }

    #[test]
    fn only_the_headers_asked_for_come_back_and_a_redirect_is_reported() {
        let arguments = parse(json!({"host": "a", "headers": ["server", "X-None"]})).unwrap();
        let result = judge(&arguments, &response(302, ""));
        assert_eq!(result["headers"], json!({"server": "x/1"}));
        assert_eq!(result["location"], "https://elsewhere/");
        assert_eq!(result["latency_ms"], 1.5);
        assert_eq!(judge(&arguments, &response(200, ""))["location"], Value::Null);
    }

    #[test]
    fn a_long_or_broken_header_is_cut_and_kept_text() {
        let mut answer = response(200, "");
        answer.headers.push(("x".into(), [b"\xff".as_slice(), &[b'y'; 5000]].concat()));
        let arguments = parse(json!({"host": "a", "headers": ["x"]})).unwrap();
        assert!(judge(&arguments, &answer)["headers"]["x"].as_str().unwrap().len() <= MAX_HEADER_VALUE);
    }
}
