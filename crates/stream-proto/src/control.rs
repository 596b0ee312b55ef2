//! The handle by which streams are opened and accepted.

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
    halves::waitable,
    open_error::{AcceptError, OpenError},
    router::RequestId,
    shared::Shared,
    substream::{Inbound, Substream},
};

/// Opens and accepts streams of the [`Behaviour`](crate::Behaviour) it was made by. Cheap to clone.
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
    /// Uses the best connection there is: one that works before one that lately failed, direct
    /// before relayed. Dials if there is none; all who wait for a peer share one dial, and a
    /// connection made by anybody serves them. Requests are served in the order in which their
    /// futures were first polled.
    ///
    /// Dropping the future gives up the request and its place in line.
    ///
    /// # Errors
    ///
    /// [`OpenError`], one for each way in which it can fail. None is waited for longer than the
    /// deadline.
    pub fn open(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        self.open_within(peer, protocol, self.shared.open_timeout())
    }

    /// [`open`](Self::open) where one of several protocols will do: `wanted`, or else the first of
    /// `instead` that the peer speaks. All are offered in one negotiation, but those that the peer
    /// has not announced while it has announced others of them.
    /// [`Substream::protocol`] says which it is.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), in which `wanted` stands for all of them.
    pub fn open_any(
        &self,
        peer: PeerId,
        wanted: StreamProtocol,
        instead: Arc<[StreamProtocol]>,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        self.request(peer, wanted, instead, self.shared.open_timeout())
    }

    /// [`open`](Self::open) with a deadline of its own. One longer than
    /// [`STREAM_OPEN_TIMEOUT`](calimero_network_primitives::limits::STREAM_OPEN_TIMEOUT) gives more time for dialling
    /// and waiting in line; a negotiation takes no longer than that.
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
        instead: Arc<[StreamProtocol]>,
        after: Duration,
    ) -> impl Future<Output = Result<Substream, OpenError>> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            let (id, answer) = shared.request(peer, wanted, instead)?;
            let mut place = Place {
                shared: &shared,
                id,
                late: false,
            };
            match select(answer, Delay::new(waitable(after))).await {
                Either::Left((Ok(reply), _)) => reply,
                Either::Left((Err(_), _)) => Err(OpenError::Stopped),
                Either::Right(((), _)) => {
                    place.late = true;
                    Err(OpenError::Deadline { peer, after })
                }
            }
        }
    }

    /// Accepts streams of `protocol` until the [`Incoming`] is dropped.
    ///
    /// # Errors
    ///
    /// [`AcceptError::AlreadyAccepted`] while another [`Incoming`] of the protocol lives,
    /// [`AcceptError::Stopped`] once the behaviour is gone.
    pub fn accept(&self, protocol: StreamProtocol) -> Result<Incoming, AcceptError> {
        let receiver = self.shared.accept(protocol.clone())?;
        Ok(Incoming {
            shared: self.shared.clone(),
            protocol,
            receiver,
        })
    }

    /// Inbound streams that are open or wait to be accepted, of all peers and protocols.
    #[must_use]
    pub fn open_inbound(&self) -> usize {
        self.shared.inbound()
    }
}

/// The place of a request. Dropping it gives it up; after the answer that does nothing.
struct Place<'a> {
    shared: &'a Shared,
    id: RequestId,
    late: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.id, self.late);
    }
}

/// Inbound streams of one protocol, in the order in which they were negotiated.
///
/// As many as [`accept_queue`](crate::config::StreamsTuning::accept_queue) wait here; what comes
/// on top is refused and reported. Dropping it stops the protocol from being accepted and
/// announced, and resets the streams that wait. Ends when the behaviour is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the protocol from being accepted"]
pub struct Incoming {
    shared: Arc<Shared>,
    protocol: StreamProtocol,
    receiver: mpsc::Receiver<Inbound>,
}

impl Incoming {
    /// The protocol accepted.
    #[must_use]
    pub fn protocol(&self) -> &StreamProtocol {
        &self.protocol
    }
}

impl Stream for Incoming {
    type Item = Inbound;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Inbound>> {
        self.receiver.poll_next_unpin(cx)
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
