//! The dial filter in front of all transports: only addresses that it accepts
//! reach a socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use calimero_network_primitives::addr::{DialGate, DialRefusal};
use libp2p_core::{
    Transport,
    transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
};
use multiaddr::Multiaddr;

use crate::AddressError;

/// A transport that checks its dials with a [`DialGate`]. Listening is not
/// restricted: the operator chooses the listen addresses, and the relay of a
/// circuit listener is dialled through the filter.
pub(crate) struct Gated<O> {
    inner: Boxed<O>,
    gate: DialGate,
}

impl<O> Gated<O> {
    pub(crate) const fn new(inner: Boxed<O>, gate: DialGate) -> Self {
        Self { inner, gate }
    }
}

/// Converts a refusal to the error of the dial.
pub(crate) fn refused(addr: Multiaddr, refusal: DialRefusal) -> TransportError<AddressError> {
    match refusal {
        DialRefusal::Shape => TransportError::MultiaddrNotSupported(addr),
        refusal => TransportError::Other(AddressError::NotAllowed(refusal)),
    }
}

impl<O> Transport for Gated<O> {
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<O> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<O> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        match self.gate.check(&addr) {
            Ok(allowed) => self.inner.dial(allowed.into_multiaddr(), opts),
            Err(refusal) => {
                tracing::debug!(%addr, %refusal, "dial refused");
                Err(refused(addr, refusal).map(io::Error::other))
            }
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
