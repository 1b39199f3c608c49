use super::*;
use crate::store::Durability;

async fn vault(dir: &Path, config: &SecretsConfig) -> Result<Arc<Secrets>, SecretError> {
    let store = Store::open(dir, Durability::Relaxed).await.unwrap();
    let opened = Secrets::open(config, dir, store.clone()).await;
    if opened.is_err() {
        store.close().await;
    }
    opened
}

async fn close(secrets: Arc<Secrets>) {
    secrets.store.close().await;
}

fn revealed(secrets: &Secrets, name: &str) -> Vec<u8> {
    secrets.reveal(name).unwrap().to_vec()
}

#[tokio::test]
async fn a_secret_outlives_the_process_and_is_nowhere_in_the_clear() {
    let (dir, config) = (tempfile::tempdir().unwrap(), SecretsConfig::default());
    let secrets = vault(dir.path(), &config).await.unwrap();
    assert_eq!(secrets.set("github", b"canary-one").await.unwrap().version, 1);
    assert_eq!(secrets.set("github", b"canary-two").await.unwrap().version, 2);
    close(secrets).await;

    let secrets = vault(dir.path(), &config).await.unwrap();
    assert_eq!(revealed(&secrets, "github"), b"canary-two");
    assert_eq!(secrets.list().len(), 1);
    assert!(!format!("{secrets:?}").contains("canary"));
    secrets.remove("github").await.unwrap();
    assert!(matches!(secrets.reveal("github"), Err(SecretError::Unknown(_))));
    assert!(matches!(secrets.remove("github").await, Err(SecretError::Unknown(_))));
    close(secrets).await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
    }
}

#[tokio::test]
async fn names_and_lengths_are_held_to() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = vault(dir.path(), &SecretsConfig::default()).await.unwrap();
    for name in ["", "A", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
        assert!(matches!(secrets.set(name, b"long enough").await, Err(SecretError::Name(_))), "{name:?}");
    }
    for value in [&b"short"[..], b"", &vec![b'x'; LONGEST + 1]] {
        assert!(matches!(secrets.set("a", value).await, Err(SecretError::Length { .. })));
    }
    secrets.set("a.b_c-1", &vec![0xff; LONGEST]).await.unwrap();
    close(secrets).await;
}

#[tokio::test]
async fn no_gateway_starts_with_a_master_key_that_is_lost_or_another() {
    let (dir, config) = (tempfile::tempdir().unwrap(), SecretsConfig::default());
    let secrets = vault(dir.path(), &config).await.unwrap();
    secrets.set("github", b"hunter22").await.unwrap();
    close(secrets).await;
    let (own, kept) = (dir.path().join(OWN_KEY), dir.path().join("kept"));

    std::fs::rename(&own, &kept).unwrap();
    let lost = vault(dir.path(), &config).await.unwrap_err();
    assert!(matches!(&lost, SecretError::Lost { secrets: 1, .. }), "{lost}");
    assert!(!own.exists(), "no other key is made in its place");

    MasterKey::generate().unwrap().write(&own).unwrap();
    let wrong = vault(dir.path(), &config).await.unwrap_err();
    assert!(matches!(&wrong, SecretError::WrongKey { .. }) && wrong.to_string().contains("previous_master_key"), "{wrong}");

    // The new one takes over where the old one is named beside it, and needs it no more after that.
    let both = SecretsConfig { previous_master_key: Some(KeySource::File(kept)), ..config.clone() };
    close(vault(dir.path(), &both).await.unwrap()).await;
    let secrets = vault(dir.path(), &config).await.unwrap();
    assert_eq!(revealed(&secrets, "github"), b"hunter22");
    close(secrets).await;
}

#[tokio::test]
async fn a_rotation_changes_the_key_and_no_value_and_can_be_cut_short() {
    let (dir, config) = (tempfile::tempdir().unwrap(), SecretsConfig::default());
    let secrets = vault(dir.path(), &config).await.unwrap();
    secrets.set("one", b"value one").await.unwrap();
    secrets.set("two", b"value two").await.unwrap();
    let before = std::fs::read(dir.path().join(OWN_KEY)).unwrap();
    let id = secrets.rotate().await.unwrap();
    assert!(secrets.list().iter().all(|row| row.sealed.key_id == id));
    assert_eq!(revealed(&secrets, "one"), b"value one");
    assert_ne!(std::fs::read(dir.path().join(OWN_KEY)).unwrap(), before);

    assert!(
        matches!(secrets.rotate().await, Err(SecretError::Rotated(_))),
        "the old key is kept until a start has done without it"
    );
    close(secrets).await;
    let own = dir.path().join(OWN_KEY);
    close(vault(dir.path(), &config).await.unwrap()).await;
    assert!(!previous_to(&own).exists());

    // Killed with one of two done: the new key is in place, and one row is sealed with the old one.
    let secrets = vault(dir.path(), &config).await.unwrap();
    let (old, next) = (secrets.state.read().master.clone(), MasterKey::generate().unwrap());
    old.write(&previous_to(&own)).unwrap();
    std::fs::remove_file(&own).unwrap();
    next.write(&own).unwrap();
    let mut first: BTreeMap<_, _> = secrets.list().into_iter().take(1).map(|row| (row.name.clone(), row)).collect();
    rewrap(&secrets.store, &mut first, &old, &next).await.unwrap();
    close(secrets).await;
    for is_kept in [true, false] {
        let secrets = vault(dir.path(), &config).await.unwrap();
        assert_eq!((revealed(&secrets, "one"), revealed(&secrets, "two")), (b"value one".to_vec(), b"value two".to_vec()));
        assert!(secrets.list().iter().all(|row| row.sealed.key_id == next.id()));
        assert_eq!(previous_to(&own).exists(), is_kept);
        close(secrets).await;
    }
}

#[tokio::test]
async fn a_key_that_is_no_file_is_changed_where_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("elsewhere");
    MasterKey::generate().unwrap().write(&key).unwrap();
    let command = KeySource::Command(["cat".to_owned(), key.display().to_string()].into());
    let config = SecretsConfig { master_key: Some(command), previous_master_key: None };
    let secrets = vault(dir.path(), &config).await.unwrap();
    assert!(matches!(secrets.rotate().await, Err(SecretError::KeyElsewhere)));
    assert!(!dir.path().join(OWN_KEY).exists());
    close(secrets).await;
}

#[tokio::test]
async fn a_row_that_was_put_in_by_hand_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = vault(dir.path(), &SecretsConfig::default()).await.unwrap();
    let row = secrets.set("mine", b"for my tool only").await.unwrap();
    secrets.state.write().rows.insert("yours".into(), SecretRow { name: "yours".into(), ..row });
    assert!(matches!(secrets.reveal("yours"), Err(SecretError::Damaged(_))));
    close(secrets).await;
}
