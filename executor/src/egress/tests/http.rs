//! The proxy, and plain requests that get a credential.

use super::*;

const API: &str = "api.example.com:443";

#[tokio::test]
async fn a_plain_request_leaves_by_tls_with_a_credential_that_the_tool_never_sees() {
    let api = Server::tls("api.example.com", &ok("fine")).await;
    let tool = Tool::new(&[API], &[(API, &api)], vec![bearer(API, &["GET"], &["/v1/**"])]).await;
    let asked = "GET /v1/./things?a=b HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer mine\r\n\r\n";
    let answered = tool.says(Some(API), asked).await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("fine") && !answered.contains("canary"), "{answered}");
    let heard = api.heard().to_ascii_lowercase();
    assert!(heard.starts_with("get /v1/things?a=b http/1.1\r\n"), "{heard}");
    assert!(heard.contains("host: api.example.com\r\n") && heard.contains("authorization: bearer canary\r\n"), "{heard}");
    assert!(!heard.contains("mine"), "{heard}");
    // What it is not for goes without, and without what the tool says in its place.
    let post = asked.replace("GET /v1", "POST /v2");
    assert!(tool.says(Some(API), &post).await.starts_with("HTTP/1.1 200"));
    assert_eq!(api.heard().matches("canary").count(), 1);
    assert!(!api.heard().contains("mine"));
}

#[tokio::test]
async fn a_proxied_request_gets_it_too_whatever_port_it_says() {
    let api = Server::tls("api.example.com", &ok("fine")).await;
    let tool = Tool::new(&[API], &[(API, &api)], vec![bearer(API, &[], &[])]).await;
    for url in ["http://api.example.com/x", "http://api.example.com:443/x", "http://API.example.com:80/x"] {
        let answered = tool.says(None, &format!("GET {url} HTTP/1.1\r\nHost: whatever.example\r\n\r\n")).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{url}: {answered}");
    }
    let heard = api.heard().to_ascii_lowercase();
    assert_eq!((heard.matches("bearer canary").count(), heard.matches("host: api.example.com\r\n").count()), (3, 3), "{heard}");
    assert!(!heard.contains("whatever"), "{heard}");
}

#[tokio::test]
async fn a_tunnel_is_not_dug_where_a_credential_is_added() {
    let api = Server::tls("api.example.com", &ok("fine")).await;
    let tool = Tool::new(&[API], &[(API, &api)], vec![bearer(API, &[], &[])]).await;
    let answered = tool.says(None, "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 403") && answered.contains("speak plain HTTP"), "{answered}");
    assert_eq!(api.heard(), "");
    // Nor is there one behind the direct face.
    assert!(
        tool.says(Some(API), "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n").await.contains("405")
    );
}

#[tokio::test]
async fn what_is_not_listed_is_not_reached_and_said_so() {
    let api = Server::plain(&ok("fine")).await;
    let tool =
        Tool::new(&["plain.example.com:80"], &[("plain.example.com:80", &api), ("other.example.com:80", &api)], vec![]).await;
    for (asked, status) in [
        ("GET http://other.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\n\r\n", "403"),
        ("CONNECT other.example.com:80 HTTP/1.1\r\nHost: other.example.com:80\r\n\r\n", "403"),
        ("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n", "403"),
        ("CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "403"),
        ("GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: x\r\n\r\n", "403"),
        ("GET http://user@plain.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: plain.example.com\r\n\r\n", "400"),
        ("GET http://plain.example.com/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    ] {
        let answered = tool.says(None, asked).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{asked}: {answered}");
        assert!(answered.contains("application/problem+json") || status == "400", "{answered}");
    }
    assert_eq!(api.heard(), "");
    let contacts = tool.wall.contacts();
    assert!(contacts.iter().all(|contact| contact.connections == 0 && contact.refused > 0), "{contacts:?}");
    assert!(contacts.iter().any(|contact| contact.destination.to_string() == "169.254.169.254:80"), "{contacts:?}");
}

#[tokio::test]
async fn two_readers_do_not_see_two_requests_in_one() {
    let api = Server::tls("api.example.com", &ok("fine")).await;
    let tool = Tool::new(&[API], &[(API, &api)], vec![bearer(API, &["GET"], &["/public/**"])]).await;
    let head = "Host: api.example.com\r\n";
    for smuggled in [
        // Two lengths, a length and chunks, chunks that a lenient reader takes for something else, a folded header, a bare CR.
        format!(
            "GET /public/a HTTP/1.1\r\n{head}Content-Length: 5\r\nContent-Length: 30\r\n\r\nhelloGET /admin HTTP/1.1\r\n{head}\r\n"
        ),
        format!("GET /public/a HTTP/1.1\r\n{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n{head}\r\n"),
        format!("GET /public/a HTTP/1.1\r\n{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n{head}\r\n"),
        format!(
            "GET /public/a HTTP/1.1\r\n{head}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n{head}\r\n"
        ),
        format!("GET /public/a HTTP/1.1\r\n{head}X: y\rGET /admin HTTP/1.1\r\n\r\n"),
    ] {
        tool.says(Some(API), &smuggled).await;
    }
    // Both are honoured by some: what leaves has one of them, and its body is read whole.
    let both = format!(
        "GET /public/b HTTP/1.1\r\n{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n{head}\r\n"
    );
    tool.says(Some(API), &both).await;
    for heard in api.heard.lock().iter() {
        let admin = heard.contains("/admin");
        assert!(!admin || heard.starts_with("GET /admin") && !heard.contains("canary"), "{heard}");
        assert!(
            !(heard.to_ascii_lowercase().contains("content-length") && heard.to_ascii_lowercase().contains("transfer-encoding"))
        );
    }
}

#[tokio::test]
async fn a_host_header_does_not_lead_elsewhere() {
    let shared = Server::plain(&ok("fine")).await;
    let tool = Tool::new(&["mine.example.com:80"], &[("mine.example.com:80", &shared)], vec![]).await;
    let to = Some("mine.example.com:80");
    assert!(tool.says(to, "GET / HTTP/1.1\r\nHost: theirs.example.com\r\n\r\n").await.starts_with("HTTP/1.1 421"));
    assert!(tool.says(to, "\r\nGET / HTTP/1.1\r\nHost: theirs.example.com\r\n\r\n").await.contains("421"));
    let (first, then) =
        ("GET /1 HTTP/1.1\r\nHost: mine.example.com\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: theirs.example.com\r\n\r\n");
    let both = tool.says(to, &format!("{first}{then}")).await;
    assert!(both.starts_with("HTTP/1.1 200") && both.contains("HTTP/1.1 421"), "{both}");
    // In a tunnel as well.
    let mut tunnel = tool.proxy().await;
    tunnel.write_all(b"CONNECT mine.example.com:80 HTTP/1.1\r\nHost: mine.example.com:80\r\n\r\n").await.unwrap();
    assert!(answer(&mut tunnel).await.starts_with("HTTP/1.1 200"));
    tunnel.write_all(b"GET /3 HTTP/1.1\r\nHost: theirs.example.com\r\n\r\n").await.unwrap();
    assert!(answer(&mut tunnel).await.starts_with("HTTP/1.1 421"));
    assert_eq!(shared.heard.lock().len(), 1, "{}", shared.heard());
    assert!(!shared.heard().contains("theirs"));
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_gets_no_credential() {
    let impostor = Server::tls("evil.example.com", &ok("fine")).await;
    let tool = Tool::new(&[API], &[(API, &impostor)], vec![bearer(API, &[], &[])]).await;
    let answered = tool.says(Some(API), "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 502") && answered.contains("certificate"), "{answered}");
    assert_eq!(impostor.heard(), "");
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let inside = Server::plain(&ok("inside")).await;
    let moved = format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", inside.address);
    let outside = Server::plain(&moved).await;
    let tool = Tool::new(&["out.example.com:80"], &[("out.example.com:80", &outside)], vec![]).await;
    let answered = tool.says(None, "GET http://out.example.com/ HTTP/1.1\r\nHost: out.example.com\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 302"), "{answered}");
    let followed = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", inside.address);
    assert!(tool.says(None, &followed).await.starts_with("HTTP/1.1 403"));
    assert_eq!(inside.heard(), "");
}

#[tokio::test]
async fn requests_and_tunnels_are_in_the_trace_without_paths() {
    let api = Server::plain(&ok("fine")).await;
    let tool = Tool::new(&["a.example.com:80"], &[("a.example.com:80", &api)], vec![]).await;
    tool.says(None, "GET http://a.example.com/secret?token=1 HTTP/1.1\r\nHost: a.example.com\r\n\r\n").await;
    tool.says(None, "GET http://b.example.com/ HTTP/1.1\r\nHost: b.example.com\r\n\r\n").await;
    let spans = tool.wall.take_spans();
    let [fine, refused] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((fine.name.as_str(), fine.error, refused.error), ("HTTP GET", false, true));
    assert_eq!(fine.attributes.get("server.address").map(String::as_str), Some("a.example.com"));
    assert_eq!(refused.attributes.get("server.address").map(String::as_str), Some("b.example.com"));
    assert!(!format!("{spans:?}").contains("secret"));
}

#[tokio::test]
async fn a_connection_that_was_kept_for_another_request_ends_with_its_tools() {
    let name = "plain.example.com:80";
    let server = Server::plain(&ok("hello")).await;
    let tool = Tool::new(&[name], &[(name, &server)], vec![]).await;
    let mut stream = tool.proxy().await;
    stream.write_all(b"GET http://plain.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.contains("hello"));
    assert_eq!(tool.wall.standing(), 1);
    drop(stream);
    // Much sooner than it would be given up for being idle.
    let begun = std::time::Instant::now();
    while tool.wall.standing() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(4));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
