//! Tools and spans as a caller sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::Tool;
use crate::catalog::definition::Tier;

/// What `GET /v1/tools` shows of a tool. What it runs on is not the agent's business.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// Its tier.
    pub tier: Tier,
    /// JSON Schema 2020-12 of the arguments.
    pub input_schema: Value,
    /// JSON Schema 2020-12 of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

impl From<&Tool> for ToolView {
    fn from(tool: &Tool) -> Self {
        let definition = &tool.definition;
        Self {
            name: definition.name.clone(),
            version: definition.version.clone(),
            description: definition.description.clone(),
            tier: definition.tier,
            input_schema: definition.input_schema.clone(),
            output_schema: definition.output_schema.clone(),
        }
    }
}

/// One span of a call's trace, for a waterfall.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SpanView {
    /// 16 hex digits.
    pub span_id: String,
    /// Its parent; `null` for the root.
    pub parent_span_id: Option<String>,
    /// Name.
    pub name: String,
    /// Microseconds after the root span began.
    pub start_us: u64,
    /// Length in microseconds.
    pub duration_us: u64,
    /// Whether it failed.
    pub error: bool,
    /// Attributes.
    pub attributes: BTreeMap<String, Value>,
}
