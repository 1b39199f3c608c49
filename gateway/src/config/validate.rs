//! What must hold between and within the keys beyond their types.

use std::path::{Component, Path};
use std::time::Duration;

use mayfly_executor::spec::ByteSize;
use url::{Host, Url};

use super::{Config, SourceConfig};
use crate::document::{Document, Problem};

/// The longest path of a Unix socket (`sun_path` in unix(7), without its NUL).
const SOCKET_PATH_MOST: usize = 107;

/// The longest lease of somebody else's that may be left behind.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);

/// Every mistake.
pub(super) fn check(config: &Config, document: &Document) -> Vec<Problem> {
    let mut problems = durations(config, document);
    problems.extend(sizes(config, document));
    problems.extend(credentials(config, document));
    problems.extend(config.egress.check(document));
    let mut refuse = |pointer: &str, what: String, accepted: &str| problems.push(document.error(pointer, what, accepted));

    if config.listen == config.observability_listen && config.listen.port() != 0 {
        refuse("/observability_listen", format!("is {}, where agents call", config.listen), "an address of its own");
    }
    if config.limits.burst < config.limits.requests_per_second {
        let what = format!("is {}, less than `requests_per_second`", config.limits.burst);
        refuse("/limits/burst", what, &format!("{} or more", config.limits.requests_per_second));
    }
    let socket = config.admin_socket();
    if socket.as_os_str().len() > SOCKET_PATH_MOST {
        let key = if config.admin_socket.is_some() { "/admin_socket" } else { "/data_dir" };
        let what = format!("makes the administration socket {} bytes long", socket.as_os_str().len());
        refuse(key, what, &format!("a path that leaves it at most {SOCKET_PATH_MOST} bytes"));
    }
    for (index, mount) in config.allowed_mounts.iter().enumerate() {
        if !is_plain_folder(mount) {
            refuse(
                &format!("/allowed_mounts/{index}"),
                format!("is `{}`", mount.display()),
                "an absolute path without `..`, and not `/`",
            );
        }
    }
    problems
}

fn durations(config: &Config, document: &Document) -> Vec<Problem> {
    const SECOND: Duration = Duration::from_secs(1);
    let minutes = |n: u64| Duration::from_secs(60 * n);
    [
        ("/policy/time_limit", config.policy.time_limit, Duration::from_millis(1), Duration::from_secs(10), "1ms to 10s"),
        ("/limits/header_timeout", config.limits.header_timeout, SECOND, minutes(1), "1s to 1m"),
        ("/limits/wait", config.limits.wait, SECOND, minutes(60), "1s to 1h"),
        ("/drain_grace", config.drain_grace, Duration::ZERO, minutes(10), "0s to 10m"),
        ("/start_timeout", config.start_timeout, SECOND, minutes(10), "1s to 10m"),
    ]
    .into_iter()
    .filter(|(_, given, least, most, _)| given < least || given > most)
    .map(|(pointer, .., accepted)| document.error(pointer, "is out of bounds", accepted))
    .collect()
}

fn sizes(config: &Config, document: &Document) -> Vec<Problem> {
    [
        ("/limits/body", config.limits.body, ByteSize(1 << 10), ByteSize::mebibytes(64)),
        ("/wasm/max_memory", config.wasm.max_memory, ByteSize::mebibytes(1), ByteSize(4 << 30)),
    ]
    .into_iter()
    .filter(|(_, given, least, most)| given < least || given > most)
    .map(|(pointer, _, least, most)| document.error(pointer, "is out of bounds", format!("{least} to {most}")))
    .collect()
}

/// The names that `tool.yaml` has to be able to say, and what cannot be told by the shape alone.
fn credentials(config: &Config, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, source) in &config.credentials {
        let at = format!("/credentials/{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let is_name = name.len() <= 63 && name.bytes().next().is_some_and(plain);
        if !is_name || !name.bytes().all(|b| plain(b) || b"._-".contains(&b)) {
            let accepted = "a lower-case letter or digit, then at most 62 lower-case letters, digits, `.`, `_` and `-`";
            problems.push(document.error(&at, "is no name for a source", accepted));
        }
        match source {
            SourceConfig::Kubernetes(token) if token.namespace == config.kubernetes.namespace => {
                let what = "is where sandboxes run, and a Secret there could be mounted by one";
                problems.push(document.error(&format!("{at}/namespace"), what, "a namespace of its own"));
            }
            SourceConfig::Postgres(postgres) if !is_plain_database(&postgres.url) => {
                let accepted = "postgres://user@host:port/database, with at most `sslmode` and `sslrootcert` behind `?`";
                problems.push(document.error(
                    &format!("{at}/url"),
                    "says more than where the database is and who makes roles",
                    accepted,
                ));
            }
            SourceConfig::Vault(vault) if !is_private(&vault.address) => {
                problems.push(document.error(&format!("{at}/address"), "would carry a token in the clear", "https://host:port"));
            }
            SourceConfig::Oauth2(oauth2) if !is_private(&oauth2.token_url) => {
                problems.push(document.error(&format!("{at}/token_url"), "would carry tokens in the clear", "an https:// URL"));
            }
            SourceConfig::Vault(vault) if vault.max_ttl < Duration::from_secs(60) || vault.max_ttl > MAX_LEASE => {
                problems.push(document.error(&format!("{at}/max_ttl"), "is out of bounds", "1m to 24h"));
            }
            _ => {}
        }
    }
    problems
}

/// Whether a URL names a database and nothing that would override what else is said, or that a tool must not have.
fn is_plain_database(url: &str) -> bool {
    let plain = |url: &Url| url.query_pairs().all(|(key, _)| matches!(&*key, "sslmode" | "sslrootcert")) && url.path().len() > 1;
    Url::parse(url).is_ok_and(|url| plain(&url))
}

/// Whether what is sent there can be read by nobody on the way.
fn is_private(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    url.scheme() == "https" || is_here
}

fn is_plain_folder(path: &Path) -> bool {
    path.is_absolute() && path != Path::new("/") && path.components().skip(1).all(|c| matches!(c, Component::Normal(_)))
}
