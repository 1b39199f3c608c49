//! Names to addresses, as the system has them.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

use super::Refusal;
use crate::spec::Destination;

/// Those of all calls at once. Each holds a thread for as long as the name server likes, whoever still waits for it.
static ALL: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(64)));
/// Most of them for one call: it may choose names whose servers never answer.
const MOST: usize = 4;

/// The lookups of one call.
#[derive(Debug)]
pub(super) struct Lookups {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::among(ALL.clone())
    }
}

impl Lookups {
    fn among(all: Arc<Semaphore>) -> Self {
        Self { own: Arc::new(Semaphore::new(MOST)), all }
    }

    /// The addresses of a destination, none if it has none. Waits for its turn.
    pub(super) async fn addresses(&self, of: &Destination) -> Result<Vec<SocketAddr>, Refusal> {
        if let Some(address) = of.address() {
            return Ok(vec![SocketAddr::new(address, of.port)]);
        }
        let gone = |_| Refusal::NoAddress;
        let own = self.own.clone().acquire_owned().await.map_err(gone)?;
        let place = self.all.clone().acquire_owned().await.map_err(gone)?;
        let (host, port) = (of.host.clone(), of.port);
        // On a task of its own: the places are free when its thread is, and not when nobody wants the answer any more.
        let looking = tokio::spawn(async move {
            let _places = (own, place);
            Ok(tokio::net::lookup_host((host, port)).await.map_err(|_| Refusal::NoAddress)?.collect())
        });
        looking.await.unwrap_or(Err(Refusal::NoAddress))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_call_waits_for_its_own_lookups() {
        let (slow, other) = (Lookups::default(), Lookups::default());
        let places = slow.own.clone().acquire_many_owned(MOST as u32).await.unwrap();
        let (localhost, literal) = ("localhost:1".parse().unwrap(), "192.0.2.1:1".parse().unwrap());
        let a_moment = Duration::from_millis(100);
        assert!(timeout(a_moment, slow.addresses(&localhost)).await.is_err(), "its places are taken");
        assert!(timeout(a_moment, slow.addresses(&literal)).await.is_ok(), "nothing is looked up");
        assert!(other.addresses(&localhost).await.is_ok_and(|found| !found.is_empty()));
        drop(places);
        assert!(slow.addresses(&localhost).await.is_ok_and(|found| !found.is_empty()));
    }

    #[tokio::test]
    async fn all_calls_together_wait_for_theirs() {
        let all = Arc::new(Semaphore::new(1));
        let (one, other) = (Lookups::among(all.clone()), Lookups::among(all.clone()));
        let localhost = "localhost:1".parse().unwrap();
        let place = all.acquire_owned().await.unwrap();
        for call in [&one, &other] {
            assert!(timeout(Duration::from_millis(100), call.addresses(&localhost)).await.is_err(), "the place is taken");
        }
        drop(place);
        for call in [&one, &other] {
            assert!(call.addresses(&localhost).await.is_ok_and(|found| !found.is_empty()), "and given back");
        }
        assert!(Arc::ptr_eq(&Lookups::default().all, &Lookups::default().all), "there is one such bound");
    }
}
