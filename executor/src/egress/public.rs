//! Which addresses are on the public Internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is a public unicast one (IANA special-purpose registries, RFC 6890 and its successors).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // "This network", private, loopback, multicast and reserved.
        (0 | 10 | 127 | 224..=255, ..) => true,
        // Carrier-grade NAT, in which some clouds keep their metadata.
        (100, 64..=127, _) => true,
        // Link-local, and the metadata service of most clouds.
        (169, 254, _) => true,
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    // Azure's metadata and host service has a public address.
    !special && address != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 (RFC 6052): the IPv4 address it stands for decides.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        // Protocol assignments with Teredo, documentation, and 6to4, which carry other addresses inside.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast. Everything else (loopback, mapped, unique local with its metadata address, link-local, multicast) is not.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
