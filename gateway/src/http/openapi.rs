//! The description of the agents' door (OpenAPI 3.1): what the handlers say of themselves, and what holds for all of them.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::problem::Problem;
use crate::call::CallEvent;

/// What holds for every path.
#[derive(OpenApi)]
#[openapi(
    info(title = "Mayfly", description = "Submit tool calls; each runs, if policy allows it, in a sandbox that lives for this one call."),
    components(schemas(Problem, CallEvent)),
    security(("agent_key" = [])),
    modifiers(&AgentKey)
)]
pub(super) struct Frame;

struct AgentKey;

impl Modify for AgentKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("mf_<id>_<secret>".to_owned());
        scheme.description = Some("A key from `mayfly agent add`.".to_owned());
        openapi.components.get_or_insert_default().add_security_scheme("agent_key", SecurityScheme::Http(scheme));
    }
}
