//! The wasm backend against the suite that every backend passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mayfly_executor::conformance::{self, Fixture, Fixtures, Scenario};
use mayfly_executor::spec::{ByteSize, SandboxSpec, Source};
use mayfly_executor::wasm::{WasmBackend, WasmConfig};
use mayfly_executor::{Backend, InstanceId};
use sha2::{Digest, Sha256};

struct Modules(SandboxSpec);

impl Fixtures for Modules {
    fn fixture(&self, scenario: Scenario) -> Fixture {
        Fixture { spec: self.0.clone(), command: vec!["tool".to_owned(), scenario.name().to_owned()] }
    }
}

/// The conformance tool as a core module. It needs nothing but the standard library, so rustc alone builds it.
fn module(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/conformance_tool/main.rs");
    let module = folder.join("tool.wasm");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--target", "wasm32-wasip1", "-O", "-o"]).arg(&module).arg(source);
    // The folder decides which toolchain answers.
    let built = rustc.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("rustc");
    assert!(built.success(), "the conformance tool does not build; `rustup target add wasm32-wasip1`?");
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let path = module(folder.path());
    let sha256 = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
    let spec = SandboxSpec {
        source: Source::Module { path, sha256 },
        memory: ByteSize::mebibytes(64),
        cpu_millis: 1000,
        pids: 1,
        scratch: ByteSize(0),
        mounts: vec![],
        network: std::collections::BTreeSet::new(),
        life: Duration::from_secs(120),
    };
    let config = WasmConfig::new(folder.path().join("modules"), InstanceId(uuid::Uuid::now_v7()));
    let backend = WasmBackend::new(config).unwrap();
    backend.prepare(&spec).await.unwrap();
    match conformance::run_all(&*backend, &Modules(spec)).await {
        Ok(passed) => assert!(passed.len() >= 10, "{passed:?}"),
        Err(broken) => panic!("{}", broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}
