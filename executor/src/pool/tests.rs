//! Pools over an engine that remembers, and misbehaves as it is told.

use super::*;
use crate::error::RunError;
use crate::run::fake::{Caller, Engine, Ledger, Scenario, counted, dispatcher, dispatcher_with, order};
use crate::{Dispatcher, Event, Failure};

const SOON: Duration = Duration::from_secs(5);

fn warm(size: u32) -> Warm {
    let spec = order().spec;
    Warm {
        tool: "look".into(),
        version: "1.0.0".into(),
        spec,
        size,
        timeout: Duration::from_secs(30),
        when_empty: WhenEmpty::Start,
    }
}

/// Waits until the only pool holds so many.
async fn holds(dispatcher: &Dispatcher, idle: usize) -> PoolStatus {
    let begun = Instant::now();
    loop {
        let status = dispatcher.pools().remove(0);
        if (status.idle, status.starting) == (idle, 0) {
            return status;
        }
        assert!(begun.elapsed() < SOON, "{status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn claimed(caller: &Caller) -> Option<SandboxId> {
    caller.events.lock().iter().find_map(|event| match event {
        Event::Claimed(id) => Some(*id),
        _ => None,
    })
}

#[tokio::test]
async fn a_call_takes_a_waiting_sandbox_which_is_replaced_and_never_put_back() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(2)]);
    holds(&dispatcher, 2).await;
    let waiting = engine.sandboxes();
    assert_eq!((waiting.len(), ledger.open(), dispatcher.live().len()), (2, 2, 2), "each has its row");

    let caller = Caller::default();
    dispatcher.run(order(), &caller).await.unwrap();
    let used = claimed(&caller).expect("it was claimed");
    assert!(waiting.contains(&used) && !caller.events.lock().iter().any(|event| matches!(event, Event::Starting(_))));
    let status = holds(&dispatcher, 2).await;
    assert_eq!((status.claims, status.misses, status.lost), (1, 0, 0));
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty() && dispatcher.live().is_empty());
    assert_eq!((counted(&dispatcher), ledger.open()), ((3, 3, 0), 0));
}

#[tokio::test]
async fn an_empty_pool_is_no_obstacle() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    let other = SandboxSpec { pids: 7, ..order().spec };
    dispatcher.keep_warm(vec![Warm { spec: other, ..warm(1) }]);
    holds(&dispatcher, 1).await;
    let caller = Caller::default();
    dispatcher.run(order(), &caller).await.unwrap();
    assert_eq!(claimed(&caller), None, "another spec is another sandbox");

    engine.becomes(Scenario::StartsSlowly);
    dispatcher.keep_warm(vec![warm(1)]);
    engine.reached().await;
    engine.becomes(Scenario::Works);
    let caller = Caller::default();
    dispatcher.run(order(), &caller).await.unwrap();
    assert_eq!((claimed(&caller), dispatcher.pools()[0].misses), (None, 1));
    engine.go_on();
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
}

#[tokio::test]
async fn a_call_waits_for_the_next_one_where_that_is_wanted() {
    let (engine, ledger) = (Engine::new(Scenario::StartsSlowly), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![Warm { when_empty: WhenEmpty::Wait, ..warm(1) }]);
    engine.reached().await;
    let caller = Caller::default();
    let starting = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        engine.becomes(Scenario::Works);
        engine.go_on();
    };
    let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), starting);
    assert!(result.is_ok() && claimed(&caller).is_some(), "{result:?}");

    // Whoever does not want it any more does not wait.
    engine.becomes(Scenario::StartsSlowly);
    let canceled = Caller::default();
    let canceling = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        canceled.cancel.cancel();
    };
    holds(&dispatcher, 1).await;
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    let (result, ()) = tokio::join!(dispatcher.run(order(), &canceled), canceling);
    assert!(matches!(result, Err(Failure::CanceledBeforeDelivery)), "{result:?}");
    engine.becomes(Scenario::Works);
    engine.go_on();
    dispatcher.drain(SOON).await;
}

#[tokio::test]
async fn a_sandbox_that_dies_waiting_is_noticed_and_replaced() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    let first = engine.sandboxes();
    engine.one_dies();
    let begun = Instant::now();
    while dispatcher.pools()[0].lost == 0 || engine.sandboxes() == first {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let caller = Caller::default();
    holds(&dispatcher, 1).await;
    dispatcher.run(order(), &caller).await.unwrap();
    assert!(!first.contains(&claimed(&caller).expect("the new one")));
    dispatcher.drain(SOON).await;
    assert_eq!((engine.sandboxes().len(), ledger.open()), (0, 0));
}

#[tokio::test]
async fn one_with_too_little_life_left_is_not_claimed() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    // It lives 120 s; a call that may take 119 s does not fit, and its own sandbox does.
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    let (caller, mut long) = (Caller::default(), order());
    long.invocation.timeout = Duration::from_secs(119);
    dispatcher.run(long, &caller).await.unwrap();
    assert_eq!(claimed(&caller), None);
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
}

#[tokio::test]
async fn what_is_not_wanted_any_more_goes_at_once_and_what_was_claimed_stays() {
    let (engine, ledger) = (Engine::new(Scenario::RunsOn), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(3)]);
    holds(&dispatcher, 3).await;
    let caller = Caller::default();
    let switching_off = async {
        engine.reached().await;
        dispatcher.keep_warm(vec![]);
        let begun = Instant::now();
        while engine.sandboxes().len() > 1 {
            assert!(begun.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(engine.sandboxes().contains(&claimed(&caller).unwrap()) && dispatcher.pools().is_empty());
        caller.cancel.cancel();
    };
    let (_, ()) = tokio::join!(dispatcher.run(order(), &caller), switching_off);
    dispatcher.drain(SOON).await;
    assert_eq!((engine.sandboxes().len(), ledger.open()), (0, 0));
}

#[tokio::test]
async fn a_pool_that_changes_leaves_nothing_of_the_one_before() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(2)]);
    holds(&dispatcher, 2).await;
    let first = engine.sandboxes();
    // The same, in a new generation: nothing happens. And then a new version, and another size.
    dispatcher.keep_warm(vec![warm(2)]);
    assert_eq!(engine.sandboxes(), first);
    dispatcher.keep_warm(vec![Warm { version: "1.0.1".into(), ..warm(2) }]);
    dispatcher.keep_warm(vec![warm(1)]);
    // Two tools with one spec: one pool.
    dispatcher.keep_warm(vec![warm(3), Warm { tool: "other".into(), ..warm(1) }]);
    let begun = Instant::now();
    while engine.sandboxes().len() != 1 || engine.sandboxes().intersection(&first).next().is_some() {
        assert!(begun.elapsed() < SOON, "{:?}", engine.sandboxes());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holds(&dispatcher, 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((engine.sandboxes().len(), dispatcher.pools().len()), (1, 1));
    let begun = Instant::now();
    dispatcher.drain(SOON).await;
    assert!(begun.elapsed() < SOON && engine.sandboxes().is_empty() && ledger.open() == 0);
}

#[tokio::test]
async fn a_call_that_is_canceled_when_it_has_its_sandbox_is_not_delivered() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    let caller = Caller::default();
    caller.cancel.cancel();
    let result = dispatcher.run(order(), &caller).await;
    assert!(matches!(result, Err(Failure::CanceledBeforeDelivery)), "{result:?}");
    assert_eq!(engine.keys(), [], "no invocation was handed over");
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
}

#[tokio::test]
async fn a_pool_whose_starts_fail_tries_less_and_less_and_says_why() {
    let (engine, ledger) = (Engine::new(Scenario::Fails), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(2)]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // Both at once, one after half a second; the next is due a second later.
    assert!((2..=4).contains(&engine.asked()), "{}", engine.asked());
    assert!(dispatcher.pools()[0].failure.as_ref().unwrap().contains("it fails"));
    engine.becomes(Scenario::Works);
    assert_eq!(holds(&dispatcher, 2).await.failure, None);
    dispatcher.drain(SOON).await;
    assert_eq!((engine.sandboxes().len(), ledger.open()), (0, 0));
}

#[tokio::test]
async fn a_call_is_tried_again_only_where_nothing_was_delivered_and_under_another_key() {
    let (engine, ledger) = (Engine::new(Scenario::Deaf), Ledger::prompt());
    let dispatcher = dispatcher_with(&engine, &ledger, SOON);
    let result = dispatcher.run(order(), &Caller::default()).await;
    assert!(matches!(result, Err(Failure::Run(RunError::NotDelivered(_)))), "{result:?}");
    let keys = engine.keys();
    assert_eq!(keys.len(), 3);
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);

    // A warm one that is deaf is made up for by one that is not.
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    engine.becomes(Scenario::Works);
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    assert_eq!(engine.keys().len(), 5);
    holds(&dispatcher, 1).await;

    engine.becomes(Scenario::RunsOn);
    dispatcher.keep_warm(vec![]);
    let caller = Caller::default();
    let canceling = async {
        engine.reached().await;
        caller.cancel.cancel();
    };
    let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), canceling);
    assert!(matches!(result, Err(Failure::Run(RunError::Lost(_)))), "{result:?}");
    assert_eq!(engine.keys().len(), 6, "what was delivered runs once");
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
}

#[tokio::test]
async fn a_call_does_not_wait_for_a_pool_whose_starts_fail() {
    let (engine, ledger) = (Engine::new(Scenario::Fails), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![Warm { when_empty: WhenEmpty::Wait, ..warm(1) }]);
    let result = tokio::time::timeout(SOON, dispatcher.run(order(), &Caller::default())).await.expect("soon");
    assert!(matches!(&result, Err(Failure::Start(error)) if error.to_string().contains("it fails")), "{result:?}");
    dispatcher.drain(SOON).await;
}

#[tokio::test]
async fn what_is_wanted_after_the_drain_is_not_started() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    dispatcher.drain(SOON).await;
    // A reload that comes late.
    dispatcher.keep_warm(vec![warm(1)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((dispatcher.pools().len(), engine.sandboxes().len(), engine.asked()), (0, 0, 1));
}

#[tokio::test]
async fn a_pool_at_ease_starts_one_at_a_time_and_one_in_need_all() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.keep_warm(vec![warm(4)]);
    holds(&dispatcher, 4).await;
    engine.becomes(Scenario::StartsSlowly);
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    tokio::time::sleep(4 * MAKE_WAY).await;
    assert_eq!(engine.asked(), 5, "half of it waits, so one at a time");
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    let begun = Instant::now();
    while engine.asked() < 7 {
        assert!(begun.elapsed() < SOON, "less than half of it waits, so all that are missing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.becomes(Scenario::Works);
    for _ in 0..3 {
        engine.go_on();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
}

#[tokio::test]
async fn a_warm_sandbox_that_gets_no_token_any_more_is_made_up_for() {
    let (engine, ledger) = (Engine::new(Scenario::Unknown), Ledger::prompt());
    let dispatcher = dispatcher_with(&engine, &ledger, SOON);
    dispatcher.keep_warm(vec![warm(1)]);
    holds(&dispatcher, 1).await;
    engine.becomes(Scenario::Works);
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    assert_eq!(engine.keys().len(), 1, "nothing was delivered to the first");
    dispatcher.drain(SOON).await;
    assert_eq!((engine.sandboxes().len(), ledger.open()), (0, 0));
}
