//! What one call may connect to.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::net::{TcpStream, ToSocketAddrs};

use super::Refusal;
use super::public::is_public;
use crate::spec::{Destination, Reach};

/// What one call may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct List(pub(crate) BTreeSet<Reach>);

impl List {
    /// Whether it has this destination.
    pub(crate) fn permit(&self, destination: &Destination) -> Result<(), Refusal> {
        if self.0.iter().any(|reach| reach.has(destination)) { Ok(()) } else { Err(Refusal::NotListed) }
    }

    /// The addresses to connect to, all of them admitted.
    pub(crate) fn admit(&self, answers: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refusal> {
        if answers.is_empty() {
            return Err(Refusal::NoAddress);
        }
        let listed = |answer: &SocketAddr| self.0.iter().any(|reach| reach.has_address(answer.ip(), answer.port()));
        if answers.iter().all(|answer| is_public(answer.ip()) || listed(answer)) {
            Ok(answers)
        } else {
            Err(Refusal::AddressNotListed)
        }
    }
}

/// Connects without a look at where that is.
pub(super) async fn connect(admitted: impl ToSocketAddrs) -> Result<TcpStream, Refusal> {
    let stream = TcpStream::connect(admitted).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Refusal::Refused,
        _ => Refusal::Unreachable,
    })?;
    // A small request must not wait for the answer to the one before.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> List {
        List(entries.iter().map(|entry| entry.parse().unwrap()).collect())
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
            assert_eq!(
                list(&["name.example:443", "*.example.com:443"]).admit(vec![answer]),
                Err(Refusal::AddressNotListed),
                "{inside}"
            );
        }
        for outside in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "2606:4700::1", "64:ff9b::808:808"] {
            assert!(list(&[]).admit(vec![SocketAddr::new(outside.parse().unwrap(), 443)]).is_ok(), "{outside}");
        }
    }

    #[test]
    fn an_address_inside_is_reached_only_if_listed_literally_with_its_port() {
        let answer = SocketAddr::from(([127, 0, 0, 1], 8080));
        assert_eq!(list(&["127.0.0.1:8080"]).admit(vec![answer]), Ok(vec![answer]));
        assert_eq!(
            list(&["127.0.0.1:8081", "localhost:8080", "127.0.0.0/8:80"]).admit(vec![answer]),
            Err(Refusal::AddressNotListed)
        );
    }

    #[test]
    fn one_answer_inside_refuses_them_all() {
        let answers = vec![SocketAddr::from(([8, 8, 8, 8], 443)), SocketAddr::from(([10, 0, 0, 1], 443))];
        assert_eq!(list(&["name.example:443"]).admit(answers), Err(Refusal::AddressNotListed));
        assert_eq!(list(&["name.example:443"]).admit(vec![]), Err(Refusal::NoAddress));
    }

    #[test]
    fn a_network_that_is_listed_has_its_addresses_whatever_name_led_there() {
        let answer = SocketAddr::from(([10, 1, 2, 3], 5432));
        assert_eq!(list(&["db.internal:5432", "10.1.0.0/16:5432"]).admit(vec![answer]), Ok(vec![answer]));
        assert_eq!(list(&["db.internal:5432", "10.2.0.0/16:5432"]).admit(vec![answer]), Err(Refusal::AddressNotListed));
    }
}
