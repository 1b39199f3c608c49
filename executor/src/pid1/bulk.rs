//! The gateway's second stream, where there is one: for what the tool's connections carry, and nothing else.
//!
//! It comes to the loopback before there is a tool, and only once. What is on it is sealed like everything else.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::tunnel::READY;

/// How long an invocation waits for it. It was there when the sandbox was started.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for it.
pub(super) struct Bulk(AbortOnDropHandle<io::Result<TcpStream>>);

impl Bulk {
    /// Listens; whoever comes first is the gateway, and the last.
    pub(super) async fn listen(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self(AbortOnDropHandle::new(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // So that it knows that we are here, and not only its engine.
            stream.write_u8(READY).await?;
            Ok(stream)
        }))))
    }

    /// It, as soon as it is there.
    pub(super) async fn stream(self) -> Result<TcpStream, String> {
        let stream = timeout(PATIENCE, self.0).await.map_err(|_| "the gateway opened no stream for the tool's connections")?;
        stream.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
