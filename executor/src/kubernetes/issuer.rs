//! Tokens of service accounts for calls that run anywhere, each worth something as long as an object of its own exists.
//!
//! A token that is bound to an object (KEP-1205) is refused once the object is gone, as soon as the API servers' caches have
//! forgotten that it was good (10 s by default). A call in a pod has its pod for that; this one makes an empty Secret and
//! deletes it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::KubernetesConfig;
use super::client::ClientFace;
use super::cluster::{ClusterError, Connection, answered};
use super::token::SHORTEST_LIFE;
use crate::error::BackendError;
use crate::labels::LABEL_INSTANCE;

/// Whose tokens they are, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The service account.
    pub account: String,
    /// The audiences that a token is for; empty: the API server's own.
    pub audiences: Vec<String>,
}

/// Issues tokens in one namespace, over a connection of its own.
#[derive(Debug)]
pub struct TokenIssuer {
    connection: Connection,
    config: KubernetesConfig,
    client: OnceCell<ClientFace>,
}

impl TokenIssuer {
    /// An issuer in the namespace of `config`. Nothing is asked of the cluster before it is needed.
    pub fn connect(config: KubernetesConfig) -> Self {
        let KubernetesConfig { kubeconfig, context, namespace, instance, .. } = config.clone();
        Self { connection: Connection::new(kubeconfig, context, namespace, instance), config, client: OnceCell::new() }
    }

    /// A token that is good for `life`, or until [`revoke`](Self::revoke) of `binding`, a name that is used for this one alone.
    ///
    /// # Errors
    /// As the API server says. The object may have been made all the same.
    pub async fn issue(&self, issue: &Issue, binding: &str, life: Duration) -> Result<Zeroizing<String>, BackendError> {
        let (secrets, accounts): (Api<Secret>, Api<ServiceAccount>) = (self.api().await?, self.api().await?);
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(binding.to_owned()),
                labels: Some(BTreeMap::from([(LABEL_INSTANCE.to_owned(), self.config.instance.to_string())])),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            ..Secret::default()
        };
        let post = PostParams::default();
        let made = answered(secrets.create(&post, &object)).await?;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: issue.audiences.clone(),
                expiration_seconds: Some(i64::try_from(life.max(SHORTEST_LIFE).as_secs()).unwrap_or(i64::MAX)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Secret".into()),
                    name: Some(binding.to_owned()),
                    uid: made.metadata.uid,
                }),
            },
            ..TokenRequest::default()
        };
        let answer = answered(accounts.create_token_request(&issue.account, &post, &request)).await?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        if token.is_empty() {
            let detail = format!("no token for {}", issue.account);
            return Err(ClusterError::Unreachable(detail).into());
        }
        Ok(Zeroizing::new(token))
    }

    /// Ends the token that is bound to `binding`, if there is one.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn revoke(&self, binding: &str) -> Result<(), BackendError> {
        let secrets: Api<Secret> = self.api().await?;
        match answered(secrets.delete(binding, &DeleteParams::default())).await {
            Ok(_) | Err(ClusterError::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn api<K>(&self) -> Result<Api<K>, ClusterError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let client = self.client.get_or_try_init(|| async { self.connection.client().await.map(ClientFace) }).await?;
        Ok(Api::namespaced(client.0.clone(), &self.config.namespace))
    }
}
