//! Connections inside a conversation: how a sandbox without a network has one after all.
//!
//! Any number of connections share the wall's one stream, by HTTP/2 (RFC 9113): the executor is its client, the gateway its server,
//! and each connection of a tool is a `CONNECT` (8.5) to where it leads. Each has a window of its own, so that one that is not read
//! holds up no other, and none of them the report.
//!
//! # Guarantees
//! Whoever reads frames never waits here: what comes in is taken at once, and bounded by the windows. A peer that sends more than
//! it was given is none of ours.

mod carrier;
mod connection;
mod relay;
mod stream;

#[cfg(feature = "dispatch")]
pub(crate) use carrier::ByteStream;
#[cfg(feature = "kubernetes")]
pub(crate) use carrier::KEEP;
pub(crate) use carrier::{Carrier, End, Inlet, READY, beside};
#[cfg(feature = "dispatch")]
pub(crate) use connection::accept;
pub(crate) use connection::{Opener, open};
pub(crate) use relay::relay;
pub(crate) use stream::Stream;

use crate::spec::Destination;

/// Most connections of a tool at once.
pub const CONNECTIONS: usize = 64;
/// What may be under way on one of them, each way, before it is read. Less, and a connection waits for its reader most of the time:
/// four processes hand over what is on it.
const WINDOW: u32 = 1 << 20;
/// What may be under way on all of them: a few that are not read leave the others enough, and a call cannot take all of our memory.
const ALL_WINDOWS: u32 = 8 * WINDOW;
/// What a frame of ours carries at most.
const CHUNK: usize = 64 << 10;
/// What small pieces may waste between their arrival and their reader's turn, which comes at once: some 260,000 of a byte.
const SMALL_PIECES: usize = 64 << 20;
/// The header of a frame of HTTP/2 (RFC 9113, 4.1).
const HEADER: u32 = 9;
/// More than windows, headers and what controls them can add up to.
const MOST_HELD: usize = ALL_WINDOWS as usize + (4 << 20);
/// Where the proxy is, among destinations: a name that can never be one (RFC 6761).
const PROXY: &str = "proxy.invalid:3128";

/// Which face of the wall a connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The proxy.
    Proxy,
    /// The one for this destination.
    Direct(Destination),
}

impl Opening {
    /// As the authority of a request.
    fn authority(&self) -> String {
        match self {
            Self::Proxy => PROXY.to_owned(),
            Self::Direct(to) => to.to_string(),
        }
    }

    /// Reads it back.
    #[cfg(feature = "dispatch")]
    fn of(authority: &str) -> Option<Self> {
        if authority == PROXY { Some(Self::Proxy) } else { authority.parse().ok().map(Self::Direct) }
    }
}
