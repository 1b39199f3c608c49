use std::net::TcpListener;
use std::time::Instant;

use mayfly_executor::wire;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::fixture::{Receiver, Request, exporter, settings};
use super::*;
use crate::telemetry::{CallTrace, Log, Telemetry};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn target(address: std::net::SocketAddr, protocol: Protocol) -> Target {
    let path = if protocol == Protocol::HttpProtobuf { "/v1/traces" } else { "" };
    Target { endpoint: format!("http://{address}{path}"), protocol, timeout: Duration::from_secs(10) }
}

fn start(address: std::net::SocketAddr, protocol: Protocol, queue: usize) -> (Arc<Exporter>, Counter) {
    let dropped = Counter::default();
    (Exporter::start(&target(address, protocol), &settings(queue), dropped.clone()).unwrap(), dropped)
}

/// A call as the gateway traces it, with a span from inside the sandbox.
fn call(exporter: &Arc<Exporter>) {
    let trace = CallTrace::begin("execute_tool", Some(CALLER), Instant::now(), Some(exporter.clone()));
    trace.rename(names::span::execute_tool("echo"));
    trace.set(names::GEN_AI_TOOL_NAME, "echo");
    for name in ["authenticate", "authorize", "mint", "sandbox.start", "settle"] {
        drop(trace.span(name));
    }
    let run = trace.span(names::span::TOOL_RUN);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let inside = wire::Span {
        id: 1,
        parent: None,
        name: "exec".into(),
        start_unix_nanos: now,
        end_unix_nanos: now,
        attributes: [("pid".into(), "2".into())].into(),
        error: true,
    };
    trace.adopt(&run, vec![inside]);
    drop(run);
    trace.finish(false);
}

const SPANS_OF_A_CALL: u64 = 8;

/// Every span with the name of its scope.
fn spans(requests: &[Request]) -> Vec<(String, Span)> {
    let scopes = requests.iter().flat_map(|(_, r)| &r.resource_spans).flat_map(|r| &r.scope_spans);
    scopes.flat_map(|s| s.spans.iter().map(|span| (s.scope.as_ref().unwrap().name.clone(), span.clone()))).collect()
}

fn resource_attribute(requests: &[Request], key: &str) -> Option<String> {
    let resource = requests[0].1.resource_spans[0].resource.as_ref()?;
    match resource.attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn assert_one_call(requests: &[Request]) {
    let spans = spans(requests);
    assert_eq!(spans.len() as u64, SPANS_OF_A_CALL);
    let find = |name: &str| spans.iter().find(|(_, s)| s.name == name).unwrap_or_else(|| panic!("no span {name}"));
    let (scope, root) = find("execute_tool echo");
    assert_eq!(scope, "mayfly");
    assert_eq!(hex::encode(&root.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex::encode(&root.parent_span_id), "b7ad6b7169203331", "the caller's span is the parent");
    assert_eq!(root.flags & 0x1, 1, "sampled, whatever the caller said");
    assert!(root.attributes.iter().any(|a| a.key == "gen_ai.tool.name"));
    let (_, run) = find("tool.run");
    for (_, span) in &spans {
        assert_eq!(span.trace_id, root.trace_id);
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano && span.end_time_unix_nano <= root.end_time_unix_nano);
    }
    for name in ["authenticate", "authorize", "mint", "sandbox.start", "tool.run", "settle"] {
        assert_eq!(find(name).1.parent_span_id, root.span_id, "{name}");
    }
    let (scope, inside) = find("exec");
    assert_eq!((scope.as_str(), &inside.parent_span_id), ("mayfly.sandbox", &run.span_id));
    assert_eq!(inside.status.as_ref().unwrap().code, 2, "it said it failed");
    assert_eq!(inside.attributes[0].key, "sandbox.pid");
}

#[test]
fn a_call_arrives_over_http() {
    let receiver = Receiver::start();
    let (exporter, dropped) = start(receiver.address, Protocol::HttpProtobuf, 1_000);
    call(&exporter);
    exporter.shutdown(Duration::from_secs(10));
    assert_one_call(&receiver.requests());
    assert_eq!(dropped.get(), 0);
}

#[test]
fn a_call_arrives_over_grpc() {
    let receiver = Receiver::start();
    let (exporter, dropped) = start(receiver.address, Protocol::Grpc, 1_000);
    call(&exporter);
    exporter.shutdown(Duration::from_secs(10));
    assert_one_call(&receiver.requests());
    assert_eq!(dropped.get(), 0);
}

/// Run by the next test, in a process that has an environment of its own.
#[test]
#[ignore = "the other half of the_standard_variables_are_enough"]
fn with_the_environment_it_was_given() {
    let telemetry = Telemetry::from_env(Log::to(std::io::sink(), true).unwrap()).unwrap();
    if let Some(exporter) = &telemetry.exporter {
        call(exporter);
    }
    telemetry.shutdown(Duration::from_secs(10));
}

#[test]
fn the_standard_variables_are_enough() {
    for protocol in ["http/protobuf", "grpc"] {
        let receiver = Receiver::start();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::export::tests::with_the_environment_it_was_given", "--ignored"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receiver.address))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=mayfly")
            .env("OTEL_SERVICE_NAME", "gateway-7")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.version=9.9")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let requests = receiver.requests();
        assert_one_call(&requests);
        assert_eq!(requests[0].0["x-scope-orgid"], "mayfly", "{protocol}");
        assert_eq!(resource_attribute(&requests, "service.name").as_deref(), Some("gateway-7"));
        assert_eq!(resource_attribute(&requests, "service.version").as_deref(), Some("9.9"));
        assert_eq!(resource_attribute(&requests, "deployment.environment.name").as_deref(), Some("staging"));
    }
}

#[test]
fn without_variables_the_service_has_a_name() {
    let receiver = Receiver::start();
    let (exporter, _) = start(receiver.address, Protocol::HttpProtobuf, 1_000);
    call(&exporter);
    exporter.shutdown(Duration::from_secs(10));
    assert_eq!(resource_attribute(&receiver.requests(), "service.name").as_deref(), Some("mayfly"));
}

/// A thousand calls against `address` in no more time than they take without it, by a wide margin, and a shutdown in time.
fn assert_calls_do_not_notice(address: std::net::SocketAddr, protocol: Protocol) {
    let (exporter, dropped) = start(address, protocol, 400);
    let mut slowest = Duration::ZERO;
    for _ in 0..1_000 {
        let begun = Instant::now();
        call(&exporter);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "a call waited {slowest:?}");
    let begun = Instant::now();
    exporter.shutdown(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(2), "shutdown took {:?}", begun.elapsed());
    let until = Instant::now() + Duration::from_secs(10);
    while dropped.get() < 1_000 * SPANS_OF_A_CALL && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(dropped.get(), 1_000 * SPANS_OF_A_CALL, "every lost span is counted");
}

#[test]
fn a_dead_collector_costs_calls_nothing() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_calls_do_not_notice(address, Protocol::HttpProtobuf);
    assert_calls_do_not_notice(address, Protocol::Grpc);
}

#[test]
fn a_collector_that_never_answers_costs_calls_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    assert_calls_do_not_notice(address, Protocol::HttpProtobuf);
    assert_calls_do_not_notice(address, Protocol::Grpc);
}

/// Takes a batch and never comes back.
#[derive(Debug)]
struct Stuck;

impl SpanExporter for Stuck {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        std::future::pending().await
    }
}

#[test]
fn what_finds_no_room_is_dropped_whole_and_counted() {
    let room = SPANS_OF_A_CALL as usize * 2 + 1;
    let (exporter, dropped) = exporter(Stuck, room);
    for _ in 0..3 {
        call(&exporter);
    }
    assert_eq!(dropped.get(), SPANS_OF_A_CALL, "the third trace, and all of it");
    assert_eq!(exporter.queue.waiting.load(Ordering::Acquire), room - 1);
}

#[test]
fn a_batch_has_a_deadline() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dropped = Counter::default();
    let settings = Settings { batch_timeout: Duration::from_millis(50), ..settings(100) };
    let exporter = Exporter::over(Stuck, runtime, &settings, dropped.clone());
    call(&exporter);
    exporter.shutdown(Duration::from_secs(10));
    assert_eq!((dropped.get(), exporter.queue.waiting.load(Ordering::Acquire)), (SPANS_OF_A_CALL, 0));
}

#[test]
fn after_shutdown_spans_are_counted_and_nothing_else() {
    let (exporter, dropped) = exporter(fixture::Collector::default(), 100);
    exporter.shutdown(Duration::from_secs(5));
    exporter.shutdown(Duration::from_secs(5));
    call(&exporter);
    assert_eq!((dropped.get(), exporter.queue.waiting.load(Ordering::Acquire)), (SPANS_OF_A_CALL, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn shutdown_and_drop_do_not_need_the_runtime_they_are_called_on() {
    let receiver = Receiver::start();
    let (over_grpc, dropped) = start(receiver.address, Protocol::Grpc, 100);
    call(&over_grpc);
    over_grpc.shutdown(Duration::from_secs(10));
    assert_eq!((spans(&receiver.requests()).len() as u64, dropped.get()), (SPANS_OF_A_CALL, 0));
    let (stuck, _) = exporter(Stuck, 100);
    call(&stuck);
    drop(stuck);
}

#[test]
fn an_endpoint_that_cannot_be_used_ends_the_start() {
    let target = Target { endpoint: "http://exa mple".into(), protocol: Protocol::HttpProtobuf, timeout: Duration::from_secs(1) };
    assert!(matches!(Exporter::start(&target, &settings(10), Counter::default()), Err(TelemetryError::Exporter(_))));
}

#[test]
fn an_encrypted_collector_can_be_spoken_to() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let target = Target { endpoint: "https://localhost:1".into(), protocol, timeout: Duration::from_secs(1) };
        let exporter = Exporter::start(&target, &settings(10), Counter::default()).unwrap();
        exporter.shutdown(Duration::from_millis(200));
    }
}
