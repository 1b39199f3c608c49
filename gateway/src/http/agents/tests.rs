use super::*;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

/// Knows one key.
struct OneKey;

impl Authenticate for OneKey {
    fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Caller>, CallError> {
        match authorization {
            Some("Bearer good") => Ok(Arc::new(Caller::fixture("tester"))),
            Some("Bearer suspended") => Err(CallError::AgentSuspended),
            _ => Err(CallError::Unauthenticated),
        }
    }
}

/// The layers around routes that need no pipeline.
fn door() -> Router {
    let read = async |Extension(caller): Extension<Arc<Caller>>, _: SubmissionHeaders, JsonBody(body): JsonBody| {
        Submission::read(body, None).map(|submission| format!("{} {submission:?}", caller.agent_id()))
    };
    let panics = async || -> String { std::panic::panic_any("canary") };
    let router = Router::new()
        .route("/read", axum::routing::post(read))
        .route("/panics", get(panics))
        .route("/calls/{id}", get(async |PathCall(id): PathCall| id.to_string()))
        .route("/tools/{name}", get(async |PathName(name): PathName| name));
    layers(router.with_state(BodyLimits { bytes: 4096, ..BodyLimits::default() }), Arc::new(OneKey))
}

async fn ask(request: Request<Body>) -> (u16, HeaderMap, String) {
    let response = door().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, text)
}

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, "Bearer good")
}

async fn post(body: impl Into<Body>) -> (u16, Value) {
    let (status, _, text) =
        ask(request("POST", "/read").header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn nothing_answers_a_stranger() {
    for (method, path) in
        [("POST", "/read"), ("GET", "/read"), ("GET", "/nowhere"), ("DELETE", "/"), ("OPTIONS", "*"), ("GET", "/panics")]
    {
        for credentials in [&[] as &[&str], &["Bearer bad"], &["Bearer good", "Bearer good"], &["good"]] {
            let mut stranger = Request::builder().method(method).uri(path);
            for value in credentials {
                stranger = stranger.header(header::AUTHORIZATION, *value);
            }
            let (status, headers, text) = ask(stranger.body(Body::empty()).unwrap()).await;
            assert_eq!(status, 401, "{method} {path} {credentials:?}");
            assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
            assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
            assert!(!text.contains("good") && !text.contains("bad"), "{text}");
        }
    }
    let binary = Request::get("/read").header(header::AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
    assert_eq!(ask(binary.body(Body::empty()).unwrap()).await.0, 401);
    let suspended = Request::get("/nowhere").header(header::AUTHORIZATION, "Bearer suspended").body(Body::empty()).unwrap();
    assert_eq!(ask(suspended).await.0, 403);
}

#[tokio::test]
async fn a_caller_learns_what_is_wrong_with_the_path() {
    for (method, path, status, slug) in [
        ("GET", "/nowhere", 404, "unknown-path"),
        ("GET", "/", 404, "unknown-path"),
        ("GET", "/read", 405, "method-not-allowed"),
        ("PATCH", "/calls/x", 405, "method-not-allowed"),
        ("GET", "/calls/not-an-id", 404, "unknown-call"),
        ("GET", "/calls/..%2F..%2Fetc", 404, "unknown-call"),
        ("GET", "/calls/%ff", 404, "unknown-path"),
        ("GET", "/tools/a%00b", 404, "unknown-path"),
    ] {
        let (answered, headers, text) = ask(request(method, path).body(Body::empty()).unwrap()).await;
        assert_eq!(answered, status, "{method} {path}: {text}");
        assert!(text.contains(&format!("/problems/{slug}\"")), "{method} {path}: {text}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
    let (_, headers, _) = ask(request("GET", "/read").body(Body::empty()).unwrap()).await;
    assert_eq!(headers[header::ALLOW], "POST");
    assert_eq!(
        ask(request("GET", "/tools/..%2Fx").body(Body::empty()).unwrap()).await.2,
        "../x",
        "a name is a name, whatever is in it"
    );
    assert_eq!(ask(request("GET", &format!("/tools/{}", "x".repeat(129))).body(Body::empty()).unwrap()).await.0, 404);
}

#[tokio::test]
async fn a_panic_is_a_500_that_says_nothing() {
    let (status, headers, text) = ask(request("GET", "/panics").body(Body::empty()).unwrap()).await;
    assert_eq!((status, headers[header::CONTENT_TYPE].to_str().unwrap()), (500, "application/problem+json"));
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn bad_bodies_get_a_problem_that_names_the_place() {
    let deep = format!("{{\"tool\":\"x\",\"arguments\":{}{}}}", "{\"a\":".repeat(500), "}".repeat(500));
    let long = format!("{{\"tool\":\"x\",\"pad\":\"{}\"}}", "x".repeat(5000));
    for (body, status, place) in [
        (&b""[..], 400, "empty"),
        (b"{\"tool\": \"x\"} x", 400, "line 1 column 15"),
        (b"{\"tool\": \"x\", \"tool\": \"y\"}", 400, "/tool is given twice"),
        (b"{\"tool\": \"\xff\"}", 400, "byte offset 10"),
        (deep.as_bytes(), 400, "more than 64 levels"),
        (long.as_bytes(), 413, "4096 bytes"),
        (b"{\"tool\": \"a\\u0000\"}", 422, "\"/tool\""),
        (b"{\"tool\": \"x\", \"arguments\": 1}", 422, "\"/arguments\""),
        (b"{\"tool\": \"x\", \"arguments\": {}, \"name\": 1}", 422, "\"/name\""),
        (b"[]", 422, "must be an object"),
    ] {
        let (answered, problem) = post(body.to_vec()).await;
        assert_eq!(answered, status, "{problem}");
        assert!(problem.to_string().contains(place), "{place}: {problem}");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_refused_before_anything_is_read() {
    let keyed = request("POST", "/read").header("Idempotency-Key", "k").body(Body::from("not read")).unwrap();
    let (status, _, text) = ask(keyed).await;
    assert_eq!(status, 400);
    assert!(text.contains("not honoured yet"), "{text}");
}

#[test]
fn every_route_is_described() {
    let description = serde_json::to_value(described().into_openapi()).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{}", description["openapi"]);
    let described: Vec<String> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase())))
        .collect();
    insta::assert_snapshot!(described.join("\n"));
    assert_eq!(description["security"][0]["agent_key"], serde_json::json!([]));
    for schema in ["CallView", "Problem", "Submission", "ToolView", "SpanView", "CallEvent"] {
        assert!(description["components"]["schemas"][schema].is_object(), "{schema} is not described");
    }
}
