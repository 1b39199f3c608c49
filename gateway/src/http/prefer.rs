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

    /// How long to wait for the call's end before answering 202: as preferred, and never longer than `most`.
    pub(super) fn wait(self, most: Duration) -> Duration {
        let preferred = match self.wait_seconds {
            Some(seconds) => Duration::from_secs(seconds.into()),
            None if self.respond_async => Duration::ZERO,
            None => most,
        };
        preferred.min(most)
    }

    /// The value of `Preference-Applied`, if any preference was followed; a wait longer than `most` is named as it was cut.
    pub(super) fn applied(self, most: Duration) -> Option<HeaderValue> {
        let wait = self.wait(most).as_secs();
        let text = match (self.respond_async, self.wait_seconds) {
            (false, None) => return None,
            (true, None) => "respond-async".to_owned(),
            (false, Some(_)) => format!("wait={wait}"),
            (true, Some(_)) => format!("respond-async, wait={wait}"),
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
        let most = Duration::from_secs(60);
        for (values, wait, applied) in [
            (&[] as &[&'static str], 60, None),
            (&["wait=10"], 10, Some("wait=10")),
            (&["Respond-Async"], 0, Some("respond-async")),
            (&["respond-async, wait=10"], 10, Some("respond-async, wait=10")),
            (&["respond-async;x=y", "WAIT = \"3\""], 3, Some("respond-async, wait=3")),
            (&["handling=lenient, wait=1", "wait=9"], 1, Some("wait=1")),
            (&["wait=61"], 60, Some("wait=60")),
            (&["wait=99999999999999999999"], 60, Some("wait=60")),
            (&["wait=-1"], 60, None),
            (&["wait=soon, wait=5"], 60, None),
            (&["wait", ",,;=", "return=minimal"], 60, None),
        ] {
            let prefer = prefer(values);
            assert_eq!(prefer.wait(most), Duration::from_secs(wait), "{values:?}");
            assert_eq!(prefer.applied(most).as_ref().map(|v| v.to_str().unwrap()), applied, "{values:?}");
        }
    }
}
