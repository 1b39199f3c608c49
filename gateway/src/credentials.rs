//! Credentials of calls: minted for one call, and ended with it.
//!
//! # Flow
//! [`Credentials::mint`] (step 10 of a call) -> [`Held`] -> handed over in the invocation -> dropped -> revoked
//!
//! # Guarantees
//! - Nothing is minted without a [`Permit`], and nothing that the permit's decision does not leave to the call.
//! - What can be revoked has a durable row before it is minted, and keeps it until its source says that it is gone: over failures,
//!   and over the end of this process.
//! - A source that is down, slow or talks rubbish ends the call before a sandbox is claimed. What it said is for the operator.

mod bounded;
mod command;
mod delivered;
#[cfg(test)]
mod fixture;
mod held;
mod kubernetes;
mod oauth2;
mod own;
mod postgres;
mod revoke;
mod source;
mod stored;
mod vault;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use mayfly_executor::kubernetes::Issue;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::catalog::Tool;
use crate::catalog::definition::CredentialUse;
use crate::config::{Config, SourceConfig, TokenConfig};
use crate::engines;
use crate::error::CallError;
use crate::live::LiveCall;
use crate::policy::{Obligations, Permit};
use crate::secrets::Secrets;
use crate::store::{CredentialRow, Store};
use crate::telemetry::Telemetry;

use bounded::Bounded;
use command::Command;
use delivered::Delivered;
pub use held::Held;
use held::Ticket;
use kubernetes::Kubernetes;
use oauth2::Oauth2;
use postgres::Postgres;
pub use revoke::Revoker;
use source::{Keep, Minted, Order, Source, SourceError};
use stored::Stored;
use vault::Vault;

/// How long a source has for one credential.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a credential lives beyond its call's timeout and two starts of a sandbox: minting, reporting.
const BEYOND: Duration = Duration::from_secs(60);

/// Every configured source; shared as `Arc`.
pub struct Credentials {
    sources: BTreeMap<String, Arc<Bounded>>,
    store: Arc<Store>,
    revoker: Arc<Revoker>,
    /// What a credential lives beyond its call's timeout.
    beyond: Duration,
    telemetry: Arc<Telemetry>,
}

impl Credentials {
    /// The sources of a configuration. Nothing is asked of any of them yet.
    pub fn new(config: &Config, secrets: &Arc<Secrets>, store: Arc<Store>, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let hidden = config.secret_variables();
        let source = |source: &SourceConfig| match source.clone() {
            SourceConfig::Static { secret } => Box::new(Stored { secrets: secrets.clone(), name: secret }) as Box<dyn Source>,
            SourceConfig::Command { command, revoke } => Box::new(Command { command, revoke, hidden: hidden.clone() }),
            SourceConfig::Postgres(config) => Box::new(Postgres::new(config, secrets.clone())),
            SourceConfig::Vault(config) => Box::new(Vault::new(config, secrets.clone())),
            SourceConfig::Oauth2(config) => Box::new(Oauth2::new(config, secrets.clone())),
            SourceConfig::Kubernetes(TokenConfig { namespace, service_account: account, audiences }) => {
                let issuer = engines::token_issuer(config, namespace.clone(), store.instance());
                let target = format!("{namespace}/{account}");
                Box::new(Kubernetes { issuer, issue: Issue { account, audiences }, target })
            }
        };
        let sources: BTreeMap<_, _> =
            config.credentials.iter().map(|(name, config)| (name.clone(), Bounded::new(source(config)))).collect();
        let revoker = Revoker::new(sources.clone(), store.clone(), telemetry.clone());
        Arc::new(Self { sources, store, revoker, beyond: config.start_timeout * 2 + BEYOND, telemetry })
    }

    /// What ends them.
    pub const fn revoker(&self) -> &Arc<Revoker> {
        &self.revoker
    }

    /// Whether the permit leaves anything to the call.
    pub fn wanted(permit: &Permit) -> bool {
        granted(permit.tool(), permit.obligations()).next().is_some()
    }

    /// Whether everything that the permit leaves to the call is here already, so that minting takes no time.
    pub fn at_hand(&self, permit: &Permit) -> bool {
        granted(permit.tool(), permit.obligations())
            .all(|one| self.sources.get(&one.source).is_some_and(|bounded| bounded.source.at_hand()))
    }

    /// Step 10: everything that the permit leaves to the call, or nothing.
    ///
    /// # Errors
    /// [`CallError::CredentialUnavailable`], [`CallError::Canceled`]. What was minted by then is revoked.
    pub async fn mint(&self, permit: &Permit, call: &LiveCall) -> Result<Held, CallError> {
        let uses: Vec<_> = granted(permit.tool(), permit.obligations()).cloned().collect();
        if uses.is_empty() {
            return Ok(Held::default());
        }
        let names: BTreeSet<_> = uses.iter().map(|one| one.source.as_str()).collect();
        let minting = try_join_all(names.into_iter().map(|name| self.one(name, permit, call)));
        let minted = tokio::select! {
            biased;
            () = call.canceled.cancelled() => return Err(CallError::Canceled { may_have_run: false }),
            minted = minting => minted?,
        };
        let (tickets, minted): (Vec<_>, BTreeMap<_, _>) =
            minted.into_iter().map(|(name, ticket, minted)| (ticket, (name, minted))).unzip();
        let delivered = uses.into_iter().map(|one| deliver(one, &minted)).collect::<Result<_, _>>()?;
        Ok(Held::new(tickets, minted, delivered))
    }

    async fn one(&self, name: &str, permit: &Permit, call: &LiveCall) -> Result<(String, Option<Ticket>, Minted), CallError> {
        let minted = self.try_one(name, permit, call).await;
        self.telemetry.metrics().minted(name, minted.is_ok());
        minted.map(|(ticket, minted)| (name.to_owned(), ticket, minted)).map_err(|error| {
            tracing::error!(call_id = %call.id, source = name, %error, "a credential could not be had");
            CallError::CredentialUnavailable(name.to_owned())
        })
    }

    async fn try_one(&self, name: &str, permit: &Permit, call: &LiveCall) -> Result<(Option<Ticket>, Minted), SourceError> {
        let bounded = self.sources.get(name).ok_or_else(|| SourceError("no such source is configured".into()))?;
        let source = &bounded.source;
        let timeout = permit.tool().definition.executor.timeout;
        let order = Order {
            id: Uuid::now_v7(),
            call_id: call.id,
            tool: permit.tool().definition.name.clone(),
            agent_id: permit.caller().agent_id().to_owned(),
            user: permit.caller().user().map(str::to_owned),
            scopes: scopes(name, permit),
            life: timeout + self.beyond,
        };
        if order.scopes.is_some() && !source.narrows() {
            return Err(SourceError("it has no scopes that could be narrowed".into()));
        }
        if !source.revocable() {
            return Ok((None, in_time(source.mint(&order, &Unkept)).await?));
        }
        let place = bounded.place(PATIENCE).await?;
        let mut ticket = self.open(name, bounded, &order).await?;
        let minted = in_time(ticket.mint(order, place)).await?;
        Ok((Some(ticket), minted))
    }

    /// The durable row of what is about to be minted.
    async fn open(&self, name: &str, bounded: &Arc<Bounded>, order: &Order) -> Result<Ticket, SourceError> {
        let now = OffsetDateTime::now_utc();
        let row = CredentialRow {
            id: order.id,
            source: name.to_owned(),
            target: bounded.source.target(),
            call_id: order.call_id,
            handle: None,
            created_at: now,
            expires_at: now + bounded.source.longest_life(order.life),
            attempts: 0,
            error: None,
        };
        let ticket = Ticket::new(order.id, bounded.clone(), self.revoker.clone(), self.store.clone());
        self.store.open_credential(row).await.map_err(|error| SourceError(error.to_string()))?;
        Ok(ticket)
    }
}

/// Nothing is kept of what cannot be revoked.
struct Unkept;

#[async_trait]
impl Keep for Unkept {
    async fn handle(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }
}

async fn in_time(minting: impl Future<Output = Result<Minted, SourceError>>) -> Result<Minted, SourceError> {
    let late = || SourceError(format!("it did not answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, minting).await.unwrap_or_else(|_| Err(late()))
}

/// What the tool and the decision leave of a source's scopes; `None`: neither says.
fn scopes(source: &str, permit: &Permit) -> Option<BTreeSet<String>> {
    let asked = permit.tool().definition.credentials.iter().find(|one| one.source == source && !one.scopes.is_empty());
    let asked: Option<BTreeSet<_>> = asked.map(|one| one.scopes.iter().cloned().collect());
    let left = permit.obligations().credentials.as_ref().and_then(|left| left.get(source)?.scopes.clone());
    match (asked, left) {
        (Some(asked), Some(left)) => Some(&asked & &left),
        (asked, left) => asked.or(left),
    }
}

/// What a call is given: what its tool asks for, as far as the decision leaves it.
pub fn granted<'a>(tool: &'a Tool, obligations: &'a Obligations) -> impl Iterator<Item = &'a CredentialUse> {
    let left = obligations.credentials.as_ref();
    tool.definition.credentials.iter().filter(move |one| left.is_none_or(|left| left.contains_key(&one.source)))
}

fn deliver(one: CredentialUse, minted: &BTreeMap<String, Minted>) -> Result<Delivered, CallError> {
    minted.get(&one.source).and_then(|minted| Delivered::new(&one, minted)).ok_or_else(|| {
        let field = one.field.as_deref().unwrap_or("its main one");
        tracing::error!(source = %one.source, field, "a credential has no such part, or it cannot be a variable or a header; see `field` and `deliver` in tool.yaml");
        CallError::CredentialUnavailable(one.source)
    })
}
