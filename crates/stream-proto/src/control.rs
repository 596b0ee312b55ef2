//! The handle that opens and accepts streams.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    channel::mpsc,
    future::{Either, select},
    stream::FusedStream,
};
use futures_timer::Delay;
use libp2p_identity::PeerId;
use libp2p_swarm::StreamProtocol;

use crate::{
    halves::clamp_timeout,
    open_error::{AcceptError, OpenError},
    router::RequestId,
    shared::{Queued, Shared},
    substream::{Inbound, Substream},
};

/// A handle that opens and accepts streams of a
/// [`Behaviour`](crate::Behaviour). It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Opens a stream of `protocol` to `peer`, within
    /// [`STREAM_OPEN_TIMEOUT`](calimero_network_primitives::limits::STREAM_OPEN_TIMEOUT).
    ///
    /// Uses the best existing connection: working connections before those that
    /// failed on their last use, direct before relayed ones, and fast before slow
    /// ones ([`Behaviour::on_round_trip`](crate::Behaviour::on_round_trip)). If the peer is
    /// not connected, the behaviour dials it. All requests for a peer share one
    /// dial, and any new connection to the peer serves them. Requests are
    /// served in the order in which their futures were first polled.
    ///
    /// Dropping the future cancels the request.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] at the latest when the deadline passes.
    pub fn open(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        self.open_within(peer, protocol, self.shared.open_timeout())
    }

    /// Opens a stream of one of several protocols: `wanted`, or otherwise the
    /// first of `fallbacks` that the peer supports. One negotiation offers all of
    /// them. If the peer has announced some of these protocols through
    /// identify, only those are offered. [`Substream::protocol`] returns the
    /// negotiated protocol.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open). Errors name `wanted` as the protocol.
    pub fn open_any(
        &self,
        peer: PeerId,
        wanted: StreamProtocol,
        fallbacks: Arc<[StreamProtocol]>,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        self.request(peer, wanted, fallbacks, self.shared.open_timeout())
    }

    /// Same as [`open`](Self::open) with its own deadline. A deadline above
    /// [`STREAM_OPEN_TIMEOUT`](calimero_network_primitives::limits::STREAM_OPEN_TIMEOUT)
    /// gives more time for dialling and waiting; a single negotiation is still
    /// limited to that constant.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_within(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        after: Duration,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        self.request(peer, protocol, Arc::from([]), after)
    }

    fn request(
        &self,
        peer: PeerId,
        wanted: StreamProtocol,
        fallbacks: Arc<[StreamProtocol]>,
        after: Duration,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            let (id, answer) = shared.request(peer, wanted, fallbacks)?;
            let mut pending = PendingRequest {
                shared: &shared,
                id,
                late: false,
            };
            match select(answer, Delay::new(clamp_timeout(after))).await {
                Either::Left((Ok(reply), _)) => reply,
                Either::Left((Err(_), _)) => Err(OpenError::Stopped),
                Either::Right(((), _)) => {
                    pending.late = true;
                    Err(OpenError::Deadline { peer, after })
                }
            }
        }
    }

    /// Accepts streams of `protocol` until the [`Incoming`] is dropped.
    ///
    /// # Errors
    ///
    /// [`AcceptError::AlreadyAccepted`] while another [`Incoming`] of the
    /// protocol exists, [`AcceptError::Stopped`] after the behaviour was
    /// dropped.
    pub fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        let receiver = self.shared.accept(protocol.clone())?;
        Ok(Incoming {
            shared: self.shared.clone(),
            protocol,
            receiver,
        })
    }

    /// Returns the number of inbound streams of all peers and protocols that
    /// are open or wait to be accepted.
    #[must_use]
    pub fn open_inbound(&self) -> usize {
        self.shared.inbound()
    }
}

/// Cancels its request on drop. After the request completed, the drop has no
/// effect.
struct PendingRequest<'a> {
    shared: &'a Shared,
    id: RequestId,
    late: bool,
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.shared.cancel(self.id, self.late);
    }
}

/// A stream of the inbound streams of one protocol, in the order in which they
/// were negotiated.
///
/// Up to [`accept_queue`](crate::config::StreamsTuning::accept_queue) streams
/// wait here, of which one peer has three eighths, and the peers of one IP prefix
/// or relay a half. A sixteenth is left to protected peers. Further streams
/// are refused and reported. Dropping an `Incoming`
/// stops accepting and announcing the protocol and resets the waiting streams.
/// It ends when the behaviour is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the protocol from being accepted"]
pub struct Incoming {
    shared: Arc<Shared>,
    protocol: StreamProtocol,
    receiver: mpsc::Receiver<Queued>,
}

impl Incoming {
    /// Returns the protocol that is accepted.
    #[must_use]
    pub fn protocol(&self) -> &StreamProtocol {
        &self.protocol
    }
}

impl Stream for Incoming {
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        let next = self.receiver.poll_next_unpin(cx);
        next.map(|queued| queued.map(Queued::accept))
    }
}

impl FusedStream for Incoming {
    fn is_terminated(&self) -> bool {
        self.receiver.is_terminated()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.unaccept(&self.protocol);
    }
}
