//! The backends whose sandboxes are containers, against real engines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so by a panic")]

#[path = "containers/cluster.rs"]
mod cluster;
#[path = "containers/docker.rs"]
mod docker;
#[path = "containers/images.rs"]
mod images;
#[path = "containers/kubernetes.rs"]
mod kubernetes;
#[path = "containers/support.rs"]
mod support;
#[path = "containers/wall.rs"]
mod wall;
