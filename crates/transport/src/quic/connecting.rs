//! A connection whose handshake is under way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use libp2p_identity::PeerId;
use quinn::ConnectionError;
use rustls::pki_types::CertificateDer;
use tokio::time::Sleep;

use super::{Connection, Error, WrongPeer, config::Settings};
use crate::crypto::{Crypto, FoundPeer};

/// Completes the handshake, or says why not, before its deadline. Dropping it ends the attempt.
#[derive(Debug)]
#[must_use = "a handshake goes on only while it is polled"]
pub struct Connecting {
    handshake: quinn::Connecting,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    max_streams: u32,
    expected: Option<Expected>,
    _counted: Option<Counted>,
}

/// The peer that was dialled, and where TLS leaves the one that answered.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) peer: PeerId,
    pub(super) found: FoundPeer,
}

impl Connecting {
    pub(super) fn outbound(
        handshake: quinn::Connecting,
        settings: &Settings,
        expected: Option<Expected>,
    ) -> Self {
        let timeout = settings.handshake_timeout;
        Self {
            handshake,
            deadline: Box::pin(tokio::time::sleep(timeout)),
            timeout,
            max_streams: settings.max_streams,
            expected,
            _counted: None,
        }
    }

    pub(super) fn inbound(
        handshake: quinn::Connecting,
        settings: &Settings,
        count: Counted,
    ) -> Self {
        Self {
            _counted: Some(count),
            ..Self::outbound(handshake, settings, None)
        }
    }

    /// What a failed handshake means: TLS knows more than its alert says.
    fn failed(&self, error: ConnectionError) -> Error {
        if let Some(Expected { peer, found }) = &self.expected
            && let Some(found) = found.get()
            && found != peer
        {
            return Error::from(WrongPeer {
                expected: *peer,
                found: *found,
            });
        }
        match Error::from(error) {
            Error::IdleTimeout => Error::Timeout {
                after: self.timeout,
            },
            other => other,
        }
    }
}

impl Future for Connecting {
    type Output = Result<(PeerId, Connection), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = Pin::new(&mut self.handshake).poll(cx) {
            return Poll::Ready(match result {
                Ok(connection) => established(connection, self.max_streams),
                Err(error) => Err(self.failed(error)),
            });
        }
        self.deadline.as_mut().poll(cx).map(|()| {
            Err(Error::Timeout {
                after: self.timeout,
            })
        })
    }
}

fn established(
    connection: quinn::Connection,
    max_streams: u32,
) -> Result<(PeerId, Connection), Error> {
    let identity = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    match Crypto::peer_id(&identity) {
        Ok(peer) => Ok((peer, Connection::new(connection, max_streams))),
        Err(error) => Err(Error::Tls {
            alert: u8::from(rustls::AlertDescription::BadCertificate),
            reason: error.to_string().into(),
        }),
    }
}

/// One of the inbound handshakes under way; not one any more once dropped.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
