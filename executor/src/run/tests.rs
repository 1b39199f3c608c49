//! The dispatcher over an engine that misbehaves.

use super::fake::{Caller, Engine, Ledger, Scenario, counted, dispatcher, dispatcher_with, order};
use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A start was given up and its call is answered; the engine finishes it only now.
async fn finishes_late(engine: &Engine, ledger: &Ledger, dispatcher: &Dispatcher) {
    // The teardown has had its chance to be too early.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((dispatcher.live().len(), ledger.open()), (1, 1));
    assert_eq!(counted(dispatcher), (1, 0, 0));
    engine.go_on();
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty());
    assert_eq!((dispatcher.live().len(), ledger.open()), (0, 0));
    assert_eq!(counted(dispatcher), (1, 1, 0));
}

#[tokio::test]
async fn a_sandbox_is_gone_after_its_call() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    dispatcher.run(order(), &Caller::default()).await.unwrap();
    dispatcher.drain(SOON).await;
    assert!(engine.sandboxes().is_empty() && dispatcher.live().is_empty());
    assert_eq!((counted(&dispatcher), ledger.open()), ((1, 1, 0), 0));
}

#[tokio::test]
async fn a_start_that_took_too_long_is_destroyed_once_it_has_finished() {
    let (engine, ledger) = (Engine::new(Scenario::StartsSlowly), Ledger::prompt());
    let dispatcher = dispatcher_with(&engine, &ledger, Duration::from_millis(20));
    let result = dispatcher.run(order(), &Caller::default()).await;
    assert!(matches!(result, Err(Failure::Start(StartError::Timeout(_)))), "{result:?}");
    finishes_late(&engine, &ledger, &dispatcher).await;
}

#[tokio::test]
async fn a_start_whose_call_was_canceled_is_destroyed_once_it_has_finished() {
    let (engine, ledger, caller) = (Engine::new(Scenario::StartsSlowly), Ledger::prompt(), Caller::default());
    let dispatcher = dispatcher(&engine, &ledger);
    let canceling = async {
        engine.reached().await;
        caller.cancel.cancel();
    };
    let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), canceling);
    assert!(matches!(result, Err(Failure::CanceledBeforeDelivery)), "{result:?}");
    finishes_late(&engine, &ledger, &dispatcher).await;
}

#[tokio::test]
async fn a_call_that_is_canceled_already_starts_nothing() {
    let (engine, ledger, caller) = (Engine::new(Scenario::StartsSlowly), Ledger::prompt(), Caller::default());
    caller.cancel.cancel();
    let dispatcher = dispatcher(&engine, &ledger);
    let result = dispatcher.run(order(), &caller).await;
    assert!(matches!(result, Err(Failure::CanceledBeforeDelivery)), "{result:?}");
    // A start would hold this up.
    dispatcher.drain(SOON).await;
    assert_eq!((dispatcher.live().len(), ledger.open()), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_neither_started_nor_live() {
    let (engine, ledger) = (Engine::new(Scenario::Works), Ledger::refusing());
    let dispatcher = dispatcher(&engine, &ledger);
    let result = dispatcher.run(order(), &Caller::default()).await;
    assert!(matches!(result, Err(Failure::Start(StartError::NotRecorded(_)))), "{result:?}");
    assert!(dispatcher.live().is_empty() && engine.sandboxes().is_empty());
    assert_eq!(counted(&dispatcher), (0, 0, 0));
}

#[tokio::test]
async fn what_a_call_holds_is_held_until_its_sandbox_is_gone() {
    let (engine, ledger, caller) = (Engine::new(Scenario::RunsOn), Ledger::prompt(), Caller::default());
    let dispatcher = dispatcher(&engine, &ledger);
    let canceling = async {
        engine.reached().await;
        engine.becomes(Scenario::HoldsOn);
        caller.cancel.cancel();
    };
    let (result, ()) = tokio::join!(dispatcher.run(order(), &caller), canceling);
    assert!(matches!(result, Err(Failure::Run(RunError::Lost(_)))), "{result:?}");
    assert_eq!(Arc::strong_count(&caller.held), 2, "it is answered, and its sandbox stands");
    dispatcher.drain(SOON).await;
    assert_eq!(Arc::strong_count(&caller.held), 1);
}

#[tokio::test]
async fn a_cold_sandbox_that_gets_no_token_ends_its_call() {
    let (engine, ledger) = (Engine::new(Scenario::Unknown), Ledger::prompt());
    let dispatcher = dispatcher(&engine, &ledger);
    let result = dispatcher.run(order(), &Caller::default()).await;
    assert!(matches!(result, Err(Failure::Start(StartError::Refused { .. }))), "{result:?}");
    dispatcher.drain(SOON).await;
    assert_eq!((counted(&dispatcher), ledger.open(), engine.keys().len()), ((1, 1, 0), 0, 0));
}
