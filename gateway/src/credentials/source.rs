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

/// Parts that do not have to be kept out of what a tool writes.
const PUBLIC: [&str; 9] = ["database", "dbname", "endpoint", "host", "hostname", "port", "region", "user", "username"];

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
}

impl Minted {
    /// A credential of one part.
    pub(super) fn one(name: &str, value: Vec<u8>) -> Self {
        let fields = BTreeMap::from([(name.to_owned(), Part::secret(value))]);
        Self { fields, main: name.to_owned() }
    }

    /// One of named texts, secret but for those that say by their names that they are none. `None` where there is none, or one is empty. What is meant when none is named is
    /// `value`, `token`, `access_token` or `password`, the first of these that is there, or else the first.
    pub(super) fn texts(texts: BTreeMap<String, Zeroizing<String>>) -> Option<Self> {
        if texts.values().any(|text| text.is_empty()) {
            return None;
        }
        let main = MAIN.into_iter().find(|name| texts.contains_key(*name)).map(str::to_owned);
        let main = main.or_else(|| texts.keys().next().cloned())?;
        let part = |(name, text): (String, Zeroizing<String>)| {
            let secret = !PUBLIC.contains(&name.as_str());
            (name, Part { value: SecretSlice::from(text.as_bytes().to_vec()), secret })
        };
        Some(Self { fields: texts.into_iter().map(part).collect(), main })
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

/// Keeps, durably, what a credential can be revoked by. Whoever mints tells it as soon as it is known: nobody else may be left to.
#[async_trait]
pub(super) trait Keep: Send + Sync {
    /// This is what it is revoked by; no secret.
    async fn handle(&self, handle: &str) -> Result<(), SourceError>;

    /// There is nothing to revoke.
    async fn nothing(&self) -> Result<(), SourceError> {
        self.handle(NOTHING).await
    }
}

/// The handle of what needs no revoking.
pub(super) const NOTHING: &str = "";

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
    fn longest_life(&self, asked: Duration) -> Duration {
        asked
    }

    /// What a credential of it has to be revoked at: a server, a namespace. A source of the same name that leads elsewhere has nothing
    /// to say about it.
    fn target(&self) -> String {
        String::new()
    }

    /// How long somebody who was asked by a process that died may still be at work on it.
    fn lag(&self) -> Duration {
        Duration::ZERO
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
    async fn mint(&self, order: &Order, keep: &dyn Keep) -> Result<Minted, SourceError>;

    /// Ends what was minted, or may have been, under `id`; `handle` is what was [kept](Keep), if anything was. Repeating it is no error.
    ///
    /// # Errors
    /// [`SourceError`]: it is tried again.
    async fn revoke(&self, id: Uuid, handle: Option<&str>) -> Result<(), SourceError> {
        let _ = (id, handle);
        Ok(())
    }
}
