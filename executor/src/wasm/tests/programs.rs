//! What is accepted as a program, and what the disk may give back as one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::{INSTANCE, Listener, Room, cache, call, program};
use crate::error::StartError;
use crate::spec::{ByteSize, SandboxSpec, Source};
use crate::wire::Exit;
use crate::{Backend, SandboxId};

use super::super::{SetupError, WasmBackend, WasmConfig};

/// The smallest component: its `run` gives `result`.
fn component(result: u32) -> String {
    format!(
        r#"(component
            (core module $m (func (export "run") (result i32) (i32.const {result})))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $out (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

fn artefacts(room: &Room) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(cache(&room.folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs `spec` in a backend that has nothing in memory, and says whether the file in the cache was written anew.
async fn compiles_again(room: &Room, spec: &SandboxSpec, file: &PathBuf, exit: Exit) -> bool {
    let inode = || fs::metadata(file).unwrap().ino();
    // Held open, so that its inode is not given to the next file.
    let (_kept, before) = (fs::File::open(file).unwrap(), inode());
    let backend = room.reopened();
    let report = backend.start(SandboxId::generate(), spec).await.unwrap().invoke(call(), &Listener::default()).await.unwrap();
    assert_eq!(report.exit, exit);
    inode() != before
}

#[tokio::test]
async fn a_component_runs_and_its_result_is_its_exit_code() {
    let room = Room::new();
    assert_eq!(room.run(&component(0)).await.exit, Exit::Code(0));
    assert_eq!(room.run(&component(1)).await.exit, Exit::Code(1));
}

#[tokio::test]
async fn a_compiled_program_is_kept_across_restarts() {
    let room = Room::new();
    for (text, exit) in [(program("(call $exit (i32.const 5))"), Exit::Code(5)), (component(1), Exit::Code(1))] {
        let spec = room.spec(&text);
        let before = artefacts(&room);
        room.backend.prepare(&spec).await.unwrap();
        let new: Vec<_> = artefacts(&room).into_iter().filter(|file| !before.contains(file)).collect();
        let [file] = &new[..] else { panic!("{new:?}") };
        assert!(!compiles_again(&room, &spec, file, exit).await);
    }
    assert_eq!(fs::metadata(cache(&room.folder)).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_others_could_have_changed_is_compiled_again() {
    let room = Room::new();
    let spec = room.spec(&program("(call $exit (i32.const 5))"));
    room.backend.prepare(&spec).await.unwrap();
    let other = room.spec(&program("(call $exit (i32.const 6))"));
    let file = artefacts(&room).remove(0);
    room.backend.prepare(&other).await.unwrap();
    let foreign = artefacts(&room).into_iter().find(|found| *found != file).unwrap();
    let whole = fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    for wrong in [flipped, whole[..middle].to_vec(), Vec::new(), b"no code".to_vec(), fs::read(&foreign).unwrap()] {
        fs::write(&file, wrong).unwrap();
        assert!(compiles_again(&room, &spec, &file, Exit::Code(5)).await);
        assert!(!compiles_again(&room, &spec, &file, Exit::Code(5)).await, "and is whole again");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(compiles_again(&room, &spec, &file, Exit::Code(5)).await, "others may write to it");
    fs::rename(&file, room.folder.path().join("moved")).unwrap();
    symlink(room.folder.path().join("moved"), &file).unwrap();
    assert!(compiles_again(&room, &spec, &file, Exit::Code(5)).await, "it is a link");
    assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let open = |path: PathBuf| WasmBackend::new(WasmConfig { max_instances: 1, ..WasmConfig::new(path, INSTANCE) }).map(drop);
    let shared = cache(&folder);
    fs::create_dir(&shared).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
        let refused = open(shared.clone()).unwrap_err();
        assert!(
            matches!(&refused, SetupError::Folder { path, detail } if *path == shared && detail.contains("chmod 700")),
            "{refused}"
        );
    }
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o700)).unwrap();
    open(shared.clone()).unwrap();
    let link = folder.path().join("link");
    symlink(&shared, &link).unwrap();
    assert!(matches!(open(link), Err(SetupError::Folder { .. })));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(open(file), Err(SetupError::Folder { .. })));
}

#[test]
fn settings_that_cannot_work_are_named_all_at_once() {
    let mut config = WasmConfig::new("/nowhere", INSTANCE);
    config.max_instances = 0;
    config.max_memory = ByteSize(5 << 30);
    config.http.connect_timeout = std::time::Duration::ZERO;
    let Err(SetupError::Settings(wrong)) = WasmBackend::new(config) else { panic!("accepted") };
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_pinned_is_refused() {
    let room = Room::new();
    let spec = room.spec(&program(""));
    let Source::Module { path, sha256 } = spec.source.clone() else { unreachable!() };
    fs::write(&path, wat::parse_str(program("unreachable")).unwrap()).unwrap();
    let refused = room.backend.prepare(&spec).await.unwrap_err();
    assert!(matches!(&refused, StartError::SourceMissing { detail, .. } if detail.contains(&sha256)), "{refused}");
    assert!(artefacts(&room).is_empty(), "nothing of it was compiled");
    // A refusal is not remembered: the right file is accepted.
    fs::write(&path, wat::parse_str(program("")).unwrap()).unwrap();
    room.backend.prepare(&spec).await.unwrap();
    for digest in ["", "abc", "../../../../etc/passwd", &sha256.to_uppercase(), &"x".repeat(64)] {
        let source = Source::Module { path: path.clone(), sha256: digest.to_owned() };
        let refused = room.backend.prepare(&SandboxSpec { source, ..spec.clone() }).await;
        assert!(matches!(refused, Err(StartError::SourceMissing { .. })), "{digest}");
    }
    let source = Source::Module { path: path.with_extension("gone"), sha256 };
    let other = SandboxSpec { source, ..spec };
    let fresh = room.reopened();
    assert!(matches!(fresh.prepare(&other).await, Err(StartError::SourceMissing { .. })));
}

#[tokio::test]
async fn what_is_no_program_is_refused_with_the_reason() {
    let room = Room::new();
    let module = |text: &str| wat::parse_str(text).unwrap();
    let cases: [(Vec<u8>, &str); 9] = [
        (b"".to_vec(), "neither"),
        (b"#!/bin/sh".to_vec(), "neither"),
        (b"(module)".to_vec(), "neither"),
        (b"\0asm\x02\0\0\0".to_vec(), "version"),
        (b"\0asm\x01\0\0\0garbage".to_vec(), ""),
        (module("(module)"), "_start"),
        (module(r#"(module (func (export "_start") (param i32)))"#), "_start"),
        (module(r#"(module (import "env" "secret" (func)) (func (export "_start")))"#), "env"),
        (module("(component)"), "wasi:cli/run"),
    ];
    for (bytes, reason) in cases {
        let refused = room.backend.prepare(&room.spec_of(&bytes)).await.unwrap_err();
        assert!(
            matches!(&refused, StartError::SourceInvalid { detail, .. } if detail.contains(reason)),
            "{refused} should say {reason}"
        );
    }
    let spec = room.spec(&program(""));
    let Source::Module { path, .. } = &spec.source else { unreachable!() };
    fs::File::options().write(true).open(path).unwrap().set_len(65 << 20).unwrap();
    assert!(
        matches!(room.backend.prepare(&spec).await, Err(StartError::SourceMissing { detail, .. }) if detail.contains("at most"))
    );
    let image = SandboxSpec { source: Source::Image("sha256:0".into()), ..spec };
    assert!(matches!(room.backend.prepare(&image).await, Err(StartError::SourceInvalid { .. })));
}
