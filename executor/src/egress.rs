//! Where a call may connect to, and the way there: the one place from which anything leaves in a tool's name.
//!
//! # Flow
//! listed? -> resolve once -> every address admitted? -> connect to exactly these
//!
//! A [`Wall`] is all of it for one call: its list, what is added to its requests, its bounds, and what it has reached. Components
//! send requests through it (`wasm::http`); the connections of container tools arrive in [`serve`], over the wall's own stream.
//!
//! # Guarantees
//! Names are compared as written in the list; addresses that a name resolves to are refused unless they are on the public
//! Internet or the list has them as addresses. One refused answer refuses them all: a name that points both outwards and
//! inwards is either a mistake or an attack. What is connected to is what was looked at: nothing is resolved twice.

mod contact;
mod http;
mod inject;
mod io;
mod list;
mod lookup;
mod metered;
mod path;
mod public;
mod raw;
mod serve;
mod sniff;
mod spans;
mod target;
mod wall;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::spec::ByteSize;
pub use contact::Contact;
pub use inject::Injection;
pub(crate) use list::List;
#[cfg(feature = "wasm")]
pub(crate) use metered::Stream;
pub use path::Pattern;
pub(crate) use serve::{Ends, serve};
#[cfg(feature = "wasm")]
pub(crate) use spans::{Begun, RequestSpan};
pub(crate) use target::Target;
pub use wall::{Terms, Wall};

/// Bounds of what one call may do outside. Its deadline bounds all of it besides.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections that its tool opens, and most that are made for them, those that were refused by their destination included.
    pub connections: u32,
    /// Most bytes, both ways and all connections together.
    pub bytes: ByteSize,
    /// Longest time until a connection stands, and once more for TLS.
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1000, bytes: ByteSize(1 << 30), connect_timeout: Duration::from_secs(10) }
    }
}

/// TLS as the wall speaks it: ring, the roots that browsers trust, and those of the PEM files' contents in `more`.
///
/// # Errors
/// A sentence, when one of them holds no certificate that can be a root.
pub fn trust(more: &[Vec<u8>]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    for pem in more {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| format!("it is no PEM: {error}"))?;
        if certificates.is_empty() {
            return Err("it holds no certificate".into());
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| format!("one of its certificates cannot be a root: {error}"))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Why a request or a connection does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("the URL is not http(s)://host[:port]/...")]
    Malformed,
    #[error("the destination is not listed")]
    NotListed,
    #[error("the name resolves to an address that is not public and not listed")]
    AddressNotListed,
    #[error("the name does not resolve")]
    NoAddress,
    #[error("nothing there takes connections")]
    Refused,
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it did not answer in time")]
    Late,
    #[error("it did not answer as HTTP does")]
    NoAnswer,
    #[error("it does not speak TLS with us")]
    Tls,
    #[error("its certificate is not one that we trust")]
    Certificate,
    #[error("the call has no more connections")]
    TooMany,
    #[error("what was said first may be anything, a name that is not listed included")]
    Unclear,
    #[error("the name in `Host` or in the TLS greeting is not the one that was connected to")]
    Misdirected,
    #[error("a credential is added there, and only to what can be seen: speak plain HTTP to it, the gateway speaks TLS")]
    PlainOnly,
    #[error("the method is not forwarded")]
    Method,
    #[error("the path can be read in two ways; write it without empty segments and encoded slashes")]
    Path,
    #[error("the credential cannot be a header")]
    Credential,
}

#[cfg(test)]
mod tests;
