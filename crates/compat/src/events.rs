//! The tasks that pass events of the manager to the dispatcher of the node.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

use calimero_network_primitives::{
    messages::{Message, MessageId, NetworkEvent, TopicHash},
    stream::{CALIMERO_BLOB_PROTOCOL, CALIMERO_STREAM_PROTOCOL, Stream},
};
use eyre::Result;
use futures::StreamExt as _;
use futures_timer::Delay;
use libp2p::{StreamProtocol, core::transport::ListenerId, multiaddr::Protocol};
use network::{
    ConnectionEvent, Events, FrameConfig, GossipEvent, Inbound, Incoming, InviteEvent,
    ListenerEvent, NetworkEvent as Ours, StreamEvent, blob::v0,
};

use crate::{
    Node,
    convert::{address_to_node, peer_to_node},
    invites::{Exchange, response_to_node},
    stream::FrameBytes,
};

/// Time for the request of a peer that opened a stream of the blob protocol: 10 s.
const BLOB_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Dispatches events until the manager stops.
pub(crate) async fn dispatch(node: Arc<Node>, mut events: Events) {
    let mut listeners = HashMap::new();
    while let Some(event) = events.next().await {
        if let Err(error) = on_event(&node, &mut listeners, event).await {
            tracing::warn!(%error, "an event of the network could not be passed on");
        }
    }
}

async fn on_event(
    node: &Arc<Node>,
    listeners: &mut HashMap<network::ListenerId, ListenerId>,
    event: Ours,
) -> Result<()> {
    match event {
        Ours::Listener(ListenerEvent::Listening { listener, address }) => {
            let listener_id = *listeners.entry(listener).or_insert_with(ListenerId::next);
            let address = address_to_node(&address)?.with(Protocol::P2p(node.local_peer));
            node.dispatch(NetworkEvent::ListeningOn {
                listener_id,
                address,
            });
        }
        Ours::Listener(ListenerEvent::NotListening { listener, .. }) => {
            listeners.remove(&listener);
        }
        Ours::Connection(ConnectionEvent::PathChanged(connection)) => {
            node.history.on_direct(&connection, SystemTime::now());
        }
        Ours::Connection(ConnectionEvent::HolePunched {
            peer,
            direct: false,
        }) => {
            node.history.on_still_relayed(peer, SystemTime::now());
        }
        Ours::Gossip(event) => on_gossip(node, event)?,
        Ours::Stream(StreamEvent::Opened { peer, stream, .. }) => {
            let bytes = FrameBytes::new(stream, node.client.runtime().clone());
            opened(node, &peer, bytes, CALIMERO_STREAM_PROTOCOL).await?;
        }
        Ours::Stream(event @ StreamEvent::Refused { .. }) => {
            tracing::warn!(%event, "streams of a peer were refused");
        }
        Ours::Invite(event) => on_invite(node, event).await?,
        _ => {}
    }
    Ok(())
}

fn on_gossip(node: &Node, event: GossipEvent) -> Result<()> {
    let topic_hash = |topic: &network::Topic| TopicHash::from_raw(topic.to_string());
    match event {
        GossipEvent::Message(message) => node.dispatch(NetworkEvent::Message {
            id: MessageId::new(message.id.as_bytes()),
            message: Message {
                source: Some(peer_to_node(&message.source)?),
                sequence_number: Some(message.sequence_number),
                topic: topic_hash(&message.topic),
                data: message.data.into(),
            },
        }),
        GossipEvent::Subscribed { peer, topic } => node.dispatch(NetworkEvent::Subscribed {
            peer_id: peer_to_node(&peer)?,
            topic: topic_hash(&topic),
        }),
        GossipEvent::Unsubscribed { peer, topic } => node.dispatch(NetworkEvent::Unsubscribed {
            peer_id: peer_to_node(&peer)?,
            topic: topic_hash(&topic),
        }),
        GossipEvent::Lagged { missed } => {
            tracing::warn!(missed, "messages were dropped: the dispatcher is too slow");
        }
        _ => {}
    }
    Ok(())
}

async fn on_invite(node: &Arc<Node>, event: InviteEvent) -> Result<()> {
    match event {
        InviteEvent::Request {
            peer,
            request,
            channel,
            ..
        } => {
            let peer_id = peer_to_node(&peer)?;
            let exchange = Exchange::new(request, channel)?;
            let (request_id, request, channel) = node.local.request(exchange).await?;
            node.dispatch(NetworkEvent::SpecializedNodeVerificationRequest {
                peer_id,
                request_id,
                request,
                channel,
            });
        }
        InviteEvent::Response {
            peer,
            request_id,
            response,
        } => {
            // The manager answers only what this node asked.
            if let Some(request_id) = node.pending_invites.take(&request_id).await {
                node.dispatch(NetworkEvent::SpecializedNodeInvitationResponse {
                    peer_id: peer_to_node(&peer)?,
                    request_id,
                    response: response_to_node(response),
                });
            }
        }
        InviteEvent::Failed { ref request_id, .. } => {
            node.pending_invites.take(request_id).await;
            // As in the published crate there is no event: the node has a deadline of its own.
            tracing::warn!("{event}");
        }
        _ => {}
    }
    Ok(())
}

/// Accepts the streams of peers that fetch blobs, until the manager stops.
pub(crate) async fn accept_blobs(node: Arc<Node>, mut incoming: Incoming) {
    // `streams.max_inbound` bounds the number of streams, and with it the number of tasks.
    while let Some(inbound) = incoming.next().await {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let peer = inbound.peer;
            if let Err(error) = blob_requested(&node, inbound).await {
                tracing::debug!(%peer, %error, "a request for a blob was not passed on");
            }
        });
    }
}

/// Reads the request, emits it, and gives the stream to the node with the request still to be read.
async fn blob_requested(node: &Node, inbound: Inbound) -> Result<()> {
    let stream = inbound.stream.into_frames(FrameConfig::default());
    let mut bytes = FrameBytes::new(stream, node.client.runtime().clone());
    let request = tokio::select! {
        frame = bytes.peek() => match frame {
            Some(frame) => v0::BlobRequest::decode(frame)?,
            None => return Ok(()),
        },
        () = Delay::new(BLOB_REQUEST_TIMEOUT) => return Ok(()),
    };
    node.dispatch(NetworkEvent::BlobRequested {
        blob_id: request.blob_id.to_bytes().into(),
        context_id: request.context_id.to_bytes().into(),
        requesting_peer: peer_to_node(&inbound.peer)?,
    });
    opened(node, &inbound.peer, bytes, CALIMERO_BLOB_PROTOCOL).await
}

/// Gives a stream of a peer to the node.
async fn opened(
    node: &Node,
    peer: &network::PeerId,
    bytes: FrameBytes,
    protocol: StreamProtocol,
) -> Result<()> {
    let stream = Stream::new(node.local.stream(bytes).await?);
    node.dispatch(NetworkEvent::StreamOpened {
        peer_id: peer_to_node(peer)?,
        stream: Box::new(stream),
        protocol,
    });
    Ok(())
}

impl Node {
    /// Gives an event to the dispatcher of the node, which must not block. Its panic costs the event.
    pub(crate) fn dispatch(&self, event: NetworkEvent) {
        let dispatched = catch_unwind(AssertUnwindSafe(|| self.dispatcher.dispatch(event)));
        match dispatched {
            Ok(true) => {}
            Ok(false) => tracing::debug!("the dispatcher dropped an event of the network"),
            Err(_) => tracing::error!("the dispatcher panicked at an event of the network"),
        }
    }
}
