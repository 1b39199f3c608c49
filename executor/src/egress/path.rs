//! Paths of requests, in the one form in which they are compared and sent.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Refusal;

/// What is not written as it is in a segment (RFC 3986, 3.3: everything but `pchar`).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// The normal form of a path (RFC 3986, 6.2.2): no dot segments, and nothing encoded that need not be.
///
/// # Errors
/// [`Refusal::Path`] of what servers are known to read differently from one another: encoded slashes, backslashes and controls,
/// empty segments, what is encoded twice, dot segments with parameters, and a way out of the root.
pub(super) fn normal(path: &str) -> Result<String, Refusal> {
    let path = path.strip_prefix('/').ok_or(Refusal::Path)?;
    let mut normal: Vec<String> = Vec::new();
    let mut rest = path.split('/').peekable();
    let mut is_folder = path.is_empty();
    while let Some(written) = rest.next() {
        let is_last = rest.peek().is_none();
        let segment = decoded(written)?;
        match &segment[..] {
            b"." => is_folder = is_last,
            b".." => {
                normal.pop().ok_or(Refusal::Path)?;
                is_folder = is_last;
            }
            b"" if is_last => is_folder = true,
            b"" => return Err(Refusal::Path),
            segment => normal.push(percent_encode(segment, ENCODED).to_string()),
        }
    }
    let end = if is_folder && !normal.is_empty() { "/" } else { "" };
    Ok(format!("/{}{end}", normal.join("/")))
}

fn decoded(written: &str) -> Result<Vec<u8>, Refusal> {
    if !is_encoded_well(written.as_bytes()) {
        return Err(Refusal::Path);
    }
    let segment: Vec<u8> = percent_decode_str(written).collect();
    let is_odd = |byte: &u8| matches!(byte, b'/' | b'\\' | 0x00..=0x1f | 0x7f);
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    let is_dressed_up = matches!(name, b"." | b"..") && name.len() != segment.len();
    let is_encoded_twice = segment.windows(3).any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit());
    // Overlong encodings of dots, and dots that some file systems take away from the end of a name.
    let is_text = std::str::from_utf8(&segment).is_ok();
    let is_plain_dots = matches!(&segment[..], b"" | b"." | b"..");
    let is_dots = !is_plain_dots && segment.iter().all(|byte| matches!(byte, b'.' | b' '));
    let is_refused = segment.iter().any(is_odd) || is_dressed_up || is_encoded_twice || !is_text || is_dots;
    if is_refused { Err(Refusal::Path) } else { Ok(segment) }
}

/// Whether two hex digits are behind every `%`.
fn is_encoded_well(written: &[u8]) -> bool {
    let mut behind = written.split(|byte| *byte == b'%');
    behind.next();
    behind.all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
}

/// Which paths: `/v1/refunds`, `/repos/*/issues` for any one segment, `/repos/**` for whatever is below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    /// Whether it has this path, which is in its normal form.
    pub(super) fn has(&self, path: &str) -> bool {
        let mut segments = path.trim_start_matches('/').split('/');
        for wanted in &self.0 {
            match (wanted.as_str(), segments.next()) {
                ("**", found) => return found.is_some_and(|found| !found.is_empty()),
                (_, None) => return false,
                ("*", Some(found)) if !found.is_empty() => {}
                (wanted, Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is no path pattern: {why}; write /v1/refunds, /repos/*/issues for any one segment, or /repos/** for all below"
            )
        };
        let path = text.strip_prefix('/').ok_or_else(|| wrong("it has to start with a slash"))?;
        let segments: Vec<_> = path.split('/').map(str::to_owned).collect();
        let (last, ahead) = segments.split_last().ok_or_else(|| wrong("it is empty"))?;
        if ahead.iter().any(|segment| segment == "**") {
            return Err(wrong("`**` comes last"));
        }
        let stars = |segment: &String| segment.contains('*') && segment != "*" && segment != "**";
        if ahead.iter().any(stars) || stars(last) {
            return Err(wrong("a star stands for a whole segment"));
        }
        // What is compared with it is in normal form: one that is not would have nothing.
        let plain = text.replace('*', "x");
        match normal(&plain) {
            Ok(normal) if normal == plain => Ok(Self(segments)),
            Ok(normal) => Err(wrong(&format!("its normal form is {normal}"))),
            Err(_) => Err(wrong("it is not in normal form")),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_resource_has_one_form() {
        for (written, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/%61/%7Eb", "/a/~b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a%20b", "/a%20b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a:b@c;d=e", "/a:b@c;d=e"),
        ] {
            assert_eq!(normal(written).as_deref(), Ok(form), "{written}");
        }
        for odd in [
            "",
            "a",
            "*",
            "//a",
            "/a//b",
            "/..",
            "/a/../../b",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0ab",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%252e%252e/b",
            "/a/..;/b",
            "/a/.;x/b",
            "/a/%c0%ae%c0%ae/b",
            "/a/.../b",
            "/a/..%20/b",
        ] {
            assert_eq!(normal(odd), Err(Refusal::Path), "{odd}");
        }
    }

    #[test]
    fn a_pattern_has_whole_segments() {
        for (pattern, path, has) in [
            ("/v1/refunds", "/v1/refunds", true),
            ("/v1/refunds", "/v1/refunds/", false),
            ("/v1/refunds", "/v1/refunds/7", false),
            ("/v1/refunds", "/v1", false),
            ("/repos/*/issues", "/repos/a/issues", true),
            ("/repos/*/issues", "/repos/issues", false),
            ("/repos/*/issues", "/repos/a/b/issues", false),
            ("/repos/*", "/repos/", false),
            ("/repos/**", "/repos/a/b", true),
            ("/repos/**", "/repos", false),
            ("/repos/**", "/repos/", false),
            ("/repos/**", "/repository/a", false),
            ("/**", "/anything/else", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().has(path), has, "{pattern} {path}");
        }
        for wrong in ["", "v1", "/a/**/b", "/a*", "/a/../b", "/a//b", "/%61"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own(path in "/[a-z./%0-9A-F;:@ -]{0,24}") {
            if let Ok(form) = normal(&path) {
                prop_assert_eq!(normal(&form), Ok(form.clone()));
                prop_assert!(!form.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
