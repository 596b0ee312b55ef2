//! The streams of a server: requests that come in, and the nonce that goes out on a dial-back.

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_exchange::within;
use calimero_network_primitives::{Multiaddr, addr::DialAddr};
use futures::{
    AsyncWriteExt, FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    future::BoxFuture,
    stream::FuturesUnordered,
};
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
};

use super::{
    super::handler::{DIAL_BACK, DIAL_REQUEST, invalid},
    Decision, Outcome,
};
use crate::wire::{
    autonat::{self, Verdict},
    frame,
};

/// Requests of one version of AutoNAT that are served at one time on one connection, 4. A further
/// one is reset.
pub(super) const MAX_REQUESTS: usize = 4;

/// Time for a request from its stream to its answer, 25 s: data, a dial and a dial-back. The
/// client of this crate waits for 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(25);

/// Time for the nonce to be confirmed on the dial-back, 10 s.
const BACK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request asks of the behaviour.
#[derive(Debug)]
pub enum Question {
    /// Whether and where the peer is dialled back.
    Decide {
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Decision>,
    },
    /// The dial of the peer at one of its addresses.
    Dial {
        address: DialAddr,
        nonce: u64,
        outcome: oneshot::Sender<Outcome>,
    },
}

/// Serves the requests on one inbound connection.
pub struct Requests {
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    questions: mpsc::Receiver<Question>,
    ask: mpsc::Sender<Question>,
}

impl Default for Requests {
    fn default() -> Self {
        let (ask, questions) = mpsc::channel(MAX_REQUESTS);
        Self {
            running: FuturesUnordered::new(),
            questions,
            ask,
        }
    }
}

async fn serve(mut stream: Stream, mut ask: mpsc::Sender<Question>) -> io::Result<()> {
    let request = frame::read(&mut stream, autonat::MAX_REQUEST_BYTES).await?;
    let (addresses, nonce) = autonat::decode_request(&request).map_err(invalid)?;
    let (reply, decision) = oneshot::channel();
    let question = Question::Decide { addresses, reply };
    ask.send(question).await.map_err(|_| closed())?;
    let verdict = match decision.await.map_err(|_| closed())? {
        Decision::Refused => Verdict::Refused,
        Decision::Rejected => Verdict::Rejected,
        Decision::Dial {
            index,
            address,
            bytes,
        } => {
            if bytes > 0 {
                receive_data(&mut stream, index, bytes).await?;
            }
            let (outcome, ended) = oneshot::channel();
            let question = Question::Dial {
                address,
                nonce,
                outcome,
            };
            ask.send(question).await.map_err(|_| closed())?;
            match ended.await.map_err(|_| closed())? {
                Outcome::NotDialled => Verdict::Rejected,
                Outcome::Reached => Verdict::Reached(index),
                Outcome::NotReached => Verdict::NotReached(index),
                Outcome::NotConfirmed => Verdict::NotConfirmed(index),
            }
        }
    };
    frame::write(&mut stream, &autonat::encode_verdict(verdict)).await?;
    stream.close().await
}

/// Asks for `bytes` bytes of data before the address at `index` is dialled, and reads them.
async fn receive_data(stream: &mut Stream, index: u32, bytes: u64) -> io::Result<()> {
    frame::write(stream, &autonat::encode_data_request(index, bytes)).await?;
    let mut missing = bytes;
    while missing > 0 {
        let part = frame::read(stream, autonat::MAX_MESSAGE_BYTES).await?;
        missing = missing.saturating_sub(autonat::decode_data(&part).map_err(invalid)?);
    }
    Ok(())
}

/// Brings the nonce to the peer and waits until it is acknowledged.
async fn dial_back(mut stream: Stream, nonce: u64) -> io::Result<()> {
    frame::write(&mut stream, &autonat::encode_dial_back(nonce)).await?;
    let response = frame::read(&mut stream, autonat::MAX_DIAL_BACK_BYTES).await?;
    autonat::decode_dial_back_response(&response).map_err(invalid)?;
    // The nonce is acknowledged, however the stream ends.
    let _ = stream.close().await;
    Ok(())
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Ends `work` after `time`.
fn in_time(
    work: impl Future<Output = io::Result<()>> + Send + 'static,
    time: Duration,
) -> impl Future<Output = io::Result<()>> + Send + 'static {
    within(time, work).map(|done| done.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())))
}

impl ConnectionHandler for Requests {
    type FromBehaviour = Infallible;
    type ToBehaviour = Question;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(DIAL_REQUEST), ())
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Question>> {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
        match self.questions.poll_next_unpin(cx) {
            Poll::Ready(Some(question)) => {
                Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(question))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, DeniedUpgrade>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) =
            event
            && self.running.len() < MAX_REQUESTS
        {
            let request = in_time(serve(protocol, self.ask.clone()), REQUEST_TIMEOUT);
            // A request without an answer is not logged: a peer could fill the log.
            self.running.push(request.map(drop).boxed());
        }
    }
}

/// Brings the nonce to the peer on the connection that was dialled for it.
pub struct Back {
    /// The nonce, until its stream is asked for.
    nonce: Option<u64>,
    /// The nonce, while its stream is being opened.
    opening: Option<u64>,
    outcome: Option<oneshot::Sender<Outcome>>,
    running: Option<BoxFuture<'static, io::Result<()>>>,
}

impl Back {
    pub(super) const fn new(nonce: u64, outcome: oneshot::Sender<Outcome>) -> Self {
        Self {
            nonce: Some(nonce),
            opening: None,
            outcome: Some(outcome),
            running: None,
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // The request may have ended by its deadline.
            let _ = sender.send(outcome);
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.end(Outcome::NotConfirmed);
    }
}

impl ConnectionHandler for Back {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if let Some(nonce) = self.nonce.take() {
            self.opening = Some(nonce);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(DIAL_BACK), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        if let Some(running) = &mut self.running
            && let Poll::Ready(result) = running.poll_unpin(cx)
        {
            self.running = None;
            self.end(match result {
                Ok(()) => Outcome::Reached,
                Err(_) => Outcome::NotConfirmed,
            });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                ..
            }) => {
                if let Some(nonce) = self.opening.take() {
                    self.running = Some(in_time(dial_back(stream, nonce), BACK_TIMEOUT).boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(_) => self.end(Outcome::NotConfirmed),
            _ => {}
        }
    }
}
