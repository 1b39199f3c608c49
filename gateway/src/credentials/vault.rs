//! A path of HashiCorp Vault or OpenBao, by its HTTP API: a KV secret (version 2), or a credential that an engine makes and
//! leases. A lease is revoked at the end of its call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::own;
use super::source::{Keep, Minted, NOTHING, Order, Source, SourceError};
use super::web::{self, answer};
use crate::config::VaultConfig;
use crate::secrets::Secrets;

/// `kind: vault`.
pub(super) struct Vault {
    config: VaultConfig,
    secrets: Arc<Secrets>,
    client: Result<reqwest::Client, SourceError>,
}

/// As much of an answer as there is use for.
#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    data: Map<String, Value>,
}

impl Vault {
    pub(super) fn new(config: VaultConfig, secrets: Arc<Secrets>) -> Self {
        Self { config, secrets, client: web::client() }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, SourceError> {
        let token = own::text(&self.config.token, &self.secrets)?;
        let mut token = reqwest::header::HeaderValue::from_str(&token).map_err(|_| SourceError("`token` is no token".into()))?;
        token.set_sensitive(true);
        let url = self.config.address.join(&format!("v1/{path}")).map_err(|error| SourceError(format!("`address`: {error}")))?;
        let mut request =
            self.client.clone()?.request(method, url).header("X-Vault-Token", token).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.config.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        Ok(request)
    }

    async fn end(&self, lease: &str) -> Result<(), SourceError> {
        let request = self.request(Method::PUT, "sys/leases/revoke")?.json(&json!({"lease_id": lease, "sync": true}));
        let (status, _) = answer(request).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status)) }
    }
}

#[async_trait]
impl Source for Vault {
    fn revocable(&self) -> bool {
        true
    }

    fn longest_life(&self, _: Duration) -> Duration {
        self.config.max_ttl
    }

    fn target(&self) -> String {
        format!("{}{}", self.config.address, self.config.namespace.as_deref().unwrap_or_default())
    }

    async fn mint(&self, order: &Order, keep: &dyn Keep) -> Result<Minted, SourceError> {
        let request = self.request(Method::GET, &self.config.path);
        let (status, body) = match request {
            Ok(request) => answer(request).await?,
            // It never left.
            Err(error) => return keep.nothing().await.and(Err(error)),
        };
        if !status.is_success() {
            let error = refused(status);
            // A server that is at its limits may have done it all the same.
            return if status.is_client_error() { keep.nothing().await.and(Err(error)) } else { Err(error) };
        }
        let read: Read = serde_json::from_slice(&body).map_err(|_| rubbish())?;
        if read.lease_id.is_empty() {
            keep.nothing().await?;
            return Minted::texts(texts(read.data)).ok_or_else(rubbish);
        }
        keep.handle(&read.lease_id).await?;
        let life = Duration::from_secs(read.lease_duration);
        if life > self.config.max_ttl {
            return Err(SourceError(format!("its lease is {life:?} long, and `max_ttl` is shorter")));
        }
        if life < order.life {
            return Err(SourceError(format!("its lease is {life:?} long, and the call may need {:?}", order.life)));
        }
        Minted::texts(texts(read.data)).ok_or_else(rubbish)
    }

    async fn revoke(&self, _: Uuid, handle: Option<&str>) -> Result<(), SourceError> {
        match handle {
            Some(NOTHING) => Ok(()),
            // What is in the store is not to make us revoke whatever somebody wrote there.
            Some(lease) if lease.strip_prefix(&self.config.path).is_some_and(|rest| rest.starts_with('/')) => {
                self.end(lease).await
            }
            Some(_) => Err(SourceError("what it is revoked by is no lease of its path".into())),
            None => Err(SourceError("the server did not say which lease it gave, if it gave one; it ends by itself".into())),
        }
    }
}

/// The fields of what was read. A KV store wraps them once more, beside their metadata.
fn texts(mut data: Map<String, Value>) -> BTreeMap<String, Zeroizing<String>> {
    if data.contains_key("metadata")
        && let Some(Value::Object(inner)) = data.remove("data")
    {
        data = inner;
    }
    let text = |value| match value {
        Value::String(text) => Some(Zeroizing::new(text)),
        Value::Number(number) => Some(Zeroizing::new(number.to_string())),
        _ => None,
    };
    data.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

fn refused(status: StatusCode) -> SourceError {
    SourceError(format!("the server answered {status}"))
}

fn rubbish() -> SourceError {
    SourceError("the server's answer is not one of Vault's, or holds nothing".into())
}

#[cfg(test)]
mod tests;
