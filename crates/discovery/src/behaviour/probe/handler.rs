//! The two streams of a probe: the question that goes out, and the dial back that comes in.

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::Multiaddr;
use futures::{
    AsyncWriteExt, FutureExt, StreamExt,
    channel::oneshot,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, SubstreamProtocol,
    handler::{ConnectionEvent, FullyNegotiatedInbound},
};

use super::{super::ask::Exchange, wire};
use crate::machine::ProbeOutcome;

/// Dial backs read at one time on one connection; one more ends the newest.
const MAX_DIAL_BACKS: usize = 2;

/// Time for a dial back to arrive on its stream.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(10);

const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

#[derive(Debug)]
pub struct Request {
    pub(super) address: Multiaddr,
    pub(super) nonce: u64,
}

/// A question to a server.
pub struct Probe;

impl Exchange for Probe {
    type Request = Request;
    type Answer = ProbeOutcome;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");
    /// A server takes as long as its dial; libp2p-autonat 0.16 gives it 10 s, others 15 s.
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn run(mut stream: Stream, request: Request) -> BoxFuture<'static, io::Result<ProbeOutcome>> {
        async move {
            let outcome = wire::request(&mut stream, &request.address, request.nonce).await?;
            // It is answered, whatever becomes of the stream.
            let _ = stream.close().await;
            Ok(outcome)
        }
        .boxed()
    }
}

/// A server has dialled back.
#[derive(Debug)]
pub struct DialledBack {
    pub(super) nonce: u64,
    /// To be told once that is taken note of. Only then is the server thanked, so that its answer
    /// on the other connection cannot be there before.
    pub(super) noted: oneshot::Sender<()>,
}

enum Step {
    Heard(Stream, u64),
    Thanked,
}

/// Hears dial backs.
#[derive(Default)]
pub struct DialBack {
    running: FuturesUnordered<BoxFuture<'static, io::Result<Step>>>,
}

impl DialBack {
    fn run(&mut self, step: impl Future<Output = io::Result<Step>> + Send + 'static) {
        let step = future::select(step.boxed(), Delay::new(DIAL_BACK_TIMEOUT));
        let step = step.map(|first| match first {
            Either::Left((step, _)) => step,
            Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
        });
        self.running.push(step.boxed());
    }
}

async fn hear(mut stream: Stream) -> io::Result<Step> {
    let nonce = wire::dialled_back(&mut stream).await?;
    Ok(Step::Heard(stream, nonce))
}

async fn thank(mut stream: Stream, noted: oneshot::Receiver<()>) -> io::Result<Step> {
    noted.await.map_err(|_| io::ErrorKind::InvalidData)?;
    wire::thank(&mut stream).await?;
    stream.close().await?;
    Ok(Step::Thanked)
}

impl ConnectionHandler for DialBack {
    type FromBehaviour = Infallible;
    type ToBehaviour = DialledBack;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(DIAL_BACK), ())
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), DialledBack>> {
        while let Poll::Ready(Some(heard)) = self.running.poll_next_unpin(cx) {
            if let Ok(Step::Heard(stream, nonce)) = heard {
                let (noted, taken) = oneshot::channel();
                self.run(thank(stream, taken));
                let event = DialledBack { nonce, noted };
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, DeniedUpgrade>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) =
            event
            && self.running.len() < MAX_DIAL_BACKS
        {
            self.run(hear(protocol));
        }
    }
}
