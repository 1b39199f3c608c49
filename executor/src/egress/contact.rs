//! What a call has reached, and what it has asked for: for its record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::spec::Destination;

/// Most destinations that are kept of one call, but for those that were reached: what is only asked for is the tool's choice.
const MOST: usize = 64;
/// Most addresses that are kept of one destination.
const MOST_ADDRESSES: usize = 16;

/// One destination of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// As it was asked for.
    pub destination: Destination,
    /// The addresses that were connected to.
    pub addresses: BTreeSet<IpAddr>,
    /// How many connections stood.
    pub connections: u32,
    /// How many were refused or failed.
    pub refused: u32,
    /// Bytes to it.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

/// The bytes of one destination.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: BTreeSet<IpAddr>,
    connections: u32,
    refused: u32,
    meter: Arc<Meter>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    kept: BTreeMap<Destination, Entry>,
    /// How often others were refused, that are not kept.
    others: u32,
}

impl Contacts {
    /// A connection stands. What crosses it is to be counted on what is returned.
    pub(crate) fn connected(&mut self, destination: &Destination, address: Option<SocketAddr>) -> Arc<Meter> {
        // What was only asked for makes room for what was reached.
        if self.kept.len() >= MOST
            && !self.kept.contains_key(destination)
            && let Some(name) = self.kept.iter().find(|(_, entry)| entry.connections == 0).map(|(name, _)| name.clone())
            && let Some(refused) = self.kept.remove(&name)
        {
            self.others = self.others.saturating_add(refused.refused);
        }
        let entry = self.kept.entry(destination.clone()).or_default();
        entry.connections += 1;
        if entry.addresses.len() < MOST_ADDRESSES {
            entry.addresses.extend(address.map(|address| address.ip()));
        }
        entry.meter.clone()
    }

    /// It was not to be.
    pub(crate) fn refused(&mut self, destination: &Destination) {
        if self.kept.len() < MOST || self.kept.contains_key(destination) {
            self.kept.entry(destination.clone()).or_default().refused += 1;
        } else {
            self.refused_somewhere();
        }
    }

    /// Nobody knows where it was to lead.
    pub(crate) const fn refused_somewhere(&mut self) {
        self.others = self.others.saturating_add(1);
    }

    pub(crate) const fn others(&self) -> u32 {
        self.others
    }

    pub(crate) fn all(&self) -> Vec<Contact> {
        let contact = |(destination, entry): (&Destination, &Entry)| Contact {
            destination: destination.clone(),
            addresses: entry.addresses.clone(),
            connections: entry.connections,
            refused: entry.refused,
            sent: entry.meter.sent.load(Ordering::Relaxed),
            received: entry.meter.received.load(Ordering::Relaxed),
        };
        self.kept.iter().map(contact).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_is_kept_whatever_was_asked_for() {
        let mut contacts = Contacts::default();
        for port in 1..=1000 {
            contacts.refused(&format!("asked.example:{port}").parse().unwrap());
        }
        let reached: Destination = "reached.example:443".parse().unwrap();
        contacts.connected(&reached, Some(([192, 0, 2, 1], 443).into())).sent.fetch_add(7, Ordering::Relaxed);
        let all = contacts.all();
        assert_eq!(all.len(), MOST);
        let found = all.iter().find(|contact| contact.destination == reached).unwrap();
        assert_eq!((found.connections, found.sent, found.addresses.len()), (1, 7, 1));
        let refused: u32 = all.iter().map(|contact| contact.refused).sum();
        assert_eq!(refused + contacts.others(), 1000, "what is not kept is counted");
    }
}
