//! The tool's connections beside the conversation: in its own stream, or in one for bulk.

use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};

use crate::egress::{self, Ends, Wall};
use crate::frame::Outbox;
use crate::tunnel::{self, ByteStream, Carrier, End, Inlet};
use crate::wire::{ToExecutor, WireKey};

/// What carries them, and where they lead.
pub(super) struct Connections {
    carrier: Carrier,
    /// Moves what the carrier carries. It ends with its stream.
    moving: BoxFuture<'static, ()>,
    wall: Arc<Wall>,
}

impl Connections {
    /// Those to `wall`, by `bulk` if there is one. Otherwise what the executor says of them comes in frames, which are for the inlet.
    pub(super) fn open(
        wall: Arc<Wall>,
        bulk: Option<Box<dyn ByteStream>>,
        outbox: &Outbox<ToExecutor>,
        key: &WireKey,
    ) -> (Option<Inlet>, Self) {
        match bulk {
            None => {
                let (inlet, carrier) = Carrier::over(outbox, |chunk| ToExecutor::Tunnel { chunk });
                (Some(inlet), Self { carrier, moving: pending().boxed(), wall })
            }
            Some(bulk) => {
                let (carrier, moving) = tunnel::beside(bulk, key, End::Gateway);
                (None, Self { carrier, moving: moving.boxed(), wall })
            }
        }
    }

    /// Serves them until they have ended, or are to.
    pub(super) async fn serve(self, ends: &Ends) {
        let mut serving = pin!(egress::serve(self.carrier, self.wall, ends));
        tokio::select! {
            () = &mut serving => {}
            // A stream that ended or broke ends the connections, with what they still carry, and not the call.
            () = self.moving => serving.await,
        }
    }
}
