//! What one call holds, from minting to its end.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use mayfly_executor::egress::Injection;
use mayfly_executor::wire::Invocation;
use secrecy::ExposeSecret;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::bounded::Bounded;
use super::delivered::Delivered;
use super::revoke::Revoker;
use super::source::{Keep, Minted, Order, SourceError};
use crate::store::Store;

/// The credentials of one call. Dropping it ends them.
#[derive(Default)]
pub struct Held {
    _tickets: Vec<Option<Ticket>>,
    minted: BTreeMap<String, Minted>,
    delivered: Vec<Delivered>,
}

impl Held {
    pub(super) fn new(tickets: Vec<Option<Ticket>>, minted: BTreeMap<String, Minted>, delivered: Vec<Delivered>) -> Self {
        Self { _tickets: tickets, minted, delivered }
    }

    /// Puts them where the tool is to find them: only there do they leave this process.
    pub fn hand_over(&self, invocation: &mut Invocation) {
        for one in &self.delivered {
            match one {
                Delivered::Variable(name, value) => drop(invocation.environment.insert(name.clone(), value.clone())),
                Delivered::File(file) => invocation.files.push(file.clone()),
                Delivered::Injection(..) => {}
            }
        }
    }

    /// What is added to the tool's requests outside, and never handed over.
    pub fn injections(&self) -> impl Iterator<Item = &Injection> {
        self.delivered.iter().filter_map(|one| match one {
            Delivered::Injection(_, injection) => Some(injection),
            _ => None,
        })
    }

    /// Every secret part of every credential, and what was made of them, with its source's name: what must not come back.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.minted
            .iter()
            .flat_map(|(name, minted)| minted.fields.values().map(move |part| (name.as_str(), part)))
            .filter(|(_, part)| part.secret)
            .map(|(name, part)| (name, part.value.expose_secret()))
            .chain(self.delivered.iter().filter_map(|one| match one {
                Delivered::Injection(source, injection) => Some((source.as_str(), injection.value.expose().as_bytes())),
                _ => None,
            }))
    }
}

/// Something that can be revoked, and is when this is dropped.
pub(super) struct Ticket {
    id: Uuid,
    handle: Arc<Handle>,
    /// Its minting, until that is over.
    minting: Option<Minting>,
    source: Arc<Bounded>,
    revoker: Arc<Revoker>,
}

/// A minting that goes on without whoever asked for it: a server may finish what nobody waits for, and there is nothing to revoke
/// before it has.
pub(super) type Minting = JoinHandle<Result<Minted, SourceError>>;

/// What a credential is revoked by: durable before anybody here knows it.
pub(super) struct Handle {
    id: Uuid,
    store: Arc<Store>,
    known: OnceLock<String>,
}

impl Handle {
    pub(super) fn get(&self) -> Option<&str> {
        self.known.get().map(String::as_str)
    }
}

#[async_trait]
impl Keep for Handle {
    async fn handle(&self, handle: &str) -> Result<(), SourceError> {
        // Known here first: a store that fails must not keep it from being revoked.
        let _ = self.known.set(handle.to_owned());
        self.store.credential_handle(self.id, handle).await.map_err(|error| SourceError(error.to_string()))
    }
}

impl Ticket {
    /// Before there is a row: the sweep revokes what has a row and no owner here.
    pub(super) fn new(id: Uuid, source: Arc<Bounded>, revoker: Arc<Revoker>, store: Arc<Store>) -> Self {
        revoker.own(id);
        let handle = Arc::new(Handle { id, store, known: OnceLock::new() });
        Self { id, handle, minting: None, source, revoker }
    }

    /// Mints it. May be dropped: then it is revoked when it is over. `place` is given back only then.
    pub(super) async fn mint(&mut self, order: Order, place: OwnedSemaphorePermit) -> Result<Minted, SourceError> {
        let (source, handle) = (self.source.clone(), self.handle.clone());
        let minting = self.minting.insert(tokio::spawn(async move {
            let _place = place;
            source.source.mint(&order, &*handle).await
        }));
        let minted = minting.await.unwrap_or_else(|error| Err(SourceError(error.to_string())));
        self.minting = None;
        minted
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.revoker.clone().end(self.id, self.source.clone(), self.handle.clone(), self.minting.take());
    }
}
