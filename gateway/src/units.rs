//! How durations and shares of a CPU are written in our files: `30s`, `500ms`, `2m`; `0.5`, `500m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use mayfly_executor::egress::Pattern;
use mayfly_executor::spec::{ByteSize, Destination, Reach};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::Format;

/// The `format` names that our published schemas use, each with its parser.
pub const FORMATS: &[Format] = &[
    Format { name: "mayfly-duration", reads: |text| parse_duration(text).is_ok() },
    Format { name: "mayfly-size", reads: |text| text.parse::<ByteSize>().is_ok() },
    Format { name: "mayfly-cpu", reads: |text| text.parse::<Cpu>().is_ok() },
    Format { name: "mayfly-destination", reads: |text| text.parse::<Reach>().is_ok() },
    Format { name: "mayfly-place", reads: |text| text.parse::<Destination>().is_ok() },
    Format { name: "mayfly-path", reads: |text| text.parse::<Pattern>().is_ok() },
    Format { name: "mayfly-address", reads: |text| text.parse::<std::net::SocketAddr>().is_ok() },
];

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a whole number of `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A sentence that names what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    DURATION_UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .filter(|(digits, _)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|(digits, factor)| digits.parse::<u64>().ok()?.checked_mul(*factor))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration; write a whole number with ms, s, m or h, such as 30s"))
}

/// Writes a duration in the largest unit that takes it whole; what is below a millisecond is dropped.
pub fn write_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, factor) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, f)| millis >= u128::from(*f) && millis.is_multiple_of(u128::from(*f)))
        .unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / u128::from(*factor))
}

/// A [`Duration`] as `30s`, for `#[serde(with = ...)]`.
pub mod duration_text {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse_duration, write_duration};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&write_duration(*duration))
    }

    /// Reads it.
    ///
    /// # Errors
    /// The text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A share of CPU time in thousandths of a core, written `0.5` or `500m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    /// Thousandths of a core.
    pub millis: u32,
}

impl FromStr for Cpu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all_digits = |t: &str| !t.is_empty() && t.len() <= 6 && t.bytes().all(|b| b.is_ascii_digit());
        let millis = match (text.strip_suffix('m'), text.split_once('.')) {
            (Some(digits), _) if all_digits(digits) => digits.parse().ok(),
            (None, Some((whole, part))) if all_digits(whole) && all_digits(part) && part.len() <= 3 => {
                let part = format!("{part:0<3}");
                whole.parse::<u32>().ok().and_then(|w| w.checked_mul(1000)?.checked_add(part.parse().ok()?))
            }
            (None, None) if all_digits(text) => text.parse::<u32>().ok().and_then(|w| w.checked_mul(1000)),
            _ => None,
        };
        millis
            .map(|millis| Self { millis })
            .ok_or_else(|| format!("`{text}` is not a share of CPU; write cores such as 0.5, or 500m"))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.millis)
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text.parse(),
            // `0.5` without quotes is a number in YAML; its text is what was written.
            serde_json::Value::Number(number) => number.to_string().parse(),
            _ => Err("a share of CPU is a number of cores such as 0.5, or a text such as 500m".to_owned()),
        }
        .map_err(D::Error::custom)
    }
}

impl JsonSchema for Cpu {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cpu".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"], "format": "mayfly-cpu", "pattern": r"^([0-9]{1,6}m|[0-9]{1,3}(\.[0-9]{1,3})?)$", "minimum": 0.001, "maximum": 1000})
    }
}

/// The schema of a duration.
pub fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "mayfly-duration", "pattern": "^[0-9]+(ms|s|m|h)$"})
}

/// The schema of a [`ByteSize`].
pub fn size_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "mayfly-size", "pattern": "^[0-9]+(Ki|Mi|Gi)?$"})
}

/// The schema of a [`Reach`].
pub fn destination_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "mayfly-destination", "description": "host:port such as api.example.com:443, *.example.com:443 for one label, or 10.0.0.0/8:5432"})
}

/// The schema of a socket address.
pub fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "mayfly-address"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_come_back_as_written() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(write_duration(Duration::from_secs(90)), "90s");
        assert_eq!(write_duration(Duration::from_secs(7200)), "2h");
        for wrong in ["", "30", "s", "1.5s", "-1s", "1 s", "99999999999999999999s", "18446744073709551615h", "1d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpu_is_cores_or_thousandths() {
        for (text, millis) in [("0.5", 500), ("500m", 500), ("2", 2000), ("1.25", 1250), ("0.001", 1)] {
            assert_eq!(text.parse::<Cpu>(), Ok(Cpu { millis }), "{text}");
        }
        assert_eq!(serde_json::from_str::<Cpu>("0.5").unwrap(), Cpu { millis: 500 });
        for wrong in ["", "m", "-1", "0.0005", "1.5m", "1e3", "9999999"] {
            assert!(wrong.parse::<Cpu>().is_err(), "{wrong}");
        }
    }
}
