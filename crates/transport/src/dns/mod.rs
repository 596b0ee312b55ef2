//! Dials of addresses that start with a DNS name.
//!
//! A name is resolved for each dial. Every resolved address must pass the
//! [`DialGate`] before a socket is opened, so that a name that resolves to a
//! loopback address is not dialled. The addresses are dialled in sequence with
//! a short delay, as [RFC 8305] (happy eyeballs) describes, and the first
//! connection is used.
//!
//! [RFC 8305]: https://www.rfc-editor.org/rfc/rfc8305

mod lists;
mod resolver;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use calimero_network_primitives::addr::{DialGate, is_dns};
use futures::{
    FutureExt, StreamExt, TryFutureExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p_core::{
    Transport,
    transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
};
use multiaddr::{Multiaddr, Protocol};

pub use self::lists::AddressLists;
pub(crate) use self::resolver::Resolver;
use crate::{AddressError, gate::refused};

/// Time after which the next address of a name is dialled if the earlier dials
/// have no result, 250 ms: the Connection Attempt Delay that RFC 8305, section
/// 8, recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Largest number of addresses of one name that are dialled, 16. Names of large
/// services have about eight.
const MAX_ADDRESSES: usize = 16;

/// Largest number of lookups per dial, 32. Records of a `/dnsaddr` name may
/// contain further names, also in cycles.
const MAX_LOOKUPS: usize = 32;

/// Largest number of `/dnsaddr` names that lead to one another, 4: a list of a region in a list of
/// all, with names of hosts, takes three.
const MAX_DEPTH: usize = 4;

/// Largest number of records of one `/dnsaddr` name that are used, 16.
const MAX_RECORDS: usize = 16;

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
            let resolved = resolve(&resolver, addr.clone()).await?;
            let checked =
                resolved
                    .into_iter()
                    .map(|resolved| match gate.check_resolved(&addr, &resolved) {
                        Ok(allowed) => Ok(allowed.into_multiaddr()),
                        Err(refusal) => {
                            tracing::debug!(name = %addr, %resolved, %refusal, "dial refused");
                            Err(refused(resolved, refusal).into())
                        }
                    });
            let begin = |addr| start(&inner, addr, opts).map_err(AddressError::from);
            dial_staggered(checked.take(MAX_ADDRESSES).collect(), begin).await
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

/// Dials `addrs` in order. The next dial starts when the previous one failed,
/// or when it has no result after [`ATTEMPT_DELAY`]. The first connection
/// cancels all other dials.
async fn dial_staggered<O>(
    addrs: Vec<Result<Multiaddr, AddressError>>,
    begin: impl Fn(Multiaddr) -> Result<BoxFuture<'static, Result<O, AddressError>>, AddressError>,
) -> Result<O, AddressError> {
    let mut waiting = addrs.into_iter();
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        if let Some(next) = waiting.next() {
            match next.and_then(&begin) {
                Ok(dial) => running.push(dial),
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        } else if running.is_empty() {
            return Err(AddressError::of_name(errors));
        }
        let delay = match waiting.len() {
            0 => future::pending().left_future(),
            _ => Delay::new(ATTEMPT_DELAY).right_future(),
        };
        match future::select(running.next(), delay).await {
            Either::Left((Some(Ok(connection)), _)) => return Ok(connection),
            Either::Left((Some(Err(error)), _)) => errors.push(error),
            Either::Left((None, _)) | Either::Right(_) => {}
        }
    }
}

/// Resolves `addr` to addresses without names, in the order in which they are
/// dialled.
async fn resolve(resolver: &Resolver, addr: Multiaddr) -> Result<Vec<Multiaddr>, AddressError> {
    let mut names = VecDeque::from([(addr, 0)]);
    let mut resolved = Vec::new();
    let mut failure = None;
    for _ in 0..MAX_LOOKUPS {
        let Some((addr, depth)) = names.pop_front() else {
            break;
        };
        let mut parts = addr.iter();
        let first = parts.next();
        let rest: Multiaddr = parts.collect();
        let ips = match first {
            Some(Protocol::Dns(name)) => resolver.ips(&name, |_| true).await,
            Some(Protocol::Dns4(name)) => resolver.ips(&name, IpAddr::is_ipv4).await,
            Some(Protocol::Dns6(name)) => resolver.ips(&name, IpAddr::is_ipv6).await,
            Some(Protocol::Dnsaddr(_)) if depth >= MAX_DEPTH => continue,
            Some(Protocol::Dnsaddr(name)) => match resolver.records(&name).await {
                Ok(records) => {
                    // The part after the name, for example the peer id, selects
                    // records.
                    let fitting = records.into_iter().filter(|record| record.ends_with(&rest));
                    let fitting = fitting.map(|record| (record, depth + 1));
                    names.extend(fitting.take(MAX_RECORDS));
                    continue;
                }
                Err(error) => Err(error),
            },
            _ => {
                resolved.push(addr);
                continue;
            }
        };
        match ips {
            Ok(ips) => {
                let ordered = alternate(ips).into_iter();
                resolved.extend(ordered.map(|ip| {
                    let whole = std::iter::once(Protocol::from(ip)).chain(&rest);
                    whole.collect::<Multiaddr>()
                }));
            }
            Err(error) => failure = Some(error),
        }
    }
    match (resolved.is_empty(), failure) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(AddressError::NoSuchName),
        (false, _) => Ok(resolved),
    }
}

/// Alternates addresses of both IP versions, IPv6 first (RFC 8305, section 4).
fn alternate(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (VecDeque<_>, VecDeque<_>) = ips.into_iter().partition(IpAddr::is_ipv6);
    let mut queues = [six, four];
    let mut ordered = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        ordered.extend(queues.iter_mut().filter_map(VecDeque::pop_front));
    }
    ordered
}
