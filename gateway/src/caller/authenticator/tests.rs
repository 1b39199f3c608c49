use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::store::Durability;

async fn open(dir: &Path) -> Authenticator {
    let store = Store::open(dir, Durability::Relaxed).await.unwrap();
    Authenticator::open(dir, store).await.unwrap()
}

fn header(key: &AgentKey) -> String {
    format!("Bearer {}", key.secret().expose_secret())
}

#[tokio::test]
async fn a_registered_key_is_its_agent_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let key = agents.add("deployer", Some("ada@example.com")).await.unwrap();
    for header in [header(&key), header(&key).replace("Bearer ", "bearer  "), header(&key).replace("Bearer", "BEARER")] {
        let caller = agents.authenticate(Some(&header)).unwrap();
        assert_eq!((caller.agent_id(), caller.user()), ("deployer", Some("ada@example.com")));
        assert!(caller.actors().is_empty());
    }
    agents.store.close().await;
    let agents = open(dir.path()).await;
    assert_eq!(agents.authenticate(Some(&header(&key))).unwrap().agent_id(), "deployer");
}

#[tokio::test]
async fn everything_that_is_wrong_gets_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let (key, stranger) = (agents.add("a", None).await.unwrap(), AgentKey::generate().unwrap());
    let text = key.secret().expose_secret();
    let wrong_secret = format!("Bearer mf_{}_{}", key.id(), "0".repeat(64));
    let wrong = [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        text.to_owned(),
        format!("Basic {text}"),
        format!("Bearer\t{text}"),
        format!("Bearer {text} "),
        format!("Bearer {text}\0"),
        format!("Bearer {}", text.to_uppercase()),
        format!("Bearer {}", &text[..79]),
        format!("Bearer {text}{}", "0".repeat(1 << 20)),
        wrong_secret,
        header(&stranger),
        header(&key).replace(key.id(), stranger.id()),
    ];
    assert_eq!(agents.authenticate(None), Err(CallError::Unauthenticated));
    for header in wrong {
        assert_eq!(agents.authenticate(Some(&header)), Err(CallError::Unauthenticated), "{}", &header[..header.len().min(100)]);
    }
}

#[tokio::test]
async fn a_suspended_agent_is_told_so_only_with_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let key = agents.add("a", None).await.unwrap();
    agents.suspend("a").await.unwrap();
    assert_eq!(agents.authenticate(Some(&header(&key))), Err(CallError::AgentSuspended));
    let guess = format!("Bearer mf_{}_{}", key.id(), "0".repeat(64));
    assert_eq!(agents.authenticate(Some(&guess)), Err(CallError::Unauthenticated));
    assert!(agents.list().await.unwrap()[0].suspended);
    agents.resume("a").await.unwrap();
    agents.authenticate(Some(&header(&key))).unwrap();
}

#[tokio::test]
async fn a_removed_agent_is_nobody_and_its_name_stays_taken() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let old = agents.add("a", None).await.unwrap();
    let other = agents.add("b", None).await.unwrap();
    agents.remove("a").await.unwrap();
    assert_eq!(agents.authenticate(Some(&header(&old))), Err(CallError::Unauthenticated));
    agents.authenticate(Some(&header(&other))).unwrap();
    // Its calls belong to the name: whoever had it next would own them.
    let again = agents.add("a", None).await.unwrap_err();
    assert!(matches!(&again, AgentError::Store(StoreError::RemovedAgent(name)) if name == "a"), "{again}");
    assert_eq!(agents.list().await.unwrap().len(), 1);
    agents.store.close().await;
    let agents = open(dir.path()).await;
    assert_eq!(agents.authenticate(Some(&header(&old))), Err(CallError::Unauthenticated));
    agents.authenticate(Some(&header(&other))).unwrap();
}

#[tokio::test]
async fn a_change_that_nobody_waits_for_any_more_is_in_force_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let key = agents.add("a", None).await.unwrap();
    let mut suspension = Box::pin(agents.suspend("a"));
    assert!(futures_util::poll!(&mut suspension).is_pending());
    drop(suspension);
    // Its turn comes after the one that was given up.
    agents.add("b", None).await.unwrap();
    assert_eq!(agents.authenticate(Some(&header(&key))), Err(CallError::AgentSuspended));
}

#[tokio::test]
async fn a_change_that_the_store_refuses_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let key = agents.add("a", None).await.unwrap();
    agents.store.close().await;
    assert!(matches!(agents.suspend("a").await, Err(AgentError::Store(StoreError::Closed))));
    assert!(matches!(agents.remove("a").await, Err(AgentError::Store(StoreError::Closed))));
    agents.authenticate(Some(&header(&key))).unwrap();
}

#[tokio::test]
async fn names_are_checked_and_unique() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    agents.add("a.b_c-9", None).await.unwrap();
    agents.add(&"a".repeat(63), None).await.unwrap();
    let long = "a".repeat(64);
    for name in ["", ".a", "-a", "A", "a b", "a/b", "../a", "ä", "a\0", "a\n", &long] {
        assert!(matches!(agents.add(name, None).await, Err(AgentError::Name(_))), "{name:?}");
    }
    for user in ["", "a\nb", &"u".repeat(257)] {
        assert!(matches!(agents.add("fine", Some(user)).await, Err(AgentError::User(_))), "{user:?}");
    }
    let taken = agents.add("a.b_c-9", None).await.unwrap_err();
    assert!(matches!(&taken, AgentError::Store(StoreError::DuplicateAgent(name)) if name == "a.b_c-9"), "{taken}");
    for error in [agents.remove("nobody").await, agents.suspend("nobody").await, agents.resume("nobody").await] {
        assert!(matches!(error, Err(AgentError::Store(StoreError::UnknownAgent(_)))), "{error:?}");
    }
    assert_eq!(agents.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_lost_key_file_stops_the_start_instead_of_locking_everybody_out() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    agents.add("a", None).await.unwrap();
    let store = agents.store.clone();
    std::fs::remove_file(dir.path().join("agent-key.hmac")).unwrap();
    let error = Authenticator::open(dir.path(), store).await.unwrap_err();
    assert!(error.to_string().contains("restore it"), "{error}");
    assert!(!dir.path().join("agent-key.hmac").exists());
}

#[tokio::test]
async fn neither_the_database_nor_a_debug_print_holds_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let agents = open(dir.path()).await;
    let key = agents.add("a", None).await.unwrap();
    let secret = key.secret().expose_secret().rsplit('_').next().unwrap().to_owned();
    let raw = hex::decode(&secret).unwrap();
    assert!(!format!("{agents:?}").contains(&secret));
    agents.store.close().await;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(64).any(|w| w == secret.as_bytes()));
        assert!(!bytes.windows(32).any(|w| w == raw));
    }
}

proptest! {
    #[test]
    fn any_header_is_taken_apart_or_refused(header in "\\PC*") {
        prop_assert!(bearer(&header).and_then(PresentedKey::parse).is_none());
    }

    #[test]
    fn names_follow_their_form(name in "[a-zA-Z0-9._ -]{0,66}") {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c));
        prop_assert_eq!(check_name(&name).is_ok(), first && rest && name.len() <= 63);
    }
}
