use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::{any, put};
use parking_lot::Mutex;

use super::*;
use crate::config::SecretRef;
use crate::credentials::fixture::{Kept, order, serve, text, vault};

/// A server that answers every read alike, and keeps what it was asked and what it was told to revoke.
#[derive(Clone)]
struct Server {
    status: u16,
    answer: Value,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    revoked: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn new(status: u16, answer: Value) -> Self {
        Self { status, answer, asked: Arc::default(), revoked: Arc::default() }
    }

    async fn start(&self) -> url::Url {
        let read = async |State(server): State<Self>, uri: Uri, headers: HeaderMap| {
            server.asked.lock().push((uri.to_string(), headers));
            (StatusCode::from_u16(server.status).unwrap(), server.answer.to_string())
        };
        let revoke = async |State(server): State<Self>, body: String| {
            server.revoked.lock().push(serde_json::from_str(&body).unwrap());
            StatusCode::NO_CONTENT
        };
        let router = Router::new().route("/v1/sys/leases/revoke", put(revoke)).fallback(any(read)).with_state(self.clone());
        serve(router).await
    }
}

async fn source(server: &Server) -> (tempfile::TempDir, Vault) {
    let (dir, secrets) = vault(&[("token", "hvs.gateway")]).await;
    let config = VaultConfig {
        address: server.start().await,
        token: SecretRef::Secret("token".into()),
        namespace: Some("team".into()),
        path: "database/creds/readonly".into(),
        max_ttl: Duration::from_secs(3600),
    };
    (dir, Vault::new(config, secrets))
}

fn leased(seconds: u64) -> Value {
    json!({"lease_id": "database/creds/readonly/1", "lease_duration": seconds, "data": {"username": "v-1", "password": "made-for-it"}})
}

#[tokio::test]
async fn a_lease_is_given_out_and_revoked() {
    let server = Server::new(200, leased(600));
    let ((_dir, source), kept) = (source(&server).await, Kept::default());
    let minted = source.mint(&order(), &kept).await.unwrap();
    assert_eq!((text(&minted, None), text(&minted, Some("username"))), ("made-for-it".into(), "v-1".into()));
    let (path, headers) = server.asked.lock().pop().unwrap();
    assert_eq!(path, "/v1/database/creds/readonly");
    assert_eq!(
        (&headers["x-vault-token"], &headers["x-vault-namespace"]),
        (&"hvs.gateway".parse().unwrap(), &"team".parse().unwrap())
    );
    source.revoke(Uuid::nil(), kept.get().as_deref()).await.unwrap();
    assert_eq!(server.revoked.lock()[..], [json!({"lease_id": "database/creds/readonly/1", "sync": true})]);
}

#[tokio::test]
async fn a_lease_that_does_not_fit_is_known_and_can_be_revoked() {
    for (seconds, says) in [(7200, "max_ttl"), (5, "may need")] {
        let server = Server::new(200, leased(seconds));
        let ((_dir, source), kept) = (source(&server).await, Kept::default());
        let error = source.mint(&order(), &kept).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        source.revoke(Uuid::nil(), kept.get().as_deref()).await.unwrap();
        assert_eq!(server.revoked.lock().len(), 1);
    }
}

#[tokio::test]
async fn a_secret_of_a_kv_store_has_nothing_to_revoke() {
    let answer = json!({"lease_id": "", "lease_duration": 0, "data": {"data": {"token": "ghp_x", "n": 7, "list": []}, "metadata": {"version": 3}}});
    let server = Server::new(200, answer);
    let ((_dir, source), kept) = (source(&server).await, Kept::default());
    let minted = source.mint(&order(), &kept).await.unwrap();
    assert_eq!((text(&minted, None), text(&minted, Some("n")), minted.fields.len()), ("ghp_x".into(), "7".into(), 2));
    source.revoke(Uuid::nil(), kept.get().as_deref()).await.unwrap();
    assert!(server.revoked.lock().is_empty());
}

#[tokio::test]
async fn refusals_and_rubbish_are_told_without_what_they_say() {
    for (status, answer, says) in [
        (403, json!({"errors": ["canary"]}), "403"),
        (404, json!({"errors": []}), "404"),
        (200, json!("canary"), "not one of Vault's"),
        (200, json!({"data": {"canary": []}}), "holds nothing"),
        (200, json!({"data": {"token": ""}}), "holds nothing"),
    ] {
        let server = Server::new(status, answer);
        let ((_dir, source), kept) = (source(&server).await, Kept::default());
        let error = source.mint(&order(), &kept).await.unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("canary") && !error.contains("hvs."), "{error}");
        // Whether there is a lease is known where the server refused, and where it said that it made none.
        let is_known = !matches!(says, "not one of Vault's");
        assert_eq!(kept.get().as_deref(), is_known.then_some(""), "{says}");
        assert_eq!(source.revoke(Uuid::nil(), kept.get().as_deref()).await.is_ok(), is_known);
    }
}

#[tokio::test]
async fn only_leases_of_its_own_path_are_revoked() {
    let server = Server::new(200, leased(600));
    let (_dir, source) = source(&server).await;
    for foreign in ["auth/token/create/1", "database/creds/readonly", "database/creds/readonly2/1"] {
        assert!(source.revoke(Uuid::nil(), Some(foreign)).await.is_err());
    }
    assert!(server.revoked.lock().is_empty());
}
