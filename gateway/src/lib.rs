//! The trusted side of Mayfly: protocols, identity, policy, records.
//!
//! Where a call goes, in order: a door ([`http`]) hands it to [`gateway`], which reads top to bottom. Where it is authorized: [`policy`].

pub mod build;
pub mod call;
pub mod caller;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod document;
pub mod error;
pub mod gateway;
pub mod generation;
pub mod http;
mod inspect;
pub mod limits;
mod live;
mod operator;
pub mod policy;
mod record;
mod runner;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod trial;
pub mod units;
mod view;
pub mod watch;
