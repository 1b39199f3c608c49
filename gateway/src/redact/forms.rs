//! The forms in which programs print a secret without meaning to: as it is, in pieces of lines, and in the usual encodings.

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};
use zeroize::Zeroizing;

/// A secret shorter than this is searched for as it is, and in no encoding: too much else would look like it.
const SHORTEST_ENCODED: usize = 8;

/// Every form, each once.
pub(super) fn of(secret: &[u8]) -> Vec<Zeroizing<String>> {
    let mut forms = BTreeSet::new();
    let plain = std::str::from_utf8(secret).ok();
    if let Some(plain) = plain {
        forms.insert(plain.to_owned());
    }
    if secret.len() >= SHORTEST_ENCODED {
        forms.extend(base64(secret));
        forms.extend([hex::encode(secret), hex::encode_upper(secret)]);
        if let Some(plain) = plain {
            forms.extend(escaped(plain));
            // A log has a line at a time.
            forms.extend(plain.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_ENCODED).map(str::to_owned));
        }
    }
    forms.into_iter().map(Zeroizing::new).collect()
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
    forms
}

/// As it stands between the quotes of a JSON string.
fn in_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
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
        assert!(hides(key, "log: MIIEvQIBADANBg") && !hides(key, "short"));
    }

    #[test]
    fn a_short_one_is_known_as_it_is_only() {
        assert_eq!(of(b"pin1234").len(), 1);
    }
}
