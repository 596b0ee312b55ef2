//! Dials of addresses that start with a DNS name.
//!
//! A name is resolved for each dial. Every resolved address must pass the
//! [`DialGate`] before a socket is opened, so that a name that resolves to a
//! loopback address is not dialled. The addresses are dialled in sequence with
//! a short delay, as [RFC 8305] (happy eyeballs) describes, and the first
//! connection is used. Names are looked up at the same time, and the first
//! addresses are dialled while other lookups have no response yet.
//!
//! [RFC 8305]: https://www.rfc-editor.org/rfc/rfc8305

mod attempts;
mod lists;
mod resolver;
#[cfg(test)]
mod tests;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use calimero_network_primitives::addr::{DialGate, is_dns};
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p_core::{
    Transport,
    transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
};
use multiaddr::Multiaddr;

pub use self::lists::{AddressList, ResolvedList};
pub(crate) use self::resolver::Resolver;
use crate::{AddressError, gate::refused};

/// Largest number of `/dnsaddr` names that lead to one another, 4: a list of a region in a list of
/// all, with names of hosts, takes three.
const MAX_DEPTH: usize = 4;

/// Largest number of lookups per dial, 32. Records of a `/dnsaddr` name may
/// contain further names, also in cycles.
const MAX_LOOKUPS: usize = 32;

/// A transport that resolves names and dials the addresses with `inner`.
pub(crate) struct Dns<O> {
    inner: Arc<Mutex<Boxed<O>>>,
    resolver: Arc<Resolver>,
    gate: DialGate,
}

impl<O: Send + 'static> Dns<O> {
    pub(crate) fn new(inner: Boxed<O>, resolver: Resolver, gate: DialGate) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
            resolver: Arc::new(resolver),
            gate,
        }
    }
}

impl<O: Send + 'static> Transport for Dns<O> {
    type Output = O;
    type Error = AddressError;
    type ListenerUpgrade = BoxFuture<'static, Result<O, AddressError>>;
    type Dial = BoxFuture<'static, Result<O, AddressError>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<AddressError>> {
        lock(&self.inner)
            .listen_on(id, addr)
            .map_err(|error| error.map(AddressError::from))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<AddressError>> {
        if !is_dns(&addr) {
            return start(&self.inner, addr, opts);
        }
        let (inner, resolver) = (Arc::clone(&self.inner), Arc::clone(&self.resolver));
        let gate = self.gate.clone();
        Ok(async move {
            let check = |resolved: Multiaddr| match gate.check_resolved(&addr, &resolved) {
                Ok(allowed) => Ok(allowed.into_multiaddr()),
                Err(refusal) => {
                    tracing::debug!(name = %addr, %resolved, %refusal, "dial refused");
                    Err(AddressError::from(refused(resolved, refusal)))
                }
            };
            let begin = |resolved| {
                let allowed = check(resolved)?;
                start(&inner, allowed, opts).map_err(AddressError::from)
            };
            attempts::dial(&resolver, addr.clone(), begin).await
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, AddressError>> {
        let event = Pin::new(&mut *lock(&self.inner)).poll(cx);
        event.map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map_err(AddressError::from).boxed())
                .map_err(AddressError::from)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start<O: Send + 'static>(
    inner: &Mutex<Boxed<O>>,
    addr: Multiaddr,
    opts: DialOpts,
) -> Result<BoxFuture<'static, Result<O, AddressError>>, TransportError<AddressError>> {
    let dial = lock(inner).dial(addr, opts);
    let dial = dial.map_err(|error: TransportError<io::Error>| error.map(AddressError::from))?;
    Ok(dial.map_err(AddressError::from).boxed())
}
