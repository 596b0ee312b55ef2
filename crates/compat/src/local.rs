//! A libp2p 0.56 swarm that never leaves the process.
//!
//! Four types of the published interface can be made by a libp2p 0.56 swarm alone: `Stream`,
//! `InboundRequestId`, `OutboundRequestId` and `ResponseChannel`. This swarm has one connection to
//! a peer that does not exist. Its multiplexer takes the byte streams that the adapter gives to it,
//! so that a stream of the manager becomes a libp2p 0.56 stream without a copy and without a task
//! that moves bytes.
//!
//! libp2p negotiates a protocol on each byte stream. [`Negotiated`] plays the remote side.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    future::{Pending, Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::{
    messages::{InboundRequestId, OutboundRequestId, ResponseChannel},
    specialized_node_invite::{
        CALIMERO_SPECIALIZED_NODE_INVITE_PROTOCOL, SpecializedNodeInvitationResponse,
        SpecializedNodeInviteCodec, VerificationRequest,
    },
};
use eyre::{Result, eyre};
use futures::{AsyncRead, AsyncWrite, StreamExt as _, ready as ready_or_return};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
        transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    request_response::{self, ProtocolSupport},
    swarm::{
        self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        dial_opts::DialOpts as SwarmDialOpts,
        handler::{ConnectionEvent, FullyNegotiatedOutbound},
    },
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

/// The protocol that the swarm negotiates with itself for streams of every protocol.
const BRIDGE: StreamProtocol = StreamProtocol::new("/bridge");

/// Commands and byte streams that wait for the swarm: 64. More wait at their senders.
const QUEUE: usize = 64;

/// Time for the swarm to answer: 10 s. It does no IO, so a missed deadline is an overloaded host.
const DEADLINE: Duration = Duration::from_secs(10);

/// Requests whose channel the node holds, in total. The manager bounds them to fewer.
const MAX_REQUESTS: usize = 65_536;

/// A byte stream.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A request of a peer with the channel for its response.
pub(crate) type Request = (
    InboundRequestId,
    VerificationRequest,
    ResponseChannel<SpecializedNodeInvitationResponse>,
);

/// The handle to the swarm. The swarm stops when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    streams: mpsc::Sender<StreamRequest>,
    commands: mpsc::Sender<Command>,
}

struct StreamRequest {
    bytes: Box<dyn Bytes>,
    reply: oneshot::Sender<Stream>,
}

enum Command {
    RequestId(oneshot::Sender<OutboundRequestId>),
    Request {
        bytes: Box<dyn Bytes>,
        reply: oneshot::Sender<Request>,
    },
    Respond {
        channel: ResponseChannel<SpecializedNodeInvitationResponse>,
        response: SpecializedNodeInvitationResponse,
        reply: oneshot::Sender<bool>,
    },
}

impl Local {
    /// Starts the swarm on `runtime`. Channels close `request_timeout` after their request.
    pub(crate) fn start(runtime: &Handle, request_timeout: Duration) -> Self {
        let (streams, requested) = mpsc::channel(QUEUE);
        let (commands, received) = mpsc::channel(QUEUE);
        runtime.spawn(run(requested, received, request_timeout));
        Self { streams, commands }
    }

    /// Converts `bytes` to a stream of libp2p 0.56.
    pub(crate) async fn stream(&self, bytes: impl Bytes + 'static) -> Result<Stream> {
        let (reply, answer) = oneshot::channel();
        let bytes = Box::new(Negotiated::new(bytes, &BRIDGE));
        let request = StreamRequest { bytes, reply };
        answered(self.streams.send(request), answer).await
    }

    /// An id that no other request of this process has.
    pub(crate) async fn request_id(&self) -> Result<OutboundRequestId> {
        let (reply, answer) = oneshot::channel();
        answered(self.commands.send(Command::RequestId(reply)), answer).await
    }

    /// Reads a request from `bytes`, in the format of the network, and makes its channel. The
    /// response is written to `bytes`, which are then closed.
    pub(crate) async fn request(&self, bytes: impl Bytes + 'static) -> Result<Request> {
        let (reply, answer) = oneshot::channel();
        let protocol = &CALIMERO_SPECIALIZED_NODE_INVITE_PROTOCOL;
        let bytes = Box::new(Negotiated::new(bytes, protocol));
        answered(
            self.commands.send(Command::Request { bytes, reply }),
            answer,
        )
        .await
    }

    /// Sends a response to its channel. Returns `false` if the channel is closed.
    pub(crate) async fn respond(
        &self,
        channel: ResponseChannel<SpecializedNodeInvitationResponse>,
        response: SpecializedNodeInvitationResponse,
    ) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Respond {
            channel,
            response,
            reply,
        };
        answered(self.commands.send(command), answer).await
    }
}

/// Sends a command and returns its answer.
async fn answered<T, E>(
    send: impl Future<Output = Result<(), E>>,
    answer: oneshot::Receiver<T>,
) -> Result<T> {
    let stopped = || eyre!(network::Stopped);
    let answered = async {
        send.await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    };
    let deadline = Delay::new(DEADLINE);
    tokio::select! {
        answer = answered => answer,
        () = deadline => Err(eyre!("no answer of the adapter within {DEADLINE:?}")),
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: Streams,
    invites: request_response::Behaviour<SpecializedNodeInviteCodec>,
}

/// Drives the swarm until the last handle is dropped.
async fn run(
    requested: mpsc::Receiver<StreamRequest>,
    mut commands: mpsc::Receiver<Command>,
    request_timeout: Duration,
) {
    let (inbound, inbound_streams) = mpsc::channel(QUEUE);
    let (outbound, outbound_streams) = mpsc::channel(1);
    let remote = PeerId::random();
    let muxer = Queues {
        inbound: inbound_streams,
        outbound: outbound_streams,
    };
    let transport = Wire(Some((remote, StreamMuxerBox::new(muxer))));
    let handler = Handler {
        requested,
        outbound,
        opening: false,
    };
    let invites = request_response::Config::default()
        .with_request_timeout(request_timeout)
        .with_max_concurrent_streams(MAX_REQUESTS);
    let protocol = CALIMERO_SPECIALIZED_NODE_INVITE_PROTOCOL;
    let behaviour = Behaviour {
        streams: Streams(Some(handler)),
        invites: request_response::Behaviour::new([(protocol, ProtocolSupport::Inbound)], invites),
    };
    let config = swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(transport.boxed(), behaviour, PeerId::random(), config);
    let dial = SwarmDialOpts::peer_id(remote)
        .addresses(vec![Multiaddr::empty()])
        .build();
    if let Err(error) = swarm.dial(dial) {
        tracing::error!(%error, "the adapter for streams does not start");
        return;
    }
    let mut requests = Requests {
        inbound,
        waiting: VecDeque::new(),
        reading: None,
        served: HashSet::new(),
    };
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(BehaviourEvent::Invites(event)) = event {
                    requests.on_event(event);
                }
            }
            command = commands.recv() => match command {
                None => return,
                Some(Command::RequestId(reply)) => {
                    // The request goes nowhere: its peer does not exist. Only the id is of use, and
                    // the id counts up in this behaviour alone.
                    let request = VerificationRequest::TeeAttestation {
                        nonce: [0; 32],
                        quote_bytes: Vec::new(),
                        public_key: [0; 32].into(),
                    };
                    let invites = &mut swarm.behaviour_mut().invites;
                    let _ = reply.send(invites.send_request(&PeerId::random(), request));
                }
                Some(Command::Request { bytes, reply }) => {
                    requests.waiting.push_back((bytes, reply));
                    requests.read_next();
                }
                Some(Command::Respond { channel, response, reply }) => {
                    let invites = &mut swarm.behaviour_mut().invites;
                    let _ = reply.send(invites.send_response(channel, response).is_ok());
                }
            }
        }
    }
}

/// Requests on their way through the swarm, one at a time, because the swarm does not say which byte
/// stream a request came from.
struct Requests {
    inbound: mpsc::Sender<Box<dyn Bytes>>,
    waiting: VecDeque<(Box<dyn Bytes>, oneshot::Sender<Request>)>,
    reading: Option<oneshot::Sender<Request>>,
    /// Requests whose channel was given out.
    served: HashSet<InboundRequestId>,
}

impl Requests {
    fn on_event(
        &mut self,
        event: request_response::Event<VerificationRequest, SpecializedNodeInvitationResponse>,
    ) {
        use request_response::{Event, Message};
        match event {
            Event::Message {
                message:
                    Message::Request {
                        request_id,
                        request,
                        channel,
                    },
                ..
            } => {
                self.served.insert(request_id);
                if let Some(reply) = self.reading.take() {
                    let _ = reply.send((request_id, request, channel));
                }
                self.read_next();
            }
            Event::ResponseSent { request_id, .. } => {
                self.served.remove(&request_id);
            }
            Event::InboundFailure {
                request_id, error, ..
            } => {
                if !self.served.remove(&request_id) {
                    tracing::warn!(%error, "an invite request could not be passed to the node");
                    self.reading = None;
                    self.read_next();
                }
            }
            Event::Message { .. } | Event::OutboundFailure { .. } => {}
        }
    }

    fn read_next(&mut self) {
        while self.reading.is_none() {
            let Some((bytes, reply)) = self.waiting.pop_front() else {
                return;
            };
            if self.inbound.try_send(bytes).is_ok() {
                self.reading = Some(reply);
            }
        }
    }
}

/// A byte stream whose remote side has negotiated a protocol: it reads what the remote side of
/// multistream-select writes, drops what the local side writes, and is the inner stream from then
/// on. Both sides write the same bytes where one protocol is offered and accepted.
struct Negotiated<T> {
    inner: T,
    to_read: Vec<u8>,
    read: usize,
    to_drop: usize,
}

impl<T> Negotiated<T> {
    fn new(inner: T, protocol: &StreamProtocol) -> Self {
        let mut to_read = Vec::new();
        for line in ["/multistream/1.0.0", protocol.as_ref()] {
            // The length counts the line feed. It is below 128, which is one byte of a varint.
            to_read.push(u8::try_from(line.len() + 1).unwrap_or(u8::MAX) & 0x7f);
            to_read.extend_from_slice(line.as_bytes());
            to_read.push(b'\n');
        }
        Self {
            inner,
            read: 0,
            to_drop: to_read.len(),
            to_read,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Negotiated<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let rest = &self.to_read[self.read..];
        if rest.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Poll::Ready(Ok(len))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Negotiated<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.to_drop == 0 {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        let len = self.to_drop.min(buf.len());
        self.to_drop -= len;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.to_drop > 0 {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The transport of the swarm: its first dial gives the one connection.
struct Wire(Option<(PeerId, StreamMuxerBox)>);

impl Transport for Wire {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = Pending<Result<Self::Output, Self::Error>>;
    type Dial = Ready<Result<Self::Output, Self::Error>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        match self.0.take() {
            Some(connection) => Ok(ready(Ok(connection))),
            None => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

/// The multiplexer of the connection: byte streams that the adapter queued.
struct Queues {
    inbound: mpsc::Receiver<Box<dyn Bytes>>,
    outbound: mpsc::Receiver<Box<dyn Bytes>>,
}

impl StreamMuxer for Queues {
    type Substream = Box<dyn Bytes>;
    type Error = Infallible;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Infallible>> {
        next(&mut self.inbound, cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Infallible>> {
        next(&mut self.outbound, cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Infallible>> {
        Poll::Pending
    }
}

/// The next queued stream. Waits without end when the queue is closed, because the swarm stops then.
fn next(
    queue: &mut mpsc::Receiver<Box<dyn Bytes>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Box<dyn Bytes>, Infallible>> {
    match ready_or_return!(queue.poll_recv(cx)) {
        Some(bytes) => Poll::Ready(Ok(bytes)),
        None => Poll::Pending,
    }
}

/// The behaviour of streams: its one connection has the one handler.
struct Streams(Option<Handler>);

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler()
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler()
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

impl Streams {
    fn handler(&mut self) -> Result<Handler, ConnectionDenied> {
        let second = || ConnectionDenied::new(io::Error::other("there is one connection"));
        self.0.take().ok_or_else(second)
    }
}

/// Opens one stream at a time, so that a byte stream meets the request that it was queued for.
struct Handler {
    requested: mpsc::Receiver<StreamRequest>,
    outbound: mpsc::Sender<Box<dyn Bytes>>,
    opening: bool,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade, ()> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            DeniedUpgrade,
            ReadyUpgrade<StreamProtocol>,
            (),
            oneshot::Sender<Stream>,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                self.opening = false;
                // A caller that no longer waits drops the stream.
                let _ = info.send(protocol);
            }
            ConnectionEvent::DialUpgradeError(_) => self.opening = false,
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Infallible>>
    {
        while !self.opening {
            let Some(StreamRequest { bytes, reply }) =
                ready_or_return!(self.requested.poll_recv(cx))
            else {
                return Poll::Pending;
            };
            if self.outbound.try_send(bytes).is_ok() {
                self.opening = true;
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(BRIDGE), reply);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }
}
