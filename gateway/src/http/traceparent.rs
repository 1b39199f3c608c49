//! The caller's `traceparent` (W3C Trace Context, level 1).

use axum::http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header's value, if there is exactly one and it is well-formed. The specification wants a malformed one ignored.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    is_well_formed(value).then(|| value.to_owned())
}

fn is_well_formed(value: &str) -> bool {
    let lower_hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let mut parts = value.splitn(5, '-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    // A later version may carry more parts; version 00 may not.
    let more = parts.next().is_some();
    lower_hex(version, 2)
        && version != "ff"
        && !(more && version == "00")
        && lower_hex(trace, 32)
        && !is_zero(trace)
        && lower_hex(parent, 16)
        && !is_zero(parent)
        && lower_hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_the_w3c_form_is_taken() {
        assert!(is_well_formed(GOOD));
        assert!(is_well_formed("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"));
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_well_formed(wrong), "{wrong}");
        }
    }

    #[test]
    fn two_headers_are_none() {
        let one: HeaderMap = [(TRACEPARENT, HeaderValue::from_static(GOOD))].into_iter().collect();
        assert_eq!(from_headers(&one).as_deref(), Some(GOOD));
        let mut two = one;
        two.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(from_headers(&two), None);
    }
}
