//! Reading a JSON body: bounded in size and time, strict in form.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::strict;
use crate::error::CallError;

/// What a request may be, and how long it may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Most bytes of its body.
    pub bytes: usize,
    /// Time from the end of the headers to the end of the body.
    pub time: Duration,
    /// How deep arrays and objects of the body may be nested, the outermost included.
    pub json_depth: usize,
    /// The longest that a call is held before it is answered with 202.
    pub wait: Duration,
}

impl Default for BodyLimits {
    /// 1 MiB in 10 s, 64 levels deep; a call is held for 60 s.
    fn default() -> Self {
        Self { bytes: 1 << 20, time: Duration::from_secs(10), json_depth: strict::MAX_DEPTH, wait: Duration::from_secs(60) }
    }
}

/// Most bytes read, and thrown away, of a body that is too long.
const MAX_DISCARD: u64 = 8 << 20;

/// The body of a request as [strict] JSON.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody
where
    BodyLimits: FromRef<S>,
{
    type Rejection = CallError;

    async fn from_request(request: Request, state: &S) -> Result<Self, CallError> {
        check_headers(request.headers())?;
        let limits = BodyLimits::from_ref(state);
        let bytes = read(request.into_body(), limits).await?;
        let value = strict::parse_within(&bytes, limits.json_depth);
        value.map(Self).map_err(|malformed| CallError::BadRequest(format!("the body is {malformed}")))
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), CallError> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else { return Err(CallError::UnsupportedMediaType) };
    if !media_type.to_str().is_ok_and(is_json) {
        return Err(CallError::UnsupportedMediaType);
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(CallError::BadRequest("send the body as it is, without a `Content-Encoding`".into()))
        }
        _ => Ok(()),
    }
}

/// `application/json`, alone or with a charset that says what JSON is anyway.
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().as_deref() == Some("application/json")
        && parts.all(|parameter| {
            !parameter.starts_with("charset=") || matches!(parameter.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
        })
}

async fn read(mut body: Body, limits: BodyLimits) -> Result<Bytes, CallError> {
    let whole = async {
        // What says itself that it is too long is not kept at all; what says nothing is counted.
        if body.size_hint().lower() <= limits.bytes as u64 {
            match Limited::new(&mut body, limits.bytes).collect().await {
                Ok(collected) => return Ok(collected.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => {}
                Err(_) => return Err(CallError::BadRequest("the body broke off".into())),
            }
        }
        discard(&mut body).await;
        Err(CallError::TooLarge { limit: limits.bytes })
    };
    tokio::time::timeout(limits.time, whole).await.unwrap_or(Err(CallError::BodyTimeout(limits.time)))
}

/// Reads what is left of a body that is a little too long, so that its sender is still there to hear the answer. A connection
/// that is closed on a sender may lose the answer; one that sends far too much has to live with that.
async fn discard(body: &mut Body) {
    let mut left = MAX_DISCARD;
    if body.size_hint().lower() > left {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tower::ServiceExt as _;

    const LIMITS: BodyLimits =
        BodyLimits { bytes: 64, time: Duration::from_millis(200), json_depth: 4, wait: Duration::from_secs(60) };

    async fn send(content_types: &[&str], body: Body) -> (StatusCode, String) {
        let router =
            Router::new().route("/", post(|JsonBody(value): JsonBody| async move { value.to_string() })).with_state(LIMITS);
        let mut request = Request::post("/");
        for content_type in content_types {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    fn chunks(count: usize) -> Body {
        Body::from_stream(futures_util::stream::iter((0..count).map(|_| Ok::<_, std::io::Error>("\"1234567"))))
    }

    #[tokio::test]
    async fn json_by_its_content_type_is_read() {
        for content_type in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"", "application/json; x=y"]
        {
            assert_eq!(send(&[content_type], "{\"a\":1}".into()).await, (StatusCode::OK, "{\"a\":1}".into()), "{content_type}");
        }
    }

    #[tokio::test]
    async fn another_content_type_is_415() {
        let wrong: [&[&str]; 6] = [
            &[],
            &["text/plain"],
            &["application/x-www-form-urlencoded"],
            &["application/json; charset=latin-1"],
            &["application/jsonp"],
            &["application/json", "application/json"],
        ];
        for content_types in wrong {
            assert_eq!(send(content_types, "{}".into()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_types:?}");
        }
    }

    #[tokio::test]
    async fn the_limit_bites_with_and_without_a_length() {
        let exact = format!("\"{}\"", "x".repeat(LIMITS.bytes - 2));
        assert_eq!(send(&["application/json"], exact.clone().into()).await.0, StatusCode::OK);
        let (status, problem) = send(&["application/json"], format!("{exact} ").into()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(problem.contains("longer than 64 bytes"), "{problem}");
        assert_eq!(send(&["application/json"], chunks(9)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(send(&["application/json"], chunks(usize::MAX)).await.0, StatusCode::PAYLOAD_TOO_LARGE, "an endless one");
    }

    #[tokio::test]
    async fn the_depth_bites() {
        assert_eq!(send(&["application/json"], "[[[[]]]]".into()).await.0, StatusCode::OK);
        let (status, problem) = send(&["application/json"], "[[[[[]]]]]".into()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(problem.contains("more than 4 levels"), "{problem}");
    }

    #[tokio::test]
    async fn a_body_without_end_is_given_up() {
        use futures_util::StreamExt as _;
        let endless = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]).chain(futures_util::stream::pending());
        assert_eq!(send(&["application/json"], Body::from_stream(endless)).await.0, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_is_not_json_is_400() {
        let broken = futures_util::stream::iter([Ok("{}"), Err(std::io::Error::other("reset"))]);
        assert_eq!(send(&["application/json"], Body::from_stream(broken)).await.0, StatusCode::BAD_REQUEST);
        let (status, problem) = send(&["application/json"], b"\"\xc3\x28\"".to_vec().into()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(problem.contains("byte offset 1"), "{problem}");
        assert_eq!(send(&["application/json"], Body::empty()).await.0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_coded_body_is_refused() {
        let headers = |coding: &'static str| {
            [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, coding)]
                .into_iter()
                .map(|(name, value)| (name, axum::http::HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        assert!(matches!(check_headers(&headers("gzip")), Err(CallError::BadRequest(_))));
        assert_eq!(check_headers(&headers("identity")), Ok(()));
    }
}
