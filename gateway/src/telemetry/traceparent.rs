//! The `traceparent` header of W3C Trace Context, <https://www.w3.org/TR/trace-context/#traceparent-header>.

use opentelemetry::trace::{SpanId, TraceId};

/// Whose child a call is. The sampled flag is read past: a caller that does not record its own trace does not switch off ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Never zero.
    pub trace_id: TraceId,
    /// Never zero.
    pub span_id: SpanId,
}

impl TraceParent {
    /// Reads a header's value. `None` for whatever the specification tells a receiver to ignore.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim_matches([' ', '\t']);
        let mut fields = header.splitn(4, '-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = TraceId::from_hex(hex(fields.next()?, 32)?).ok()?;
        let span_id = SpanId::from_hex(hex(fields.next()?, 16)?).ok()?;
        let rest = fields.next()?;
        match version {
            "ff" => return None,
            "00" => hex(rest, 2)?,
            // A later version may say more after the flags, behind another dash.
            _ => hex(rest.split('-').next()?, 2)?,
        };
        let parent = Self { trace_id, span_id };
        (trace_id != TraceId::INVALID && span_id != SpanId::INVALID).then_some(parent)
    }
}

impl std::fmt::Display for TraceParent {
    /// Version 00, sampled: what we hand on is always recorded.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{}-{}-01", self.trace_id, self.span_id)
    }
}

/// `text`, if it is exactly `length` lower-case hex digits.
fn hex(text: &str, length: usize) -> Option<&str> {
    (text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(TraceParent::parse(&format!("  {GOOD}\t")), Some(parent));
        assert_eq!(TraceParent::parse(&GOOD.replacen("00", "cc", 1)), Some(parent), "a later version");
        assert_eq!(TraceParent::parse(&format!("{}-more", GOOD.replacen("00", "cc", 1))), Some(parent));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        let wrong = [
            String::new(),
            "-".repeat(55),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0g", 1),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("0af7", "é7"),
            GOOD.replace("0af7", "+af7"),
            GOOD[..54].to_owned(),
            GOOD.replace('-', "_"),
            format!("cc{}x", &GOOD[2..]),
        ];
        for header in wrong {
            assert_eq!(TraceParent::parse(&header), None, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn what_we_write_we_read(trace in 1u128.., span in 1u64..) {
            let parent = TraceParent { trace_id: TraceId::from(trace), span_id: SpanId::from(span) };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn nothing_makes_it_panic(header in "\\PC*") {
            let _ = TraceParent::parse(&header);
        }

        /// One changed byte: never something that the SDK's own reader would refuse.
        #[test]
        fn nothing_is_read_that_the_sdk_refuses(at in 0usize..55, byte in proptest::char::range(' ', '~')) {
            let header: String = GOOD.char_indices().map(|(i, c)| if i == at { byte } else { c }).collect();
            if let Some(parent) = TraceParent::parse(&header) {
                let carrier = HashMap::from([("traceparent".to_owned(), header.trim().to_owned())]);
                let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier);
                prop_assert_eq!(context.span().span_context().trace_id(), parent.trace_id);
                prop_assert_eq!(context.span().span_context().span_id(), parent.span_id);
            }
        }
    }
}
