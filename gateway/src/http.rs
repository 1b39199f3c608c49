//! The HTTP doors: the agents' door, observability and administration, and what they have in common.
//!
//! A door only translates: requests into what the [pipeline](crate::gateway) takes, and its answers into responses. It
//! decides nothing about a call, and holds nothing of one.

pub mod admin;
pub mod agents;
mod authentication;
mod body;
mod events;
pub mod observability;
mod openapi;
mod prefer;
pub(crate) mod problem;
pub mod serve;
pub mod socket;
pub(crate) mod strict;
mod submission;
mod traceparent;

pub use authentication::Authenticate;
pub use body::BodyLimits;
