//! The streams of AutoNAT v1: requests of peers that do not know v2, such as older versions of
//! go-libp2p.

#![expect(
    clippy::manual_async_fn,
    reason = "the trait of an exchange asks for a future that is Send"
)]

use std::{io, sync::Arc, time::Duration};

use calimero_network_exchange::{inbound::Responder, within};
use futures::{AsyncWriteExt as _, channel::oneshot};
use libp2p_swarm::{Stream, StreamProtocol};

use super::{super::handler::invalid, handler::MAX_REQUESTS};
use crate::wire::{
    autonat_v1::{self as wire, Answer, Request},
    frame,
};

/// Time for a request to arrive on its stream, and for its answer to be taken, 10 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a dial-back, 15 s: each address has 10 s for its handshake, and all are dialled at the
/// same time. rust-libp2p waits 30 s for the answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The answering side of `/libp2p/autonat/1.0.0` on one connection.
#[derive(Debug, Default)]
pub struct Requests {
    /// One reference besides this one for each request that is served.
    serving: Arc<()>,
}

impl Responder for Requests {
    type Request = Request;
    type Answer = Answer;
    type Permit = Arc<()>;
    type Pending = (Stream, Arc<()>);
    type Failure = io::Error;

    fn protocol(&self) -> StreamProtocol {
        StreamProtocol::new(wire::PROTOCOL)
    }

    fn timeout(&self) -> Duration {
        STREAM_TIMEOUT
    }

    fn admit(&mut self) -> io::Result<Arc<()>> {
        if Arc::strong_count(&self.serving) > MAX_REQUESTS {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(self.serving.clone())
    }

    fn receive(
        &self,
        mut stream: Stream,
        permit: Arc<()>,
    ) -> impl Future<Output = io::Result<(Request, Self::Pending)>> + Send + 'static {
        async move {
            let message = frame::read(&mut stream, wire::MAX_REQUEST_BYTES);
            let message = within(STREAM_TIMEOUT, message).await;
            let message = message.ok_or(io::ErrorKind::TimedOut)??;
            let request = wire::decode_request(&message).map_err(invalid)?;
            Ok((request, (stream, permit)))
        }
    }

    fn respond(
        &self,
        (mut stream, _permit): Self::Pending,
        answer: oneshot::Receiver<Answer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        async move {
            let answer = match within(DIAL_TIMEOUT, answer).await {
                Some(answer) => answer.map_err(invalid)?,
                None => Answer::NotReached,
            };
            let send = async {
                frame::write(&mut stream, &wire::encode_answer(&answer)).await?;
                stream.close().await
            };
            let sent = within(STREAM_TIMEOUT, send).await;
            sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        }
    }
}
