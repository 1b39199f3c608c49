//! The images that the tests run, and the tests of building them.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt;
use mayfly_executor::docker::{Engine, ImageBuild, ImageError, LABEL_EXECUTOR, LABEL_TOOL, Layer};
use mayfly_executor::wire::{Exit, PROTOCOL};
use mayfly_executor::{Backend, SandboxId};
use tokio::sync::OnceCell;

use crate::support::{Listener, Rig, executor, invocation, rig, spec};

pub(crate) const TAG: &str = "mayfly-test/conformance:test";

/// The conformance tool as a static program.
pub(crate) fn tool() -> &'static Path {
    static TOOL: OnceLock<std::path::PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance_tool");
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/conformance_tool/main.rs");
        let built = Command::new(rustc).args(["--edition", "2024", "-O", "--target", &target, source, "-o"]).arg(&path).status();
        assert!(built.unwrap().success(), "the conformance tool does not build");
        path
    })
}

/// A folder with the tool and `dockerfile`.
fn context(dockerfile: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tool(), folder.path().join("tool")).unwrap();
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    folder
}

async fn build(context: &Path, tag: &str) -> Result<String, ImageError> {
    let build = ImageBuild { context, tag, tool: "conformance", executor: &executor(), network: Some("none") };
    Engine::new(None).build(&build, &|line| println!("{line}")).await
}

/// The image of the suite, built once a run.
pub(crate) async fn conformance() -> String {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    let image = IMAGE.get_or_init(|| async {
        let folder = context("FROM scratch\nCOPY tool /tool\nENTRYPOINT [\"/tool\"]\nCMD [\"echo\"]\n");
        build(folder.path(), TAG).await.unwrap()
    });
    image.await.clone()
}

/// An image that knows nothing of Mayfly, with the tool, a variable and a working directory of its own.
pub(crate) async fn bare(docker: &Docker) -> String {
    let dockerfile = "FROM scratch\nCOPY tool /app/tool\nENV GREETING=hello\nWORKDIR /app\nCMD [\"./tool\", \"look\"]\n";
    let folder = context(dockerfile);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", folder.path()).unwrap();
    let body = bollard::body_full(tar.into_inner().unwrap().into());
    let options = BuildImageOptionsBuilder::default().t("mayfly-test/bare:test").build();
    let said: Vec<_> = docker.build_image(options, None, Some(body)).collect().await;
    said.into_iter().filter_map(|info| info.unwrap().aux?.id).next_back().unwrap()
}

#[tokio::test]
async fn an_image_that_knows_nothing_of_mayfly_becomes_a_tool() {
    let Some(Rig { backend, docker, .. }) = rig().await else { return };
    let bare = bare(&docker).await;
    let layer = Layer { image: &bare, tag: None, tool: "look", executor: &executor() };
    let image = backend.engine().layer_executor(&layer, &|_| {}).await.unwrap();
    let labels = docker.inspect_image(&image).await.unwrap().config.unwrap().labels.unwrap();
    assert_eq!((labels[LABEL_EXECUTOR].as_str(), labels[LABEL_TOOL].as_str()), (PROTOCOL.to_string().as_str(), "look"));

    let id = SandboxId::generate();
    let sandbox = backend.start(id, &spec(&image)).await.unwrap();
    let report = sandbox.invoke(invocation(&[]), &Listener::default()).await;
    backend.destroy(id).await.unwrap();
    let report = report.unwrap();
    assert_eq!(report.exit, Exit::Code(0), "{:?}", report.detail);
    let seen: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&seen["environment"]["GREETING"], &seen["environment"]["HOME"]), (&"hello".into(), &"/tmp".into()));

    // Again on top of itself: the new executor replaces the old one, and the result is the same tool.
    let again = backend.engine().layer_executor(&Layer { image: &image, ..layer }, &|_| {}).await.unwrap();
    let command = async |image: &str| docker.inspect_image(image).await.unwrap().config.unwrap().cmd;
    assert_eq!(command(&again).await, command(&image).await);
    // With it go the untagged images below.
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    docker.remove_image(&again, Some(options), None).await.unwrap();
}

#[tokio::test]
async fn a_build_that_cannot_succeed_says_why() {
    if rig().await.is_none() {
        return;
    }
    let missing_file = context("FROM scratch\nCOPY nothing /\n");
    let error = build(missing_file.path(), "mayfly-test/never:test").await.unwrap_err();
    assert!(matches!(&error, ImageError::Step(why) if why.contains("nothing")), "{error}");

    let no_dockerfile = tempfile::tempdir().unwrap();
    let error = build(no_dockerfile.path(), "mayfly-test/never:test").await.unwrap_err();
    assert!(matches!(&error, ImageError::Step(why) if why.contains("Dockerfile")), "{error}");

    let volume = context("FROM scratch\nCOPY tool /tool\nVOLUME /data\n");
    let error = build(volume.path(), "mayfly-test/never:test").await.unwrap_err();
    assert!(matches!(&error, ImageError::Volume(path) if path == "/data"), "{error}");

    let unknown = Layer { image: "mayfly-test/never:test", tag: None, tool: "x", executor: &executor() };
    let error = Engine::new(None).layer_executor(&unknown, &|_| {}).await.unwrap_err();
    assert!(matches!(error, ImageError::Engine(_)), "{error}");
}

#[tokio::test]
async fn what_dockerignore_names_does_not_reach_the_image() {
    if rig().await.is_none() {
        return;
    }
    let folder = context("FROM scratch\nCOPY . /app/\n");
    std::fs::write(folder.path().join("key.pem"), "secret").unwrap();
    std::fs::write(folder.path().join(".dockerignore"), "*.pem\n").unwrap();
    let built = build(folder.path(), "mayfly-test/ignore:test").await;
    assert!(built.is_ok(), "{built:?}");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\nCOPY key.pem /\n").unwrap();
    assert!(build(folder.path(), "mayfly-test/ignore:test").await.is_err());
}
