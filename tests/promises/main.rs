//! The promises of Mayfly, each kept through the real doors of a real process. One file a promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod access;
mod attacks;
mod bad_input;
mod calls;
mod cancel;
mod crash;
mod credentials;
mod docker;
mod doors;
mod drain;
mod egress;
mod events;
mod kubernetes;
mod limits;
mod manifests;
mod orphans;
mod outage;
mod postgres_query;
mod published_policy;
mod records;
mod reload;
mod shipped_tools;
mod traces;
mod warm;
