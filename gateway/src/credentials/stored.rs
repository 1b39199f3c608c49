//! A secret of the vault: the same value for every call.

use std::sync::Arc;

use async_trait::async_trait;

use super::source::{Keep, Minted, Order, Source, SourceError};
use crate::secrets::Secrets;

/// `kind: static`.
pub(super) struct Stored {
    pub(super) secrets: Arc<Secrets>,
    pub(super) name: String,
}

#[async_trait]
impl Source for Stored {
    fn at_hand(&self) -> bool {
        true
    }

    async fn mint(&self, _: &Order, _: &dyn Keep) -> Result<Minted, SourceError> {
        let mut value = self.secrets.reveal(&self.name).map_err(|error| SourceError(error.to_string()))?;
        Ok(Minted::one("value", std::mem::take(&mut *value)))
    }
}
