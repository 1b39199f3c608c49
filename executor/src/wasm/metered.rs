//! The body of a response, counted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error;

use super::http::{Outgoing, from_hyper};

/// Passes a body on until the call's bound of received bytes is reached, or the guest's own patience between two pieces is over.
pub(super) struct Metered {
    incoming: Incoming,
    outgoing: Arc<Outgoing>,
    patience: Option<(Duration, Pin<Box<Sleep>>)>,
    over: bool,
}

impl Metered {
    pub(super) fn new(incoming: Incoming, outgoing: Arc<Outgoing>, patience: Option<Duration>) -> Self {
        Self { incoming, outgoing, patience: patience.map(|each| (each, Box::pin(sleep(each)))), over: false }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let out_of_patience = self.patience.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
            self.over = out_of_patience;
            return if out_of_patience { Poll::Ready(Some(Err(Error::ConnectionReadTimeout))) } else { Poll::Pending };
        };
        if let Some((each, sleep)) = &mut self.patience {
            sleep.as_mut().reset(Instant::now() + *each);
        }
        let frame = frame.map(|frame| {
            let frame = frame.map_err(|error| from_hyper(&error))?;
            self.outgoing.received(frame.data_ref().map_or(0, |data| data.len() as u64))?;
            Ok(frame)
        });
        self.over = matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
