//! What the first bytes of a connection say of where it leads: the name in a TLS greeting, or that it is HTTP, which names its host.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::{List, Refusal};
use crate::spec::Destination;

/// The longest greeting or request line.
const MOST: usize = 64 << 10;
/// How long the rest of a greeting or of a line is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How both versions of the PROXY protocol begin.
const PROXY_PROTOCOL: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
/// What PostgreSQL's clients ask before they speak TLS, or GSSAPI (its manual, 55.7): the answer is one byte.
const MAY_WE: [&[u8]; 2] = [&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]];

/// Whether this is a question, and a greeting may follow the answer.
pub(super) fn asks_for_tls(said: &[u8]) -> bool {
    MAY_WE.contains(&said)
}

/// The first byte of a TLS record that holds a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// TLS, with the name it asks for.
    Tls(Option<String>),
    /// A request line of HTTP/1.
    Http,
    /// Text whose first line does not end. It may go on as a request line, and is to be watched for that.
    Text,
    /// Neither, or nothing at all.
    Other,
}

/// Reads into `buffer` until it is clear what it is.
pub(super) async fn first(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Result<First, Refusal> {
    let mut sniffer = Sniffer::default();
    loop {
        if let Some(first) = sniffer.look(buffer)? {
            return Ok(first);
        }
        if buffer.len() > MOST {
            return Err(Refusal::Unclear);
        }
        // Whoever has said nothing yet may wait for the other side. Whoever has begun may wait for an answer.
        let patience = if buffer.is_empty() { Duration::MAX } else { PATIENCE };
        match timeout(patience, stream.read_buf(buffer)).await {
            // What ends before it is clear is no request that anybody would answer.
            Ok(Ok(0) | Err(_)) => return Ok(First::Other),
            Ok(Ok(_)) => {}
            Err(_) if buffer.first() == Some(&HANDSHAKE) => return Err(Refusal::Unclear),
            Err(_) => return Ok(First::Text),
        }
    }
}

/// A stream whose first line must not turn out to be a request line: what was said of it is with the server already.
pub(super) struct Watched<S> {
    stream: S,
    /// The line, as long as it goes on.
    line: Option<(Vec<u8>, Sniffer)>,
}

impl<S> Watched<S> {
    /// Goes on watching behind `said`.
    pub(super) fn new(said: Vec<u8>, stream: S) -> Self {
        Self { stream, line: Some((said, Sniffer::default())) }
    }

    fn heard(&mut self, more: &[u8]) -> io::Result<()> {
        let Some((line, sniffer)) = &mut self.line else { return Ok(()) };
        line.extend_from_slice(more);
        let over = line.len() > MOST;
        match sniffer.look(line) {
            Ok(None) if !over => return Ok(()),
            Ok(Some(First::Other)) => {}
            _ => return Err(io::Error::other(Refusal::Unclear)),
        }
        self.line = None;
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let heard = self.heard(&buffer.filled()[before..]);
        if heard.is_err() {
            buffer.set_filled(before);
        }
        Poll::Ready(heard)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Looks at a beginning as it grows, and at each byte once.
#[derive(Default)]
struct Sniffer {
    /// How much was looked at.
    seen: usize,
    /// Where its first line that is not empty starts.
    start: Option<usize>,
    /// Whether that begins with what may be a method.
    method: bool,
    greeting: Acceptor,
}

impl Sniffer {
    /// `None`: it may still become something.
    fn look(&mut self, buffer: &[u8]) -> Result<Option<First>, Refusal> {
        match buffer {
            [] => Ok(None),
            [HANDSHAKE, ..] => self.greeting(buffer),
            // TLS that begins with something else than its greeting, or with the greeting of version 2: some servers read on.
            [0x14 | 0x15 | 0x17, 3, ..] => Err(Refusal::Unclear),
            [first, _, 1, 3, ..] if *first >= 0x80 => Err(Refusal::Unclear),
            // Says for somebody else where a connection comes from, and what is behind it is nobody's greeting.
            _ if PROXY_PROTOCOL.iter().any(|begins| buffer.starts_with(begins)) => Err(Refusal::Unclear),
            _ => Ok(self.request_line(buffer)),
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

    /// Whether the first line ends like one of HTTP's. Servers skip empty lines ahead of it, and some read it in any case.
    fn request_line(&mut self, buffer: &[u8]) -> Option<First> {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let seen = std::mem::replace(&mut self.seen, buffer.len());
        let start = match self.start {
            Some(start) => start,
            None => seen + buffer[seen..].iter().position(|byte| !is_end(byte))?,
        };
        self.start = Some(start);
        let from = seen.max(start);
        // Behind a method, and some servers take every kind of white space for its end, they let anything pass in a line.
        self.method |= is_method(&buffer[start..]);
        let goes_on = |byte: &u8| !is_end(byte) && (self.method || is_text(byte));
        let end = from + buffer[from..].iter().position(|byte| !goes_on(byte))?;
        if !is_end(&buffer[end]) {
            return Some(First::Other);
        }
        let line = buffer[start..end].to_ascii_lowercase();
        let is_http = line.windows(5).any(|word| word == b"http/");
        Some(if is_http { First::Http } else { First::Other })
    }
}

const fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | 0x1c..=0x7e | 0x80..)
}

/// Whether a line begins with a token (RFC 9110, 5.6.2) that ends.
fn is_method(line: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = line.iter().position(|byte| !is_token(byte));
    end.is_some_and(|end| end > 0 && matches!(line[end], b' ' | b'\t' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0))
}

/// Whether the name that TLS asks for is where the connection leads. One destination may serve many names, and the list has one.
pub(super) fn agrees(name: Option<&str>, destination: &Destination, list: &List) -> Result<(), Refusal> {
    match (name, destination.address()) {
        (Some(name), None) if name == destination.host => Ok(()),
        (None, Some(_)) => Ok(()),
        (Some(name), Some(_)) => {
            list.permit(&Destination { host: name.to_owned(), port: destination.port }).map_err(|_| Refusal::Misdirected)
        }
        _ => Err(Refusal::Misdirected),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn look_at(said: &[u8]) -> Result<Option<First>, Refusal> {
        Sniffer::default().look(said)
    }

    /// What a client of rustls says first.
    fn hello(name: &'static str) -> Vec<u8> {
        let tls = super::super::trust(&[]).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&tls), name.try_into().unwrap()).unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said
    }

    #[test]
    fn a_greeting_tells_its_name_however_it_is_cut() {
        let said = hello("api.example.com");
        for cut in 1..said.len() {
            assert_eq!(look_at(&said[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(look_at(&said), Ok(Some(First::Tls(Some("api.example.com".into())))));
        assert_eq!(look_at(&hello("192.0.2.7")), Ok(Some(First::Tls(None))));
        assert_eq!(look_at(b"\x16garbage garbage garbage"), Err(Refusal::Unclear));
    }

    #[test]
    fn a_request_line_is_told_from_other_text() {
        for http in [
            "GET\x0c/\x0cHTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nFOO /x HTTP/1.0\n",
            "get / http/1.1\r",
            "PRI * HTTP/2.0\r\n",
            "A HTTP/1.1 \n",
        ] {
            assert_eq!(look_at(http.as_bytes()), Ok(Some(First::Http)), "{http:?}");
        }
        for other in ["EHLO example.com\r\n", "SET a b\r\n", "\0\0\0\x08\x04\x42\x16/", "*1\r\n$4\r\nPING\r\n"] {
            assert_eq!(look_at(other.as_bytes()), Ok(Some(First::Other)), "{other:?}");
        }
        for proxied in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n!"] {
            assert_eq!(look_at(proxied), Err(Refusal::Unclear));
        }
        for unclear in ["", "\r\n", "G", "GET / HTTP/1.1"] {
            assert_eq!(look_at(unclear.as_bytes()), Ok(None), "{unclear:?}");
        }
    }

    #[tokio::test]
    async fn what_never_becomes_clear_is_refused() {
        let endless = vec![b'a'; MOST + 2];
        assert_eq!(first(&mut &endless[..], &mut Vec::new()).await, Err(Refusal::Unclear));
        assert_eq!(first(&mut &b"GET / HT"[..], &mut Vec::new()).await, Ok(First::Other));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_pauses_is_watched_to_its_end() {
        for (begun, rest, goes) in
            [("ping", "", true), ("ping", " pong\r\nGET / HTTP/1.1\r\n", true), ("GET / HT", "TP/1.1\r\n", false)]
        {
            let (mut near, mut far) = tokio::io::duplex(64);
            near.write_all(begun.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            assert_eq!(first(&mut far, &mut said).await, Ok(First::Text));
            near.write_all(rest.as_bytes()).await.unwrap();
            drop(near);
            let mut read = Vec::new();
            let watched = Watched::new(said, far).read_to_end(&mut read).await;
            assert_eq!((watched.is_ok(), read.is_empty()), (goes, !goes || rest.is_empty()), "{begun} {rest}");
        }
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(b"\x16\x03").await.unwrap();
        assert_eq!(first(&mut far, &mut Vec::new()).await, Err(Refusal::Unclear));
    }

    #[test]
    fn what_some_servers_would_read_past_does_not_hide_a_request_or_a_greeting() {
        for http in ["GET /\x01 HTTP/1.1\r\n", "GET /\x7f\0 http/1.0\n", "X\x0b/ HTTP/1.1\r"] {
            assert_eq!(look_at(http.as_bytes()), Ok(Some(First::Http)), "{http:?}");
        }
        for tls in [&b"\x15\x03\x01\0\x02\x01\0\x16\x03\x01"[..], b"\x80\x2e\x01\x03\x01", b"\x14\x03\x03"] {
            assert_eq!(look_at(tls), Err(Refusal::Unclear), "{tls:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_beginning_that_comes_byte_by_byte_is_the_same() {
        for (said, expected) in [
            (hello("api.example.com"), First::Tls(Some("api.example.com".into()))),
            (b"\r\nGET / HTTP/1.1\r\n".to_vec(), First::Http),
            (b"EHLO me\r\n".to_vec(), First::Other),
        ] {
            let (mut near, mut far) = tokio::io::duplex(1);
            let saying = tokio::spawn(async move { near.write_all(&said).await });
            assert_eq!(first(&mut far, &mut Vec::new()).await, Ok(expected));
            drop(far);
            let _ = saying.await.unwrap();
        }
    }

    #[test]
    fn the_name_and_the_destination_agree() {
        let list = List(["api.example.com:443", "192.0.2.7:443"].iter().map(|entry| entry.parse().unwrap()).collect());
        for (name, destination, is_so) in [
            (Some("api.example.com"), "api.example.com:443", true),
            (Some("evil.example.com"), "api.example.com:443", false),
            (None, "api.example.com:443", false),
            (None, "192.0.2.7:443", true),
            (Some("api.example.com"), "192.0.2.7:443", true),
            (Some("evil.example.com"), "192.0.2.7:443", false),
        ] {
            assert_eq!(agrees(name, &destination.parse().unwrap(), &list).is_ok(), is_so, "{name:?} {destination}");
        }
    }
}
