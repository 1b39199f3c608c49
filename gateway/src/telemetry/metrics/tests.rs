use mayfly_executor::{BackendKind, Event, SandboxId};
use std::sync::Arc;

use super::*;

fn metrics() -> Metrics {
    Metrics::new(Counter::default())
}

/// Without buckets, which say no more here than sum and count, and in an order: that of samples in a family is any.
fn samples(text: &str) -> String {
    let families = text.split("# HELP ").skip(1).map(|family| {
        let mut lines: Vec<_> = family.lines().skip(1).filter(|line| !line.contains("_bucket") && *line != "# EOF").collect();
        lines[1..].sort_unstable();
        lines.join("\n")
    });
    families.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_text_is_what_dashboards_and_alerts_were_written_for() {
    let metrics = metrics();
    let took = Duration::from_millis(250);
    metrics.count("ci-bot", "k8s_get_deployment", "get", "deployment", 200, took);
    metrics.count("ci-bot", "k8s_get_deployment", "get", "deployment", 403, took);
    metrics.call(None, None, None, 401, took);
    metrics.call(None, None, None, 504, took);
    metrics.reload_failed();
    metrics.look(BackendKind::Docker, 3, 1, 2, 0);
    insta::assert_snapshot!(samples(&metrics.render()), @r#"
    # TYPE mayfly_log_lines_lost counter
    mayfly_log_lines_lost_total 0
    # TYPE agent_tool_calls counter
    agent_tool_calls_total{agent_id="_unknown",action="_unknown",resource="_unknown",result="denied"} 1
    agent_tool_calls_total{agent_id="_unknown",action="_unknown",resource="_unknown",result="error"} 1
    agent_tool_calls_total{agent_id="ci-bot",action="get",resource="deployment",result="allowed"} 1
    agent_tool_calls_total{agent_id="ci-bot",action="get",resource="deployment",result="denied"} 1
    # TYPE tool_gateway_calls counter
    tool_gateway_calls_total{agent_id="_unknown",tool="_unknown",status="401"} 1
    tool_gateway_calls_total{agent_id="_unknown",tool="_unknown",status="504"} 1
    tool_gateway_calls_total{agent_id="ci-bot",tool="k8s_get_deployment",status="200"} 1
    tool_gateway_calls_total{agent_id="ci-bot",tool="k8s_get_deployment",status="403"} 1
    # TYPE tool_gateway_duration_seconds histogram
    tool_gateway_duration_seconds_count{agent_id="_unknown",tool="_unknown"} 2
    tool_gateway_duration_seconds_count{agent_id="ci-bot",tool="k8s_get_deployment"} 2
    tool_gateway_duration_seconds_sum{agent_id="_unknown",tool="_unknown"} 0.5
    tool_gateway_duration_seconds_sum{agent_id="ci-bot",tool="k8s_get_deployment"} 0.5
    # TYPE mayfly_sandboxes gauge
    mayfly_sandboxes{backend="docker",state="ending"} 2
    mayfly_sandboxes{backend="docker",state="running"} 0
    mayfly_sandboxes{backend="docker",state="starting"} 0
    mayfly_sandboxes{backend="docker",state="warm"} 0
    # TYPE mayfly_sandbox_orphans counter
    mayfly_sandbox_orphans_total 2
    # TYPE mayfly_reload_failures counter
    mayfly_reload_failures_total 1
    # TYPE mayfly_spans_dropped counter
    mayfly_spans_dropped_total 0
    "#);
}

#[test]
fn histograms_have_buckets_where_calls_are() {
    let metrics = metrics();
    metrics.count("a", "t", "get", "x", 200, Duration::from_micros(700));
    let text = metrics.render();
    assert!(text.contains(r#"tool_gateway_duration_seconds_bucket{le="0.0005",agent_id="a",tool="t"} 0"#), "{text}");
    assert!(text.contains(r#"tool_gateway_duration_seconds_bucket{le="0.001",agent_id="a",tool="t"} 1"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_classification_is_a_constant_an_enumerated_argument_or_unknown() {
    let arguments = serde_json::json!({"verb": "scale", "count": 3});
    let from = |pointer: &str| Classifier::From { from: pointer.into() };
    assert_eq!(classified(&Classifier::Constant("get".into()), None), "get");
    assert_eq!(classified(&from("/verb"), Some(&arguments)), "scale");
    assert_eq!(classified(&from("/verb"), None), UNKNOWN, "arguments that were not validated");
    assert_eq!(classified(&from("/count"), Some(&arguments)), UNKNOWN, "not a text");
    assert_eq!(classified(&from("/absent"), Some(&arguments)), UNKNOWN);
}

#[test]
fn only_refusals_count_as_denied() {
    for (status, expected) in
        [(200, "allowed"), (401, "denied"), (403, "denied"), (404, "denied"), (422, "error"), (429, "error")]
    {
        assert_eq!(result(status), expected, "{status}");
    }
    for status in [400, 409, 413, 500, 502, 503, 504] {
        assert_eq!(result(status), "error", "{status}");
    }
}

#[test]
fn callers_nobody_knows_do_not_grow_anything() {
    let metrics = metrics();
    for _ in 0..1_000 {
        metrics.call(None, None, None, 404, Duration::ZERO);
    }
    assert_eq!(metrics.render().lines().filter(|l| l.starts_with("tool_gateway_calls_total")).count(), 1);
}

fn gauge(metrics: &Metrics, state: &str) -> String {
    let label = format!(r#"mayfly_sandboxes{{backend="docker",state="{state}"}} "#);
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(&label).map(str::to_owned)).unwrap_or_default()
}

#[test]
fn a_sandbox_is_in_one_state_at_a_time_and_in_none_at_the_end() {
    let metrics = Arc::new(metrics());
    let watch = SandboxWatch::new(metrics.clone(), BackendKind::Docker);
    watch.observe(&Event::Starting(SandboxId::generate()));
    assert_eq!(gauge(&metrics, "starting"), "1");
    watch.observe(&Event::Started);
    watch.observe(&Event::Accepted);
    metrics.look(BackendKind::Docker, 2, 0, 0, 0);
    assert_eq!([gauge(&metrics, "starting"), gauge(&metrics, "running"), gauge(&metrics, "ending")], ["0", "1", "1"]);
    watch.observe(&Event::Ended);
    drop(watch);
    metrics.look(BackendKind::Docker, 2, 2, 0, 0);
    assert_eq!([gauge(&metrics, "starting"), gauge(&metrics, "running"), gauge(&metrics, "ending")], ["0", "0", "0"]);
    assert!(metrics.render().contains(r#"mayfly_sandbox_start_seconds_count{backend="docker",temperature="cold"} 1"#));
}

#[test]
fn a_watch_that_is_dropped_in_the_middle_leaves_nothing() {
    let metrics = Arc::new(metrics());
    let watch = SandboxWatch::new(metrics.clone(), BackendKind::Docker);
    watch.observe(&Event::Starting(SandboxId::generate()));
    drop(watch);
    assert_eq!(gauge(&metrics, "starting"), "0");
}

#[test]
fn orphans_are_counted_once_and_over_all_backends() {
    let metrics = metrics();
    metrics.look(BackendKind::Docker, 0, 0, 2, 0);
    metrics.look(BackendKind::Docker, 0, 0, 2, 0);
    metrics.look(BackendKind::Wasm, 0, 0, 1, 0);
    assert!(metrics.render().contains("mayfly_sandbox_orphans_total 3"));
}
