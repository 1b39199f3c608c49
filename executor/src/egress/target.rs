//! Where a URL leads.

use std::net::Ipv6Addr;

use http::Uri;
use http::uri::Scheme;

use super::Refusal;
use crate::spec::Destination;

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) destination: Destination,
    pub(crate) tls: bool,
}

impl Target {
    /// Reads a URL, its default port made explicit.
    pub(crate) fn of(url: &Uri) -> Result<Self, Refusal> {
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

    /// Its host as an authority has it.
    pub(super) fn without_port(&self) -> String {
        let whole = self.destination.to_string();
        whole.strip_suffix(&format!(":{}", self.destination.port)).map_or_else(|| whole.clone(), str::to_owned)
    }

    /// The `Host` header (RFC 9110, 7.2).
    pub(crate) fn host_header(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.destination.port == default { self.without_port() } else { self.destination.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::List;
    use super::*;

    fn reaches(url: &str, egress: &[&str]) -> Result<String, Refusal> {
        let url = url.parse::<Uri>().map_err(|_| Refusal::Malformed)?;
        let list = List(egress.iter().map(|entry| entry.parse().unwrap()).collect());
        let target = Target::of(&url)?;
        list.permit(&target.destination).map(|()| target.destination.to_string())
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
    fn the_host_header_leaves_a_default_port_out() {
        let header = |url: &str| Target::of(&url.parse().unwrap()).unwrap().host_header();
        assert_eq!(header("https://Example.com/"), "example.com");
        assert_eq!(header("http://example.com:443/"), "example.com:443");
        assert_eq!(header("http://[::1]/"), "[::1]");
    }
}
