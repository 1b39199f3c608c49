//! Both ways of a connection that is carried on, byte by byte.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What is read at once.
const PIECE: usize = 64 << 10;
/// How long what was said has to get through when nothing comes back any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Carries what `near` says to `far`, and back, until both have ended. Once `gone`, nobody listens at `near`: what it had said still
/// gets through, and that is the end.
///
/// # Errors
/// How it broke. What was said before that has been passed on.
pub(crate) async fn relay<N, F>(near: N, far: F, gone: &CancellationToken) -> io::Result<()>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    let (mut outwards, mut inwards) = (pin!(carry(near_read, far_write)), pin!(carry(far_read, near_write)));
    tokio::select! {
        sent = &mut outwards => {
            sent?;
            tokio::select! {
                received = inwards => received,
                () = gone.cancelled() => Ok(()),
            }
        }
        received = &mut inwards => match received {
            Ok(()) => outwards.await,
            // Nobody listens there any more. There may be something left that was said.
            Err(error) => {
                let _ = timeout(LAST_WORDS, outwards).await;
                Err(error)
            }
        },
    }
}

/// One way. Nothing is read before what was read is written, so that an end loses nothing.
async fn carry(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut from = BufReader::with_capacity(PIECE, from);
    let copied = copy_buf(&mut from, &mut to).await;
    let ended = to.shutdown().await;
    copied.and(ended)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn what_was_said_gets_through_although_nobody_listens() {
        let (mut tool, near) = duplex(64);
        let (far, mut destination) = duplex(4);
        let gone = CancellationToken::new();
        let relaying = tokio::spawn(async move {
            let gone = gone;
            gone.cancel();
            relay(near, far, &gone).await
        });
        tool.write_all(b"a last word").await.unwrap();
        drop(tool);
        let mut heard = String::new();
        destination.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "a last word");
        relaying.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_ends_by_itself() {
        let (mut tool, near) = duplex(64);
        let (far, mut destination) = duplex(64);
        let relaying = tokio::spawn(async move { relay(near, far, &CancellationToken::new()).await });
        tool.write_all(b"?").await.unwrap();
        tool.shutdown().await.unwrap();
        let mut heard = String::new();
        destination.read_to_string(&mut heard).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        destination.write_all(b"!").await.unwrap();
        drop(destination);
        let mut answer = String::new();
        tool.read_to_string(&mut answer).await.unwrap();
        assert_eq!((heard.as_str(), answer.as_str()), ("?", "!"));
        relaying.await.unwrap().unwrap();
    }
}
