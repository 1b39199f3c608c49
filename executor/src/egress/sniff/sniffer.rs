//! What a beginning is, as it grows.

use rustls::server::Acceptor;

use crate::egress::Refusal;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::egress) enum First {
    /// TLS, with the name it asks for.
    Tls(Option<String>),
    /// A request line of HTTP/1.
    Http,
    /// Whether it may speak TLS, as PostgreSQL's clients ask. A greeting may follow the answer.
    Question,
    /// Text whose first line does not end. It may go on as a request line, and is to be watched for that.
    Text,
    /// Neither, or nothing at all.
    Other,
}

/// How both versions of the PROXY protocol begin: they say for somebody else where a connection comes from, and what is behind them is
/// nobody's greeting.
const PROXY_PROTOCOL: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
/// What PostgreSQL's clients ask before they speak TLS, or GSSAPI (its manual, 55.7): the answer is one byte.
pub(super) const MAY_WE: [&[u8]; 2] = [&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]];

/// The first bytes of a TLS record that holds a handshake (RFC 8446, 5.1): its type, and what every version begins with.
const HANDSHAKE: [u8; 2] = [0x16, 3];

/// Looks at a beginning as it grows, and at each byte once.
#[derive(Default)]
pub(super) struct Sniffer {
    /// How much was looked at.
    seen: usize,
    /// Where its first line that is not empty starts.
    start: Option<usize>,
    /// Whether its first word is over, and may be a method.
    method: bool,
    /// Whether the line names HTTP.
    http: bool,
    greeting: Acceptor,
}

impl Sniffer {
    /// `None`: it may still become something.
    pub(super) fn look(&mut self, buffer: &[u8]) -> Result<Option<First>, Refusal> {
        match begins(buffer, &HANDSHAKE) {
            Begins::So => return self.greeting(buffer),
            Begins::Maybe => return Ok(None),
            Begins::Otherwise => {}
        }
        match any_begins(&MAY_WE, buffer).max(misleads(buffer)) {
            Begins::So if MAY_WE.contains(&buffer) => Ok(Some(First::Question)),
            // Nobody says more before the answer is there.
            Begins::So => Err(Refusal::Unclear),
            Begins::Maybe => Ok(None),
            Begins::Otherwise => self.request_line(buffer),
        }
    }

    fn greeting(&mut self, buffer: &[u8]) -> Result<Option<First>, Refusal> {
        let mut more = &buffer[self.seen..];
        self.seen = buffer.len();
        while !more.is_empty() {
            self.greeting.read_tls(&mut more).map_err(|_| Refusal::Unclear)?;
            match self.greeting.accept() {
                Ok(Some(accepted)) => {
                    return Ok(Some(First::Tls(accepted.client_hello().server_name().map(str::to_ascii_lowercase))));
                }
                Ok(None) => {}
                Err(_) => return Err(Refusal::Unclear),
            }
        }
        Ok(None)
    }

    /// Whether the first line is one of HTTP's. Servers skip empty lines and white space ahead of it, read it in any case, and take a
    /// carriage return for its end or for white space.
    fn request_line(&mut self, buffer: &[u8]) -> Result<Option<First>, Refusal> {
        let seen = std::mem::replace(&mut self.seen, buffer.len());
        let begun = |byte: &u8| *byte != b'\n' && !is_space(byte);
        let Some(start) = self.start.or_else(|| Some(seen + buffer[seen..].iter().position(begun)?)) else { return Ok(None) };
        self.start = Some(start);
        let mut from = seen.max(start);
        if !self.method {
            let Some(length) = buffer[from..].iter().position(|byte| !is_token(byte)) else { return Ok(None) };
            let end = from + length;
            if end == start || !(is_space(&buffer[end]) || buffer[end] == b'\n') {
                return Ok(Some(First::Other));
            }
            self.method = true;
        }
        // Behind a word they let anything pass in a line. What is no word to them and has no text behind it is binary.
        let anything = buffer[start].is_ascii_alphabetic();
        loop {
            let stops = |byte: &u8| matches!(byte, b'\r' | b'\n') || !(anything || is_text(byte));
            let end = buffer[from..].iter().position(stops).map(|length| from + length);
            let overlap = from.saturating_sub(HTTP.len() - 1).max(start);
            let mut words = buffer[overlap..end.unwrap_or(buffer.len())].windows(HTTP.len());
            self.http |= words.any(|word| word.eq_ignore_ascii_case(HTTP));
            let Some(end) = end else { return Ok(None) };
            match buffer[end] {
                b'\r' | b'\n' if self.http => return Ok(Some(First::Http)),
                b'\r' => from = end + 1,
                b'\n' if is_request_of_old(&buffer[start..end]) => return Err(Refusal::Unclear),
                _ => return Ok(Some(First::Other)),
            }
        }
    }

    /// Its end has come: whether it is harmless as it is. Some servers read a line that does not end.
    pub(super) fn ended(mut self, mut buffer: Vec<u8>) -> Result<(), Refusal> {
        buffer.push(b'\n');
        match self.look(&buffer)? {
            Some(First::Other) => Ok(()),
            // Nothing but white space, or the beginning of something that it is not.
            None if !is_greeting(&buffer) => Ok(()),
            _ => Err(Refusal::Unclear),
        }
    }
}

/// Whether it may be the greeting of TLS.
pub(super) fn is_greeting(buffer: &[u8]) -> bool {
    begins(buffer, &HANDSHAKE) != Begins::Otherwise
}

/// How the version of HTTP begins in its request line.
const HTTP: &[u8] = b"http/";

/// Whether something begins like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Begins {
    Otherwise,
    /// As far as it goes.
    Maybe,
    So,
}

fn begins(buffer: &[u8], with: &[u8]) -> Begins {
    match buffer.len().min(with.len()) {
        both if buffer[..both] != with[..both] => Begins::Otherwise,
        both if both < with.len() => Begins::Maybe,
        _ => Begins::So,
    }
}

fn any_begins(with: &[&[u8]], buffer: &[u8]) -> Begins {
    with.iter().map(|with| begins(buffer, with)).fold(Begins::Otherwise, Ord::max)
}

/// What some servers read past, or read, and find a greeting that we did not see: the first and the last that each byte may be.
const AHEAD_OF_A_GREETING: [&[(u8, u8)]; 5] = [
    // A record that changes nothing, and one that warns, of whatever version (RFC 8446, 5.1 and 6).
    &[(0x14, 0x14), (3, 3), ANY, (0, 0), (1, 1), (1, 1)],
    &[(0x15, 0x15), (0, 0x0f), ANY, (0, 0), (2, 2), (1, 1)],
    // A greeting in a record of a version that there is not.
    &[(0x16, 0x16), (0, 2), ANY, ANY, ANY, (1, 1)],
    &[(0x16, 0x16), (4, 0x0f), ANY, ANY, ANY, (1, 1)],
    // The greeting of version 2 (RFC 5246, E.2).
    &[(0x80, 0xff), ANY, (1, 1), (3, 3), (0, 3)],
];
const ANY: (u8, u8) = (0, 0xff);

/// What hides a greeting behind it from us, and not from every server.
fn misleads(buffer: &[u8]) -> Begins {
    let fits = |pattern: &&[(u8, u8)]| {
        let fits = buffer.iter().zip(*pattern).all(|(byte, (first, last))| (first..=last).contains(&byte));
        match fits {
            true if buffer.len() >= pattern.len() => Begins::So,
            true => Begins::Maybe,
            false => Begins::Otherwise,
        }
    };
    AHEAD_OF_A_GREETING.iter().map(fits).fold(any_begins(&PROXY_PROTOCOL, buffer), Ord::max)
}

/// Whether this line is a request of HTTP/0.9, behind which some servers read headers all the same. With `GET` they take a target that
/// begins with no slash, and one with white space in it. (Redis has a `GET key` that its clients do not send.)
fn is_request_of_old(line: &[u8]) -> bool {
    let mut words = line.split(is_space).filter(|word| !word.is_empty());
    let (method, target, more) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
    let leads = target.starts_with(b"/") || target.windows(3).any(|part| part == b"://");
    let of_old = leads && more.is_none() && method.iter().all(u8::is_ascii_uppercase);
    of_old || (method == b"GET" && !target.is_empty())
}

const fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | 0x1c..=0x7e | 0x80..)
}

/// What a name is made of (RFC 9110, 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What some server takes for white space.
const fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}
