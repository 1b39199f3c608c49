//! What policy is asked.

use serde_json::Value;

/// The policy input of section 6 of the design, as one JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyInput(pub Value);
