use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mayfly_executor::BackendKind;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::call::CallState;
use crate::catalog::definition::Tier;

mod durability;

fn intent() -> Intent {
    Intent {
        call_id: CallId::generate(),
        agent_id: "agent".into(),
        user: Some("ada".into()),
        task_id: Some("task".into()),
        tool: "probe".into(),
        version: "1.2.3".into(),
        tier: Some(Tier::Free),
        tool_digest: Some("d".repeat(64)),
        generation: Some("g".repeat(64)),
        decision_id: Some(Uuid::now_v7().to_string()),
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        arguments: r#"{"url":"https://example.com"}"#.into(),
        arguments_sha256: "a".repeat(64),
        reason: Some("because \u{0} \"quotes\" ' ü".into()),
        created_at: OffsetDateTime::now_utc(),
        credentials: vec!["github".into()],
        delivered: false,
    }
}

fn outcome(call_id: CallId) -> Outcome {
    Outcome {
        call_id,
        state: CallState::Succeeded,
        is_error: false,
        result: Some(r#"{"status":200}"#.into()),
        problem: None,
        detail: None,
        may_have_run: Some(true),
        exit: Some("code 0".into()),
        leaked: vec!["github".into()],
        contacted: vec![Contacted { destination: "api.example.com:443".into(), connections: 1, ..Contacted::default() }],
        duration_ms: 1.25,
        finished_at: OffsetDateTime::now_utc(),
    }
}

async fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, Durability::Relaxed).await.unwrap()
}

#[tokio::test]
async fn a_call_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut intent = intent();
    store.commit(intent.clone()).await.unwrap();
    let row = store.call(intent.call_id).await.unwrap().unwrap();
    assert_eq!(row, CallRow { intent: intent.clone(), state: CallState::Running, outcome: None });
    let view = row.view();
    assert_eq!((view.is_error, view.result, view.duration_ms), (None, None, None));

    store.delivering(intent.call_id).await.unwrap();
    store.delivering(intent.call_id).await.unwrap();
    intent.delivered = true;
    let outcome = outcome(intent.call_id);
    store.settle(outcome.clone()).await.unwrap();
    let row = store.call(intent.call_id).await.unwrap().unwrap();
    assert_eq!(row, CallRow { intent, state: CallState::Succeeded, outcome: Some(outcome) });
    let view = row.view();
    assert_eq!((view.is_error, view.result, view.duration_ms), (Some(false), Some(json!({"status": 200})), Some(1.25)));
    assert!(store.call(CallId::generate()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_call_has_its_outcome_at_once_even_when_nothing_was_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bare = Intent {
        user: None,
        task_id: None,
        tier: None,
        tool_digest: None,
        generation: None,
        decision_id: None,
        reason: None,
        ..intent()
    };
    let denied = Outcome {
        state: CallState::Denied,
        is_error: true,
        result: None,
        problem: Some("denied".into()),
        ..outcome(bare.call_id)
    };
    store.refuse(bare.clone(), denied.clone()).await.unwrap();
    let row = store.call(bare.call_id).await.unwrap().unwrap();
    assert_eq!(row, CallRow { state: CallState::Denied, outcome: Some(denied), intent: bare.clone() });
    assert!(matches!(store.settle(outcome(bare.call_id)).await, Err(StoreError::NotOpen(_))));
    assert!(store.recover().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_call_has_exactly_one_outcome_and_the_first_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let id = intent().call_id;
    assert!(matches!(store.settle(outcome(id)).await, Err(StoreError::NotOpen(_))), "never recorded");
    store.commit(Intent { call_id: id, ..intent() }).await.unwrap();
    assert!(matches!(store.commit(Intent { call_id: id, ..intent() }).await, Err(StoreError::DuplicateCall(_))));

    // All at once, among others that are fine: one wins, the others are refused, nobody else notices.
    let others: Vec<_> = (0..100).map(|_| intent()).collect();
    join_all(others.iter().map(|i| store.commit(i.clone()))).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let (rivals, fine) = futures_util::join!(
        join_all((0..50u8).map(|n| store.settle(Outcome { duration_ms: n.into(), ..outcome(id) }))),
        join_all(others.iter().map(|i| store.settle(outcome(i.call_id)))),
    );
    assert_eq!(rivals.iter().filter(|r| r.is_ok()).count(), 1);
    let winner = rivals.iter().position(Result::is_ok).unwrap();
    assert!(fine.iter().all(Result::is_ok), "{fine:?}");
    let row = store.call(id).await.unwrap().unwrap();
    assert_eq!(row.outcome.unwrap().duration_ms, winner as f64);
    assert!(matches!(store.delivering(id).await, Err(StoreError::NotOpen(_))), "it is over");
}

#[tokio::test]
async fn an_outcome_that_is_no_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let intent = intent();
    store.commit(intent.clone()).await.unwrap();
    let unfit = Outcome { state: CallState::Running, ..outcome(intent.call_id) };
    assert!(matches!(store.settle(unfit).await, Err(StoreError::Unfit(_))));
    store.settle(outcome(intent.call_id)).await.unwrap();
}

#[tokio::test]
async fn a_thousand_commits_at_once_all_arrive_and_share_their_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Durability::Full).await.unwrap();
    let begun = Instant::now();
    let alone = {
        store.commit(intent()).await.unwrap();
        begun.elapsed()
    };
    let calls: Vec<_> = (0..1000).map(|_| intent()).collect();
    let begun = Instant::now();
    let results = join_all(calls.iter().map(|i| store.commit(i.clone()))).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(begun.elapsed() < alone * 500 + Duration::from_secs(1), "{:?} for all, {alone:?} for one", begun.elapsed());
    let settled = join_all(calls.iter().map(|i| store.settle(outcome(i.call_id)))).await;
    assert!(settled.iter().all(Result::is_ok));
    let listed = store.calls("agent", Some("ada"), None, 2000).await.unwrap();
    assert_eq!(listed.len(), 1001);
    assert_eq!(listed.iter().filter(|r| r.state == CallState::Succeeded).count(), 1000);
    let long = |row: &CallRow| !row.intent.arguments.is_empty() || row.outcome.as_ref().is_some_and(|o| o.result.is_some());
    assert!(!listed.iter().any(long), "a list leaves out what may be long");
}

#[tokio::test]
async fn calls_are_listed_for_their_owner_only_newest_first_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut mine = Vec::new();
    for hours_back in 0..5 {
        // The clock jumps back between any two, in the id too.
        let call_id = CallId(Uuid::from_u128(u128::from(u64::MAX) - hours_back as u128));
        let created_at = OffsetDateTime::now_utc() - time::Duration::hours(hours_back);
        store.commit(Intent { call_id, created_at, ..intent() }).await.unwrap();
        mine.push(call_id);
    }
    mine.reverse();
    for (agent_id, user) in [("agent", None), ("agent", Some("bob")), ("other", Some("ada"))] {
        store.commit(Intent { agent_id: agent_id.into(), user: user.map(Into::into), ..intent() }).await.unwrap();
    }
    store.commit(Intent { task_id: None, ..intent() }).await.unwrap();

    let ids = |rows: Vec<CallRow>| rows.into_iter().map(|r| r.intent.call_id).collect::<Vec<_>>();
    assert_eq!(ids(store.calls("agent", Some("ada"), Some("task"), 100).await.unwrap()), mine);
    assert_eq!(ids(store.calls("agent", Some("ada"), Some("task"), 2).await.unwrap()), mine[..2]);
    assert_eq!(store.calls("agent", Some("ada"), None, 100).await.unwrap().len(), 6);
    assert_eq!(store.calls("agent", None, Some("task"), 100).await.unwrap().len(), 1);
    assert_eq!(store.calls("agent", Some("' OR 1=1 --"), None, 100).await.unwrap().len(), 0);
    assert_eq!(store.calls("agent", Some("ada"), Some("other task"), 100).await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_was_left_open_is_interrupted_and_says_whether_it_may_have_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (waiting, delivered, done) = (intent(), intent(), intent());
    let later = Intent { created_at: OffsetDateTime::now_utc() + time::Duration::days(1), ..intent() };
    for intent in [&waiting, &delivered, &done, &later] {
        store.commit(intent.clone()).await.unwrap();
    }
    store.delivering(delivered.call_id).await.unwrap();
    store.settle(outcome(done.call_id)).await.unwrap();
    let instance = store.instance();
    store.close().await;

    let store = open(dir.path()).await;
    assert_eq!(store.instance(), instance);
    let recovered: HashSet<_> = store.recover().await.unwrap().into_iter().collect();
    assert_eq!(recovered, HashSet::from([waiting.call_id, delivered.call_id, later.call_id]));
    for (id, may_have_run) in [(waiting.call_id, false), (delivered.call_id, true), (later.call_id, false)] {
        let outcome = store.call(id).await.unwrap().unwrap().outcome.unwrap();
        assert_eq!((outcome.state, outcome.may_have_run, outcome.is_error), (CallState::Interrupted, Some(may_have_run), true));
        assert_eq!(outcome.problem.as_deref(), Some("interrupted"));
        assert!(outcome.duration_ms >= 0.0);
    }
    assert_eq!(store.call(done.call_id).await.unwrap().unwrap().state, CallState::Succeeded);
    assert!(store.recover().await.unwrap().is_empty());
}

#[tokio::test]
async fn sandbox_rows_open_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let expires_at = SystemTime::UNIX_EPOCH + Duration::new(2_000_000_000, 5);
    let row = SandboxRow { id: SandboxId::generate(), backend: BackendKind::Docker, call_id: Some("call".into()), expires_at };
    let warm = SandboxRow { id: SandboxId::generate(), call_id: None, ..row.clone() };
    store.opening(&row).await.unwrap();
    store.opening(&warm).await.unwrap();
    assert!(store.opening(&row).await.is_err());
    let mut rows = store.open_rows().await.unwrap();
    rows.sort_by_key(|r| r.id);
    assert_eq!(rows, [row.clone(), warm.clone()]);
    store.closed(row.id).await.unwrap();
    store.closed(row.id).await.unwrap();
    assert_eq!(store.open_rows().await.unwrap(), [warm]);
}

#[tokio::test]
async fn a_removed_agents_name_and_calls_are_never_anybody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let agent = |key_id: &str| AgentRow {
        key_id: key_id.into(),
        name: "agent".into(),
        user: None,
        key_mac: [7; 32],
        created_at: OffsetDateTime::now_utc(),
        suspended: false,
    };
    store.add_agent(agent("first")).await.unwrap();
    assert!(matches!(store.add_agent(agent("second")).await, Err(StoreError::DuplicateAgent(_))));
    store.remove_agent("agent").await.unwrap();
    assert!(store.agents().await.unwrap().is_empty());
    assert!(matches!(store.suspend_agent("agent", false).await, Err(StoreError::UnknownAgent(_))));
    let again = store.add_agent(agent("second")).await.unwrap_err();
    assert!(matches!(again, StoreError::RemovedAgent(_)) && again.to_string().contains("choose another name"), "{again}");
}

#[tokio::test]
async fn a_second_gateway_is_refused_and_the_folder_is_free_after_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let error = Store::open(dir.path(), Durability::Full).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    store.close().await;
    assert!(matches!(store.commit(intent()).await, Err(StoreError::Closed)));
    open(dir.path()).await;
}

#[tokio::test]
async fn its_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let store = open(&dir).await;
    store.commit(intent()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
