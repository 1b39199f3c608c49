//! What connections are tried with, beside the suite: clients of a server that the test started.

use super::*;

/// Whether it knows this one, and did it.
pub(super) fn run(client: &str) -> bool {
    match client {
        "ask" => ask(),
        "knock" => knock(),
        "crowd" => crowd(),
        "blurt" => blurt(),
        "chatter" => chatter(),
        "stuff" => stuff(),
        "requests" => requests(),
        "bulk" => bulk(),
        _ => return false,
    }
    true
}

/// An argument behind the scenario's name.
fn argument(index: usize) -> String {
    env::args().nth(2 + index).unwrap_or_default()
}

fn connect(place: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(place)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a place, says something, and writes what comes back until it pauses or ends.
fn ask() {
    let mut answer = Vec::new();
    let asked = connect(&argument(0)).and_then(|mut stream| {
        stream.write_all(argument(1).as_bytes())?;
        stream.set_read_timeout(Some(Duration::from_millis(700)))?;
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                length => answer.extend_from_slice(&piece[..length]),
            }
        }
    });
    if let (Err(error), true) = (asked, answer.is_empty()) {
        answer = format!("error: {error}").into_bytes();
    }
    write(&answer);
}

/// Which of the places that it is given let it connect and answer anything to a line, by TCP or, ahead of `/udp`,
/// by UDP.
fn knock() {
    let answered = |place: &str| match place.strip_suffix("/udp") {
        Some(place) => udp(place),
        None => tcp(place),
    };
    let reached: Vec<_> = env::args().skip(2).filter(|place| answered(place)).collect();
    write(format!("{{\"reached\": {}}}", list(&reached)).as_bytes());
}

fn tcp(place: &str) -> bool {
    let Ok(addresses) = place.to_socket_addrs() else { return false };
    addresses.into_iter().any(|address| {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.read(&mut [0]).is_ok_and(|length| length > 0)
    })
}

fn udp(place: &str) -> bool {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return false };
    let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
    // A question for the address of a name (RFC 1035).
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
    socket.send_to(question, place).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}

/// Opens so many connections to a place and keeps them; writes how many of them were answered.
fn crowd() {
    let (place, count): (_, usize) = (argument(0), argument(1).parse().unwrap_or(1));
    let mut streams: Vec<_> = (0..count).filter_map(|_| connect(&place).ok()).collect();
    let served = streams.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"ping").ok()?;
        stream.read(&mut [0]).ok().filter(|length| *length > 0)
    });
    let served = served.count();
    write(served.to_string().as_bytes());
}

/// Says so many bytes to a place, on a connection each of so many, and is gone.
fn blurt() {
    let (place, length, count): (_, usize, usize) =
        (argument(0), argument(1).parse().unwrap_or(1), argument(2).parse().unwrap_or(1));
    let mut streams: Vec<_> = (0..count).filter_map(|_| connect(&place).ok()).collect();
    let said = streams.iter_mut().filter_map(|stream| stream.write_all(&vec![0; length]).ok()).count();
    write(said.to_string().as_bytes());
    exit(0);
}

/// Talks to a place for as long as it is let.
fn chatter() {
    while let Ok(mut stream) = connect(&argument(0)) {
        while stream.write_all(b"\0").is_ok() {}
    }
}

/// Says as much as so many connections to a place take, and keeps them; then asks another place. Writes how much, and whether that
/// one answered.
fn stuff() {
    let (place, count): (_, usize) = (argument(0), argument(1).parse().unwrap_or(1));
    let mut streams: Vec<_> = (0..count).filter_map(|_| connect(&place).ok()).collect();
    streams.retain(|stream| stream.set_nonblocking(true).is_ok());
    let piece = vec![0; 64 << 10];
    let (mut taken, mut idle) = (0, 0);
    while idle < 25 {
        let more: usize = streams.iter_mut().map(|stream| stream.write(&piece).unwrap_or(0)).sum();
        taken += more;
        idle = if more > 0 { 0 } else { idle + 1 };
        if more == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    write(format!("{{\"taken\": {taken}, \"answered\": {}}}", tcp(&argument(2))).as_bytes());
}

/// Makes so many requests over one connection, and how long each took, in microseconds.
fn requests() {
    let (place, count): (_, usize) = (argument(0), argument(1).parse().unwrap_or(1));
    let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let measured = connect(&place).and_then(|mut stream| {
        let mut took = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for _ in 0..count {
            let begun = std::time::Instant::now();
            stream.write_all(request.as_bytes())?;
            let mut read = 0;
            // The answer's end, and that of its body of two letters.
            while !answer[..read].ends_with(b"\r\n\r\nok") {
                match stream.read(&mut answer[read..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => read += length,
                }
            }
            took.push(begun.elapsed().as_micros());
        }
        Ok(took)
    });
    match measured {
        Ok(took) => write(format!("{took:?}").as_bytes()),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}

/// Sends so many MiB to a place, or reads them from it, and says how many microseconds that took.
fn bulk() {
    let (place, way, mebibytes): (_, _, u64) = (argument(0), argument(1), argument(2).parse().unwrap_or(1));
    let mut piece = vec![0; 256 << 10];
    let moved = connect(&place).and_then(|mut stream| {
        let begun = std::time::Instant::now();
        let mut left = mebibytes << 20;
        // What is wanted comes first, in 8 bytes: how much to send, or 0 to be sent to until the end.
        stream.write_all(&if way == "down" { left } else { 0 }.to_be_bytes())?;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let moved = if way == "down" { stream.read(&mut piece[..most])? } else { stream.write(&piece[..most])? };
            if moved == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= moved as u64;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // Whoever was sent to says that it has it all.
        if way != "down" {
            stream.read_exact(&mut [0])?;
        }
        Ok(begun.elapsed().as_micros())
    });
    match moved {
        Ok(took) => write(took.to_string().as_bytes()),
        Err(error) => {
            eprintln!("{error}");
            exit(1)
        }
    }
}
