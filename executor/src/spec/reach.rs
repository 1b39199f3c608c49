//! Where connections lead, and where they may.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One place to connect to: `host:port`, `[::1]:443` or `192.0.2.7:443`. Nothing is implied: no default port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// A lower-case DNS name, or an IP address without brackets.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Destination {
    /// Its host as an address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Where the tools of pods find the API server of their cluster: the name that its certificate has for them.
pub const API_SERVER: &str = "kubernetes.default.svc";

impl Destination {
    /// The API server of the cluster that a pod is in.
    pub fn api_server() -> Self {
        Self { host: API_SERVER.to_owned(), port: 443 }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a destination; write host:port, such as api.example.com:443");
        let (host, port) = split(text).ok_or_else(wrong)?;
        let host = match bracketed(host) {
            // One that maps an address of IPv4 leads to that.
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_canonical().to_string(),
            // An IPv6 address without its brackets cannot be told from its port.
            None if host.contains(':') => return Err(wrong()),
            None => host.to_ascii_lowercase(),
        };
        let named = host.parse::<IpAddr>().is_ok() || is_name(&host);
        named.then_some(Self { host, port }).ok_or_else(wrong)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a tool lists: a destination, `*.example.com:443` for any one label in front of a name, or `10.0.0.0/8:5432` for the addresses
/// of a network. Private, loopback and link-local addresses are reached only where an address or a network of the list has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Exactly this.
    One(Destination),
    /// Every name that is one label longer than this.
    Label {
        /// The name behind the label.
        parent: String,
        /// The port.
        port: u16,
    },
    /// Every address in it.
    Network {
        /// The network.
        network: IpNet,
        /// The port.
        port: u16,
    },
}

impl Reach {
    /// Whether it has this destination, as it is written: nothing is resolved.
    pub fn has(&self, destination: &Destination) -> bool {
        match self {
            Self::One(one) => one == destination,
            Self::Label { parent, port } => {
                let behind = destination.host.split_once('.').map(|(_, behind)| behind);
                *port == destination.port && behind == Some(parent) && destination.address().is_none()
            }
            Self::Network { network, port } => {
                *port == destination.port && destination.address().is_some_and(|address| network.contains(&address))
            }
        }
    }

    /// Whether this address is listed as an address.
    pub fn has_address(&self, address: IpAddr, to_port: u16) -> bool {
        let address = address.to_canonical();
        match self {
            Self::One(one) => one.port == to_port && one.address() == Some(address),
            Self::Network { network, port } => *port == to_port && network.contains(&address),
            Self::Label { .. } => false,
        }
    }

    /// Whether everything that it has, `other` has too.
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), other) => other.has(one),
            (Self::Network { network, port }, Self::Network { network: wider, port: to }) => {
                port == to && wider.contains(network)
            }
            (this, other) => this == other,
        }
    }
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is nothing to connect to; write host:port such as api.example.com:443, *.example.com:443, or 10.0.0.0/8:5432"
            )
        };
        let (host, port) = split(text).ok_or_else(wrong)?;
        if let Some(parent) = host.strip_prefix("*.") {
            let parent = parent.to_ascii_lowercase();
            // One label behind it would be all of a top-level domain.
            let names = is_name(&parent) && parent.contains('.') && parent.parse::<IpAddr>().is_err();
            return names.then_some(Self::Label { parent, port }).ok_or_else(wrong);
        }
        if host.contains('/') {
            let network = bracketed(host).unwrap_or(host).parse::<IpNet>().map_err(|_| wrong())?;
            let bare = matches!(network, IpNet::V6(_)) == bracketed(host).is_some() && network.trunc() == network;
            return bare.then_some(Self::Network { network, port }).ok_or_else(wrong);
        }
        text.parse().map(Self::One).map_err(|_| wrong())
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Label { parent, port } => write!(f, "*.{parent}:{port}"),
            Self::Network { network: IpNet::V6(network), port } => write!(f, "[{network}]:{port}"),
            Self::Network { network: IpNet::V4(network), port } => write!(f, "{network}:{port}"),
        }
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Destination);
as_text!(Reach);

fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    Some((host, port.parse().ok().filter(|port| digits && *port != 0)?))
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && label.bytes().all(plain)
    };
    !host.is_empty() && host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Reach {
        text.parse().unwrap()
    }

    fn destination(text: &str) -> Destination {
        text.parse().unwrap()
    }

    #[test]
    fn a_destination_names_host_and_port() {
        assert_eq!(destination("API.example.com:443").to_string(), "api.example.com:443");
        assert_eq!(destination("[::1]:80").to_string(), "[::1]:80");
        for wrong in [
            "example.com",
            "example.com:0",
            ":443",
            "a b:1",
            "::1:80",
            "*.example.com:443",
            "http://x:80",
            "x:65536",
            "-x:1",
            "x:+1",
        ] {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_list_has_destinations_labels_and_networks() {
        for text in ["api.example.com:443", "*.example.com:443", "10.0.0.0/8:5432", "[fd00::/8]:443", "[::1]:80"] {
            assert_eq!(reach(text).to_string(), text);
        }
        for wrong in [
            "*:443",
            "*.com:443",
            "*.*.example.com:443",
            "a.*.com:443",
            "*.10.0.0.1:443",
            "10.0.0.1/8:443",
            "10.0.0.0/33:443",
            "fd00::/8:443",
            "[10.0.0.0/8]:443",
            "10.0.0.0/8",
            "*.example.com",
            "x*.example.com:443",
        ] {
            assert!(wrong.parse::<Reach>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_label_is_exactly_one_and_a_network_has_addresses_only() {
        let label = reach("*.example.com:443");
        assert!(label.has(&destination("a.example.com:443")));
        for other in
            ["example.com:443", "a.b.example.com:443", "a.example.com:80", "aexample.com:443", "a.example.com.evil.com:443"]
        {
            assert!(!label.has(&destination(other)), "{other}");
        }
        let network = reach("10.0.0.0/8:5432");
        assert!(network.has(&destination("10.1.2.3:5432")) && network.has_address("10.1.2.3".parse().unwrap(), 5432));
        assert!(!network.has(&destination("11.1.2.3:5432")) && !network.has(&destination("10.1.2.3:80")));
        assert!(!label.has_address("10.1.2.3".parse().unwrap(), 443));
    }

    #[test]
    fn what_narrows_is_within() {
        for (narrow, wide, within) in [
            ("a.example.com:443", "*.example.com:443", true),
            ("*.example.com:443", "*.example.com:443", true),
            ("*.example.com:443", "a.example.com:443", false),
            ("10.1.0.0/16:443", "10.0.0.0/8:443", true),
            ("10.0.0.0/8:443", "10.1.0.0/16:443", false),
            ("10.1.2.3:443", "10.0.0.0/8:443", true),
            ("10.1.2.3:80", "10.0.0.0/8:443", false),
            ("a.example.com:443", "b.example.com:443", false),
        ] {
            assert_eq!(reach(narrow).is_within(&reach(wide)), within, "{narrow} {wide}");
        }
    }
}
