//! What a call is given, and what becomes of it.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::SourceConfig;

const VALUE: &str = "canary-hunter22";
const USES: &str = "credentials:
  - {source: github, deliver: env, variable: TOKEN}
";

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// A room whose tool uses the source `github`, which is `source`.
async fn room(rules: &str, source: Option<SourceConfig>) -> Room {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), rules);
    std::fs::write(folder.path().join("tools/look/tool.yaml"), format!("{TOOL}{USES}")).unwrap();
    config.credentials.extend(source.map(|source| ("github".to_owned(), source)));
    let room = Room::configured(folder, config, Engine::Tells).await;
    room.secrets.set("token", VALUE.as_bytes()).await.unwrap();
    room
}

fn stored() -> Option<SourceConfig> {
    Some(SourceConfig::Static { secret: "token".into() })
}

fn command(mint: &str, revoke: &str) -> Option<SourceConfig> {
    let revoke = if revoke.is_empty() { Vec::new() } else { shell(revoke) };
    Some(SourceConfig::Command { command: shell(mint), revoke })
}

#[tokio::test]
async fn a_call_is_given_its_credential_and_does_not_give_it_back() {
    let room = room(ALLOW, stored()).await;
    let view = room.call(json!({})).await.unwrap();
    assert_eq!(view.result, Some(json!({"TOKEN": "[redacted]"})), "it had it, and it was taken out of what it said");
    let row = room.gateway.store.call(view.id).await.unwrap().unwrap();
    let github = ["github".to_owned()];
    assert_eq!((&row.intent.credentials[..], &row.outcome.unwrap().leaked[..]), (&github[..], &github[..]));
    let figures = room.gateway.telemetry.metrics().render();
    assert!(figures.contains("mayfly_credentials_written_total{source=\"github\"} 1"), "{figures}");
    let spans = format!("{:?}", room.gateway.telemetry.recent(view.id).unwrap());
    assert!(spans.contains("\"mint\"") && spans.contains("mayfly.credentials.leaked") && !spans.contains("canary"), "{spans}");
    for file in std::fs::read_dir(room.folder.path().join("data")).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(path).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
    }
}

#[tokio::test]
async fn a_decision_may_leave_a_call_without() {
    let room = room("allow := true\nobligations := {\"credentials\": []}", stored()).await;
    let view = room.call(json!({})).await.unwrap();
    assert_eq!(view.result, Some(json!({})));
    assert!(room.gateway.store.call(view.id).await.unwrap().unwrap().intent.credentials.is_empty());
}

#[tokio::test]
async fn policy_sees_what_a_call_would_be_given() {
    let rules = "allow := true\ndeny contains \"no tokens for you\" if \"github\" in input.credentials";
    let failure = room(rules, stored()).await.call(json!({})).await.unwrap_err();
    assert!(matches!(&failure.error, CallError::Denied { reasons } if reasons[0] == "no tokens for you"), "{:?}", failure.error);
}

#[tokio::test]
async fn a_source_that_gives_nothing_ends_the_call_before_anything_runs() {
    let none = Some(SourceConfig::Static { secret: "nobody".into() });
    let rubbish = command("echo canary", "");
    for source in [none, rubbish, command("exit 1", ""), command("echo '{\"token\": \"a\\u0000b\"}'", "")] {
        let room = room(ALLOW, source).await;
        let failure = room.call(json!({})).await.unwrap_err();
        assert!(matches!(&failure.error, CallError::CredentialUnavailable(name) if name == "github"), "{:?}", failure.error);
        let row = room.gateway.store.call(failure.id).await.unwrap().unwrap();
        let outcome = row.outcome.unwrap();
        assert_eq!((outcome.may_have_run, outcome.problem.as_deref()), (Some(false), Some("credential-unavailable")));
        assert!(!format!("{:?} {outcome:?}", failure.error).contains("canary"));
        assert_eq!(room.gateway.limits.running(), 0);
    }
}

#[tokio::test]
async fn a_tool_whose_source_is_not_configured_is_unavailable() {
    let failure = room(ALLOW, None).await.call(json!({})).await.unwrap_err();
    assert!(matches!(failure.error, CallError::ToolUnavailable(_)), "{:?}", failure.error);
}

#[tokio::test]
async fn what_was_minted_is_revoked_when_the_call_has_ended() {
    let marks = tempfile::tempdir().unwrap();
    let (minted, revoked) = (marks.path().join("minted"), marks.path().join("revoked"));
    let mint = format!("touch {}; echo '{{\"token\": \"{VALUE}\"}}'", minted.display());
    let room = room(ALLOW, command(&mint, &format!("test -e {} && touch {}", minted.display(), revoked.display()))).await;
    room.call(json!({})).await.unwrap();
    room.gateway.credentials.revoker().drain(Duration::from_secs(20)).await;
    assert!(revoked.exists());
    assert_eq!(room.gateway.credentials.revoker().open().await.unwrap(), []);
}

#[tokio::test]
async fn what_could_not_be_revoked_is_told_until_it_is() {
    let marks = tempfile::tempdir().unwrap();
    let open = marks.path().join("open");
    // It may have made something before it failed: that has to go as well.
    let room = room(ALLOW, command("exit 1", &format!("test -e {}", open.display()))).await;
    room.call(json!({})).await.unwrap_err();
    let revoker = room.gateway.credentials.revoker();
    revoker.drain(Duration::from_secs(20)).await;
    let leaked = revoker.leaked().await.unwrap();
    assert!(leaked.len() == 1 && leaked[0].attempts == 3, "{leaked:?}");
    assert!(leaked[0].error.as_deref().unwrap().contains("exit status"), "{leaked:?}");
    for _ in 0..2 {
        revoker.sweep().await;
        assert_eq!(revoker.leaked().await.unwrap()[0].attempts, 4, "what failed rests");
    }
    std::fs::write(open, "").unwrap();
    let figures = || room.gateway.telemetry.metrics().render();
    assert!(figures().contains("mayfly_credentials_owed{source=\"github\"} 1"), "{}", figures());
    assert!(figures().contains("mayfly_credentials_total{source=\"github\",result=\"unavailable\"} 1"), "{}", figures());
    revoker.wake();
    revoker.sweep().await;
    assert!(!figures().contains("mayfly_credentials_owed{"), "{}", figures());
    assert_eq!(revoker.leaked().await.unwrap(), []);
}

#[tokio::test]
async fn a_call_that_is_canceled_while_its_credential_is_made_ends_at_once_and_it_is_revoked() {
    let marks = tempfile::tempdir().unwrap();
    let (begun, revoked) = (marks.path().join("begun"), marks.path().join("revoked"));
    let mint = format!("touch {}; sleep 2; echo '{{}}'", begun.display());
    let room = room(ALLOW, command(&mint, &format!("touch {}", revoked.display()))).await;
    let canceling = async {
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        room.gateway.live.cancel_all();
    };
    let (ended, ()) = tokio::join!(room.call(json!({})), canceling);
    let failure = ended.unwrap_err();
    assert!(matches!(failure.error, CallError::Canceled { may_have_run: false }), "{:?}", failure.error);
    room.gateway.credentials.revoker().drain(Duration::from_secs(20)).await;
    assert!(revoked.exists());
}

#[tokio::test]
async fn what_a_source_made_that_leads_elsewhere_now_stays_owed_until_it_is_forgotten() {
    let source = command("exit 1", "exit 1").unwrap();
    let room = room(ALLOW, Some(source)).await;
    room.call(json!({})).await.unwrap_err();
    room.gateway.credentials.revoker().drain(Duration::from_secs(20)).await;
    // The next start finds another source under that name, whose program says that all is well.
    let SourceConfig::Command { command, .. } = command("exit 1", "").unwrap() else { unreachable!() };
    let mut config = Config::default();
    config.credentials.insert("github".into(), SourceConfig::Command { command, revoke: vec!["/bin/true".into()] });
    let other = Credentials::new(&config, &room.secrets, room.gateway.store.clone(), room.gateway.telemetry.clone());
    other.revoker().sweep().await;
    let owed = other.revoker().leaked().await.unwrap();
    assert!(owed.len() == 1 && owed[0].error.as_deref().unwrap().contains("credential forget"), "{owed:?}");
    assert!(other.revoker().forget(owed[0].id).await.unwrap());
    assert!(!other.revoker().forget(owed[0].id).await.unwrap());
    assert_eq!(other.revoker().open().await.unwrap(), []);
}

#[tokio::test]
async fn a_slow_source_is_asked_for_so_much_at_once_however_many_callers_come_and_go() {
    let marks = tempfile::tempdir().unwrap();
    let source = command(&format!("touch {}/$$; sleep 3; echo '{{}}'", marks.path().display()), "true");
    let room = room(ALLOW, source).await;
    let calls = futures_util::future::join_all((0..60).map(|_| room.call(json!({}))));
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        room.gateway.live.cancel_all();
    };
    let (ended, ()) = tokio::join!(calls, leaving);
    assert!(ended.iter().all(|one| matches!(&one.as_ref().unwrap_err().error, CallError::Canceled { may_have_run: false })));
    assert_eq!(std::fs::read_dir(marks.path()).unwrap().count(), 32);
}
