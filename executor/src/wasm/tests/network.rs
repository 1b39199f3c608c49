//! HTTP: a component end to end, and our half of it against a server that misbehaves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::super::config::{HttpLimits, WasmConfig};
use super::super::http::{Http, Outgoing};
use super::{INSTANCE, Listener, Room, call, program};
use crate::egress::{Limits, Terms, Wall, trust};
use crate::spec::ByteSize;
use crate::wire::{Exit, Invocation, Report, Span};

/// A server that gives everyone the same bytes, and counts and keeps what it was asked.
struct Server {
    port: u16,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Server {
    async fn that_says(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, asked: Arc::default(), last: Arc::default() };
        let (asked, last, answer) = (server.asked.clone(), server.last.clone(), answer.into());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::SeqCst);
                let (last, answer) = (last.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 8192];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    *last.lock() = String::from_utf8_lossy(&head[..length]).into_owned();
                    let _ = stream.write_all(&answer).await;
                    // Silent from here on, and open.
                    tokio::time::sleep(Duration::from_secs(60)).await;
                });
            }
        });
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.port)
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn wall(destinations: &[String]) -> Arc<Wall> {
    let terms = Terms { limits: Limits::default(), tls: trust(&[]).unwrap(), routes: std::collections::BTreeMap::new() };
    Wall::new(destinations.iter().map(|d| d.parse().unwrap()).collect(), Vec::new(), terms)
}

/// One call that may reach these, and what its wall saw.
async fn reach(room: &Room, text: &str, listed: &[String], invocation: Invocation) -> (Report, Vec<Span>) {
    let wall = wall(listed);
    let host = Listener { wall: Some(wall.clone()), ..Listener::default() };
    let report = room.run_spec(&room.spec(text), invocation, &host).await;
    (report, wall.take_spans())
}

fn asking(authority: &str) -> String {
    include_str!("request.wat")
        .replace("\"AUTHORITY\"", &format!("{authority:?}"))
        .replace("LENGTH", &authority.len().to_string())
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).map(String::as_str)
}

#[tokio::test]
async fn a_component_reaches_what_its_call_lists_and_its_trace_shows_it() {
    let room = Room::new();
    let server = Server::that_says(answer("204 No Content", "", "")).await;
    let listed = server.at("127.0.0.1");
    let (report, spans) = reach(&room, &asking(&listed), std::slice::from_ref(&listed), call()).await;
    assert_eq!((report.exit, report.detail), (Exit::Code(0), None));
    assert!(server.last.lock().starts_with("GET /start?secret=1 HTTP/1.1\r\n"));
    assert!(server.last.lock().contains(&format!("host: {listed}\r\n")));
    let [request] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((request.name.as_str(), request.error), ("HTTP GET", false));
    assert_eq!(attribute(request, "server.address"), Some("127.0.0.1"));
    assert_eq!(attribute(request, "server.port"), Some(server.port.to_string().as_str()));
    assert_eq!(attribute(request, "http.response.status_code"), Some("204"));
    assert!(!format!("{request:?}").contains("secret"), "neither path nor query");
}

#[tokio::test]
async fn a_component_does_not_reach_what_its_call_does_not_list() {
    let room = Room::new();
    let server = Server::that_says(answer("200 OK", "", "")).await;
    let (literal, name) = (server.at("127.0.0.1"), server.at("localhost"));
    let cases: [(&str, Vec<String>, Option<&str>); 4] = [
        (&literal, vec![], None),
        (&literal, vec!["127.0.0.1:1".into(), "example.com:80".into()], Some("denied")),
        // A listed name is not a listed address: it must lead outside.
        (&name, vec![name.clone()], Some("prohibited")),
        (&literal, vec![name.clone()], Some("denied")),
    ];
    for (authority, listed, why) in cases {
        let (report, spans) = reach(&room, &asking(authority), &listed, call()).await;
        assert_eq!(report.exit, Exit::Code(1), "{authority} {listed:?}");
        let error = spans.first().and_then(|span| attribute(span, "error.type"));
        assert_eq!(error.is_some(), why.is_some());
        assert!(error.unwrap_or_default().contains(why.unwrap_or_default()), "{error:?}");
    }
    assert_eq!(server.asked(), 0);
    let both = [name.clone(), literal];
    assert_eq!(reach(&room, &asking(&name), &both, call()).await.0.exit, Exit::Code(0), "its address is listed too");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_target_refused() {
    let room = Room::new();
    let inside = Server::that_says(answer("200 OK", "", "")).await;
    let location = format!("location: http://{}/\r\n", inside.at("127.0.0.1"));
    let outside = Server::that_says(answer("302 Found", &location, "")).await;
    let listed = [outside.at("127.0.0.1")];
    let (_, spans) = reach(&room, &asking(&outside.at("127.0.0.1")), &listed, call()).await;
    assert_eq!(attribute(&spans[0], "http.response.status_code"), Some("302"));
    let (second, _) = reach(&room, &asking(&inside.at("127.0.0.1")), &listed, call()).await;
    assert_eq!((second.exit, inside.asked()), (Exit::Code(1), 0));
}

#[tokio::test]
async fn a_request_without_an_answer_ends_with_the_call_and_is_in_its_trace() {
    let room = Room::new();
    let server = Server::that_says("").await;
    let listed = server.at("127.0.0.1");
    let invocation = Invocation { timeout: Duration::from_millis(300), ..call() };
    let (report, spans) = reach(&room, &asking(&listed), std::slice::from_ref(&listed), invocation).await;
    assert_eq!(report.exit, Exit::Deadline);
    assert!(spans[0].error);
    assert_eq!(attribute(&spans[0], "server.address"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_module_of_preview_1_has_no_way_out() {
    let room = Room::new();
    let socket = r#"(import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))"#;
    let text = program("(call $exit (call $accept (i32.const 3) (i32.const 0) (i32.const 64)))").replacen(
        "(module",
        &format!("(module {socket}"),
        1,
    );
    let (report, _) = reach(&room, &text, &["example.com:443".into()], call()).await;
    assert_eq!(report.exit, Exit::Code(8), "EBADF: there is no socket to ask");
}

/// Our half without a guest: what a component could ask for, and a little more.
struct Asker(Arc<Outgoing>, Arc<Wall>);

impl Asker {
    fn new(listed: &[String], change: impl FnOnce(&mut HttpLimits)) -> Self {
        let mut limits = WasmConfig::new("", INSTANCE).http;
        change(&mut limits);
        let wall = wall(listed);
        Self(Outgoing::new(wall.clone(), limits), wall)
    }

    async fn ask(&self, method: Method, url: &str, options: RequestOptions) -> Result<Response<WasiBody>, Error> {
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().method(method).uri(url).header("host", "elsewhere").body(body).unwrap();
        let mut hooks = Http(Some(self.0.clone()));
        let sent = hooks.send_request(request, Some(options), Box::new(async { Ok(()) }));
        let (response, connection) = Pin::from(sent).await?;
        tokio::spawn(Pin::from(connection));
        Ok(response)
    }

    async fn get(&self, url: &str) -> Result<Response<WasiBody>, Error> {
        self.ask(Method::GET, url, RequestOptions::default()).await
    }
}

#[tokio::test]
async fn requests_are_counted_refused_ones_too() {
    let server = Server::that_says(answer("200 OK", "", "ok")).await;
    let asker = Asker::new(&[server.at("127.0.0.1")], |limits| limits.requests = 2);
    let url = format!("http://{}/", server.at("127.0.0.1"));
    assert!(asker.get(&url).await.is_ok());
    assert!(matches!(asker.get("http://127.0.0.1:1/").await, Err(Error::HttpRequestDenied)));
    assert!(matches!(asker.get(&url).await, Err(Error::ConnectionLimitReached)));
    assert_eq!(server.asked(), 1);
    assert!(server.last.lock().contains(&format!("host: {}\r\n", server.at("127.0.0.1"))), "not the host it was told");
}

#[tokio::test]
async fn response_bytes_of_all_requests_together_are_bounded() {
    let server = Server::that_says(answer("200 OK", "", &"x".repeat(600))).await;
    let asker = Asker::new(&[server.at("127.0.0.1")], |limits| limits.response_bytes = ByteSize(1000));
    let url = format!("http://{}/", server.at("127.0.0.1"));
    let whole = asker.get(&url).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(whole.len(), 600);
    let over = asker.get(&url).await.unwrap().into_body().collect().await;
    assert!(matches!(over, Err(Error::HttpResponseBodySize(Some(1000)))), "{over:?}");
}

#[tokio::test]
async fn a_server_that_stops_talking_is_given_up_on() {
    let short = RequestOptions { between_bytes_timeout: Some(Duration::from_millis(100)), ..RequestOptions::default() };
    let half = Server::that_says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let asker = Asker::new(&[half.at("127.0.0.1")], |_| {});
    let url = format!("http://{}/", half.at("127.0.0.1"));
    let cut = asker.ask(Method::GET, &url, short).await.unwrap().into_body().collect().await;
    assert!(matches!(cut, Err(Error::ConnectionReadTimeout)), "{cut:?}");
    let silent = Server::that_says("").await;
    let asker = Asker::new(&[silent.at("127.0.0.1")], |_| {});
    let first_byte = RequestOptions { first_byte_timeout: Some(Duration::from_millis(100)), ..RequestOptions::default() };
    let none = asker.ask(Method::GET, &format!("http://{}/", silent.at("127.0.0.1")), first_byte).await;
    assert!(matches!(none, Err(Error::ConnectionReadTimeout)));
    // A handshake that the server never answers counts as connecting.
    let asker = Asker::new(&[silent.at("127.0.0.1")], |limits| limits.connect_timeout = Duration::from_millis(100));
    let tls = asker.get(&format!("https://{}/", silent.at("127.0.0.1"))).await;
    assert!(matches!(tls, Err(Error::ConnectionTimeout)));
}

#[tokio::test]
async fn what_is_no_http_or_a_tunnel_is_refused() {
    let cases = [
        ("garbage\r\n\r\n", "http", Method::GET),
        ("HTTP/1.1 200 OK\r\nx: ", "https", Method::GET),
        ("HTTP/1.1 200 OK\r\n\r\n", "http", Method::CONNECT),
    ];
    for (says, scheme, method) in cases {
        let server = Server::that_says(says).await;
        let asker = Asker::new(&[server.at("127.0.0.1")], |_| {});
        let error =
            asker.ask(method, &format!("{scheme}://{}/", server.at("127.0.0.1")), RequestOptions::default()).await.unwrap_err();
        assert!(
            matches!(error, Error::HttpProtocolError | Error::TlsProtocolError | Error::HttpRequestMethodInvalid),
            "{says:?}: {error:?}"
        );
    }
    let gone = Asker::new(&["127.0.0.1:1".into()], |_| {});
    assert!(matches!(gone.get("http://127.0.0.1:1/").await, Err(Error::ConnectionRefused)));
    gone.0.finish().await;
    let spans = gone.1.take_spans();
    assert_eq!((spans.len(), spans[0].error), (1, true));
}
