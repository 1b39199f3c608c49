//! The forms in which programs print a secret without meaning to: as it is, in pieces of lines, and in the usual encodings.

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};
use zeroize::Zeroizing;

/// A secret shorter than this is searched for as it is, and in no encoding: too much else would look like it.
const SHORTEST_ENCODED: usize = 8;

/// The shortest value inside a document that is searched for by itself.
const SHORTEST_INNER: usize = 16;
/// How wide `base64` and `openssl` make their lines.
const WIDTHS: [usize; 2] = [76, 64];
/// The most lines of one secret that are searched for.
const MOST_LINES: usize = 256;

/// Every form, each once. What a file ends with is left away by most who read it: both are searched for.
pub(super) fn of(secret: &[u8]) -> Vec<Zeroizing<String>> {
    let mut forms = of_exactly(secret);
    if secret.trim_ascii().len() < secret.len() {
        forms.extend(of_exactly(secret.trim_ascii()));
    }
    if let Ok(plain) = std::str::from_utf8(secret) {
        forms.extend(inner(plain).into_iter().take(MOST_LINES).flat_map(|value| of_exactly(value.as_bytes())));
    }
    forms.into_iter().map(Zeroizing::new).collect()
}

fn of_exactly(secret: &[u8]) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    let plain = std::str::from_utf8(secret).ok();
    if let Some(plain) = plain {
        forms.insert(plain.to_owned());
    }
    if secret.len() >= SHORTEST_ENCODED {
        forms.extend(base64(secret));
        forms.extend(lines_of_base64(secret));
        forms.extend([hex::encode(secret), hex::encode_upper(secret)]);
        if let Some(plain) = plain {
            forms.extend(escaped(plain));
            // A log has a line at a time. What all PEM files begin and end with is no secret.
            let telling = |line: &&str| line.len() >= SHORTEST_ENCODED && !line.starts_with("-----");
            forms.extend(plain.lines().map(str::trim).filter(telling).take(MOST_LINES).map(str::to_owned));
        }
    }
    forms
}

/// The values inside a secret that is a document: the password of a URL, the strings of a JSON object, what stands behind `=` or `:` in
/// a line of its own.
fn inner(plain: &str) -> Vec<String> {
    if let Ok(url) = url::Url::parse(plain.trim())
        && let Some(password) = url.password()
    {
        let decoded =
            url::form_urlencoded::parse(format!("p={password}").as_bytes()).map(|(_, value)| value.into_owned()).collect();
        return [vec![password.to_owned()], decoded].concat();
    }
    if let Ok(document @ serde_json::Value::Object(_)) = serde_json::from_str::<serde_json::Value>(plain) {
        let mut strings = Vec::new();
        leaves(&document, &mut strings);
        return strings;
    }
    let value = |line: &str| {
        let (_, value) = line.split_once(['=', ':'])?;
        let value = value.trim().trim_matches(['"', '\'', ',']);
        (value.len() >= SHORTEST_INNER && !value.contains(' ')).then(|| value.to_owned())
    };
    if plain.trim().contains('\n') { plain.lines().filter_map(value).collect() } else { Vec::new() }
}

fn leaves(value: &serde_json::Value, strings: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) if text.len() >= SHORTEST_INNER && !text.starts_with("http") => {
            strings.push(text.clone())
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| leaves(item, strings)),
        serde_json::Value::Object(members) => members.values().for_each(|member| leaves(member, strings)),
        _ => {}
    }
}

/// The lines in which the usual programs print its base64, where it takes more than one.
fn lines_of_base64(secret: &[u8]) -> Vec<String> {
    let whole = BASE64_STANDARD.encode(secret);
    let lines = |width: usize| whole.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into_owned());
    let wide = WIDTHS.into_iter().filter(|width| whole.len() > *width);
    wide.flat_map(|width| lines(width).filter(|line| line.len() >= SHORTEST_ENCODED).take(MOST_LINES)).collect()
}

/// What stands for the secret in the base64 of any text that it is in, wherever in it: without the characters at both ends that
/// also hold bits of its neighbours.
fn base64(secret: &[u8]) -> impl Iterator<Item = String> {
    let shifted = |before: usize| {
        let text = [&[0; 2][..before], secret].concat();
        let (from, to) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        [BASE64_STANDARD_NO_PAD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)].map(|form| form[from..to].to_owned())
    };
    (0..3).flat_map(shifted)
}

/// In a URL, in a form, in JSON.
fn escaped(plain: &str) -> Vec<String> {
    let percent = |keep: fn(u8) -> bool, upper: bool| {
        let one = |b: u8| match b {
            b if keep(b) => char::from(b).to_string(),
            b if upper => format!("%{b:02X}"),
            b => format!("%{b:02x}"),
        };
        plain.bytes().map(one).collect::<String>()
    };
    // RFC 3986's unreserved characters; what JavaScript's encodeURIComponent keeps; what a client leaves alone in a path.
    let kept: [fn(u8) -> bool; 3] = [
        |b| b.is_ascii_alphanumeric() || b"-._~".contains(&b),
        |b| b.is_ascii_alphanumeric() || b"-._~!*'()".contains(&b),
        |b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b),
    ];
    let mut forms: Vec<String> = kept.into_iter().flat_map(|keep| [percent(keep, true), percent(keep, false)]).collect();
    forms.push(url::form_urlencoded::byte_serialize(plain.as_bytes()).collect());
    let json = in_json(plain);
    forms.extend([json.replace('/', "\\/"), in_json(&json), json]);
    forms.extend([true, false].map(|upper| in_ascii_json(plain, upper)));
    forms
}

/// As writers of JSON have it that keep to ASCII, and to what HTML takes: Go, .NET, Python.
fn in_ascii_json(text: &str, upper: bool) -> String {
    let unit = |unit: u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    let one = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        '\n' => "\\n".to_owned(),
        '<' | '>' | '&' | '\'' | '+' => unit(c as u16),
        ' '..='~' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|one| unit(*one)).collect(),
    };
    text.chars().map(one).collect()
}

/// As it stands between the quotes of a JSON string.
fn in_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn hides(secret: &str, text: &str) -> bool {
        of(secret.as_bytes()).iter().any(|form| text.contains(form.as_str()))
    }

    proptest! {
        #[test]
        fn every_usual_encoding_is_known(secret in "[ -~äß€\n]{8,40}", before in ".{0,5}", after in ".{0,5}") {
            let text = format!("{before}{secret}{after}");
            prop_assert!(hides(&secret, &text));
            prop_assert!(hides(&secret, &BASE64_STANDARD.encode(&text)));
            prop_assert!(hides(&secret, &BASE64_URL_SAFE.encode(&text)));
            prop_assert!(hides(&secret, &hex::encode(&text)));
            prop_assert!(hides(&secret, &hex::encode_upper(&text)));
            let object = json!({"a": text}).to_string();
            prop_assert!(hides(&secret, &object));
            prop_assert!(hides(&secret, &json!(json!(text).to_string()).to_string()));
            let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            prop_assert!(hides(&secret, &form));
        }
    }

    #[test]
    fn a_key_of_several_lines_is_known_by_each() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n";
        assert!(hides(key, "log: MIIEvQIBADANBg") && !hides(key, "short") && !hides(key, "-----BEGIN KEY-----"));
    }

    #[test]
    fn what_a_file_ends_with_and_how_base64_is_wrapped_make_no_difference() {
        let secret = "a-token-that-is-long-enough-to-take-two-lines-of-base64-or-even-more-than-that-in-both-widths";
        let (file, alone) = (format!("{secret}\n"), BASE64_STANDARD.encode(secret));
        assert!(hides(&file, &alone) && hides(&file, &format!("Bearer {secret}!")));
        for width in WIDTHS {
            for line in alone.as_bytes().chunks(width) {
                assert!(hides(secret, std::str::from_utf8(line).unwrap()), "{line:?}");
            }
        }
    }

    #[test]
    fn the_values_inside_a_document_are_known_by_themselves() {
        let (token, line) = ("ghp_0123456789abcdef", "-----BEGIN-----\nMIIEvQIBADANBg\n");
        let documents = [
            format!("GITHUB_TOKEN={token}\nDEBUG=1\n"),
            format!("users:\n- user:\n    token: \"{token}\"\n"),
            serde_json::json!({"type": "key", "private_key": line, "token": token}).to_string(),
            format!("postgres://ann:{token}@db/shop"),
        ];
        for document in &documents {
            assert!(hides(document, &format!("Bearer {token}")), "{document}");
            assert!(hides(document, &BASE64_STANDARD.encode(format!("x:{token}"))), "{document}");
        }
        assert!(hides(&documents[2], line) && !hides(&documents[0], "DEBUG=1 "));
        assert!(hides("a<b>&'secret+é", r"a\u003cb\u003e\u0026\u0027secret\u002b\u00e9"));
    }

    #[test]
    fn a_short_one_is_known_as_it_is_only() {
        assert_eq!(of(b"pin1234").len(), 1);
    }
}
