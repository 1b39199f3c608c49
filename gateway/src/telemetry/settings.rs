//! The standard `OTEL_*` variables, as far as they decide whether and where traces go.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. What only concerns the transport
//! (`OTEL_EXPORTER_OTLP_HEADERS`, `_COMPRESSION` and `_INSECURE`, and all three with `_TRACES_`) is read by the OTLP crate itself. Two deviations, on purpose:
//! without an endpoint nothing is exported unless `OTEL_TRACES_EXPORTER=otlp` asks for it, and a value that cannot be
//! understood ends the start instead of being passed over.

use std::time::Duration;

use super::TelemetryError;

/// Where traces go and how they are batched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `None`: nowhere.
    pub(super) target: Option<Target>,
    /// Most spans that wait for export; what comes on top is dropped.
    pub(super) queue: usize,
    /// Most spans in one request.
    pub(super) batch: usize,
    /// Longest a span waits for company.
    pub(super) delay: Duration,
    /// Longest that one batch may take, retries included.
    pub(super) batch_timeout: Duration,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    /// Longest that one request may take.
    pub(super) timeout: Duration,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    HttpProtobuf,
}

impl Settings {
    /// Reads the variables that `lookup` finds. An empty one counts as not set, as the specification wants.
    pub(super) fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, TelemetryError> {
        let variables = Variables { lookup, problems: std::cell::RefCell::default() };
        let queue = variables.count("OTEL_BSP_MAX_QUEUE_SIZE", 16_384);
        let settings = Self {
            target: variables.target(),
            queue,
            batch: variables.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: variables.millis(&["OTEL_BSP_SCHEDULE_DELAY"], 5_000),
            batch_timeout: variables.millis(&["OTEL_BSP_EXPORT_TIMEOUT"], 30_000),
        };
        let problems = variables.problems.into_inner();
        if problems.is_empty() { Ok(settings) } else { Err(TelemetryError::Settings(problems)) }
    }
}

struct Variables<F> {
    lookup: F,
    problems: std::cell::RefCell<Vec<String>>,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn problem(&self, name: &str, accepted: &str) {
        self.problems.borrow_mut().push(format!("{name} must be {accepted}"));
    }

    fn target(&self) -> Option<Target> {
        if self.get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return None;
        }
        let exporter = self.get("OTEL_TRACES_EXPORTER");
        match exporter.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(_) => {
                self.problem("OTEL_TRACES_EXPORTER", "`otlp` or `none`");
                return None;
            }
        }
        let protocol = self.protocol();
        let endpoint = self.endpoint(protocol, exporter.is_some())?;
        let timeout = self.millis(&["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], 10_000);
        Some(Target { endpoint, protocol, timeout })
    }

    fn protocol(&self) -> Protocol {
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match self.get(name).as_deref() {
                None => {}
                Some("grpc") => return Protocol::Grpc,
                Some("http/protobuf") => return Protocol::HttpProtobuf,
                Some(_) => self.problem(name, "`grpc` or `http/protobuf`"),
            }
        }
        Protocol::HttpProtobuf
    }

    /// The URL that spans are sent to. Only the endpoint for all signals gets a path of its own.
    fn endpoint(&self, protocol: Protocol, wanted: bool) -> Option<String> {
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const SHARED: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let (name, given) = match (self.get(OWN), self.get(SHARED)) {
            (Some(own), _) => (OWN, own),
            (None, Some(shared)) => (SHARED, shared),
            (None, None) if wanted && protocol == Protocol::Grpc => (SHARED, "http://localhost:4317".to_owned()),
            (None, None) if wanted => (SHARED, "http://localhost:4318".to_owned()),
            (None, None) => return None,
        };
        let valid = url::Url::parse(&given).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        if !valid {
            self.problem(name, "a URL such as http://localhost:4318");
            return None;
        }
        let base = given.trim_end_matches('/');
        Some(if name == SHARED && protocol == Protocol::HttpProtobuf { format!("{base}/v1/traces") } else { given })
    }

    fn count(&self, name: &str, default: usize) -> usize {
        let Some(text) = self.get(name) else { return default };
        text.parse().ok().filter(|n| (1..=1 << 20).contains(n)).unwrap_or_else(|| {
            self.problem(name, "a whole number from 1 to 1048576");
            default
        })
    }

    fn millis(&self, names: &[&str], default: u64) -> Duration {
        let found = names.iter().find_map(|name| self.get(name).map(|text| (name, text)));
        Duration::from_millis(found.map_or(default, |(name, text)| {
            text.parse().ok().filter(|n| (1..=3_600_000).contains(n)).unwrap_or_else(|| {
                self.problem(name, "a whole number of milliseconds from 1 to 3600000");
                default
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, TelemetryError> {
        Settings::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn target(variables: &[(&str, &str)]) -> Option<(String, Protocol)> {
        read(variables).unwrap().target.map(|t| (t.endpoint, t.protocol))
    }

    const SHARED: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://tempo:4318/");

    #[test]
    fn nothing_is_exported_unless_it_was_asked_for() {
        assert_eq!(target(&[]), None);
        assert_eq!(target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(target(&[SHARED, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(target(&[SHARED, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        let local = Some(("http://localhost:4318/v1/traces".to_owned(), Protocol::HttpProtobuf));
        assert_eq!(target(&[("OTEL_TRACES_EXPORTER", "otlp")]), local);
    }

    #[test]
    fn the_endpoint_for_traces_is_taken_as_it_is_and_comes_first() {
        assert_eq!(target(&[SHARED]), Some(("http://tempo:4318/v1/traces".into(), Protocol::HttpProtobuf)));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c.example/in");
        assert_eq!(target(&[SHARED, own]), Some(("https://c.example/in".into(), Protocol::HttpProtobuf)));
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(
            target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://tempo:4317"), grpc]),
            Some(("http://tempo:4317".into(), Protocol::Grpc))
        );
        assert_eq!(
            target(&[SHARED, grpc, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")]).unwrap().1,
            Protocol::HttpProtobuf
        );
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "tempo:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ])
        .unwrap_err()
        .to_string();
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "http/protobuf", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_SCHEDULE_DELAY"] {
            assert!(error.contains(name), "{name} in {error}");
        }
        assert!(read(&[("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
    }

    #[test]
    fn batches_follow_the_variables_and_never_exceed_the_queue() {
        let settings = read(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BSP_SCHEDULE_DELAY", "250")]).unwrap();
        assert_eq!((settings.queue, settings.batch, settings.delay), (100, 100, Duration::from_millis(250)));
    }
}
