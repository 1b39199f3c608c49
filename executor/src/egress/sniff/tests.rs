//! Beginnings, honest and not, however they are cut.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::sniffer::MAY_WE;
use super::*;

fn look_at(said: &[u8]) -> Result<Option<First>, Refusal> {
    Sniffer::default().look(said)
}

/// What a client of rustls says first.
fn hello(name: &'static str) -> Vec<u8> {
    let tls = crate::egress::trust(&[]).unwrap();
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
    assert_eq!(look_at(b"\x16\x03garbage garbage garbage"), Err(Refusal::Unclear));
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
    for other in [
        "EHLO example.com\r\n",
        "SET a b\r\n",
        "get /users/42\r\n",
        "\x16GET / HTTP/1.1\r\n",
        "OPTIONS rtsp://example.com/ RTSP/1.0\r\n",
        "{\"message\": \"GET / HTTP/1.1\"}\n",
        "<134>1 - GET / HTTP/1.1\n",
        "\x0bMSH|^~\\&|",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\0\0\x08\x04\x42\x16/",
        "\0\0\0\x10",
        "*1\r\n$4\r\nPING\r\n",
        // LDAP asks whether it may speak TLS; a packet of MySQL's that is 0x116 bytes long.
        "0\x1d\x02\x01\x01w\x18",
        "\x16\x01\0\x01\u{5}\u{26}",
    ] {
        assert_eq!(look_at(other.as_bytes()), Ok(Some(First::Other)), "{other:?}");
    }
    for unclear in ["", "\r\n", "G", "GET / HTTP/1.1"] {
        assert_eq!(look_at(unclear.as_bytes()), Ok(None), "{unclear:?}");
    }
}

#[tokio::test]
async fn what_never_becomes_clear_is_refused() {
    let endless = vec![b'a'; MOST + 2];
    assert_eq!(first(&mut &endless[..], &mut Vec::new()).await, Err(Refusal::Unclear));
    for (said, becomes) in [
        (&b""[..], Ok(First::Other)),
        (b"ping", Ok(First::Other)),
        (b"EHLO me", Ok(First::Other)),
        (b"GET / HT", Err(Refusal::Unclear)),
        (b"GET http://other.example.com/ HTTP/1.1", Err(Refusal::Unclear)),
        (b"\x16\x03\x01", Err(Refusal::Unclear)),
    ] {
        assert_eq!(first(&mut &said[..], &mut Vec::new()).await, becomes, "{said:?}");
    }
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
fn what_some_servers_would_read_past_does_not_hide_a_request() {
    for http in [
        "GET /\x01 HTTP/1.1\r\n",
        "GET /\x7f\0 http/1.0\n",
        "X\x0b/ HTTP/1.1\r",
        "GET / \rHTTP/1.1\r\n",
        "GET\r/ HTTP/1.1\n",
        "\x1cGET /?\0 HTTP/1.1\r\n",
    ] {
        assert_eq!(look_at(http.as_bytes()), Ok(Some(First::Http)), "{http:?}");
    }
}

/// Beginnings that hide what is behind them from us, and not from every server.
const MISLEADING: [&[u8]; 13] = [
    b"\x15\x03\x01\0\x02\x01\0\x16\x03\x01",
    b"\x80\x2e\x01\x03\x01",
    b"\x14\x03\x03\0\x01\x01\x16\x03\x01",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n!",
    b"\0\0\0\x08\x04\xd2\x16\x2f\x16\x03\x01",
    b"GET /x\r\nHost: other.example.com\r\n\r\n",
    b"GET x\nHost: other.example.com\n\n",
    b"\r\nPOST http://other.example.com/\n",
    b"PUT /admin\r\nHost: other.example.com\r\n\r\n",
    b"GET http://other.example.com/ x\n",
    b"\x15\x02\x01\0\x02\x01\0\x16\x03\x01",
    b"\x16\x02\x01\x02\0\x01\0\x01\xfc\x03\x03",
];

#[test]
fn what_hides_something_is_refused_however_it_is_cut() {
    for said in MISLEADING {
        assert_eq!(look_at(said), Err(Refusal::Unclear), "{said:?}");
        let mut sniffer = Sniffer::default();
        let looks: Vec<_> = (1..=said.len()).map(|cut| sniffer.look(&said[..cut])).collect();
        let clear = looks.iter().find(|look| !matches!(look, Ok(None | Some(First::Question))));
        assert_eq!(clear, Some(&Err(Refusal::Unclear)), "{said:?}");
    }
    for question in MAY_WE {
        assert_eq!(look_at(question), Ok(Some(First::Question)));
        assert!((1..question.len()).all(|cut| look_at(&question[..cut]) == Ok(None)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_hides_nothing() {
    for said in MISLEADING.into_iter().chain(MAY_WE).chain([&b"GET / HTTP/1.1\r\n"[..]]) {
        for cut in 1..said.len() {
            let (mut near, mut far) = tokio::io::duplex(1 << 10);
            near.write_all(&said[..cut]).await.unwrap();
            let mut before = Vec::new();
            match first(&mut far, &mut before).await {
                Ok(First::Text) => {
                    near.write_all(&said[cut..]).await.unwrap();
                    drop(near);
                    let mut read = Vec::new();
                    assert!(Watched::new(before, far).read_to_end(&mut read).await.is_err(), "{said:?} cut at {cut}");
                    assert!(read.len() < said.len() - cut, "{said:?} cut at {cut}: {read:?}");
                }
                // It is clear, or refused.
                told => {
                    assert!(matches!(told, Ok(First::Http | First::Question) | Err(_)), "{said:?} cut at {cut}: {told:?}")
                }
            }
        }
    }
}

#[test]
fn each_byte_is_looked_at_once() {
    // Were they looked at again and again, this would be some ten thousand million.
    for line in [vec![b'a'; MOST], [b"A ", &vec![b'\r'; MOST][..]].concat(), [b"A ", &vec![b'x'; MOST][..]].concat()] {
        let mut sniffer = Sniffer::default();
        assert!((1..=line.len()).all(|cut| sniffer.look(&line[..cut]) == Ok(None)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_comes_byte_by_byte_is_the_same() {
    for (said, expected) in [
        (hello("api.example.com"), First::Tls(Some("api.example.com".into()))),
        (b"\r\nGET / HTTP/1.1\r\n".to_vec(), First::Http),
        (b"EHLO me\r\n".to_vec(), First::Other),
        (MAY_WE[0].to_vec(), First::Question),
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
