//! Simultaneous open: two peers that dial each other from their listening ports.
//!
//! If both SYN packets cross, TCP makes one connection of the two dials (RFC 9293, section 3.5), and
//! both sides begin the handshake as its client. Neither dial can succeed. It happens to peers that
//! lost each other at the same moment and know each other's addresses behind a NAT. A dial from
//! another port meets the listener of the peer, so such a dial is made once in addition.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p_core::{
    Endpoint, Transport,
    transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
};
use multiaddr::Multiaddr;

use crate::AddressError;

/// A transport that dials once more, from a port that no listener uses, if the peer does not answer
/// as the server of a handshake. If that dial fails as well, the error is that of the first one. The
/// same happens at an address at which no libp2p node listens.
///
/// The dial of `inner` must not open a socket before it is polled.
pub(crate) struct SimultaneousOpen<T>(pub(crate) T);

impl<T> Transport for SimultaneousOpen<T>
where
    T: Transport<Error = AddressError> + Unpin,
    T::Dial: Send + 'static,
    T::Output: Send + 'static,
{
    type Output = T::Output;
    type Error = AddressError;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, AddressError>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<AddressError>> {
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<AddressError>> {
        let first = self.0.dial(addr.clone(), opts)?;
        if opts.role == Endpoint::Listener || opts.port_use == PortUse::New {
            return Ok(first.boxed());
        }
        let port_use = PortUse::New;
        let second = self.0.dial(addr.clone(), DialOpts { port_use, ..opts })?;
        let dial = first.or_else(move |error| async move {
            if !may_be_simultaneous(&error) {
                return Err(error);
            }
            tracing::debug!(%addr, %error, "the peer may have dialled as well, dialling from another port");
            second.await.map_err(|_| error)
        });
        Ok(dial.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, AddressError>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Returns whether the peer may have sent what a client sends: the first message of TLS or Noise, or
/// the proposal of another security protocol, which is no valid answer.
fn may_be_simultaneous(error: &AddressError) -> bool {
    matches!(error, AddressError::Security(_) | AddressError::NotLibp2p)
}
