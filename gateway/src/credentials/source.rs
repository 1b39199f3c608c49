//! What every source of credentials is to the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretSlice;
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::call::CallId;

/// What is meant when no part is named, in this order.
const MAIN: [&str; 4] = ["value", "token", "access_token", "password"];

/// For whom a credential is.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// Its id, which is ours and fresh. A source that names what it makes, names it by this, so that it can be found again.
    pub(super) id: Uuid,
    /// The call.
    pub(super) call_id: CallId,
    /// Its tool.
    pub(super) tool: String,
    /// Its agent.
    pub(super) agent_id: String,
    /// The user it acts for.
    pub(super) user: Option<String>,
    /// What it may be used for, where its source has a word for that; `None`: everything that the source is configured with.
    pub(super) scopes: Option<BTreeSet<String>>,
    /// How long it must be worth something.
    pub(super) life: Duration,
}

/// One part of a credential. Wiped when dropped, never printed.
#[derive(Debug)]
pub(super) struct Part {
    /// What it is.
    pub(super) value: SecretSlice<u8>,
    /// Whether it must not come back: a host or the name of a user may.
    pub(super) secret: bool,
}

impl Part {
    /// A part that must not come back.
    pub(super) fn secret(value: impl Into<Vec<u8>>) -> Self {
        Self { value: SecretSlice::from(value.into()), secret: true }
    }

    /// A part that anybody may see.
    pub(super) fn public(value: impl Into<Vec<u8>>) -> Self {
        Self { value: SecretSlice::from(value.into()), secret: false }
    }
}

/// A credential: its parts by their names.
#[derive(Debug)]
pub(super) struct Minted {
    /// The parts.
    pub(super) fields: BTreeMap<String, Part>,
    /// The part that is meant when none is named.
    pub(super) main: String,
    /// What it is revoked by, where the source chose that. No secret.
    pub(super) handle: Option<String>,
}

impl Minted {
    /// A credential of one part.
    pub(super) fn one(name: &str, value: Vec<u8>) -> Self {
        let fields = BTreeMap::from([(name.to_owned(), Part::secret(value))]);
        Self { fields, main: name.to_owned(), handle: None }
    }

    /// One of named texts, all of them secret. `None` where there is none, or one is empty. What is meant when none is named is
    /// `value`, `token`, `access_token` or `password`, the first of these that is there, or else the first.
    pub(super) fn texts(texts: BTreeMap<String, Zeroizing<String>>) -> Option<Self> {
        if texts.values().any(|text| text.is_empty()) {
            return None;
        }
        let main = MAIN.into_iter().find(|name| texts.contains_key(*name)).map(str::to_owned);
        let main = main.or_else(|| texts.keys().next().cloned())?;
        let fields = texts.into_iter().map(|(name, text)| (name, Part::secret(text.as_bytes()))).collect();
        Some(Self { fields, main, handle: None })
    }

    /// One part, or the main one.
    pub(super) fn field(&self, name: Option<&str>) -> Option<&SecretSlice<u8>> {
        self.fields.get(name.unwrap_or(&self.main)).map(|part| &part.value)
    }
}

/// Why a source gave nothing. For the operator: it may name a server, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(super) struct SourceError(pub(super) String);

/// Where credentials come from.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// Whether they are here already: minting one takes no time and can hardly fail.
    fn at_hand(&self) -> bool {
        false
    }

    /// Whether it can be told to give less by [scopes](Order::scopes).
    fn narrows(&self) -> bool {
        false
    }

    /// Whether there is something to revoke: then what is minted has a durable row before it is minted, and is revoked whatever
    /// happens.
    fn revocable(&self) -> bool {
        false
    }

    /// How long what it mints may be worth something, where it does not keep to the order.
    fn longest_life(&self) -> Option<Duration> {
        None
    }

    /// Whether something of it is left when it has expired, so that it has to be revoked all the same.
    fn outlives_expiry(&self) -> bool {
        false
    }

    /// Makes or gets a credential for one call. Where there is something to revoke it is driven to its end, and only then revoked,
    /// even if nobody waits for it any more; otherwise it may be dropped at any time.
    ///
    /// # Errors
    /// [`SourceError`]: the call is not made.
    async fn mint(&self, order: &Order) -> Result<Minted, SourceError>;

    /// Ends what was minted, or may have been, under `id`. Repeating it is no error.
    ///
    /// # Errors
    /// [`SourceError`]: it is tried again.
    async fn revoke(&self, id: Uuid, handle: Option<&str>) -> Result<(), SourceError> {
        let _ = (id, handle);
        Ok(())
    }
}
