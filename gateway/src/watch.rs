//! Says when something under some folders changed: an edit, a rename over a file, a ConfigMap's symlink swap.
//!
//! The operating system's notifications only wake us. What counts is a fingerprint of everything that is there, links
//! followed, and it is also taken every few seconds: a notification that was lost, or never comes (network file systems),
//! delays a change and does not lose it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// How long it must be quiet before a change is told: an editor's save is several events.
pub const SETTLE: Duration = Duration::from_millis(150);
/// How often we look without being woken.
pub const RECHECK: Duration = Duration::from_secs(2);
/// The longest that a change is kept back because more of them keep coming.
const SETTLE_MOST: u32 = 20;
/// The deepest folder that is looked at, counted from a given path.
const DEEPEST: usize = 8;
/// The most files and folders that are looked at.
const MOST: usize = 20_000;
/// What builds write; watching it would be watching ourselves.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];

/// What wakes the watching thread.
enum Wake {
    /// Something may have changed.
    Look,
    /// Nobody listens any more.
    Stop,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    changes: watch::Receiver<u64>,
    wake: Sender<Wake>,
}

impl Watch {
    /// Waits until something changed since the last time. Changes in between are told once. Cancel-safe.
    ///
    /// `false`: the watch has ended, and there is nothing more to wait for.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may be gone already, and then there is nobody to tell.
        let _ = self.wake.send(Wake::Stop);
    }
}

/// Starts to watch files and folders, also ones that are not there yet. What is there when it returns is what changes are
/// measured against.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(paths: Vec<PathBuf>) -> std::io::Result<Watch> {
    watch_every(paths, RECHECK)
}

fn watch_every(paths: Vec<PathBuf>, recheck: Duration) -> std::io::Result<Watch> {
    let (wake, woken) = channel();
    let (tell, changes) = watch::channel(0);
    let notify = wake.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(&event.kind)) {
            let _ = notify.send(Wake::Look);
        }
    });
    let watcher = watcher
        .map_err(|error| tracing::warn!(%error, "no notifications of changed files: looking every {recheck:?} instead"))
        .ok();
    let mut watching = Watching { paths, watcher, watched: BTreeSet::new(), warned: false };
    let now = watching.look();
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || run(&mut watching, now, &woken, &tell, recheck))?;
    Ok(Watch { changes, wake })
}

/// Whether an event can mean that something is different. Reading is none: our own look opens every folder, and would wake itself
/// for ever.
const fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(AccessMode::Write)))
}

fn run(watching: &mut Watching, mut known: u64, woken: &Receiver<Wake>, tell: &watch::Sender<u64>, recheck: Duration) {
    loop {
        match woken.recv_timeout(recheck) {
            Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let mut seen = watching.look();
        if seen == known {
            continue;
        }
        for _ in 0..SETTLE_MOST {
            std::thread::sleep(SETTLE);
            if woken.try_iter().any(|wake| matches!(wake, Wake::Stop)) {
                return;
            }
            let next = watching.look();
            if next == seen {
                break;
            }
            seen = next;
        }
        known = seen;
        if tell.send(seen).is_err() {
            return;
        }
    }
}

/// What is watched.
struct Watching {
    paths: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    warned: bool,
}

impl Watching {
    /// The fingerprint of everything there is, and notifications for every folder in it.
    fn look(&mut self) -> u64 {
        let mut hash = DefaultHasher::new();
        let mut folders = BTreeSet::new();
        let mut left = MOST;
        for path in &self.paths {
            // A file that is replaced is an event of its folder.
            folders.extend(
                path.parent()
                    .filter(|_| !path.is_dir())
                    .map(|p| if p.as_os_str().is_empty() { PathBuf::from(".") } else { p.to_owned() }),
            );
            take(path, 0, &mut left, &mut hash, &mut folders);
        }
        if left == 0 && !self.warned {
            self.warned = true;
            tracing::warn!("more than {MOST} files and folders: changes beyond those are not noticed; watch smaller folders");
        }
        if let Some(watcher) = &mut self.watcher {
            for gone in self.watched.difference(&folders) {
                let _ = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.watched) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::debug!(%error, folder = %new.display(), "no notifications for a folder");
                }
            }
        }
        self.watched = folders;
        hash.finish()
    }
}

/// Adds what a path leads to, links followed: kind, identity, length and time of what is there.
fn take(path: &Path, depth: usize, left: &mut usize, hash: &mut DefaultHasher, folders: &mut BTreeSet<PathBuf>) {
    path.hash(hash);
    let Some(rest) = left.checked_sub(1) else { return };
    *left = rest;
    let Ok(found) = std::fs::metadata(path) else { return };
    (found.dev(), found.ino()).hash(hash);
    if !found.is_dir() {
        (found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()).hash(hash);
        return;
    }
    folders.insert(path.to_owned());
    if depth == DEEPEST {
        return;
    }
    let mut entries: Vec<_> = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|e| e.path()).collect();
    entries.retain(|p| p.file_name().is_none_or(|name| !SKIPPED.iter().any(|s| name == *s)));
    entries.sort();
    for entry in entries {
        take(&entry, depth + 1, left, hash, folders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    async fn tells(watch: &mut Watch) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(10), watch.changed()).await, Ok(true))
    }

    async fn stays_quiet(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_millis(600), watch.changed()).await.is_err()
    }

    /// Notifications alone: the recheck comes too late to help.
    fn by_notification(path: &Path) -> Watch {
        watch_every(vec![path.to_owned()], Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn reading_is_no_change() {
        use notify::event::{CreateKind, ModifyKind, RemoveKind};
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Read, AccessKind::Close(AccessMode::Read)] {
            assert!(!is_change(&EventKind::Access(kind)), "{kind:?}");
        }
        let changes = [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Modify(ModifyKind::Any),
            EventKind::Create(CreateKind::Any),
            EventKind::Remove(RemoveKind::Any),
            EventKind::Any,
        ];
        assert!(changes.iter().all(is_change));
    }

    #[tokio::test]
    async fn an_edit_a_new_folder_and_a_removal_are_told_once_each() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/tool.yaml"), "1").unwrap();
        let mut watch = by_notification(folder.path());
        fs::write(folder.path().join("a/tool.yaml"), "22").unwrap();
        assert!(tells(&mut watch).await);
        assert!(stays_quiet(&mut watch).await, "several events of one edit");
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(tells(&mut watch).await);
        fs::write(folder.path().join("b/tool.yaml"), "1").unwrap();
        assert!(tells(&mut watch).await, "a folder that came later is watched too");
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        assert!(tells(&mut watch).await);
    }

    #[tokio::test]
    async fn a_save_by_rename_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.rego");
        fs::write(&file, "1").unwrap();
        for path in [folder.path(), &file] {
            let mut watch = by_notification(path);
            for content in ["2", "3"] {
                fs::write(folder.path().join(".policy.rego.swp"), content).unwrap();
                fs::rename(folder.path().join(".policy.rego.swp"), &file).unwrap();
                assert!(tells(&mut watch).await, "{}", path.display());
            }
        }
    }

    #[tokio::test]
    async fn a_symlink_swap_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, content) in [("..1", "a"), ("..2", "b")] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("tool.yaml"), content).unwrap();
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/tool.yaml", root.join("tool.yaml")).unwrap();
        let mut watch = by_notification(&root.join("tool.yaml"));
        symlink("..2", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        assert!(tells(&mut watch).await);
        assert_eq!(fs::read_to_string(root.join("tool.yaml")).unwrap(), "b");
    }

    #[tokio::test]
    async fn without_notifications_a_change_is_found_by_looking() {
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("not/there/yet");
        let mut watch = watch_every(vec![later.clone()], Duration::from_millis(100)).unwrap();
        fs::create_dir_all(&later).unwrap();
        assert!(tells(&mut watch).await);
    }

    #[tokio::test]
    async fn what_builds_write_and_what_is_only_read_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let mut watch = watch_every(vec![folder.path().to_owned()], Duration::from_millis(50)).unwrap();
        fs::write(folder.path().join("target/x"), "1").unwrap();
        let _ = fs::read(folder.path().join("a")).unwrap();
        assert!(stays_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn a_change_that_does_not_end_is_told_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = by_notification(folder.path());
        let file = folder.path().join("busy");
        let writes = tokio::spawn(async move {
            for i in 0_u32.. {
                fs::write(&file, i.to_string()).unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
        assert!(tells(&mut watch).await);
        assert!(!writes.is_finished());
        writes.abort();
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join(["d"; DEEPEST + 3].join("/"));
        fs::create_dir_all(&deep).unwrap();
        let look = |mut left: usize| {
            let mut folders = BTreeSet::new();
            take(folder.path(), 0, &mut left, &mut DefaultHasher::new(), &mut folders);
            folders.len()
        };
        assert_eq!(look(MOST), DEEPEST + 1);
        assert_eq!(look(3), 3);
    }

    #[tokio::test]
    async fn a_dropped_watch_ends_its_thread() {
        let folder = tempfile::tempdir().unwrap();
        let watch = by_notification(folder.path());
        let mut changes = watch.changes.clone();
        drop(watch);
        assert!(tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().is_err());
    }
}
