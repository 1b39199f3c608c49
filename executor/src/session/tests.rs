//! The gateway's end against an executor that the test plays, frame by frame.

mod linger;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio_util::sync::CancellationToken;

use super::conversation::bounded;
use super::*;
use crate::Event;
use crate::egress::Wall;
use crate::error::LedgerError;
use crate::spec::ByteSize;
use crate::wire::{Exit, MAX_SPANS, MAX_TEXT, Progress, STDERR_TAIL, Span, Usage, WireKey};

const QUICK: Clocks = Clocks {
    ping: Duration::from_millis(100),
    silence: Duration::from_millis(300),
    cancel_grace: Duration::from_millis(300),
    linger: Duration::from_millis(300),
};

#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    cancel: CancellationToken,
    wall: Option<Arc<Wall>>,
}

#[async_trait]
impl Host for Recorder {
    fn observe(&self, event: Event) {
        self.events.lock().push(event);
    }
    fn canceled(&self) -> &CancellationToken {
        &self.cancel
    }
    fn wall(&self) -> Option<Arc<Wall>> {
        self.wall.clone()
    }
    async fn delivering(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

/// The executor's end.
struct Peer {
    reader: FrameReader<ReadHalf<DuplexStream>, ToExecutor>,
    writer: FrameWriter<WriteHalf<DuplexStream>, FromExecutor>,
}

impl Peer {
    async fn say(&mut self, frame: FromExecutor) {
        self.writer.send(&frame).await.unwrap();
    }

    /// Takes the invocation and its key.
    async fn accept(&mut self) {
        let Some(ToExecutor::Invocation(invocation)) = self.reader.next().await.unwrap() else { panic!("no invocation") };
        self.reader.seal(Seal::new(&invocation.key, Direction::ToExecutor));
        self.writer.seal(Seal::new(&invocation.key, Direction::FromExecutor));
        self.say(FromExecutor::Accepted).await;
    }
}

type TestSession = Session<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

async fn greeted() -> (TestSession, Peer) {
    let (ours, theirs) = duplex(64 << 10);
    let (read, write) = split(theirs);
    let mut peer = Peer { reader: FrameReader::new(read), writer: FrameWriter::new(write) };
    peer.say(FromExecutor::Hello { protocol: PROTOCOL }).await;
    let (read, write) = split(ours);
    let mut session = Session::greet(read, write).await.unwrap();
    session.clocks = QUICK;
    assert_eq!(peer.reader.next().await.unwrap(), Some(ToExecutor::Hello { protocol: PROTOCOL }));
    (session, peer)
}

fn invocation(stdin: usize) -> Invocation {
    Invocation {
        call_id: "call".into(),
        key: WireKey::generate().unwrap(),
        command: vec![],
        stdin: vec![b' '; stdin].into(),
        environment: BTreeMap::new(),
        files: Vec::new(),
        sockets: crate::wire::Sockets::Unix,
        timeout: Duration::from_secs(60),
        output_limit: ByteSize(100),
        faces: None,
        traceparent: String::new(),
    }
}

fn report() -> Report {
    Report {
        exit: Exit::Code(0),
        detail: None,
        stdout: Bytes::new(),
        stderr: Bytes::new(),
        stderr_truncated: false,
        exhausted: BTreeSet::new(),
        usage: Usage::default(),
        spans: vec![],
    }
}

fn output(bytes: &'static [u8]) -> FromExecutor {
    FromExecutor::Output { chunk: Bytes::from_static(bytes) }
}

#[tokio::test]
async fn output_in_pieces_is_put_together_and_events_come_in_order() {
    let (session, mut peer) = greeted().await;
    let host = Recorder::default();
    let playing = async {
        peer.accept().await;
        peer.say(output(b"{\"a\":")).await;
        peer.say(FromExecutor::Progress(Progress { progress: f64::NAN, total: None, message: None })).await;
        peer.say(FromExecutor::Log { line: "x".repeat(MAX_TEXT + 1) }).await;
        peer.say(output(b"1}")).await;
        peer.say(FromExecutor::Report(report())).await;
    };
    let (result, ()) = tokio::join!(session.run(invocation(2), &host), playing);
    assert_eq!(result.unwrap().stdout, "{\"a\":1}");
    assert_eq!(*host.events.lock(), [Event::Accepted, Event::Log("x".repeat(MAX_TEXT))]);
}

#[tokio::test]
async fn another_protocol_is_refused_before_delivery() {
    let (ours, theirs) = duplex(1024);
    FrameWriter::new(theirs).send(&FromExecutor::Hello { protocol: PROTOCOL + 1 }).await.unwrap();
    let (read, write) = split(ours);
    let refused = Session::greet(read, write).await.unwrap_err();
    assert!(matches!(&refused, Ungreeted::Foreign(why) if why.contains(&format!("protocol {}", PROTOCOL + 1))), "{refused}");
}

#[tokio::test]
async fn an_executor_that_cannot_have_read_the_invocation_did_not_run_it() {
    let (session, peer) = greeted().await;
    drop(peer);
    let error = session.run(invocation(1 << 20), &Recorder::default()).await.unwrap_err();
    assert!(matches!(error, RunError::NotDelivered(_)), "{error}");

    let (session, _deaf) = greeted().await;
    let error = session.run(invocation(1 << 20), &Recorder::default()).await.unwrap_err();
    assert!(matches!(error, RunError::NotDelivered(_)), "{error}");

    let (session, _peer) = greeted().await;
    let error = session.run(invocation(crate::frame::MAX_FRAME), &Recorder::default()).await.unwrap_err();
    assert!(matches!(error, RunError::NotDelivered(_)), "{error}");
}

#[tokio::test]
async fn an_executor_that_leaves_after_delivery_may_have_run_it() {
    let (session, peer) = greeted().await;
    let leaving = async move {
        let mut peer = peer;
        peer.reader.next().await.unwrap();
    };
    let host = Recorder::default();
    let (result, ()) = tokio::join!(session.run(invocation(2), &host), leaving);
    assert!(matches!(result, Err(RunError::Lost(_))), "{result:?}");
}

#[tokio::test]
async fn silence_is_given_up_and_signs_of_life_are_not() {
    let (session, mut peer) = greeted().await;
    let begun = Instant::now();
    let host = Recorder::default();
    let playing = async {
        peer.accept().await;
        let mut pings = 0;
        for _ in 0..4 {
            tokio::time::sleep(QUICK.ping).await;
            peer.say(FromExecutor::Ping).await;
        }
        while let Ok(Some(frame)) = peer.reader.next().await {
            assert_eq!(frame, ToExecutor::Ping);
            pings += 1;
        }
        pings
    };
    let (result, pings) = tokio::join!(session.run(invocation(2), &host), playing);
    assert!(matches!(result, Err(RunError::Lost(_))), "{result:?}");
    assert!(begun.elapsed() >= 4 * QUICK.ping + QUICK.silence && pings >= 3, "{pings} pings");
}

#[tokio::test]
async fn a_cancel_is_passed_on_and_an_executor_that_ignores_it_is_lost() {
    for obeys in [true, false] {
        let (session, mut peer) = greeted().await;
        let host = Recorder::default();
        let playing = async {
            peer.accept().await;
            host.cancel.cancel();
            assert_eq!(peer.reader.next().await.unwrap(), Some(ToExecutor::Cancel));
            if obeys {
                peer.say(FromExecutor::Report(Report { exit: Exit::Canceled, ..report() })).await;
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! { result = session.run(invocation(2), &host) => result, () = playing => unreachable!() };
        match result {
            Ok(report) => assert!(obeys && report.exit == Exit::Canceled),
            Err(error) => assert!(!obeys && matches!(error, RunError::Lost(_)), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_no_honest_executor_sends_breaks_the_session() {
    let too_much: &'static [u8] = &[0; 101];
    let cases: [(&str, Vec<FromExecutor>); 4] = [
        ("a second hello", vec![FromExecutor::Accepted, FromExecutor::Hello { protocol: PROTOCOL }]),
        ("accepted twice", vec![FromExecutor::Accepted, FromExecutor::Accepted]),
        ("a report before accepting", vec![FromExecutor::Report(report())]),
        ("more output than the limit", vec![FromExecutor::Accepted, output(too_much)]),
    ];
    for (case, frames) in cases {
        let (session, mut peer) = greeted().await;
        let invocation = invocation(2);
        let key = invocation.key.clone();
        peer.writer.seal(Seal::new(&key, Direction::FromExecutor));
        for frame in frames {
            peer.say(frame).await;
        }
        let result = session.run(invocation, &Recorder::default()).await;
        assert!(matches!(result, Err(RunError::Protocol(_))), "{case}: {result:?}");
    }
}

#[tokio::test]
async fn a_frame_that_is_not_sealed_with_the_calls_key_breaks_the_session() {
    let (session, mut peer) = greeted().await;
    peer.say(FromExecutor::Report(report())).await;
    let result = session.run(invocation(2), &Recorder::default()).await;
    assert!(matches!(result, Err(RunError::Protocol(_))), "{result:?}");
}

#[tokio::test]
async fn what_surrounds_the_output_is_cut_to_size() {
    let (session, mut peer) = greeted().await;
    let span = Span {
        id: 1,
        parent: None,
        name: "n".repeat(2 * MAX_TEXT),
        start_unix_nanos: 9,
        end_unix_nanos: 3,
        attributes: (0..MAX_SPANS + 1).map(|i| (i.to_string(), "v".repeat(2 * MAX_TEXT))).collect(),
        error: false,
    };
    let hostile = Report { stderr: vec![b'e'; 2 * STDERR_TAIL].into(), spans: vec![span; 2 * MAX_SPANS], ..report() };
    let host = Recorder::default();
    let playing = async {
        peer.accept().await;
        for _ in 0..=MAX_LINES {
            peer.say(FromExecutor::Log { line: "l".into() }).await;
        }
        // One span is enough to see how each is cut.
        peer.say(FromExecutor::Report(Report { spans: hostile.spans[..1].to_vec(), ..hostile.clone() })).await;
    };
    let (result, ()) = tokio::join!(session.run(invocation(2), &host), playing);
    let cut = result.unwrap();
    assert_eq!((cut.stderr.len(), cut.stderr_truncated), (STDERR_TAIL, true));
    assert_eq!((cut.spans[0].name.len(), cut.spans[0].attributes.len(), cut.spans[0].end_unix_nanos), (MAX_TEXT, MAX_SPANS, 9));
    assert_eq!(host.events.lock().len(), MAX_LINES + 1);
    assert_eq!(bounded(hostile).spans.len(), MAX_SPANS);
}

#[tokio::test]
async fn an_executor_that_waits_is_kept_company_until_it_is_wanted() {
    let (mut session, mut peer) = greeted().await;
    // It answers for a while: longer than silence would be borne.
    let answering = async {
        for _ in 0..5 {
            assert_eq!(peer.reader.next().await.unwrap(), Some(ToExecutor::Ping));
            peer.say(FromExecutor::Ping).await;
        }
    };
    tokio::select! {
        why = session.idle() => panic!("{why}"),
        () = answering => {}
    }
    // One more ping is on its way when it is claimed: its answer comes before what is sealed.
    tokio::select! {
        why = session.idle() => panic!("{why}"),
        frame = peer.reader.next() => assert_eq!(frame.unwrap(), Some(ToExecutor::Ping)),
    }
    let playing = async {
        peer.say(FromExecutor::Ping).await;
        peer.accept().await;
        peer.say(FromExecutor::Report(report())).await;
    };
    let host = Recorder::default();
    let (result, ()) = tokio::join!(session.run(invocation(2), &host), playing);
    assert_eq!(result.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn an_executor_that_is_lost_while_it_waits_is_noticed() {
    let (mut session, peer) = greeted().await;
    drop(peer);
    assert!(session.idle().await.contains("ended"));
    let (mut silent, _peer) = greeted().await;
    assert!(silent.idle().await.contains("silent"));
    let (mut forward, mut peer) = greeted().await;
    peer.say(FromExecutor::Accepted).await;
    assert!(forward.idle().await.contains("before it was asked"));
}
