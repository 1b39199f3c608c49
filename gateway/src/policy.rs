//! Policy: asks Rego about one call and turns a yes into the [`Permit`] that the rest of the pipeline needs.
//!
//! Two engines, one face: source folders run on regorus, OPA bundles on opa-wasm. Whatever goes wrong in here is a no.

mod decision;
mod input;
mod permit;

pub use decision::{Decision, Isolation, Obligations};
pub use input::PolicyInput;
pub use permit::Permit;
