//! An order, a vault and a server to test sources with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

use super::source::{Keep, Minted, Order, SourceError};
use crate::call::CallId;
use crate::config::SecretsConfig;
use crate::secrets::Secrets;
use crate::store::{Durability, Store};

/// Remembers the handle.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<String>>);

impl Kept {
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl Keep for Kept {
    async fn handle(&self, handle: &str) -> Result<(), SourceError> {
        *self.0.lock() = Some(handle.to_owned());
        Ok(())
    }
}

/// A credential for a call of `bot` for `ann`.
pub(super) fn order() -> Order {
    Order {
        id: Uuid::now_v7(),
        call_id: CallId(Uuid::now_v7()),
        tool: "git_log".into(),
        agent_id: "bot".into(),
        user: Some("ann".into()),
        scopes: None,
        life: Duration::from_secs(60),
    }
}

/// A vault with these secrets. The folder goes when it is dropped.
pub(super) async fn vault(secrets: &[(&str, &str)]) -> (TempDir, Arc<Secrets>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Durability::Relaxed).await.unwrap();
    let vault = Secrets::open(&SecretsConfig::default(), dir.path(), store).await.unwrap();
    for (name, value) in secrets {
        vault.set(name, value.as_bytes()).await.unwrap();
    }
    (dir, vault)
}

/// Serves `router` on loopback until the test ends.
pub(super) async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url.parse().unwrap()
}

/// A part of what was minted, as text.
pub(super) fn text(minted: &Minted, field: Option<&str>) -> String {
    String::from_utf8(minted.field(field).unwrap().expose_secret().to_vec()).unwrap()
}
