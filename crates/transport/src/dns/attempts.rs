//! Lookups of the names of an address, and dials of the addresses that they find.

use std::{
    collections::VecDeque, future::poll_fn, net::IpAddr, sync::Arc, task::Poll, time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, select},
    stream::{self, BoxStream, FuturesUnordered, SelectAll},
};
use futures_timer::Delay;
use multiaddr::{Multiaddr, Protocol};

use super::{MAX_DEPTH, MAX_LOOKUPS, Resolver, resolver::Version};
use crate::AddressError;

/// Time after which the next address of a name is dialled if the earlier dials
/// have no result, 250 ms: the Connection Attempt Delay that RFC 8305, section
/// 8, recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Time for which the IPv4 addresses of a name wait for its IPv6 addresses, 50 ms: the Resolution
/// Delay that RFC 8305, section 8, recommends.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Largest number of addresses of one name that are dialled, 16. Names of large
/// services have about eight.
const MAX_ADDRESSES: usize = 16;

/// Largest number of records of one `/dnsaddr` name that are used, 16.
const MAX_RECORDS: usize = 16;

/// Addresses that a lookup found, some of which may start with names again.
type Found = Result<Vec<Multiaddr>, AddressError>;

/// The addresses that were found and are not dialled yet. Those of both IP versions alternate, IPv6
/// first (RFC 8305, section 4).
#[derive(Default)]
pub(super) struct Addresses {
    six: VecDeque<Multiaddr>,
    four: VecDeque<Multiaddr>,
    /// Whether the last address was of IPv6.
    was_six: bool,
    /// Number of addresses that were taken.
    taken: usize,
}

impl Addresses {
    /// Adds an address without names.
    pub(super) fn add(&mut self, addr: Multiaddr) {
        let version = match is_ipv6(&addr) {
            true => &mut self.six,
            false => &mut self.four,
        };
        if version.len() < MAX_ADDRESSES {
            version.push_back(addr);
        }
    }

    /// Takes the next address, of [`MAX_ADDRESSES`] in all.
    pub(super) fn next(&mut self) -> Option<Multiaddr> {
        if self.is_full() {
            return None;
        }
        let (first, second) = match self.was_six {
            true => (&mut self.four, &mut self.six),
            false => (&mut self.six, &mut self.four),
        };
        let next = first.pop_front().or_else(|| second.pop_front())?;
        self.was_six = is_ipv6(&next);
        self.taken += 1;
        Some(next)
    }

    /// Returns `true` if there is no address to take now.
    fn is_empty(&self) -> bool {
        self.is_full() || (self.six.is_empty() && self.four.is_empty())
    }

    /// Returns `true` if there will never be an address to take again.
    fn is_full(&self) -> bool {
        self.taken == MAX_ADDRESSES
    }
}

fn is_ipv6(addr: &Multiaddr) -> bool {
    let first = addr.iter().next();
    matches!(first, Some(Protocol::Ip6(_) | Protocol::Ip6zone(_)))
}

/// The lookups of one dial, which run at the same time.
struct Lookups<'a> {
    resolver: &'a Arc<Resolver>,
    running: SelectAll<BoxStream<'static, (Found, usize)>>,
    started: usize,
    /// The last failure; that of a name without addresses only if there is no other.
    failure: Option<AddressError>,
}

impl Lookups<'_> {
    /// Adds `addr` to `addresses`, or starts its lookup if it starts with a name. `depth` is the
    /// number of `/dnsaddr` names that led to it.
    fn add(&mut self, addr: Multiaddr, depth: usize, addresses: &mut Addresses) {
        let mut parts = addr.iter();
        let first = parts.next();
        let rest: Multiaddr = parts.collect();
        let resolver = Arc::clone(self.resolver);
        let found = match first {
            Some(Protocol::Dns(name)) => both(resolver, name.into_owned(), rest),
            Some(Protocol::Dns4(name)) => one(resolver, name.into_owned(), Version::Four, rest),
            Some(Protocol::Dns6(name)) => one(resolver, name.into_owned(), Version::Six, rest),
            Some(Protocol::Dnsaddr(_)) if depth >= MAX_DEPTH => return,
            Some(Protocol::Dnsaddr(name)) => records(resolver, name.into_owned(), rest),
            _ => return addresses.add(addr),
        };
        if self.started < MAX_LOOKUPS {
            self.started += 1;
            self.running
                .push(found.map(move |found| (found, depth + 1)).boxed());
        }
    }

    fn on_found(&mut self, found: Found, depth: usize, addresses: &mut Addresses) {
        match found {
            Ok(found) => found
                .into_iter()
                .for_each(|addr| self.add(addr, depth, addresses)),
            Err(AddressError::NoSuchName) if self.failure.is_some() => {}
            Err(error) => self.failure = Some(error),
        }
    }
}

/// What happens first during a dial.
enum Event<O> {
    Found((Found, usize)),
    /// All lookups have ended.
    LookedUp,
    Dialled(Result<O, AddressError>),
    /// The newest dial had [`ATTEMPT_DELAY`] for itself.
    Due,
}

/// Looks up the names of `addr` and dials the addresses with `begin`. The next dial starts when an
/// earlier one failed, or when none has a result after [`ATTEMPT_DELAY`]. The first connection
/// cancels all lookups and other dials.
pub(super) async fn dial<O>(
    resolver: &Arc<Resolver>,
    addr: Multiaddr,
    begin: impl Fn(Multiaddr) -> Result<BoxFuture<'static, Result<O, AddressError>>, AddressError>,
) -> Result<O, AddressError> {
    let mut addresses = Addresses::default();
    let mut lookups = Lookups {
        resolver,
        running: SelectAll::new(),
        started: 0,
        failure: None,
    };
    lookups.add(addr, 0, &mut addresses);
    let mut dials = FuturesUnordered::new();
    let mut errors = Vec::new();
    // Time until the next dial may start; `None` if it may start now.
    let mut wait: Option<Delay> = None;
    loop {
        while wait.is_none()
            && let Some(next) = addresses.next()
        {
            match begin(next) {
                Ok(dial) => {
                    dials.push(dial);
                    wait = Some(Delay::new(ATTEMPT_DELAY));
                }
                Err(error) => errors.push(error),
            }
        }
        if addresses.is_full() {
            lookups.running.clear();
        }
        if dials.is_empty() && addresses.is_empty() && lookups.running.is_empty() {
            return Err(match lookups.failure {
                Some(failure) if errors.is_empty() => failure,
                None if errors.is_empty() => AddressError::NoSuchName,
                _ => AddressError::of_name(errors),
            });
        }
        let event = poll_fn(|cx| {
            if let Poll::Ready(Some(result)) = dials.poll_next_unpin(cx) {
                return Poll::Ready(Event::Dialled(result));
            }
            if !lookups.running.is_empty()
                && let Poll::Ready(found) = lookups.running.poll_next_unpin(cx)
            {
                return Poll::Ready(found.map_or(Event::LookedUp, Event::Found));
            }
            match &mut wait {
                Some(wait) => wait.poll_unpin(cx).map(|()| Event::Due),
                None => Poll::Pending,
            }
        });
        match event.await {
            Event::Dialled(Ok(connection)) => return Ok(connection),
            Event::Dialled(Err(error)) => {
                errors.push(error);
                wait = None;
            }
            Event::Found((found, depth)) => lookups.on_found(found, depth, &mut addresses),
            Event::LookedUp => {}
            Event::Due => wait = None,
        }
    }
}

/// The addresses of one IP version of a name, followed by `rest`.
fn one(
    resolver: Arc<Resolver>,
    name: String,
    version: Version,
    rest: Multiaddr,
) -> BoxStream<'static, Found> {
    stream::once(async move { ips(&resolver, &name, version, &rest).await }).boxed()
}

/// The addresses of both IP versions of a name as they are found. IPv4 addresses that are found
/// first wait for [`RESOLUTION_DELAY`].
fn both(resolver: Arc<Resolver>, name: String, rest: Multiaddr) -> BoxStream<'static, Found> {
    let lookup = |version| {
        let (resolver, name, rest) = (Arc::clone(&resolver), name.clone(), rest.clone());
        async move { ips(&resolver, &name, version, &rest).await }.boxed()
    };
    let (six, four) = (lookup(Version::Six), lookup(Version::Four));
    let first = async move {
        match select(six, four).await {
            Either::Left((six, four)) => (vec![six], Some(four)),
            Either::Right((four, six)) => match select(six, Delay::new(RESOLUTION_DELAY)).await {
                Either::Left((six, _)) => (vec![six, four], None),
                Either::Right(((), six)) => (vec![four], Some(six)),
            },
        }
    };
    stream::once(first)
        .flat_map(|(found, other)| stream::iter(found).chain(stream::iter(other).then(|it| it)))
        .boxed()
}

async fn ips(resolver: &Resolver, name: &str, version: Version, rest: &Multiaddr) -> Found {
    let ips = resolver.ips(name, version).await?;
    let whole = |ip: IpAddr| std::iter::once(Protocol::from(ip)).chain(rest).collect();
    let named = |ip| with_server_name(&whole(ip), name);
    Ok(ips.into_iter().map(named).collect())
}

/// The addresses in the records of a `/dnsaddr` name that end with `rest`, for example a peer id.
fn records(resolver: Arc<Resolver>, name: String, rest: Multiaddr) -> BoxStream<'static, Found> {
    let found = async move {
        let records = resolver.records(&name).await?;
        let fitting = records.into_iter().filter(|record| record.ends_with(&rest));
        Ok(fitting.take(MAX_RECORDS).collect())
    };
    stream::once(found).boxed()
}

/// Adds the name of a resolved address to WebSocket inside of TLS, whose certificate is that of the
/// name: `/tcp/<port>/wss` and `/tcp/<port>/tls/ws` become `/tcp/<port>/tls/sni/<name>/ws`.
pub(super) fn with_server_name(resolved: &Multiaddr, name: &str) -> Multiaddr {
    let is_secure = |part| matches!(part, Protocol::Wss(_) | Protocol::Tls);
    if !resolved.iter().any(is_secure) || resolved.iter().any(|p| matches!(p, Protocol::Sni(_))) {
        return resolved.clone();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut named = Multiaddr::empty();
    for part in resolved {
        match part {
            Protocol::Wss(path) => {
                named.push(Protocol::Tls);
                named.push(Protocol::Sni(name.into()));
                named.push(Protocol::Ws(path));
            }
            Protocol::Tls => {
                named.push(Protocol::Tls);
                named.push(Protocol::Sni(name.into()));
            }
            part => named.push(part),
        }
    }
    named
}
