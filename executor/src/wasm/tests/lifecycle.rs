//! What a guest sees, how it ends, and that it is gone afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{INSTANCE, Listener, Room, SPIN, call, program};
use crate::error::{RunError, StartError};
use crate::spec::{ByteSize, Mount};
use crate::wire::{Exit, Invocation, SecretText};
use crate::{Backend, Event, SandboxId};

#[tokio::test]
async fn input_arrives_and_output_leaves() {
    let echo = program(
        "(loop $again
            (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 4096))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $write (i32.const 1) (i32.const 4096) (i32.load (i32.const 8)))
            (br_if $again (i32.load (i32.const 8))))",
    );
    let stdin = bytes::Bytes::from(vec![b'x'; 10_000]);
    let report = Room::new().run_with(&echo, Invocation { stdin: stdin.clone(), ..call() }).await;
    assert_eq!((report.exit, report.stdout), (Exit::Code(0), stdin));
    assert_eq!((report.detail, report.stderr.len()), (None, 0));
    assert_eq!(report.spans.len(), 1);
    assert_eq!((report.spans[0].name.as_str(), report.spans[0].error), ("wasm.instantiate", false));
    assert!(report.spans[0].end_unix_nanos >= report.spans[0].start_unix_nanos);
}

#[tokio::test]
async fn the_exit_code_is_the_guests() {
    let room = Room::new();
    assert_eq!(room.run(&program("(call $exit (i32.const 42))")).await.exit, Exit::Code(42));
    assert_eq!(room.run(&program("(call $exit (i32.const 0)) (unreachable)")).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_trap_is_a_signal_with_a_reason_and_no_paths() {
    let room = Room::new();
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const 1000000)))", "out of bounds memory access"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
    ] {
        let report = room.run(&program(body)).await;
        assert_eq!(report.exit, Exit::Signal(4));
        let detail = report.detail.unwrap();
        assert!(detail.contains(reason) && !detail.contains('/') && !detail.contains('\n'), "{detail}");
    }
    let recursion = r#"(module (func $f (export "_start") (call $f) (call $f)))"#;
    assert!(room.run(recursion).await.detail.unwrap().contains("stack"));
}

#[tokio::test]
async fn there_are_no_files_and_no_environment_but_the_calls() {
    let room = Room::new();
    assert_eq!(
        room.run(&program("(call $exit (call $fd_prestat_get (i32.const 3) (i32.const 0)))")).await.exit,
        Exit::Code(8),
        "EBADF"
    );
    let open = "(call $exit (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 0)
        (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 8)))";
    assert_eq!(room.run(&program(open)).await.exit, Exit::Code(8), "EBADF");
    let variables = program("(drop (call $environ_sizes_get (i32.const 0) (i32.const 4))) (call $exit (i32.load (i32.const 0)))");
    assert_eq!(room.run(&variables).await.exit, Exit::Code(0));
    let environment = BTreeMap::from([("A".to_owned(), SecretText::new("1")), ("B".to_owned(), SecretText::new(""))]);
    assert_eq!(room.run_with(&variables, Invocation { environment, ..call() }).await.exit, Exit::Code(2));
}

#[tokio::test]
async fn arguments_are_the_command_or_the_modules_name() {
    let room = Room::new();
    let arguments = program(
        "(drop (call $args_sizes_get (i32.const 0) (i32.const 4))) (drop (call $args_get (i32.const 64) (i32.const 2048)))
        (call $write (i32.const 1) (i32.const 2048) (i32.load (i32.const 4)))",
    );
    let command = vec!["tool".to_owned(), "--name=a b".to_owned(), String::new()];
    let given = room.run_with(&arguments, Invocation { command, ..call() }).await;
    assert_eq!(&given.stdout[..], b"tool\0--name=a b\0\0");
    let crate::spec::Source::Module { sha256, .. } = room.spec(&arguments).source else { unreachable!() };
    assert_eq!(room.run(&arguments).await.stdout, format!("{}\0", &sha256[..8]), "the file's name without its ending");
}

#[tokio::test]
async fn what_a_guest_would_read_differently_is_not_started() {
    let room = Room::new();
    let text = program("");
    let command = vec!["tool".to_owned(), "safe\0--force".to_owned()];
    let variable = |name: &str, value: &str| {
        let environment = BTreeMap::from([(name.to_owned(), SecretText::new(value))]);
        Invocation { environment, ..call() }
    };
    for invocation in [Invocation { command, ..call() }, variable("A", "1\0B=2"), variable("A=B", "1"), variable("", "1")] {
        let report = room.run_with(&text, invocation).await;
        assert_eq!(report.exit, Exit::NotStarted);
        assert!(report.detail.unwrap().contains("NUL"));
    }
}

#[tokio::test]
async fn nothing_of_a_call_is_there_for_the_next() {
    let room = Room::new();
    let spec = room.spec(&program(
        "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))
        (i32.store8 (i32.const 1024) (i32.add (i32.load8_u (i32.const 1024)) (i32.const 1)))
        (call $exit (i32.add (i32.load8_u (i32.const 1024)) (i32.add (global.get $count) (i32.load (i32.const 512)))))",
    ));
    for _ in 0..20 {
        assert_eq!(room.run_spec(&spec, call(), &Listener::default()).await.exit, Exit::Code(1 + 1 + i32::from(b'b')));
    }
}

#[tokio::test]
async fn a_cancel_ends_a_guest_that_computes_and_one_that_sleeps() {
    let room = Room::new();
    for body in [SPIN, "(call $sleep)"] {
        let spec = room.spec(&program(body));
        let host = Listener::default();
        let begun = Instant::now();
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            host.cancel.cancel();
        };
        let (report, ()) = tokio::join!(room.run_spec(&spec, call(), &host), cancel);
        assert_eq!(report.exit, Exit::Canceled, "{body}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{body}");
    }
}

#[tokio::test]
async fn a_call_canceled_before_it_starts_does_not_run() {
    let room = Room::new();
    let host = Listener::default();
    host.cancel.cancel();
    let report =
        room.run_spec(&room.spec(&program("(call $write (i32.const 1) (i32.const 1024) (i32.const 1))")), call(), &host).await;
    assert_eq!((report.exit, report.stdout.len()), (Exit::Canceled, 0));
}

#[tokio::test]
async fn destroying_kills_and_can_be_repeated() {
    let room = Room::new();
    let spec = room.spec(&program(SPIN));
    let id = SandboxId::generate();
    let sandbox = room.backend.start(id, &spec).await.unwrap();
    let listed = room.backend.list().await.unwrap();
    assert_eq!(listed.iter().map(|f| (f.id, f.instance)).collect::<Vec<_>>(), [(id, INSTANCE)]);
    let host = Arc::new(Listener::default());
    let running = tokio::spawn({
        let host = host.clone();
        async move { sandbox.invoke(call(), &*host).await }
    });
    while !host.events.lock().contains(&Event::Accepted) {
        tokio::task::yield_now().await;
    }
    room.backend.destroy(id).await.unwrap();
    assert_eq!(room.backend.list().await.unwrap(), []);
    assert_eq!(running.await.unwrap().unwrap().exit, Exit::Canceled);
    room.backend.destroy(id).await.unwrap();
    room.backend.destroy(SandboxId::generate()).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_destroyed_before_its_invocation_runs_nothing() {
    let room = Room::new();
    let id = SandboxId::generate();
    let sandbox = room.backend.start(id, &room.spec(&program(""))).await.unwrap();
    room.backend.destroy(id).await.unwrap();
    assert_eq!(room.backend.list().await.unwrap(), []);
    let host = Listener::default();
    assert!(matches!(sandbox.invoke(call(), &host).await, Err(RunError::NotDelivered(_))));
    assert!(host.events.lock().is_empty());
}

#[tokio::test]
async fn a_dropped_sandbox_or_invocation_leaves_nothing() {
    let room = Room::new();
    let spec = room.spec(&program(SPIN));
    drop(room.backend.start(SandboxId::generate(), &spec).await.unwrap());
    let host = Listener::default();
    let cut_off = tokio::time::timeout(Duration::from_millis(50), room.run_spec(&spec, call(), &host)).await;
    assert!(cut_off.is_err());
    assert_eq!(room.backend.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_full_pool_makes_a_start_wait_and_then_refuses_it() {
    let room = Room::with(|config| {
        config.max_instances = 1;
        config.start_wait = Duration::from_millis(300);
    });
    let spec = room.spec(&program(""));
    let first = room.backend.start(SandboxId::generate(), &spec).await.unwrap();
    let begun = Instant::now();
    let refused = room.backend.start(SandboxId::generate(), &spec).await;
    assert!(matches!(refused, Err(StartError::Saturated { .. })));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let leave = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(first);
    };
    let (waited, ()) = tokio::join!(room.backend.start(SandboxId::generate(), &spec), leave);
    assert!(waited.is_ok(), "a place became free in time");
}

#[tokio::test]
async fn what_the_pool_cannot_hold_is_refused_before_it_starts() {
    let room = Room::with(|config| config.max_memory = ByteSize::mebibytes(32));
    let mut spec = room.spec(&program(""));
    spec.memory = ByteSize::mebibytes(33);
    assert!(matches!(room.backend.prepare(&spec).await, Err(StartError::Refused { detail, .. }) if detail.contains("33Mi")));
    let mut spec = room.spec(&program(""));
    spec.mounts = vec![Mount { source: "/etc".into(), target: "/etc".into() }];
    assert!(matches!(room.backend.start(SandboxId::generate(), &spec).await, Err(StartError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_with_half_of_them_canceled_leave_nothing() {
    let room = Arc::new(Room::with(|config| {
        config.max_instances = 64;
        config.start_wait = Duration::from_secs(30);
    }));
    let specs = [SPIN, "(call $sleep)", "(call $exit (i32.const 3))"].map(|body| room.spec(&program(body)));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200_u64 {
        let (room, canceled) = (room.clone(), n % 2 == 0);
        let spec = if canceled { specs[(n / 2 % 2) as usize].clone() } else { specs[2].clone() };
        calls.spawn(async move {
            let host = Listener::default();
            let cancel = async {
                tokio::time::sleep(Duration::from_millis(n * 7 % 60)).await;
                if canceled {
                    host.cancel.cancel();
                }
            };
            let (report, ()) = tokio::join!(room.run_spec(&spec, call(), &host), cancel);
            assert_eq!(report.exit, if canceled { Exit::Canceled } else { Exit::Code(3) });
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
    assert_eq!(room.backend.list().await.unwrap(), []);
}
