//! What is acknowledged is kept: under a full disk, a killed process, and callers that left.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "MAYFLY_STORE_TEST_CHILD";

#[tokio::test]
async fn what_is_queued_is_written_although_nobody_waits_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let calls: Vec<_> = (0..100).map(|_| intent()).collect();
    for call in &calls {
        let mut write = Box::pin(store.commit(call.clone()));
        assert!(futures_util::poll!(&mut write).is_pending());
    }
    drop(store);
    let patience = Instant::now();
    let store = loop {
        match Store::open(dir.path(), Durability::Relaxed).await {
            Ok(store) => break store,
            Err(StoreError::InUse { .. }) if patience.elapsed() < Duration::from_secs(30) => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(store.recover().await.unwrap().len(), calls.len());
}

#[tokio::test]
async fn the_log_is_copied_without_any_commit_doing_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(Intent { arguments: "x".repeat(1_000_000), ..intent() }).await.unwrap();
    // Far fewer pages than make the writer copy for itself.
    let size = || std::fs::metadata(dir.path().join(DATABASE)).unwrap().len();
    let patience = Instant::now();
    while size() < 1_000_000 {
        assert!(patience.elapsed() < Duration::from_secs(30), "{} bytes", size());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_full_disk_fails_those_who_wait_and_not_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { durability: Durability::Full, max_pages: Some(100) };
    let store = Store::open_with(dir.path(), settings).await.unwrap();
    let first = intent();
    store.commit(first.clone()).await.unwrap();
    let calls: Vec<_> = (0..50).map(|_| Intent { arguments: "x".repeat(100_000), ..intent() }).collect();
    let results = join_all(calls.iter().map(|c| store.commit(c.clone()))).await;
    assert!(results.iter().any(|r| matches!(r, Err(StoreError::Full))), "{results:?}");
    for (call, result) in calls.iter().zip(&results) {
        assert_eq!(store.call(call.call_id).await.unwrap().is_some(), result.is_ok(), "{result:?}");
    }
    // These need no new page.
    store.delivering(first.call_id).await.unwrap();
    store.settle(Outcome { result: None, ..outcome(first.call_id) }).await.unwrap();
    let refused = store.commit(Intent { arguments: "x".repeat(400_000), ..intent() }).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    store.commit(intent()).await.unwrap();
}

/// Not a test of its own: the process that the next one kills. Prints the id of every call that was acknowledged.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&dir), Durability::Full).await.unwrap();
    loop {
        let calls: Vec<_> = (0..20).map(|_| intent()).collect();
        let writes = calls.iter().map(async |call| {
            store.commit(call.clone()).await.unwrap();
            writeln!(std::io::stdout(), "committed {}", call.call_id).unwrap();
            if call.call_id.0.as_u128().is_multiple_of(2) {
                store.settle(outcome(call.call_id)).await.unwrap();
                writeln!(std::io::stdout(), "settled {}", call.call_id).unwrap();
            }
        });
        join_all(writes).await;
    }
}

#[tokio::test]
async fn a_process_killed_in_the_middle_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::durability::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged: Vec<String> = lines.by_ref().take(1000).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(lines);

    let store = open(dir.path()).await;
    let recovered: HashSet<_> = store.recover().await.unwrap().into_iter().collect();
    let (mut committed, mut settled) = (0, HashSet::new());
    for line in acknowledged.iter().rev() {
        // The very last line may have been cut short by the kill.
        let Some((what, Ok(id))) = line.split_once(' ').map(|(what, id)| (what, id.parse().map(CallId))) else { continue };
        let row = store.call(id).await.unwrap().unwrap_or_else(|| panic!("{id} was acknowledged and is not there"));
        match what {
            "settled" => {
                assert_eq!(row.state, CallState::Succeeded);
                settled.insert(id);
            }
            "committed" => {
                assert!(row.state.is_final());
                assert!(!settled.contains(&id) || !recovered.contains(&id));
                committed += 1;
            }
            _ => {}
        }
    }
    assert!(committed > 400 && settled.len() > 100, "{committed} {}", settled.len());
}
