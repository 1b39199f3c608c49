//! A port of a pod as a stream: what `kubectl port-forward` asks for, over a WebSocket (RFC 6455, subprotocol `v4.channel.k8s.io`).
//!
//! A message begins with the number of its channel: 0 carries what is said to the port and back, 1 says what went wrong. What comes
//! first on each is the port's number.
//!
//! The client library has this too. It cuts what it sends into pieces of 4 KiB, and hands each on twice in this process.

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::core::Request;
use tokio::io::join;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::cluster::{Cluster, ClusterError, answered};
use crate::tunnel::ByteStream;
use crate::wire;

/// The channel of what is said.
const DATA: u8 = 0;
/// The channel of what went wrong.
const ERROR: u8 = 1;

/// Connects to a port on the pod's loopback. What is written leaves when it is flushed.
pub(super) async fn forward(cluster: &Cluster, pod: &str, port: u16) -> Result<impl ByteStream + 'static, ClusterError> {
    let pods = Request::new(Pod::url_path(&(), Some(cluster.namespace())));
    let request = pods.portforward(pod, &[port]).map_err(kube::Error::BuildRequest)?;
    Ok(bytes_of(answered(cluster.client().connect(request)).await?.into_stream()))
}

fn bytes_of<S>(socket: S) -> impl ByteStream + 'static
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin + 'static,
{
    let (to_pod, from_pod) = socket.split();
    let mut begun = [false; 2];
    let until_closed = from_pod.map_err(io::Error::other).try_take_while(|message| ready(Ok(!message.is_close())));
    let said = until_closed.try_filter_map(move |message| ready(said(message, &mut begun)));
    let saying = to_pod.sink_map_err(io::Error::other).with(|bytes: Bytes| {
        let message = Message::binary([&[DATA], &bytes[..]].concat());
        ready(Ok::<_, io::Error>(message))
    });
    join(StreamReader::new(said), SinkWriter::new(CopyToBytes::new(saying)))
}

/// What a message says of the port's own.
fn said(message: Message, begun: &mut [bool; 2]) -> io::Result<Option<Bytes>> {
    let Message::Binary(mut bytes) = message else { return Ok(None) };
    if bytes.is_empty() {
        return Ok(None);
    }
    let channel = bytes.split_to(1)[0];
    let begun = begun.get_mut(usize::from(channel)).ok_or(io::ErrorKind::InvalidData)?;
    match channel {
        _ if !std::mem::replace(begun, true) => Ok(None),
        ERROR => Err(io::Error::other(wire::clip(&String::from_utf8_lossy(&bytes)).to_owned())),
        _ => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// Our end, and the API server's.
    async fn ends() -> (impl ByteStream, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(1 << 20);
        let ours = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        for channel in [DATA, ERROR] {
            theirs.send(Message::binary(vec![channel, 0x37, 0x0c])).await.unwrap();
        }
        (bytes_of(ours), theirs)
    }

    #[tokio::test]
    async fn what_is_said_goes_both_ways_in_pieces_as_large_as_they_are_written() {
        let (mut ours, mut theirs) = ends().await;
        ours.write_all(&vec![7; 64 << 10]).await.unwrap();
        ours.flush().await.unwrap();
        assert_eq!(theirs.next().await.unwrap().unwrap(), Message::binary([vec![DATA], vec![7; 64 << 10]].concat()));
        for said in [&b"\0ba"[..], b"\0", b"\0ck"] {
            theirs.send(Message::binary(said.to_vec())).await.unwrap();
        }
        theirs.close(None).await.unwrap();
        let mut back = String::new();
        ours.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }

    #[tokio::test]
    async fn what_went_wrong_is_said() {
        for (message, told) in [(&b"\x01nobody listens"[..], "nobody listens"), (b"\x07", "invalid data")] {
            let (mut ours, mut theirs) = ends().await;
            theirs.send(Message::binary(message.to_vec())).await.unwrap();
            assert!(ours.read_u8().await.unwrap_err().to_string().contains(told));
        }
    }
}
