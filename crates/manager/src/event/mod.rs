//! What happens without being asked for.

mod queue;

use std::sync::Arc;

use calimero_network_blob::fetch::Progress;
use calimero_network_discovery::machine::{Namespace, Phase, Reachability};
use calimero_network_primitives::{BlobId, ContextId, Multiaddr, PeerId, Topic};
use calimero_network_pubsub::Message;
use calimero_network_specialized::{
    InboundFailure, InboundRequestId, OutboundFailure, OutboundRequestId, ResponseChannel,
    SpecializedNodeInviteRequest, SpecializedNodeInviteResponse,
};
use calimero_network_stream::{FrameStream, RefuseReason, Substream};
use libp2p::{
    StreamProtocol,
    swarm::{ConnectionId, derive_prelude::ListenerId},
};

pub(crate) use self::queue::EventSender;
pub use self::queue::Events;
use crate::{
    error::FetchBlobError,
    status::{Connection, PeerInfo},
};

/// Something that happened in the network.
#[derive(Debug)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is moved once, into the queue and out; a box would cost an allocation for each stream"
)]
pub enum NetworkEvent {
    /// An address is listened on from now on. For whoever publishes addresses.
    Listening {
        /// The listener it belongs to.
        listener: ListenerId,
        /// The address.
        address: Multiaddr,
    },
    /// An address is no longer listened on. For whoever publishes addresses.
    NotListening {
        /// The listener it belonged to.
        listener: ListenerId,
        /// The addresses that are gone.
        addresses: Vec<Multiaddr>,
        /// Why the listener closed, if it did so by itself.
        error: Option<std::io::Error>,
    },
    /// A connection stands. A peer can have several. For whoever has something for a peer.
    Connected(Connection),
    /// A connection is gone. For whoever waited for the peer, once none remains, and for operators
    /// where the reason is not this node's.
    Disconnected {
        /// The peer at its other end.
        peer: PeerId,
        /// Its number in this process.
        connection: ConnectionId,
        /// Why it ended.
        reason: CloseReason,
        /// Connections with the same peer that still stand.
        remaining: u32,
    },
    /// The best way to a peer has changed: a relayed one became direct, or the direct one is lost
    /// and a relayed one is left. For whoever waits with large transfers.
    PathChanged(Connection),
    /// An attempt to connect directly to a peer that is relayed has ended. For operators.
    HolePunched {
        /// The peer.
        peer: PeerId,
        /// Whether there is a direct connection now.
        direct: bool,
    },
    /// Discovery has come further, or was thrown back. For operators.
    PhaseChanged {
        /// How far it is.
        phase: Phase,
    },
    /// Whether others reach this node, or how that is known, has changed. For operators.
    ReachabilityChanged {
        /// How it stands.
        reachability: Reachability,
    },
    /// Others are told from now on that this node is at an address. For whoever publishes
    /// addresses.
    ExternalAddressConfirmed {
        /// The address; where it holds `/p2p-circuit`, through a relay.
        address: Multiaddr,
    },
    /// Others are told no more that this node is at an address. For whoever publishes addresses.
    ExternalAddressExpired {
        /// The address.
        address: Multiaddr,
    },
    /// A relay holds a slot for this node. For operators.
    RelayReserved {
        /// The relay.
        relay: PeerId,
    },
    /// A relay holds no slot for this node, or no longer; it, or another, is asked again. For
    /// operators.
    RelayLost {
        /// The relay.
        relay: PeerId,
    },
    /// No peers are looked for of a topic that is followed: of as many overlays as
    /// `discovery.rendezvous.max_overlays` says, they are already. For operators.
    OverlayRefused {
        /// The rendezvous namespace of the topic.
        namespace: Namespace,
    },
    /// A peer said what it is and what it speaks. Again whenever that changes. For whoever asks a
    /// peer only what it understands.
    Identified {
        /// The peer.
        peer: PeerId,
        /// What it said; unverified.
        info: Arc<PeerInfo>,
    },
    /// A peer opened a stream of the general protocol. Whoever serves streams owns it now;
    /// dropping it resets it.
    StreamOpened {
        /// The peer.
        peer: PeerId,
        /// The connection that carries it.
        connection: ConnectionId,
        /// The protocol agreed on.
        protocol: StreamProtocol,
        /// The stream, in frames.
        stream: FrameStream<Substream>,
    },
    /// Streams of a peer were refused because a limit was reached. For operators.
    StreamsRefused {
        /// The peer.
        peer: PeerId,
        /// The protocol asked for.
        protocol: StreamProtocol,
        /// Which limit.
        reason: RefuseReason,
        /// How many since the last such event.
        count: u64,
    },
    /// Streams were refused beside those reported: of so many peers and protocols at once that
    /// they are not told apart. For operators.
    OtherStreamsRefused {
        /// How many.
        count: u64,
    },
    /// A peer follows a topic from now on, which this node need not follow. For whoever looks for
    /// others to talk to.
    ///
    /// A connection that ends takes all subscriptions of its peer with it, without an event for
    /// each.
    Subscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
    },
    /// A peer follows a topic no longer. For whoever counts on others to hear.
    Unsubscribed {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: Topic,
    },
    /// A message of a topic that this node follows, its signature checked. Told once for each
    /// message. For the application.
    Message(Message),
    /// A peer asks to be invited. Whoever may invite answers by
    /// [`send_specialized_node_invitation_response`]; dropping the channel tells the peer that
    /// there is no answer. Ends in `InviteResponseSent` or `InviteResponseFailed`.
    ///
    /// [`send_specialized_node_invitation_response`]:
    ///     crate::NetworkClient::send_specialized_node_invitation_response
    InviteRequest {
        /// Who asks.
        peer: PeerId,
        /// Names the request in later events.
        request_id: InboundRequestId,
        /// What is asked. Nothing of it has been verified.
        request: SpecializedNodeInviteRequest,
        /// Takes the answer.
        channel: ResponseChannel,
    },
    /// The answer to an invite request of this node. For whoever asked.
    InviteResponse {
        /// Who answers.
        peer: PeerId,
        /// What [`send_specialized_node_verification_request`] gave.
        ///
        /// [`send_specialized_node_verification_request`]:
        ///     crate::NetworkClient::send_specialized_node_verification_request
        request_id: OutboundRequestId,
        /// The answer of the peer's application. Nothing of it has been verified.
        response: SpecializedNodeInviteResponse,
    },
    /// An invite request of this node has no answer. For whoever asked.
    InviteFailed {
        /// Who was asked.
        peer: PeerId,
        /// What [`send_specialized_node_verification_request`] gave.
        ///
        /// [`send_specialized_node_verification_request`]:
        ///     crate::NetworkClient::send_specialized_node_verification_request
        request_id: OutboundRequestId,
        /// Why.
        failure: OutboundFailure,
    },
    /// An answer of this node was handed to the connection, all of it. For whoever invites.
    InviteResponseSent {
        /// Who asked.
        peer: PeerId,
        /// Which request.
        request_id: InboundRequestId,
    },
    /// A peer's invite request was not answered. For whoever invites.
    InviteResponseFailed {
        /// Who asked.
        peer: PeerId,
        /// Which request.
        request_id: InboundRequestId,
        /// Why.
        failure: InboundFailure,
    },
    /// Invite requests of a peer were refused before anybody saw them. For operators.
    InvitesRefused {
        /// The peer.
        peer: PeerId,
        /// Why the first of them was.
        failure: InboundFailure,
        /// How many since the last such event.
        count: u64,
    },
    /// Invite requests were refused beside those reported: of so many peers that they are not
    /// told apart. For operators.
    OtherInvitesRefused {
        /// How many.
        count: u64,
    },
    /// Somebody holds the announcement of a blob of this node, after it was announced or tried
    /// again. For operators.
    BlobAnnounced {
        /// The context in which it is offered.
        context_id: ContextId,
        /// The blob.
        blob_id: BlobId,
    },
    /// A peer asks for blobs of this node. For operators.
    BlobRequested {
        /// The peer.
        peer: PeerId,
        /// The context on whose behalf it asks, of the last request.
        context_id: ContextId,
        /// The blob, of the last request.
        blob_id: BlobId,
        /// Whether it may have it and it is here.
        given: bool,
        /// How many requests since the last such event.
        count: u64,
    },
    /// Peers asked for blobs beside those reported: so many at once that they are not told apart.
    /// For operators.
    OtherBlobsRequested {
        /// How many requests.
        count: u64,
    },
    /// The DHT knows providers of a blob that this node fetches. For whoever shows progress.
    BlobProvidersFound {
        /// The context on whose behalf it is fetched.
        context_id: ContextId,
        /// The blob.
        blob_id: BlobId,
        /// All that were found so far.
        providers: Vec<PeerId>,
    },
    /// A fetch has come further. For whoever shows progress.
    BlobProgress {
        /// The context on whose behalf it is fetched.
        context_id: ContextId,
        /// The blob.
        blob_id: BlobId,
        /// How far it is.
        progress: Progress,
    },
    /// A blob is fetched: verified, durable, where it should be. The last event of its transfer. For
    /// whoever waits for it beside the one who asked.
    BlobDownloaded {
        /// The context on whose behalf it was fetched.
        context_id: ContextId,
        /// The blob.
        blob_id: BlobId,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// A blob is not fetched; what was verified of it is kept for the next try. The last event of
    /// its transfer. For whoever waits for it beside the one who asked.
    BlobDownloadFailed {
        /// The context on whose behalf it was fetched.
        context_id: ContextId,
        /// The blob.
        blob_id: BlobId,
        /// Why; it names the providers that were asked.
        error: Arc<FetchBlobError>,
    },
    /// Messages of topics were dropped at this place of the sequence because nobody read them in
    /// time. For whoever must fetch what is missing. Other events are never dropped.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This node closed it.
    Local,
    /// It carried no stream for `connections.idle_timeout_ms`.
    Idle,
    /// It left as many pings in a row unanswered as `connections.ping.max_failures`.
    Unresponsive,
    /// The peer closed it, or the link broke.
    Remote {
        /// What the transport said.
        error: std::io::ErrorKind,
    },
}
