//! Connections that carry bytes: the wall sees where they lead, and not what they say.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
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

/// How long what was passed on has to leave once the connection is broken. A reset takes along what is still here.
const LEAVING: Duration = Duration::from_millis(200);

/// Carries a connection that stands, until either side has ended it.
///
/// What the tool says first must not lead elsewhere: the name in a TLS greeting is the destination's, and what turns out to be HTTP
/// is read as such from there on. A server that speaks first is not spoken to in either.
///
/// How it ended is nobody's business but the two sides'; what broke, or was cut, must not look like an end to either.
///
/// Boxed: HTTP may lead here, and here to HTTP.
pub(super) fn relay(
    mut near: Io,
    mut far: Metered,
    to: Destination,
    wall: Arc<Wall>,
    gone: CancellationToken,
) -> BoxFuture<'static, Result<(), Refusal>> {
    Box::pin(async move {
        far.unended();
        let (mut said, mut asked) = (Vec::new(), false);
        let first = loop {
            let first = tokio::select! {
                biased;
                first = sniff::first(&mut near, &mut said) => first?,
                // It speaks first. Whatever its client says then is no greeting, and no request.
                speaks = far.speaks() => speaks.map(|()| First::Text).map_err(|_| Refusal::Unreachable)?,
            };
            if first != First::Question {
                break first;
            }
            ask(&mut near, &mut far, &said).await.map_err(|_| Refusal::Unreachable)?;
            asked = true;
            said.clear();
        };
        match first {
            First::Http if asked => return Err(Refusal::Unclear),
            First::Http => {
                far.ended();
                http::serve(Io::new(Begun::new(said, near)), Face::Direct(to), wall, Some(far), gone).await;
                return Ok(());
            }
            // Of PostgreSQL's drivers, many give no name.
            First::Tls(None) if asked => {}
            First::Tls(name) => sniff::agrees(name.as_deref(), &to, wall.list())?,
            First::Text => near = Io::new(Watched::new(said.clone(), near)),
            First::Other | First::Question => {}
        }
        match tunnel::relay(Begun::new(said, near), &mut far, &gone).await {
            Ok(()) => far.ended(),
            Err(_) if far.has_sent() => sleep(LEAVING).await,
            Err(_) => {}
        }
        Ok(())
    })
}

/// Passes on whether the tool may speak TLS, and the answer.
async fn ask(near: &mut Io, far: &mut Metered, question: &[u8]) -> io::Result<()> {
    far.write_all(question).await?;
    let answer = far.read_u8().await?;
    near.write_u8(answer).await
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
