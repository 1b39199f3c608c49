//! The trusted side of Mayfly: protocols, identity, policy, records.
//!
//! Where a call goes, in order: a door ([`http`]) hands it to [`gateway`], which reads top to bottom. Where it is authorized: [`policy`].

pub mod build;
pub mod call;
pub mod caller;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod custodian;
pub mod document;
pub mod engines;
pub mod error;
pub mod gateway;
pub mod generation;
pub mod http;
pub mod inspect;
pub mod limits;
pub mod live;
pub mod operator;
pub mod policy;
pub mod program;
pub mod record;
pub mod redact;
pub mod runner;
pub mod secrets;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod trial;
pub mod units;
pub mod view;
pub mod watch;
