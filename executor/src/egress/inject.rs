//! What the wall adds to a tool's requests: credentials that the tool never sees.

use std::collections::BTreeSet;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};

use super::path::{Pattern, normal};
use super::{Refusal, Target};
use crate::spec::Destination;
use crate::wire::SecretText;

/// A header that the wall adds, and to what.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Where the requests lead.
    pub to: Destination,
    /// Whether the wall speaks TLS there.
    pub tls: bool,
    /// The methods of requests that get it; none: all.
    pub methods: BTreeSet<String>,
    /// The paths of requests that get it; none: all.
    pub paths: Vec<Pattern>,
    /// The header's name, such as `authorization`.
    pub header: String,
    /// Its whole value, such as `Bearer ...`.
    pub value: SecretText,
}

impl Injection {
    pub(super) fn target(&self) -> Target {
        Target { destination: self.to.clone(), tls: self.tls }
    }

    fn is_for(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method.as_str()))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.has(path)))
    }

    fn header(&self) -> Result<(HeaderName, HeaderValue), Refusal> {
        let name = HeaderName::try_from(&self.header).map_err(|_| Refusal::Credential)?;
        let mut value = HeaderValue::try_from(self.value.expose()).map_err(|_| Refusal::Credential)?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

/// Adds to a request what is for it, and takes away what only the wall may say there. Its path leaves in the normal form that it was
/// compared in.
pub(super) fn inject<B>(injections: &[Injection], to: &Destination, request: &mut Request<B>) -> Result<(), Refusal> {
    let ours: Vec<_> = injections.iter().filter(|one| one.to == *to).collect();
    if ours.is_empty() {
        return Ok(());
    }
    // It answers with what it was sent, credentials included.
    if request.method() == Method::TRACE {
        return Err(Refusal::Method);
    }
    if says_another_method(request.uri().query().unwrap_or_default()) && ours.iter().any(|one| !one.methods.is_empty()) {
        return Err(Refusal::Method);
    }
    let path = normal(request.uri().path())?;
    let headers = ours.iter().map(|one| one.header()).collect::<Result<Vec<_>, _>>()?;
    let reserved = |name: &HeaderName| {
        let name = folded(name.as_str());
        OTHER_SAY.contains(&&*name) || headers.iter().any(|(ours, _)| folded(ours.as_str()) == name)
    };
    let taken: Vec<_> = request.headers().keys().filter(|name| reserved(name)).cloned().collect();
    for name in taken {
        request.headers_mut().remove(name);
    }
    for (one, (name, value)) in ours.iter().zip(headers) {
        if one.is_for(request.method(), &path) {
            request.headers_mut().insert(name, value);
        }
    }
    *request.uri_mut() = with_path(request.uri(), &path)?;
    Ok(())
}

/// Headers that some servers take for the method or the path of a request, in place of those that were compared.
const OTHER_SAY: [&str; 12] = [
    "x-envoy-original-path",
    "x-forwarded-method",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
];
/// `_method`, folded: a parameter that some take for the method. One in a body is not seen.
const METHOD_PARAMETER: &str = "-method";

/// Whether a query has that parameter, as any server may read it: behind `;` too, and with every sign that is neither letter nor digit
/// taken for `_`, up to a NUL.
fn says_another_method(query: &str) -> bool {
    let mut pairs = query.split(['&', ';']).flat_map(|pair| form_urlencoded::parse(pair.as_bytes()));
    pairs.any(|(name, _)| {
        let name = name.split('\0').next().unwrap_or_default().trim_start();
        folded(name).eq_ignore_ascii_case(METHOD_PARAMETER)
    })
}

/// A header's name as programs get it from servers that have one sign for all that is neither letter nor digit.
fn folded(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect()
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, Refusal> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).map_err(|_| Refusal::Path)?);
    Uri::from_parts(parts).map_err(|_| Refusal::Path)
}

/// Takes away what is said to the next hop and not to the destination (RFC 9110, 7.6.1), and what is said to a proxy.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    const HOP_BY_HOP: [HeaderName; 8] = [
        http::header::CONNECTION,
        http::header::PROXY_AUTHENTICATE,
        http::header::PROXY_AUTHORIZATION,
        http::header::TE,
        http::header::TRAILER,
        http::header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(methods: &[&str], paths: &[&str]) -> Injection {
        Injection {
            to: "api.example.com:443".parse().unwrap(),
            tls: true,
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            header: "authorization".into(),
            value: SecretText::new("Bearer secret"),
        }
    }

    /// What leaves of a request that says it has a credential of its own.
    fn sent(injections: &[Injection], to: &str, method: &str, path: &str) -> Result<(String, Option<String>), Refusal> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "mine")
            .body(())
            .map_err(|_| Refusal::Malformed)?;
        inject(injections, &to.parse().unwrap(), &mut request)?;
        let header = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        Ok((request.uri().to_string(), header))
    }

    #[test]
    fn only_what_it_is_for_gets_it_and_nothing_else_can_say_it() {
        let one = [injection(&["GET"], &["/repos/**"])];
        let secret = Some("Bearer secret".to_owned());
        assert_eq!(sent(&one, "api.example.com:443", "GET", "/repos/a/b?c=d"), Ok(("/repos/a/b?c=d".into(), secret.clone())));
        assert_eq!(sent(&one, "api.example.com:443", "GET", "/x/%2e%2e/repos/a"), Ok(("/repos/a".into(), secret)));
        for (method, path) in [("POST", "/repos/a"), ("GET", "/admin"), ("GET", "/repos/../admin"), ("get", "/repos/a")] {
            assert_eq!(sent(&one, "api.example.com:443", method, path).unwrap().1, None, "{method} {path}");
        }
        assert_eq!(sent(&one, "other.example.com:443", "GET", "/repos/a").unwrap().1.as_deref(), Some("mine"));
        assert_eq!(sent(&one, "api.example.com:443", "TRACE", "/repos/a"), Err(Refusal::Method));
        assert_eq!(sent(&one, "api.example.com:443", "GET", "/repos//a"), Err(Refusal::Path));
        for query in ["a=b&%5fmethod=GET", "a=b;_METHOD=GET", ".method=GET", "%20_method%00x=GET"] {
            assert_eq!(sent(&one, "api.example.com:443", "POST", &format!("/x?{query}")), Err(Refusal::Method), "{query}");
        }
        assert!(sent(&one, "api.example.com:443", "POST", "/x?method=GET").is_ok());
    }

    #[test]
    fn what_servers_take_for_the_same_header_is_taken_away_too() {
        let key = Injection { header: "x-api-key".into(), ..injection(&["GET"], &[]) };
        let mut request = Request::builder().method("POST").uri("/");
        for name in ["X_Api_Key", "x-api_key", "X.HTTP_Method-Override", "X-Original-URL", "accept_this"] {
            request = request.header(name, "mine");
        }
        let mut request = request.body(()).unwrap();
        inject(&[key], &"api.example.com:443".parse().unwrap(), &mut request).unwrap();
        assert_eq!(request.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept_this"]);
    }

    #[test]
    fn what_is_said_to_the_proxy_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
