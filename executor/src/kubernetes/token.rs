//! The identity that a call has in its cluster: a token for its tool's service account, bound to its pod.
//!
//! Nothing is mounted. The token is minted when the call is delivered, travels over the wire, and is worth nothing once the pod
//! is gone.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use kube::api::PostParams;

use super::cluster::{Cluster, ClusterError, answered};
use crate::wire::SecretFile;

/// Where every Kubernetes client looks.
pub(super) const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The ConfigMap that every namespace has, with the certificate of the API server.
const ROOT_CA: &str = "kube-root-ca.crt";
/// The shortest life that the API server gives a token.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(600);

/// The files that make a client in the pod this account.
pub(super) async fn mint(
    cluster: &Cluster,
    account: &str,
    (pod, uid): (&str, &str),
    life: Duration,
) -> Result<[SecretFile; 3], ClusterError> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![],
            expiration_seconds: Some(i64::try_from(life.max(SHORTEST_LIFE).as_secs()).unwrap_or(i64::MAX)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.to_owned()),
                uid: Some(uid.to_owned()),
            }),
        },
        ..TokenRequest::default()
    };
    let (accounts, maps) = (cluster.service_accounts(), cluster.config_maps());
    let post = PostParams::default();
    let (token, certificate) =
        tokio::try_join!(answered(accounts.create_token_request(account, &post, &request)), answered(maps.get(ROOT_CA)))?;
    let token = token.status.map(|status| status.token).unwrap_or_default();
    let certificate = certificate.data.unwrap_or_default().remove("ca.crt").unwrap_or_default();
    if token.is_empty() || certificate.is_empty() {
        let message = format!("no token for {account}, or no certificate in {ROOT_CA}");
        return Err(ClusterError::Refused { code: 500, reason: "Incomplete".into(), message });
    }
    let file = |name: &str, contents: String| SecretFile::new(format!("{FOLDER}/{name}"), contents.into_bytes());
    Ok([file("token", token), file("ca.crt", certificate), file("namespace", cluster.namespace().to_owned())])
}
