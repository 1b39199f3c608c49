//! What one call may reach, and what it has reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::Request;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::contact::{Contact, Contacts};
use super::inject::{self, Injection};
use super::list::{List, connect};
use super::lookup::Lookups;
use super::metered::{Metered, Stream};
use super::{Limits, Refusal, Target};
use crate::spec::{Destination, Reach, loopbacks};
use crate::tunnel::{CONNECTIONS, Opening};
use crate::wire::{Faces, MAX_SPANS, Span};

/// Where the proxy of every sandbox listens. Away from the addresses that programs use among themselves.
const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 128, 0, 1), 3128);
/// Where programs look for what speaks plain HTTP.
const HTTP_PORT: u16 = 80;

/// What the operator sets for the connections of every call.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Bounds of each call.
    pub limits: Limits,
    /// Whom to trust where the wall speaks TLS; see [`trust`](super::trust).
    pub tls: Arc<ClientConfig>,
    /// Where the operator says that these are. Nothing is resolved for them, and they may be inside.
    pub routes: BTreeMap<Destination, SocketAddr>,
}

/// The wall of one call.
#[derive(Debug)]
pub struct Wall {
    list: List,
    injections: Vec<Injection>,
    terms: Terms,
    /// Where a backend says that these are.
    known: Mutex<BTreeMap<Destination, (String, u16)>>,
    connections: AtomicU32,
    /// How many connections its tool has opened, wherever they were to lead.
    openings: AtomicU32,
    /// Places for connections that stand, those that are kept for another request included.
    open: Arc<Semaphore>,
    lookups: Lookups,
    bytes: AtomicU64,
    contacts: Mutex<Contacts>,
    spans: Mutex<Vec<Span>>,
}

impl Wall {
    /// A wall with an opening for each of `list`, which has the destinations of all `injections`.
    pub fn new(list: BTreeSet<Reach>, injections: Vec<Injection>, terms: Terms) -> Arc<Self> {
        Arc::new(Self {
            list: List(list),
            injections,
            terms,
            known: Mutex::default(),
            connections: AtomicU32::new(0),
            openings: AtomicU32::new(0),
            open: Arc::new(Semaphore::new(CONNECTIONS)),
            lookups: Lookups::default(),
            bytes: AtomicU64::new(0),
            contacts: Mutex::default(),
            spans: Mutex::default(),
        })
    }

    /// Whether nothing at all can be reached through it.
    pub fn is_closed(&self) -> bool {
        self.list.0.is_empty()
    }

    /// Every destination that was connected to or asked for, as far as they were kept.
    pub fn contacts(&self) -> Vec<Contact> {
        self.contacts.lock().all()
    }

    /// How often something was refused or failed that is not among the contacts: a tool may ask for as many names as it likes, and for
    /// connections that are to lead nowhere yet.
    pub fn others_refused(&self) -> u32 {
        self.contacts.lock().others()
    }

    /// The spans of its connections and requests so far, at most [`MAX_SPANS`].
    pub fn take_spans(&self) -> Vec<Span> {
        std::mem::take(&mut self.spans.lock())
    }

    pub(crate) fn record(&self, span: Span) {
        let mut spans = self.spans.lock();
        if spans.len() < MAX_SPANS {
            spans.push(span);
        } else if let Some(failed) = spans.iter_mut().find(|kept| kept.error && !span.error) {
            // What was only asked for makes room for what was reached.
            *failed = span;
        }
    }

    pub(super) const fn list(&self) -> &List {
        &self.list
    }

    /// The faces in a sandbox that was made for `network`: the proxy, and for each named destination of this call the address that
    /// its name has there.
    pub(crate) fn faces(&self, network: &BTreeSet<Reach>) -> Option<Faces> {
        if self.is_closed() {
            return None;
        }
        let addresses = loopbacks(network);
        let named = self.list.0.iter().filter_map(|reach| match reach {
            Reach::One(one) => Some((*addresses.get(&one.host)?, one.clone())),
            Reach::Label { .. } | Reach::Network { .. } => None,
        });
        let mut direct = BTreeMap::new();
        for (address, destination) in named {
            if self.injects(&destination) {
                // Its tool speaks plain HTTP, and says so with the port.
                direct.entry(SocketAddrV4::new(address, HTTP_PORT)).or_insert_with(|| destination.clone());
            }
            direct.insert(SocketAddrV4::new(address, destination.port), destination);
        }
        Some(Faces { proxy: PROXY, direct })
    }

    /// Where a destination is, whatever its name says elsewhere.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn know(&self, destination: Destination, host: String, port: u16) {
        self.known.lock().insert(destination, (host, port));
    }

    /// Whether the wall adds something to what goes there, so that it has to see it.
    pub(crate) fn injects(&self, destination: &Destination) -> bool {
        self.injections.iter().any(|one| one.to == *destination)
    }

    /// Whether its tool may open one more. It is noted where not.
    pub(super) fn opens(&self, opening: &Opening) -> bool {
        let opens = self.openings.fetch_add(1, Ordering::Relaxed) < self.terms.limits.connections;
        match opening {
            _ if opens => {}
            Opening::Direct(to) => self.contacts.lock().refused(to),
            Opening::Proxy => self.contacts.lock().refused_somewhere(),
        }
        opens
    }

    /// Whether this may be connected to.
    pub(crate) fn permit(&self, destination: &Destination) -> Result<(), Refusal> {
        self.list.permit(destination).inspect_err(|_| self.contacts.lock().refused(destination))
    }

    /// Where a request truly goes. What the call may not know is added to it here, and nowhere else.
    pub(crate) fn lead<B>(&self, target: Target, request: &mut Request<B>) -> Result<Target, Refusal> {
        inject::strip_hop_by_hop(request.headers_mut());
        let target = self.meant(target);
        self.permit(&target.destination)?;
        inject::inject(&self.injections, &target.destination, request)?;
        Ok(target)
    }

    /// A plain request to a host that is injected for is one to where its injection leads.
    fn meant(&self, asked: Target) -> Target {
        let there = |port: u16| {
            self.injections.iter().find(|one| one.to.host == asked.destination.host && one.to.port == port).map(Injection::target)
        };
        let by_default = || {
            let is_default = !asked.tls && asked.destination.port == HTTP_PORT && self.list.permit(&asked.destination).is_err();
            let mut leading = self.injections.iter().filter(|one| is_default && one.to.host == asked.destination.host);
            leading.next().map(Injection::target)
        };
        there(asked.destination.port).or_else(by_default).unwrap_or(asked)
    }

    /// Connects, within the call's bounds. Checked once more: whoever asks may have been led astray.
    pub(crate) async fn dial(self: &Arc<Self>, destination: &Destination) -> Result<Metered, Refusal> {
        self.permit(destination)?;
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.terms.limits.connections {
            return Err(Refusal::TooMany);
        }
        let dialing = async {
            let place = self.open.clone().acquire_owned().await.map_err(|_| Refusal::TooMany)?;
            Ok((self.reach(destination).await?, place))
        };
        let dialed = timeout(self.terms.limits.connect_timeout, dialing).await;
        match dialed.unwrap_or(Err(Refusal::Late)) {
            Ok((stream, place)) => {
                let meter = self.contacts.lock().connected(destination, stream.peer_addr().ok());
                Ok(Metered::new(stream, self.clone(), meter, place))
            }
            Err(refusal) => {
                self.contacts.lock().refused(destination);
                Err(refusal)
            }
        }
    }

    /// How many connections stand.
    #[cfg(test)]
    pub(super) fn standing(&self) -> usize {
        CONNECTIONS - self.open.available_permits()
    }

    async fn reach(&self, destination: &Destination) -> Result<TcpStream, Refusal> {
        let known = self.known.lock().get(destination).cloned();
        match (self.terms.routes.get(destination), known) {
            (Some(route), _) => connect(*route).await,
            (None, Some((host, port))) => connect((host.as_str(), port)).await,
            (None, None) => connect(&self.list.admit(self.lookups.addresses(destination).await?)?[..]).await,
        }
    }

    /// Connects, and speaks TLS where the target says so.
    pub(crate) async fn connect(self: &Arc<Self>, target: &Target) -> Result<Stream, Refusal> {
        let stream = self.dial(&target.destination).await?;
        if !target.tls {
            return Ok(Stream::Left(stream));
        }
        let name = match target.destination.address() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(target.destination.host.clone()).map_err(|_| Refusal::Malformed)?,
        };
        let greeting = TlsConnector::from(self.terms.tls.clone()).connect(name, stream);
        let greeted = timeout(self.terms.limits.connect_timeout, greeting).await.map_err(|_| Refusal::Late)?;
        greeted.map(Stream::Right).map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => Refusal::Certificate,
                _ => Refusal::Tls,
            }
        })
    }

    /// Counts what crosses, and says whether it still may.
    pub(crate) fn crossed(&self, bytes: u64) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= self.terms.limits.bytes.0
    }
}
