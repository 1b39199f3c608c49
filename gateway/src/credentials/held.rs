//! What one call holds, from minting to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_executor::wire::{Invocation, SecretFile, SecretText};
use secrecy::{ExposeSecret, SecretSlice};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::revoke::Revoker;
use super::source::{Minted, Order, Source, SourceError};
use crate::catalog::definition::{CredentialUse, Delivery};

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
            }
        }
    }

    /// Every secret part of every credential, with its source's name: what must not come back.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.minted
            .iter()
            .flat_map(|(name, minted)| minted.fields.values().map(move |part| (name.as_str(), part)))
            .filter(|(_, part)| part.secret)
            .map(|(name, part)| (name, part.value.expose_secret()))
    }
}

/// One delivery, in the form in which the invocation carries it.
pub(super) enum Delivered {
    Variable(String, SecretText),
    File(SecretFile),
}

impl Delivered {
    /// `None` where the value cannot be delivered that way.
    pub(super) fn new(one: &CredentialUse, value: &SecretSlice<u8>) -> Option<Self> {
        let value = value.expose_secret();
        match one.deliver {
            Delivery::Env => {
                let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'))?;
                Some(Self::Variable(one.variable.clone()?, SecretText::new(text)))
            }
            Delivery::File => Some(Self::File(SecretFile::new(one.path.clone()?, value.to_vec()))),
        }
    }
}

/// Something that can be revoked, and is when this is dropped.
pub(super) struct Ticket {
    pub(super) id: Uuid,
    handle: Option<String>,
    /// Its minting, until that is over.
    minting: Option<Minting>,
    source: Arc<dyn Source>,
    revoker: Arc<Revoker>,
}

/// A minting that goes on without whoever asked for it: a server may finish what nobody waits for, and there is nothing to revoke
/// before it has.
pub(super) type Minting = JoinHandle<Result<Minted, SourceError>>;

impl Ticket {
    /// Before there is a row: the sweep revokes what has a row and no owner here.
    pub(super) fn new(id: Uuid, source: Arc<dyn Source>, revoker: Arc<Revoker>) -> Self {
        revoker.own(id);
        Self { id, handle: None, minting: None, source, revoker }
    }

    /// Mints it. May be dropped: then it is revoked when it is over.
    pub(super) async fn mint(&mut self, order: Order) -> Result<Minted, SourceError> {
        let source = self.source.clone();
        let minting = self.minting.insert(tokio::spawn(async move { source.mint(&order).await }));
        let minted = minting.await.unwrap_or_else(|error| Err(SourceError(error.to_string())));
        self.minting = None;
        minted.inspect(|minted| self.handle.clone_from(&minted.handle))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.revoker.clone().end(self.id, self.source.clone(), self.handle.take(), self.minting.take());
    }
}
