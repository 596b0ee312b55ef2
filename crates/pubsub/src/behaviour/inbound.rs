//! One inbound stream: bytes in, RPCs out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use asynchronous_codec::Decoder;
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, FutureExt, io::Cursor};
use libp2p_core::{InboundUpgrade, UpgradeInfo};
use libp2p_gossipsub::{RawMessage, TopicHash};
use libp2p_swarm::{Stream, THandlerOutEvent};

use super::{
    Gossipsub,
    handler::{FromHandler, Protocol, Shared},
};
use crate::rpc::{self, Published, RpcError};

type GossipsubEvent = THandlerOutEvent<Gossipsub>;

/// Bytes read from a stream at one time: four TLS records.
const READ_BYTES: usize = 64 * 1024;

/// Gossipsub's codec, which has no public name.
trait Codec: Send {
    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<GossipsubEvent>>;
}

impl<C> Codec for C
where
    C: Decoder<Item = GossipsubEvent> + Send,
    io::Error: From<C::Error>,
{
    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<GossipsubEvent>> {
        Ok(Decoder::decode(self, bytes)?)
    }
}

/// An inbound stream. What has arrived of an RPC is all that it holds.
pub(super) struct Inbound {
    stream: Stream,
    codec: Box<dyn Codec>,
    arrived: BytesMut,
    space: Box<[u8]>,
}

impl Inbound {
    /// `None` only if gossipsub's upgrade would wait for something, which it does not.
    pub(super) fn new(
        stream: Stream,
        protocol: Protocol,
        name: <Protocol as UpgradeInfo>::Info,
    ) -> Option<Self> {
        let nowhere = Cursor::new(Vec::new());
        let upgraded = protocol.upgrade_inbound(nowhere, name).now_or_never()?;
        let (framed, _) = upgraded.ok()?;
        Some(Self {
            stream,
            codec: Box::new(framed.into_parts().codec),
            arrived: BytesMut::new(),
            space: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// The next RPC; `None` at the end of the stream.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<FromHandler>>> {
        let this = &mut *self;
        loop {
            let frame = rpc::next_frame(&mut this.arrived, shared.max_rpc_bytes);
            match frame.map_err(malformed)? {
                Some(frame) => return Poll::Ready(this.decode(&frame, shared).map(Some)),
                None => {
                    let stream = Pin::new(&mut this.stream);
                    match ready!(stream.poll_read(cx, &mut this.space))? {
                        0 => return Poll::Ready(Ok(None)),
                        read => this.arrived.extend_from_slice(&this.space[..read]),
                    }
                }
            }
        }
    }

    fn decode(&mut self, frame: &Bytes, shared: &Shared) -> io::Result<FromHandler> {
        let (messages, mut left) = rpc::split(frame).map_err(malformed)?;
        let mut event = Codec::decode(&mut *self.codec, &mut left)?
            .ok_or_else(|| malformed(RpcError::Malformed))?;
        let (mut forged, mut copies) = (0, Vec::new());
        if let GossipsubEvent::Message { rpc, .. } = &mut event {
            for message in &messages {
                let Some(message) = Published::parse(message).map_err(malformed)? else {
                    forged += 1;
                    continue;
                };
                if let Some(copy) = shared.copy_of(&message) {
                    copies.push(copy);
                } else if shared.verify(&message) {
                    rpc.messages.push(raw(message));
                } else {
                    forged += 1;
                }
            }
        }
        Ok(FromHandler::Rpc {
            event,
            forged,
            copies,
        })
    }
}

/// The message as gossipsub holds it, which copies its payload.
fn raw(message: Published) -> RawMessage {
    RawMessage {
        source: Some(message.author),
        data: message.data.into(),
        sequence_number: Some(message.sequence_number),
        topic: TopicHash::from_raw(message.topic),
        signature: Some(message.signature.into()),
        key: message.key.map(Into::into),
        validated: false,
    }
}

fn malformed(error: RpcError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
