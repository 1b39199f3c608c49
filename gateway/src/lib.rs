//! The trusted side of Mayfly: protocols, identity, policy, records.
//!
//! Where a call goes, in order: a door ([`http`]) hands it to [`gateway`], which reads top to bottom. Where it is authorized: [`policy`].

pub mod build;
pub mod call;
pub mod caller;
pub mod catalog;
pub mod document;
pub mod error;
pub mod gateway;
pub mod limits;
pub mod cli;
pub mod error;
pub mod gateway;
pub mod http;
pub mod policy;
pub mod trial;
pub mod units;
pub mod store;
