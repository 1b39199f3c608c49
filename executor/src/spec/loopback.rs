//! What listed names are inside a sandbox: each has an address of its own on the loopback, behind which the wall listens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Reach;

/// The first of them, away from the addresses that programs use among themselves.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 128, 1, 1);

/// The address of every name that is listed as it is. Labels and networks stand for too many: those are for the proxy.
pub(crate) fn loopbacks(network: &BTreeSet<Reach>) -> BTreeMap<String, Ipv4Addr> {
    let names: BTreeSet<_> = network
        .iter()
        .filter_map(|reach| match reach {
            Reach::One(one) if one.address().is_none() => Some(one.host.clone()),
            _ => None,
        })
        .collect();
    names.into_iter().zip(u32::from(FIRST)..).map(|(name, address)| (name, address.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_address_whatever_its_ports() {
        let network = ["b.example:80", "b.example:443", "a.example:443", "*.c.example:443", "192.0.2.7:443", "10.0.0.0/8:443"];
        let found = loopbacks(&network.iter().map(|entry| entry.parse().unwrap()).collect());
        let expected = [("a.example", [127, 128, 1, 1]), ("b.example", [127, 128, 1, 2])];
        assert_eq!(found, expected.map(|(name, address)| (name.to_owned(), address.into())).into());
    }
}
