//! The `Prefer` header (RFC 7240): how long the client wants to wait for a call.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preferences were followed (RFC 7240, section 3).
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences that mean something here; others are ignored, as the RFC wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    respond_async: bool,
    wait_seconds: Option<u32>,
}

impl Prefer {
    /// Reads every `Prefer` header. The first mention of a preference counts; a value that makes no sense is ignored.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let mut waits = false;
        for preference in
            headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
        {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                "wait" if !waits => {
                    waits = true;
                    prefer.wait_seconds = delta_seconds(value.trim().trim_matches('"'));
                }
                _ => {}
            }
        }
        prefer
    }

    /// How long to wait before answering 202; `None`: until the call has ended.
    pub(super) fn wait(self) -> Option<Duration> {
        match self.wait_seconds {
            Some(seconds) => Some(Duration::from_secs(seconds.into())),
            None => self.respond_async.then_some(Duration::ZERO),
        }
    }

    /// The value of `Preference-Applied`, if any preference was followed.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        let text = match (self.respond_async, self.wait_seconds) {
            (false, None) => return None,
            (true, None) => "respond-async".to_owned(),
            (false, Some(seconds)) => format!("wait={seconds}"),
            (true, Some(seconds)) => format!("respond-async, wait={seconds}"),
        };
        HeaderValue::try_from(text).ok()
    }
}

/// `delta-seconds` of RFC 9110: digits, and more than fits counts as the most that fits.
fn delta_seconds(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(values: &[&'static str]) -> Prefer {
        Prefer::from_headers(&values.iter().map(|value| (PREFER, HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn waits_and_asks_are_understood() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (values, wait, applied) in [
            (&[] as &[&'static str], None, None),
            (&["wait=10"], seconds(10), Some("wait=10")),
            (&["Respond-Async"], seconds(0), Some("respond-async")),
            (&["respond-async, wait=10"], seconds(10), Some("respond-async, wait=10")),
            (&["respond-async;x=y", "WAIT = \"3\""], seconds(3), Some("respond-async, wait=3")),
            (&["handling=lenient, wait=1", "wait=9"], seconds(1), Some("wait=1")),
            (&["wait=99999999999999999999"], seconds(u64::from(u32::MAX)), Some("wait=4294967295")),
            (&["wait=-1"], None, None),
            (&["wait=soon, wait=5"], None, None),
            (&["wait", ",,;=", "return=minimal"], None, None),
        ] {
            let prefer = prefer(values);
            assert_eq!(prefer.wait(), wait, "{values:?}");
            assert_eq!(prefer.applied().as_ref().map(|v| v.to_str().unwrap()), applied, "{values:?}");
        }
    }
}
