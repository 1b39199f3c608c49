//! Connections that carry bytes.

use super::*;

const ECHO: &str = "db.example.com:5432";

#[tokio::test]
async fn bytes_are_carried_both_ways_and_counted() {
    let server = Server::plain("pong").await;
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "pong");
    assert_eq!(server.heard(), "\0ping");
    let contacts = tool.wall.contacts();
    let [contact] = &contacts[..] else { panic!("{contacts:?}") };
    assert_eq!((contact.destination.to_string().as_str(), contact.connections), (ECHO, 1));
    assert_eq!((contact.sent, contact.received), (5, 4));
    assert!(contact.addresses.contains(&server.address.ip()));
}

#[tokio::test]
async fn what_is_not_listed_is_closed() {
    let server = Server::plain("pong").await;
    let tool = Tool::new(&[ECHO], &[(ECHO, &server), ("other.example.com:5432", &server)], vec![]).await;
    for to in ["other.example.com:5432", "db.example.com:5433", "10.0.0.1:5432"] {
        assert_eq!(tool.says(Some(to), "\0ping").await, "", "{to}");
    }
    assert_eq!(server.heard(), "");
}

#[tokio::test]
async fn a_name_in_a_greeting_does_not_lead_elsewhere() {
    let name = "api.example.com:443";
    let server = Server::tls("api.example.com", "pong").await;
    let tool = Tool::new(&[name], &[(name, &server)], vec![]).await;
    let greet = async |name: &'static str| {
        let stream = tool.direct("api.example.com:443").await;
        let tls = tokio_rustls::TlsConnector::from(trust(std::slice::from_ref(&server.root)).unwrap());
        let mut stream = tls.connect(name.try_into().unwrap(), stream).await?;
        stream.write_all(b"ping").await?;
        let mut pong = [0; 4];
        stream.read_exact(&mut pong).await
    };
    assert_eq!(greet("api.example.com").await.unwrap(), 4);
    // The certificate has this name too little: the connection has to end before that is of any interest.
    let error = greet("theirs.example.com").await.unwrap_err();
    assert!(!error.to_string().contains("certificate"), "{error}");
    assert_eq!(server.heard(), "ping");
}

#[tokio::test]
async fn bytes_and_connections_are_capped() {
    let server = Server::plain("pong").await;
    let limits = Limits { connections: 2, bytes: ByteSize(64), ..Limits::default() };
    let tool = Tool::within(limits, &[ECHO], &[(ECHO, &server)], vec![]).await;
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "pong");
    let flood = "\0".repeat(1000);
    assert_eq!(tool.says(Some(ECHO), &flood).await, "", "what is over the bound ends the connection");
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "", "a third connection");
    assert_eq!(server.heard.lock().iter().filter(|heard| heard.as_str() == "\0ping").count(), 1);
}

#[tokio::test]
async fn one_more_than_may_stand_at_once_waits_for_its_place() {
    let server = Server::plain("pong").await;
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    let mut standing = Vec::new();
    for _ in 0..tunnel::CONNECTIONS {
        let mut stream = tool.direct(ECHO).await;
        stream.write_all(b"\0ping").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        standing.push(stream);
    }
    assert_eq!(tool.wall.standing(), tunnel::CONNECTIONS);
    let mut waiting = tool.direct(ECHO).await;
    waiting.write_all(b"\0ping").await.unwrap();
    assert_eq!(answer(&mut waiting).await, "");
    standing.pop();
    let mut pong = [0; 4];
    tokio::time::timeout(Duration::from_secs(30), waiting.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(&pong, b"pong");
}

#[tokio::test]
async fn one_that_does_not_read_holds_up_nobody() {
    let endless = "x".repeat(1 << 20);
    let server = Server::plain(&endless).await;
    let quick = Server::plain("pong").await;
    let tool = Tool::new(&[ECHO, "quick.example.com:1"], &[(ECHO, &server), ("quick.example.com:1", &quick)], vec![]).await;
    let mut stuck = tool.direct(ECHO).await;
    for _ in 0..8 {
        stuck.write_all(b"\0more").await.unwrap();
    }
    for _ in 0..20 {
        assert_eq!(tool.says(Some("quick.example.com:1"), "\0ping").await, "pong");
    }
    drop(stuck);
}

#[tokio::test]
async fn when_the_call_is_over_so_are_its_connections() {
    let server = Server::plain("pong").await;
    let mut tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    let mut open = tool.direct(ECHO).await;
    open.write_all(b"\0ping").await.unwrap();
    assert_eq!(answer(&mut open).await, "pong");
    tool.ends.over.cancel();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), open.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
    let spans = tool.wall.take_spans();
    assert_eq!((spans.len(), spans[0].name.as_str()), (1, "egress.connection"));
    tool.tasks.shutdown().await;
}

#[tokio::test]
async fn what_is_cut_does_not_look_like_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), heard: Arc::default(), root: vec![], _tasks: JoinSet::new() };
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    for cut in [true, false] {
        let mut stream = tool.direct(ECHO).await;
        stream.write_all(b"\0half").await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        // Neither a tool that is gone nor a call that is over has said that this was all.
        match cut {
            true => drop(stream),
            false => tool.ends.over.cancel(),
        }
        let told = far.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn connections_that_lead_nowhere_are_bounded() {
    let server = Server::plain("pong").await;
    let limits = Limits { connections: 3, ..Limits::default() };
    let tool = Tool::within(limits, &[ECHO], &[(ECHO, &server)], vec![]).await;
    for _ in 0..2 {
        // Each refusal takes its connection: what is asked behind it is not heard.
        let twice = "GET http://nowhere.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
        let answer = tool.says(None, &twice).await;
        assert_eq!(answer.matches("HTTP/1.1 403").count(), 1, "{answer}");
    }
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "pong");
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "", "a fourth");
    assert_eq!(tool.says(None, "GET").await, "", "a fifth");
    let contacts = tool.wall.contacts();
    let echo = contacts.iter().find(|contact| contact.destination.to_string() == ECHO).unwrap();
    assert_eq!((echo.connections, echo.refused, tool.wall.others_refused()), (1, 1, 1));
}

#[tokio::test]
async fn much_arrives_whole() {
    const MUCH: usize = 32 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), heard: Arc::default(), root: vec![], _tasks: JoinSet::new() };
    let echoing = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap()
    });
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    let (mut read, mut write) = tokio::io::split(tool.direct(ECHO).await);
    let sent: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    sending.await.unwrap();
    assert!(back == expected);
    assert_eq!(echoing.await.unwrap(), MUCH as u64);
}

#[tokio::test]
async fn a_greeting_behind_a_question_does_not_lead_elsewhere_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), heard: Arc::default(), root: vec![], _tasks: JoinSet::new() };
    let heard = server.heard.clone();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 8];
            let mut rest = Vec::new();
            while stream.read_exact(&mut asked).await.is_ok() {
                if asked[..4] != [0, 0, 0, 8] {
                    rest.extend_from_slice(&asked);
                    break;
                }
                stream.write_all(b"S").await.unwrap();
            }
            let _ = stream.read_to_end(&mut rest).await;
            heard.lock().push(if rest.is_empty() { "nothing" } else { "a greeting" }.to_owned());
        }
    });
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    for (name, asks) in [("theirs.example.com", 1), ("theirs.example.com", 2), ("db.example.com", 2)] {
        let mut stream = tool.direct(ECHO).await;
        for n in 0..asks {
            // As slowly as it likes.
            for piece in [&[0, 0][..], &[0, 8, 0x04, 0xd2, 0x16, 0x30 - n]] {
                stream.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(stream.read_u8().await.unwrap(), b'S');
        }
        let mut client = rustls::ClientConnection::new(trust(&[]).unwrap(), name.try_into().unwrap()).unwrap();
        let mut greeting = Vec::new();
        client.write_tls(&mut greeting).unwrap();
        let _ = stream.write_all(&greeting).await;
        let _ = stream.shutdown().await;
        answer(&mut stream).await;
    }
    assert_eq!(*server.heard.lock(), ["nothing", "nothing", "a greeting"]);
    serving.abort();
}

#[tokio::test]
async fn what_a_server_says_to_a_question_comes_through() {
    // One that cannot fork says so, in more than a byte.
    let server = Server::plain("Ecould not fork").await;
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    let mut stream = tool.direct(ECHO).await;
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
    assert_eq!(answer(&mut stream).await, "Ecould not fork");
}

/// An address at which nobody answers: whoever waits there already is all that there is room for.
async fn silent() -> (SocketAddr, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (address, (listener, waiting))
}

const SLOW: &str = "slow.example.com:5432";

/// One that may reach a server, and one that never answers.
async fn with_a_silent_one(limits: Limits, quick: &Server) -> (Tool, impl Sized) {
    let (address, held) = silent().await;
    let nobody = Server { address, ..Server::plain("").await };
    (Tool::within(limits, &[ECHO, SLOW], &[(ECHO, quick), (SLOW, &nobody)], vec![]).await, held)
}

#[tokio::test]
async fn what_does_not_answer_is_given_up() {
    let limits = Limits { connect_timeout: Duration::from_millis(100), ..Limits::default() };
    let quick = Server::plain("pong").await;
    let (tool, _held) = with_a_silent_one(limits, &quick).await;
    assert_eq!(tool.says(Some(SLOW), "\0ping").await, "");
    let answer = tool.says(None, &format!("GET http://{SLOW}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    let contacts = tool.wall.contacts();
    assert_eq!((contacts[0].connections, contacts[0].refused), (0, 2), "{contacts:?}");
}

#[tokio::test]
async fn small_pieces_that_nobody_reads_end_no_other_connection() {
    let quick = Server::plain("pong").await;
    let (tool, _held) = with_a_silent_one(Limits::default(), &quick).await;
    let mut stuck = tool.direct(SLOW).await;
    for _ in 0..40_000 {
        stuck.write_all(b"\0").await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(tool.says(Some(ECHO), "\0ping").await, "pong");
    stuck.write_all(b"\0").await.unwrap();
}

#[tokio::test]
async fn what_was_said_last_gets_through_once_nobody_listens() {
    let server = Server::plain("").await;
    let tool = Tool::new(&[ECHO], &[(ECHO, &server)], vec![]).await;
    let mut stream = tool.direct(ECHO).await;
    let last = "\0".repeat(500_000);
    stream.write_all(last.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    tool.ends.gone.cancel();
    // The server keeps its end open, and is not waited for.
    let ended = async { while let Ok(1..) = stream.read(&mut [0; 4096]).await {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert_eq!(tool.wall.contacts()[0].sent, 500_000);
    while server.heard().len() < 500_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
