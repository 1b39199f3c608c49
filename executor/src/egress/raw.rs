//! Connections that carry bytes: the wall sees where they lead, and not what they say.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::Refusal;
use super::http::{self, Face};
use super::io::{Begun, Io};
use super::metered::Metered;
use super::sniff::{self, First, Watched};
use super::spans::ConnectionSpan;
use super::wall::Wall;
use crate::spec::Destination;
use crate::tunnel;

/// Carries a connection that stands, until either side has ended it.
///
/// What the tool says first must not lead elsewhere: the name in a TLS greeting is the destination's, and what turns out to be HTTP
/// is read as such from there on. A server that speaks first is not spoken to in either.
///
/// Boxed: HTTP may lead here, and here to HTTP.
pub(super) fn relay(
    mut near: Io,
    far: Metered,
    to: Destination,
    wall: Arc<Wall>,
    gone: CancellationToken,
) -> BoxFuture<'static, Result<(), Refusal>> {
    Box::pin(async move {
        let mut said = Vec::new();
        let first = tokio::select! {
            biased;
            first = sniff::first(&mut near, &mut said) => first?,
            // It speaks first. Whatever its client says then is no greeting, and no request.
            readable = far.readable() => readable.map(|()| First::Text).map_err(|_| Refusal::Unreachable)?,
        };
        if first == First::Other && sniff::asks_for_tls(&said) {
            return after_a_question(near, far, to, &wall, &said, &gone).await;
        }
        match first {
            First::Http => {
                http::serve(Io::new(Begun::new(said, near)), Face::Direct(to), wall, Some(far), gone).await;
                return Ok(());
            }
            First::Tls(name) => sniff::agrees(name.as_deref(), &to, wall.list())?,
            First::Text => near = Io::new(Watched::new(said.clone(), near)),
            First::Other => {}
        }
        carry(Begun::new(said, near), far, &gone).await;
        Ok(())
    })
}

/// PostgreSQL's clients ask whether they may speak TLS. The greeting behind the answer names nobody else either; drivers that give
/// no name are many.
async fn after_a_question(
    mut near: Io,
    mut far: Metered,
    to: Destination,
    wall: &Wall,
    asked: &[u8],
    gone: &CancellationToken,
) -> Result<(), Refusal> {
    let broken = |_| Refusal::Unreachable;
    far.write_all(asked).await.map_err(broken)?;
    let answer = far.read_u8().await.map_err(broken)?;
    near.write_u8(answer).await.map_err(broken)?;
    let mut said = Vec::new();
    if let First::Tls(Some(name)) = sniff::first(&mut near, &mut said).await? {
        sniff::agrees(Some(&name), &to, wall.list())?;
    }
    carry(Begun::new(said, near), far, gone).await;
    Ok(())
}

/// How it ended is nobody's business but the two sides'; what broke must not look like an end to either.
async fn carry(near: Begun, mut far: Metered, gone: &CancellationToken) {
    if tunnel::relay(near, &mut far, gone).await.is_err() {
        far.reset();
    }
}

/// Connects, and carries.
pub(super) async fn serve(near: Io, to: Destination, wall: Arc<Wall>, gone: CancellationToken) {
    let span = ConnectionSpan::begin(wall.clone(), &to);
    let ended = match wall.dial(&to).await {
        Ok(far) => relay(near, far, to, wall, gone).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = ended {
        span.failed(&refusal.to_string());
    } else {
        span.ended();
    }
}
