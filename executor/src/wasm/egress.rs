//! Where a call may connect to, decided without connecting.
//!
//! Names are compared as written in the list; addresses that a name resolves to are refused unless they are on the public
//! Internet or the list names them literally. One refused answer refuses them all: a name that points both outwards and
//! inwards is either a mistake or an attack.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;

use crate::spec::Destination;

/// Why a request does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("the URL is not http(s)://host[:port]/...")]
    Malformed,
    #[error("the destination is not listed")]
    NotListed,
    #[error("the name resolves to an address that is not public and not listed")]
    AddressNotListed,
    #[error("the name does not resolve")]
    NoAddress,
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) destination: Destination,
    pub(super) tls: bool,
}

impl Target {
    /// Reads a URL, its default port made explicit.
    pub(super) fn of(url: &Uri) -> Result<Self, Refusal> {
        let tls = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Refusal::Malformed),
        };
        let authority = url.authority().ok_or(Refusal::Malformed)?;
        // Nobody needs a user name here, and it is what confuses readers of URLs about where they lead.
        if authority.as_str().contains('@') {
            return Err(Refusal::Malformed);
        }
        let host = authority.host();
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| Refusal::Malformed)?.to_string(),
            None => host.to_ascii_lowercase(),
        };
        // `host:` and `host:99999` have no port for the parser, and must not become the default one.
        let port = match (authority.port_u16(), authority.as_str().len() == authority.host().len()) {
            (Some(port), _) => port,
            (None, true) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            (None, false) => return Err(Refusal::Malformed),
        };
        Ok(Self { destination: Destination { host, port }, tls })
    }

    /// The target itself, when the list has it.
    pub(super) fn listed_in(self, egress: &BTreeSet<Destination>) -> Result<Self, Refusal> {
        if egress.contains(&self.destination) { Ok(self) } else { Err(Refusal::NotListed) }
    }

    /// The `Host` header (RFC 9110, 7.2).
    pub(super) fn host_header(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let whole = self.destination.to_string();
        if self.destination.port != default {
            return whole;
        }
        whole.strip_suffix(&format!(":{default}")).map_or_else(|| whole.clone(), str::to_owned)
    }
}

/// The addresses to connect to, all of them admitted.
pub(super) fn admit(egress: &BTreeSet<Destination>, answers: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refusal> {
    if answers.is_empty() {
        return Err(Refusal::NoAddress);
    }
    let listed = |answer: &SocketAddr| egress.contains(&Destination { host: answer.ip().to_string(), port: answer.port() });
    if answers.iter().all(|answer| is_public(answer.ip()) || listed(answer)) {
        Ok(answers)
    } else {
        Err(Refusal::AddressNotListed)
    }
}

/// Whether an address is a public unicast one (IANA special-purpose registries, RFC 6890 and its successors).
fn is_public(address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> BTreeSet<Destination> {
        entries.iter().map(|entry| entry.parse().unwrap()).collect()
    }

    fn reaches(url: &str, egress: &[&str]) -> Result<String, Refusal> {
        let url = url.parse::<Uri>().map_err(|_| Refusal::Malformed)?;
        Ok(Target::of(&url)?.listed_in(&list(egress))?.destination.to_string())
    }

    #[test]
    fn only_a_listed_host_and_port_is_reached() {
        let egress = ["api.example.com:443", "plain.example.com:80", "[::1]:8080", "10.0.0.1:80"];
        for (url, destination) in [
            ("https://api.example.com/x?y=1", "api.example.com:443"),
            ("https://API.Example.com:443/", "api.example.com:443"),
            ("http://plain.example.com", "plain.example.com:80"),
            ("http://[0:0::1]:8080/", "[::1]:8080"),
            ("http://10.0.0.1/", "10.0.0.1:80"),
            ("http://api.example.com:443/", "api.example.com:443"),
        ] {
            assert_eq!(reaches(url, &egress).as_deref(), Ok(destination), "{url}");
        }
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com.evil.com/",
            "https://evil.com/api.example.com:443",
            "https://api.example.com./",
            "https://sub.api.example.com/",
            "http://10.0.0.1:81/",
            "http://[::ffff:10.0.0.1]/",
            "http://167772161/",
        ] {
            assert_eq!(reaches(url, &egress), Err(Refusal::NotListed), "{url}");
        }
        for url in [
            "https://api.example.com:443@evil.com/",
            "https://user@api.example.com/",
            "ftp://api.example.com:443/",
            "/relative",
            "https://api.example.com:/",
            "https://api.example.com:99999/",
        ] {
            assert_eq!(reaches(url, &egress), Err(Refusal::Malformed), "{url}");
        }
        assert_eq!(reaches("https://api.example.com/", &[]), Err(Refusal::NotListed));
    }

    #[test]
    fn an_answer_inside_is_refused() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            let answer = SocketAddr::new(inside.parse().unwrap(), 443);
            assert_eq!(admit(&list(&["name.example:443"]), vec![answer]), Err(Refusal::AddressNotListed), "{inside}");
        }
        for outside in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "2606:4700::1", "64:ff9b::808:808"] {
            assert!(admit(&list(&[]), vec![SocketAddr::new(outside.parse().unwrap(), 443)]).is_ok(), "{outside}");
        }
    }

    #[test]
    fn an_address_inside_is_reached_only_if_listed_literally_with_its_port() {
        let answer = SocketAddr::from(([127, 0, 0, 1], 8080));
        assert_eq!(admit(&list(&["127.0.0.1:8080"]), vec![answer]), Ok(vec![answer]));
        assert_eq!(admit(&list(&["127.0.0.1:8081", "localhost:8080"]), vec![answer]), Err(Refusal::AddressNotListed));
    }

    #[test]
    fn one_answer_inside_refuses_them_all() {
        let answers = vec![SocketAddr::from(([8, 8, 8, 8], 443)), SocketAddr::from(([10, 0, 0, 1], 443))];
        assert_eq!(admit(&list(&["name.example:443"]), answers), Err(Refusal::AddressNotListed));
        assert_eq!(admit(&list(&["name.example:443"]), vec![]), Err(Refusal::NoAddress));
    }

    #[test]
    fn the_host_header_leaves_a_default_port_out() {
        let header = |url: &str| Target::of(&url.parse().unwrap()).unwrap().host_header();
        assert_eq!(header("https://Example.com/"), "example.com");
        assert_eq!(header("http://example.com:443/"), "example.com:443");
        assert_eq!(header("http://[::1]/"), "[::1]");
    }
}
