//! The two streams of a probe: the request that goes out, and the dial-back that comes in.

#![expect(
    clippy::manual_async_fn,
    reason = "the trait of an exchange asks for a future that is Send"
)]

use std::{io, sync::Arc, time::Duration};

use calimero_network_exchange::{
    inbound::Responder,
    outbound::{Limits, Requester},
    within,
};
use calimero_network_primitives::Multiaddr;
use futures::{AsyncWriteExt as _, FutureExt as _, channel::oneshot};
use libp2p_swarm::{Stream, StreamProtocol};

use crate::{
    machine::ProbeOutcome,
    wire::{
        autonat::{self, Answer},
        frame,
    },
};

/// Dial-backs that are read at one time on one connection. One more is reset.
const MAX_DIAL_BACKS: usize = 2;

/// Time for a dial-back to arrive on its stream and to be acknowledged.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Protocol of requests for a dial-back.
pub(super) const DIAL_REQUEST: StreamProtocol =
    StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// Protocol of the stream that brings the nonce back.
pub(super) const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

#[derive(Debug)]
pub struct Request {
    pub(super) address: Multiaddr,
    pub(super) nonce: u64,
}

/// The asking side of `/libp2p/autonat/2/dial-request`.
#[derive(Debug)]
pub struct Probe;

impl Requester for Probe {
    type Request = Request;
    type Answer = ProbeOutcome;
    type Error = io::Error;

    fn protocol(&self) -> StreamProtocol {
        DIAL_REQUEST
    }

    fn limits(&self) -> Limits {
        Limits {
            max_running: 8,
            // All probes that the client has under way may go to one server.
            max_waiting: super::MAX_ASKED,
            // A server takes as long as its dial; libp2p-autonat 0.16 gives it 10 s, others 15 s.
            timeout: Duration::from_secs(30),
        }
    }

    fn run(
        &self,
        mut stream: Stream,
        Request { address, nonce }: Request,
    ) -> impl Future<Output = io::Result<ProbeOutcome>> + Send + 'static {
        async move {
            frame::write(&mut stream, &autonat::encode_request(&address, nonce)).await?;
            let mut answer = receive(&mut stream).await?;
            if let Answer::DataRequested(bytes) = answer {
                for part in autonat::encode_data(bytes) {
                    frame::write(&mut stream, &part).await?;
                }
                answer = receive(&mut stream).await?;
            }
            let Answer::Outcome(outcome) = answer else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            // The answer counts, however the stream ends.
            let _ = stream.close().await;
            Ok(outcome)
        }
    }
}

async fn receive(stream: &mut Stream) -> io::Result<Answer> {
    let message = frame::read(stream, autonat::MAX_MESSAGE_BYTES).await?;
    autonat::decode_answer(&message).map_err(invalid)
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The answering side of `/libp2p/autonat/2/dial-back`. A request is the nonce that a server brings
/// back. The behaviour answers once it has recorded the nonce: the server is acknowledged only
/// then, so its answer on the other connection cannot arrive before.
#[derive(Debug, Default)]
pub struct DialBack {
    /// One reference besides this one for each dial-back that is read.
    reading: Arc<()>,
}

impl Responder for DialBack {
    type Request = u64;
    type Answer = ();
    type Permit = Arc<()>;
    type Pending = (Stream, Arc<()>);
    type Failure = io::Error;

    fn protocol(&self) -> StreamProtocol {
        DIAL_BACK
    }

    fn timeout(&self) -> Duration {
        DIAL_BACK_TIMEOUT
    }

    fn admit(&mut self) -> io::Result<Arc<()>> {
        if Arc::strong_count(&self.reading) > MAX_DIAL_BACKS {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(self.reading.clone())
    }

    fn receive(
        &self,
        mut stream: Stream,
        permit: Arc<()>,
    ) -> impl Future<Output = io::Result<(u64, Self::Pending)>> + Send + 'static {
        async move {
            let message = frame::read(&mut stream, autonat::MAX_DIAL_BACK_BYTES);
            let message = timed(message).await??;
            let nonce = autonat::decode_dial_back(&message).map_err(invalid)?;
            Ok((nonce, (stream, permit)))
        }
    }

    fn respond(
        &self,
        (mut stream, _permit): Self::Pending,
        recorded: oneshot::Receiver<()>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        timed(async move {
            recorded.await.map_err(invalid)?;
            frame::write(&mut stream, &autonat::encode_dial_back_response()).await?;
            stream.close().await
        })
        .map(|done| done.and_then(|done| done))
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let done = within(DIAL_BACK_TIMEOUT, work).await;
    done.ok_or_else(|| io::ErrorKind::TimedOut.into())
}
