//! Where a tool may ever connect to.

use std::collections::BTreeSet;

use mayfly_executor::spec::{Destination, Reach};

use super::Executor;

impl Executor {
    /// Where it may ever connect to: what it lists, and the API server of its cluster where it has an account there.
    pub fn reaches(&self) -> BTreeSet<Reach> {
        let api_server = self.service_account.as_ref().map(|_| Reach::One(Destination::api_server()));
        self.network.iter().cloned().chain(api_server).collect()
    }
}
