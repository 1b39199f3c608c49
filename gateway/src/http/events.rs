//! A call's events as server-sent events (WHATWG HTML, section 9.2): the event's number is its id, and the final state's is
//! `end`, so that a client that comes back after it can be told that nothing follows.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::call::CallEvent;
use crate::error::CallError;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks nginx and its like to pass events on as they come.
const NO_BUFFERING: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// A comment goes out this often, so that no proxy takes a quiet call for a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The id of the final state.
const END: &str = "end";

/// The last event that a client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastEvent {
    /// The one with this number.
    Number(u64),
    /// The final state.
    End,
}

/// What the client has seen last, when it resumes.
///
/// # Errors
/// [`CallError::BadRequest`] when the header is there and is not an id we gave out.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<LastEvent>, CallError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let last = match value.to_str() {
        Ok(END) => Some(LastEvent::End),
        Ok(text) => text.parse().ok().map(LastEvent::Number),
        Err(_) => None,
    };
    last.map(Some).ok_or_else(|| CallError::BadRequest("`Last-Event-ID` must be the id of an event you received".into()))
}

/// Streams `events` until they end.
pub(super) fn stream(events: BoxStream<'static, (u64, CallEvent)>) -> Response {
    let events = events.map(|(number, event)| Ok::<_, Infallible>(frame(number, &event)));
    ([NO_BUFFERING], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))).into_response()
}

fn frame(number: u64, event: &CallEvent) -> Event {
    let name = match event {
        CallEvent::State { .. } => "state",
        CallEvent::Progress { .. } => "progress",
        CallEvent::Log { .. } => "log",
    };
    let id = match event {
        CallEvent::State { state } if state.is_final() => END.to_owned(),
        _ => number.to_string(),
    };
    let named = Event::default().id(id).event(name);
    // Only a map with keys that are no strings could fail to be written, and an event has none.
    named.json_data(event).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallState;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn events_are_numbered_named_and_one_line_each() {
        let events = futures_util::stream::iter([
            (3, CallEvent::State { state: CallState::Running }),
            (4, CallEvent::Progress { progress: 1.0, total: Some(2.0), message: Some("half".into()) }),
            (5, CallEvent::Log { line: "a\r\nevent: forged\n\nid: 9".into() }),
            (6, CallEvent::State { state: CallState::Succeeded }),
        ]);
        let response = stream(events.boxed());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn only_an_id_of_ours_resumes() {
        let header = |value: &'static [u8]| [(LAST_EVENT_ID, HeaderValue::from_bytes(value).unwrap())].into_iter().collect();
        assert_eq!(last_event_id(&HeaderMap::new()), Ok(None));
        assert_eq!(last_event_id(&header(b"17")), Ok(Some(LastEvent::Number(17))));
        assert_eq!(last_event_id(&header(b"end")), Ok(Some(LastEvent::End)));
        for wrong in [b"" as &[u8], b"End", b"-1", b"x", b"1.5", b"99999999999999999999", b"\xff"] {
            assert!(matches!(last_event_id(&header(wrong)), Err(CallError::BadRequest(_))), "{wrong:?}");
        }
    }
}
