//! What is known of Rego's builtins: which are refused, and which cannot fail.

/// Builtins that are refused, and why. A trailing dot stands for a whole family.
const REFUSED: [(&str, &str); 9] = [
    ("http.send", "policy decides on its input and data alone; put what it needs into the data"),
    ("net.lookup_ip_addr", "policy decides on its input and data alone; put what it needs into the data"),
    ("opa.runtime", "it shows the gateway's configuration and environment"),
    ("rand.", "a decision must not depend on chance"),
    ("uuid.rfc4122", "a decision must not depend on chance"),
    ("numbers.range", "it fills memory before any limit can end it"),
    ("numbers.range_step", "it fills memory before any limit can end it"),
    ("net.cidr_expand", "it fills memory before any limit can end it; use net.cidr_contains"),
    ("bits.lsh", "it fills memory before any limit can end it"),
];

/// Builtins that take any value: they cannot fail.
const TOTAL: [&str; 10] =
    ["is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name", "print", "json.marshal"];

/// Why a builtin is refused, if it is.
pub(super) fn refusal(builtin: &str) -> Option<&'static str> {
    let is_meant = |name: &str| builtin == name || (name.ends_with('.') && builtin.starts_with(name));
    REFUSED.iter().find(|(name, _)| is_meant(name)).map(|(_, why)| *why)
}

/// Whether a builtin gives a value for every argument.
pub(super) fn cannot_fail(builtin: &str) -> bool {
    TOTAL.contains(&builtin)
}
