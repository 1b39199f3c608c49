//! Every limit, biting.

use std::time::{Duration, Instant};

use super::{Listener, Room, SPIN, call, call_within, program};
use crate::Event;
use crate::spec::ByteSize;
use crate::wire::{Exit, Invocation, MAX_TEXT, Progress, Resource, STDERR_TAIL};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_guest_that_computes_for_ever_ends_at_its_deadline_and_blocks_nobody() {
    let room = Room::new();
    let text = program(SPIN);
    let begun = Instant::now();
    let running = room.run_with(&text, call_within(SHORT));
    // This runtime has one thread: the guest and the clock share it.
    let mut clock = tokio::time::interval(Duration::from_millis(5));
    let mut ticks = 0;
    tokio::pin!(running);
    let report = loop {
        tokio::select! {
            biased;
            _ = clock.tick() => ticks += 1,
            report = &mut running => break report,
        }
    };
    assert_eq!(report.exit, Exit::Deadline);
    assert!(ticks >= 5, "others ran {ticks} times meanwhile");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(report.usage.cpu >= SHORT / 2, "{:?}", report.usage);
}

#[tokio::test]
async fn a_guest_that_sleeps_for_ever_ends_at_its_deadline() {
    let report = Room::new().run_with(&program("(call $sleep)"), call_within(SHORT)).await;
    assert_eq!(report.exit, Exit::Deadline);
    assert!(report.usage.cpu < SHORT / 2, "waiting is not computing: {:?}", report.usage);
}

#[tokio::test]
async fn a_start_function_that_loops_ends_at_the_deadline_too() {
    let text = format!(r#"(module (func $s {SPIN}) (start $s) (memory (export "memory") 1) (func (export "_start")))"#);
    let report = Room::new().run_with(&text, call_within(SHORT)).await;
    assert_eq!(report.exit, Exit::Deadline);
    assert!(report.spans[0].error, "it never was an instance");
}

#[tokio::test]
async fn the_life_of_a_sandbox_bounds_its_call() {
    let room = Room::new();
    let mut spec = room.spec(&program(SPIN));
    spec.life = SHORT;
    assert_eq!(room.run_spec(&spec, call(), &Listener::default()).await.exit, Exit::Deadline);
}

#[tokio::test]
async fn a_guest_that_is_refused_memory_and_gives_up_is_out_of_memory() {
    let report = Room::new()
        .run(&program("(loop $more (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $more))"))
        .await;
    assert_eq!(report.exit, Exit::OutOfMemory);
    assert!(report.exhausted.contains(&Resource::Memory));
    let peak = report.usage.peak_memory.unwrap();
    assert!((15 << 20..=16 << 20).contains(&peak), "{peak}");
}

#[tokio::test]
async fn a_guest_that_copes_with_a_refusal_exits_as_it_likes() {
    let report = Room::new().run(&program("(drop (memory.grow (i32.const 65000)))")).await;
    assert_eq!(report.exit, Exit::Code(0));
    assert!(report.exhausted.contains(&Resource::Memory));
    assert_eq!(report.usage.peak_memory, Some(64 << 10));
}

#[tokio::test]
async fn a_module_that_starts_with_too_much_memory_is_out_of_memory() {
    let report = Room::new().run(r#"(module (memory (export "memory") 257) (func (export "_start")))"#).await;
    assert_eq!(report.exit, Exit::OutOfMemory);
}

#[tokio::test]
async fn all_memories_of_a_guest_share_its_ceiling() {
    let report = Room::new()
        .run(
            r#"(module (memory (export "memory") 128) (memory $b 100)
                (func (export "_start") (if (i32.eq (memory.grow $b (i32.const 29)) (i32.const -1)) (then unreachable))))"#,
        )
        .await;
    assert_eq!(report.exit, Exit::OutOfMemory);
}

#[tokio::test]
async fn a_table_has_a_ceiling_too() {
    let grow = "(if (i32.eq (table.grow $table (ref.null func) (i32.const 30000)) (i32.const -1)) (then unreachable))";
    let report = Room::new().run(&program(grow)).await;
    assert_eq!((report.exit, report.exhausted.contains(&Resource::Memory)), (Exit::OutOfMemory, true));
}

#[tokio::test]
async fn one_byte_more_than_the_output_limit_ends_the_guest() {
    let room = Room::new();
    let limited = |limit| Invocation { output_limit: ByteSize(limit), ..call() };
    let text = program("(call $write (i32.const 1) (i32.const 1024) (i32.const 16))");
    let fits = room.run_with(&text, limited(16)).await;
    assert_eq!((fits.exit, &fits.stdout[..]), (Exit::Code(0), &b"abcdefghijklmnop"[..]));
    assert!(fits.exhausted.is_empty());
    let over = room.run_with(&text, limited(15)).await;
    assert_eq!((over.exit, &over.stdout[..]), (Exit::OutputLimit, &b"abcdefghijklmno"[..]));
    assert!(over.exhausted.contains(&Resource::Output));
    let endless = program("(loop $again (call $write (i32.const 1) (i32.const 1024) (i32.const 16)) (br $again))");
    let endless = room.run_with(&endless, limited(1000)).await;
    assert_eq!((endless.exit, endless.stdout.len()), (Exit::OutputLimit, 1000));
}

#[tokio::test]
async fn standard_error_is_told_line_by_line_and_its_tail_kept() {
    let room = Room::new();
    let lines = r#""{\22progress\22: 3, \22total\22: 10}\0ahello\0a\0a\ff\0alast""#;
    let text = program("(call $write (i32.const 2) (i32.const 1024) (i32.const 42))").replace("\"abcdefghijklmnop\"", lines);
    let host = Listener::default();
    let report = room.run_spec(&room.spec(&text), call(), &host).await;
    let log = |line: &str| Event::Log(line.into());
    let progress = Event::Progress(Progress { progress: 3.0, total: Some(10.0), message: None });
    assert_eq!(*host.events.lock(), [Event::Accepted, progress, log("hello"), log(""), log("\u{fffd}"), log("last")]);
    assert!(report.stderr.ends_with(b"last") && !report.stderr_truncated);
}

#[tokio::test]
async fn a_flood_of_standard_error_is_told_whole_and_kept_in_part() {
    let room = Room::new();
    // 100,000 writes of sixteen bytes without a newline, then 100,000 empty lines.
    let text = program(
        "(loop $again (call $write (i32.const 2) (i32.const 1024) (i32.const 16))
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (br_if $again (i32.lt_u (global.get $count) (i32.const 100000))))
        (i32.store8 (i32.const 1024) (i32.const 10))
        (loop $again (call $write (i32.const 2) (i32.const 1024) (i32.const 1))
            (global.set $count (i32.sub (global.get $count) (i32.const 1)))
            (br_if $again (global.get $count)))",
    );
    let host = Listener::default();
    let report = room.run_spec(&room.spec(&text), call(), &host).await;
    assert_eq!(report.exit, Exit::Code(0));
    assert_eq!((report.stderr.len(), report.stderr_truncated), (STDERR_TAIL, true));
    let events = host.events.lock();
    assert_eq!(events.len(), 1 + 100_000, "accepted, one long line, the empty ones");
    assert!(matches!(&events[1], Event::Log(line) if line.len() == MAX_TEXT));
}

#[tokio::test]
async fn lines_are_told_while_the_guest_still_runs() {
    let room = Room::new();
    let spec = room.spec(&program(
        "(i32.store8 (i32.const 1030) (i32.const 10)) (call $write (i32.const 2) (i32.const 1024) (i32.const 7)) (call $sleep)",
    ));
    let host = Listener::default();
    let running = room.run_spec(&spec, call(), &host);
    let told = async {
        while !host.events.lock().contains(&Event::Log("abcdef".into())) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        host.cancel.cancel();
    };
    let (report, ()) = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(running, told) }).await.unwrap();
    assert_eq!(report.exit, Exit::Canceled);
}

#[tokio::test]
async fn randomness_comes_in_bounded_pieces() {
    let room = Room::new();
    let random = |bytes: u32| {
        program(&format!(
            "(drop (memory.grow (i32.const 100))) (call $exit (call $random_get (i32.const 0) (i32.const {bytes})))"
        ))
    };
    assert_eq!(room.run(&random(1 << 20)).await.exit, Exit::Code(0));
    assert_eq!(room.run(&random(5 << 20)).await.exit, Exit::Signal(4));
}
