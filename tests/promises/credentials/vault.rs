//! The embedded vault, by its command line.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// `mayfly secret ...` with `input`: exit code, output, errors.
fn secret(mayfly: &Mayfly, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(mayfly_tests::harness::mayfly());
    command.arg("secret").args(args).arg("--socket").arg(mayfly.admin_socket());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_vault_reaches_the_call_and_nothing_else() {
    let Some(engine) = Engine::docker() else { return };
    let name = "told_a_secret";
    let uses = "  - {source: scoped, deliver: env, variable: TOKEN}\n";
    let mut mayfly = gateway(&engine, name, json!({"kind": "static", "secret": "token"}), uses).start();
    let ann = mayfly.agent("ann");
    let unset = ann.call(name, json!({})).await;
    assert_eq!((unset.status, &unset.body["title"]), (503, &json!("Credential unavailable")), "{unset:?}");

    let value = "canary-of-the-vault";
    let (code, out, err) = secret(&mayfly, &["set", "token"], format!("{value}\n").as_bytes());
    assert_eq!(code, 0, "{err}");
    let (_, listed, _) = secret(&mayfly, &["list"], b"");
    assert!(listed.contains("token") && ![&out, &err, &listed].iter().any(|text| text.contains("canary")), "{out}{err}{listed}");
    assert_eq!(told(&ann, name, 1).await.1[0], value);

    // A new version is what the next call gets, and a new master key opens what the old one sealed, after a restart too.
    let (code, _, err) = secret(&mayfly, &["set", "token"], b"canary-the-second");
    assert!(code == 0 && err.contains("version 2"), "{err}");
    assert_eq!(secret(&mayfly, &["rotate"], b"").0, 0);
    assert_eq!(told(&ann, name, 1).await.1[0], "canary-the-second");
    mayfly.stop();
    mayfly.launch();
    let ann = Agent { url: mayfly.url.clone(), ..ann };
    assert_eq!(told(&ann, name, 1).await.1[0], "canary-the-second");

    let (code, _, err) = secret(&mayfly, &["set", "short"], b"short");
    assert!(code == 5 && err.contains("8 to 65536 bytes"), "{code} {err}");
    assert_eq!(secret(&mayfly, &["rm", "token"], b"").0, 0);
    assert_eq!(secret(&mayfly, &["rm", "token"], b"").0, 4);
    assert!(!format!("{:?}", mayfly.log()).contains("canary"));
}

#[test]
fn a_gateway_whose_master_key_is_lost_says_so_and_does_not_start() {
    let setup = Setup::new();
    let mut mayfly = setup.start();
    assert_eq!(secret(&mayfly, &["set", "token"], b"canary-of-the-vault").0, 0);
    mayfly.stop();
    let data = mayfly.dir().join("data");
    std::fs::remove_file(data.join("master.key")).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(mayfly_tests::harness::mayfly());
        let output = command.args(args).env("MAYFLY_CONFIG", mayfly.dir().join("mayfly.json")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = run(&["serve"]);
    assert!(code != Some(0) && told.contains("master.key is gone") && told.contains("secret forget"), "{told}");
    assert_eq!(run(&["secret", "forget"]).0, Some(2), "it has to be said that all of them are meant");
    let (code, told) = run(&["secret", "forget", "--all"]);
    assert!(code == Some(0) && told.contains("removed 1 secret"), "{told}");
    mayfly.launch();
}
