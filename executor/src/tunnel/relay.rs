//! Both ways of a connection that is carried on, byte by byte.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy, sink, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What is read at once.
const PIECE: usize = 64 << 10;
/// How long one way may go on once the other is broken.
const OTHER_WAY: Duration = Duration::from_secs(1);

/// Which side of one way broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl Broken {
    fn cause(self) -> io::Error {
        let (Self::From(error) | Self::To(error)) = self;
        error
    }
}

/// Carries what `near` says to `far`, and back, until both have ended. Once `gone`, nobody listens at `near`: what it had said still
/// gets through, and that is the end.
///
/// # Errors
/// How it broke. What was said before that, either way, has been passed on as far as it could be.
pub(crate) async fn relay<N, F>(near: N, far: F, gone: &CancellationToken) -> io::Result<()>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    let mut near_read = BufReader::with_capacity(PIECE, near_read);
    let mut far_read = BufReader::with_capacity(PIECE, far_read);
    let mut outwards = pin!(carry(&mut near_read, far_write));
    let mut inwards = pin!(async {
        let carried = carry(&mut far_read, near_write).await;
        if let Err(Broken::To(_)) = carried {
            // Nobody listens at `near`. That `far` ends is how we learn that it has what was said.
            let _ = timeout(OTHER_WAY, copy(&mut far_read, &mut sink())).await;
        }
        carried
    });
    let ended = tokio::select! {
        sent = &mut outwards => match sent {
            Ok(()) => tokio::select! {
                received = inwards => received,
                () = gone.cancelled() => Ok(()),
            },
            // A refusal may be on its way back.
            Err(broken @ Broken::To(_)) => {
                let _ = timeout(OTHER_WAY, inwards).await;
                Err(broken)
            }
            Err(broken) => Err(broken),
        },
        received = &mut inwards => match received {
            Ok(()) => outwards.await,
            broken => broken,
        },
    };
    ended.map_err(Broken::cause)
}

/// One way. Nothing is read before what was read is written, so that an end loses nothing; and only an end is passed on as one.
async fn carry(from: &mut BufReader<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> Result<(), Broken> {
    loop {
        let piece = match from.fill_buf().await {
            Ok([]) => break,
            Ok(piece) => piece,
            Err(error) => {
                let _ = timeout(OTHER_WAY, to.flush()).await;
                return Err(Broken::From(error));
            }
        };
        let length = piece.len();
        to.write_all(piece).await.map_err(Broken::To)?;
        from.consume(length);
    }
    to.flush().await.map_err(Broken::To)?;
    to.shutdown().await.map_err(Broken::To)
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
    async fn an_answer_to_what_could_not_be_sent_gets_back() {
        let (mut tool, near) = duplex(64);
        let (far, mut destination) = duplex(4);
        let relaying = tokio::spawn(async move { relay(near, far, &CancellationToken::new()).await });
        tool.write_all(b"far more than anybody wants").await.unwrap();
        destination.write_all(b"no").await.unwrap();
        drop(destination);
        let mut answer = String::new();
        tool.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "no");
        assert!(relaying.await.unwrap().is_err());
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
