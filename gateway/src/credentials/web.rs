//! How sources talk to their servers over HTTP.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use zeroize::Zeroizing;

use super::source::SourceError;

/// For one request and its whole answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest answer.
const MOST: usize = 1 << 20;

/// A client that follows nobody: a credential is not sent where a server points to.
pub(super) fn client() -> Result<reqwest::Client, SourceError> {
    // An error only says that it has been done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).no_proxy();
    client.build().map_err(|error| SourceError(told(&error)))
}

/// Sends, and reads the whole answer.
pub(super) async fn answer(request: RequestBuilder) -> Result<(StatusCode, Zeroizing<Vec<u8>>), SourceError> {
    let mut response = request.send().await.map_err(|error| SourceError(told(&error)))?;
    let status = response.status();
    let mut body = Zeroizing::new(Vec::with_capacity(4096));
    while let Some(chunk) = response.chunk().await.map_err(|error| SourceError(told(&error)))? {
        if body.len() + chunk.len() > MOST {
            return Err(SourceError(format!("the server's answer is longer than {MOST} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// An error and its causes, without the URL, which may carry what is no one's business.
fn told(error: &reqwest::Error) -> String {
    let mut told = if error.is_timeout() {
        "the server did not answer in time".to_owned()
    } else {
        "the server cannot be reached".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
