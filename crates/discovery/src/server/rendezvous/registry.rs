//! The registrations of peers in namespaces. Without IO: time and randomness are arguments.
//!
//! # Answers
//!
//! The first answer to a peer is a random page of the members of the namespace. So every member is
//! returned to some clients, no member is dialled by all of them, and an attacker that registers
//! invented members fills each page only in proportion. The cookie continues from there: through
//! the members that were registered at the first request, each once, in a random order that does
//! not change; then to those that have registered or refreshed since.
//!
//! # Cookies
//!
//! A cookie is valid for this registry and namespace, and not after a restart. For a peer that has
//! received every member nothing is stored here. For those that have not, the latest [`MAX_WALKS`]
//! positions are stored.
//!
//! # Cost
//!
//! A request takes time in the logarithm of the number of registrations, and an answer in its
//! length. A request examines at most [`MAX_EXAMINED`] members.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, config::RendezvousServerConfig, resources::Permit};
use rand::{Rng, RngExt};

pub use super::cookie::MAX_WALKS;
use super::cookie::{Cookies, Place};
use crate::{
    machine::Namespace,
    wire::rendezvous::{Found, Refusal, found_len},
};

/// Memory that a registration takes in addition to its record, in bytes: its entries in five
/// tables. Measured: 334 at 320,000 registrations, just after a table has grown.
pub const REGISTRATION_OVERHEAD_BYTES: usize = 384;

/// Memory that a namespace takes in addition to its name and its registrations, in bytes.
pub const NAMESPACE_OVERHEAD_BYTES: usize = 640;

/// Memory that a peer takes in addition to its registrations, in bytes.
pub const PEER_OVERHEAD_BYTES: usize = 512;

/// Limit of members that one request examines. Members that refreshed since a client began to read
/// the namespace are skipped, and many of them may follow each other.
pub const MAX_EXAMINED: usize = 2048;

/// Names a registration. Never reused.
type Serial = u64;

/// A registration of a peer in a namespace.
#[derive(Debug)]
struct Registration {
    /// Id of the peer, shared by all of its registrations.
    peer: Arc<PeerId>,
    /// Namespace, shared by all registrations in it.
    namespace: Namespace,
    record: Arc<[u8]>,
    expires: Instant,
    /// Position in the order in which the namespace is returned.
    order: u64,
    /// Index in the list of the namespace.
    index: usize,
    /// Counts it among those of the IP prefix that it came from.
    permit: Option<Permit>,
}

/// The members of one namespace.
#[derive(Clone, Debug, Default)]
struct Members {
    /// All members in no particular order, to choose one at random.
    list: Vec<Serial>,
    /// All members in a random order that does not change.
    walk: BTreeSet<(u64, Serial)>,
    /// All members in the order of their registration.
    arrivals: BTreeSet<Serial>,
}

/// The result of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Lifetime in whole seconds.
    pub ttl_s: u64,
    /// Whether the peer was registered in the namespace before.
    pub renewed: bool,
}

/// The number of registrations and the memory they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Number of registrations in the registry.
    pub registrations: usize,
    /// Number of peers with registrations.
    pub peers: usize,
    /// Number of namespaces with registrations.
    pub namespaces: usize,
    /// Memory that is counted for them, in bytes.
    pub bytes: usize,
}

/// The registrations of a rendezvous server.
#[derive(Debug)]
pub struct Registry {
    config: RendezvousServerConfig,
    cookies: Cookies,
    /// The next serial. The latest registration is below it.
    next: Serial,
    registrations: HashMap<Serial, Registration>,
    namespaces: HashMap<Namespace, Members>,
    peers: HashMap<Arc<PeerId>, BTreeMap<Namespace, Serial>>,
    expiries: BTreeSet<(Instant, Serial)>,
    bytes: usize,
}

impl Registry {
    /// Creates an empty registry. `epoch` distinguishes its cookies from those of other servers, so
    /// it is random.
    #[must_use]
    pub fn new(config: RendezvousServerConfig, epoch: u16) -> Self {
        Self {
            config,
            cookies: Cookies::new(epoch),
            next: 1,
            registrations: HashMap::new(),
            namespaces: HashMap::new(),
            peers: HashMap::new(),
            expiries: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Registers `peer` in `namespace` with its verified `record`, which replaces an earlier
    /// registration there.
    ///
    /// # Errors
    ///
    /// [`Refusal::Ttl`] if the requested lifetime is out of range, [`Refusal::Record`] if the
    /// record is too long, [`Refusal::Unavailable`] if a limit is reached: of the peer, the
    /// namespace, all registrations, or memory. An earlier registration is kept then. A limit of
    /// numbers never refuses to renew a registration.
    pub fn register(
        &mut self,
        peer: PeerId,
        namespace: &Namespace,
        record: &[u8],
        ttl_s: Option<u64>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Registered, Refusal> {
        self.expire(now);
        let (min, max) = (
            self.config.tuning.min_ttl.as_secs(),
            self.config.tuning.max_ttl.as_secs(),
        );
        let ttl_s = ttl_s.unwrap_or(min);
        if !(min..=max).contains(&ttl_s) {
            return Err(Refusal::Ttl);
        }
        if record.len() > self.config.tuning.max_record_bytes {
            return Err(Refusal::Record);
        }
        let before = self.serial(&peer, namespace);
        self.admit(&peer, namespace, record.len(), before)?;
        if let Some(before) = before {
            self.remove(before);
        }
        let expires = now
            .checked_add(Duration::from_secs(ttl_s))
            .ok_or(Refusal::Ttl)?;
        self.insert(peer, namespace, record, expires, rng);
        let renewed = before.is_some();
        Ok(Registered { ttl_s, renewed })
    }

    /// Stores the permit of a registration, in place of the one that it has. Drops `permit` if there
    /// is no such registration.
    pub fn set_permit(&mut self, peer: &PeerId, namespace: &Namespace, permit: Option<Permit>) {
        let serial = self.serial(peer, namespace);
        if let Some(registration) = serial.and_then(|serial| self.registrations.get_mut(&serial)) {
            registration.permit = permit;
        }
    }

    /// Takes the permit of a registration, for its renewal.
    pub fn take_permit(&mut self, peer: &PeerId, namespace: &Namespace) -> Option<Permit> {
        let serial = self.serial(peer, namespace)?;
        self.registrations.get_mut(&serial)?.permit.take()
    }

    /// Removes the registration of `peer` in `namespace`. Returns whether there was one.
    pub fn unregister(&mut self, peer: &PeerId, namespace: &Namespace, now: Instant) -> bool {
        self.expire(now);
        let serial = self.serial(peer, namespace);
        serial.is_some_and(|serial| self.remove(serial))
    }

    /// Returns members of `namespace` after `cookie`, within `limit` and the limits of an answer,
    /// and the cookie to continue with.
    ///
    /// # Errors
    ///
    /// [`Refusal::Cookie`] if the cookie is not of this registry and namespace.
    pub fn discover(
        &mut self,
        namespace: &Namespace,
        cookie: Option<&[u8]>,
        limit: Option<u64>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(Vec<Found>, Bytes), Refusal> {
        self.expire(now);
        let place = match cookie {
            Some(cookie) => {
                let place = self
                    .cookies
                    .read(cookie, namespace)
                    .ok_or(Refusal::Cookie)?;
                // A serial of the future is not of this registry.
                (place.horizon < self.next)
                    .then_some(place)
                    .ok_or(Refusal::Cookie)?
            }
            None => self.first_place(namespace, rng),
        };
        let most = self.config.tuning.max_answer;
        let limit = limit.map_or(most, |limit| {
            usize::try_from(limit).unwrap_or(most).min(most)
        });
        let mut page = Page {
            found: Vec::new(),
            limit,
            room: self.config.tuning.max_answer_bytes,
            examined: 0,
        };
        let place = match self.namespaces.get(namespace) {
            Some(members) => self.fill(&mut page, namespace, members, place, now),
            // A registration that arrives now comes after all others.
            None => Place {
                walk: None,
                horizon: self.next - 1,
            },
        };
        Ok((page.found, self.cookies.write(place, namespace).into()))
    }

    /// Removes expired registrations. Returns their number.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some((at, serial)) = self.expiries.first().copied()
            && at <= now
        {
            self.remove(serial);
            expired += 1;
        }
        expired
    }

    /// Returns the time at which the next registration expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Returns the number of registrations and the memory they take.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            registrations: self.registrations.len(),
            peers: self.peers.len(),
            namespaces: self.namespaces.len(),
            bytes: self.bytes,
        }
    }

    fn serial(&self, peer: &PeerId, namespace: &Namespace) -> Option<Serial> {
        self.peers.get(peer)?.get(namespace).copied()
    }

    /// Returns whether the limits allow a registration that replaces `before`.
    fn admit(
        &self,
        peer: &PeerId,
        namespace: &Namespace,
        record_len: usize,
        before: Option<Serial>,
    ) -> Result<(), Refusal> {
        let config = &self.config;
        let of_peer = self.peers.get(peer).map(BTreeMap::len);
        let in_namespace = self.namespaces.get(namespace).map(|m| m.list.len());
        let counts = before.is_some()
            || (of_peer.unwrap_or(0) < config.tuning.max_registrations_per_peer
                && in_namespace.unwrap_or(0) < config.tuning.max_registrations_per_namespace
                && self.registrations.len() < config.max_registrations);
        let freed = before
            .and_then(|serial| self.registrations.get(&serial))
            .map_or(0, |before| cost(before.record.len()));
        let taken = cost(record_len)
            + of_peer.map_or(PEER_OVERHEAD_BYTES, |_| 0)
            + in_namespace.map_or_else(|| namespace_cost(namespace), |_| 0);
        (counts && self.bytes - freed + taken <= config.max_bytes)
            .then_some(())
            .ok_or(Refusal::Unavailable)
    }

    fn insert(
        &mut self,
        peer: PeerId,
        namespace: &Namespace,
        record: &[u8],
        expires: Instant,
        rng: &mut impl Rng,
    ) {
        let serial = self.next;
        self.next += 1;
        let namespace = match self.namespaces.get_key_value(namespace) {
            Some((namespace, _)) => namespace.clone(),
            None => {
                self.bytes += namespace_cost(namespace);
                namespace.clone()
            }
        };
        self.bytes += cost(record.len());
        let members = self.namespaces.entry(namespace.clone()).or_default();
        let order = rng.next_u64();
        let index = members.list.len();
        members.list.push(serial);
        members.walk.insert((order, serial));
        members.arrivals.insert(serial);
        self.expiries.insert((expires, serial));
        let peer = match self.peers.get_key_value(&peer) {
            Some((peer, _)) => peer.clone(),
            None => {
                self.bytes += PEER_OVERHEAD_BYTES;
                Arc::new(peer)
            }
        };
        let of_peer = self.peers.entry(peer.clone()).or_default();
        of_peer.insert(namespace.clone(), serial);
        let registration = Registration {
            peer,
            namespace,
            record: record.into(),
            expires,
            order,
            index,
            permit: None,
        };
        self.registrations.insert(serial, registration);
    }

    fn remove(&mut self, serial: Serial) -> bool {
        let Some(gone) = self.registrations.remove(&serial) else {
            return false;
        };
        self.bytes -= cost(gone.record.len());
        self.expiries.remove(&(gone.expires, serial));
        if let Some(of_peer) = self.peers.get_mut(&gone.peer) {
            of_peer.remove(&gone.namespace);
            if of_peer.is_empty() {
                self.peers.remove(&gone.peer);
                self.bytes -= PEER_OVERHEAD_BYTES;
            }
        }
        let Some(members) = self.namespaces.get_mut(&gone.namespace) else {
            return true;
        };
        members.walk.remove(&(gone.order, serial));
        members.arrivals.remove(&serial);
        members.list.swap_remove(gone.index);
        if let Some(moved) = members.list.get(gone.index)
            && let Some(moved) = self.registrations.get_mut(moved)
        {
            moved.index = gone.index;
        }
        if members.list.is_empty() {
            self.namespaces.remove(&gone.namespace);
            self.bytes -= namespace_cost(&gone.namespace);
        }
        true
    }

    /// Returns the position of the first answer: at a random member, each with the same chance.
    fn first_place(&self, namespace: &Namespace, rng: &mut impl Rng) -> Place {
        let members = self.namespaces.get(namespace);
        let start = members
            .filter(|members| !members.list.is_empty())
            .map(|members| members.list[rng.random_range(0..members.list.len())])
            .and_then(|serial| self.registrations.get(&serial))
            .map(|registration| registration.order);
        Place {
            walk: start.map(|start| (start, start, false)),
            horizon: self.next - 1,
        }
    }

    /// Fills a page from `place` on and returns the position at which it ended.
    fn fill(
        &self,
        page: &mut Page,
        namespace: &Namespace,
        members: &Members,
        mut place: Place,
        now: Instant,
    ) -> Place {
        while let Some((start, from, wrapped)) = place.walk {
            // Orders are almost always unique. Members with the same order are returned together
            // or, at the end of a page, twice.
            let mut stopped = None;
            for (order, serial) in members.walk.range((from, 0)..).copied() {
                if wrapped && order >= start {
                    break;
                }
                // Later registrations are returned after the walk.
                let new = serial > place.horizon;
                if !page.examine() || (!new && !self.add(page, namespace, serial, now)) {
                    stopped = Some(order);
                    break;
                }
            }
            place.walk = match (stopped, wrapped) {
                (Some(at), _) => {
                    place.walk = Some((start, at, wrapped));
                    return place;
                }
                (None, false) => Some((start, 0, true)),
                (None, true) => None,
            };
        }
        for serial in members.arrivals.range(place.horizon + 1..) {
            if !page.examine() || !self.add(page, namespace, *serial, now) {
                return place;
            }
            place.horizon = *serial;
        }
        // A registration that was made and expired in between is not returned.
        place.horizon = self.next - 1;
        place
    }

    /// Adds a member to the page. Returns `false` if it is full.
    fn add(&self, page: &mut Page, namespace: &Namespace, serial: Serial, now: Instant) -> bool {
        let Some(registration) = self.registrations.get(&serial) else {
            return true;
        };
        let left = registration.expires.saturating_duration_since(now);
        page.put(
            namespace,
            Found {
                record: registration.record.clone(),
                // A client may read 0 seconds as an unlimited lifetime.
                ttl_s: left.as_secs().max(1),
            },
        )
    }
}

/// An answer under construction.
struct Page {
    found: Vec<Found>,
    limit: usize,
    room: usize,
    examined: usize,
}

impl Page {
    fn examine(&mut self) -> bool {
        self.examined += 1;
        self.examined <= MAX_EXAMINED && self.found.len() < self.limit
    }

    fn put(&mut self, namespace: &Namespace, found: Found) -> bool {
        let Some(room) = self.room.checked_sub(found_len(namespace, &found)) else {
            return false;
        };
        self.room = room;
        self.found.push(found);
        true
    }
}

/// Memory counted for a registration, in bytes.
fn cost(record_len: usize) -> usize {
    record_len + REGISTRATION_OVERHEAD_BYTES
}

/// Memory counted for a namespace, in bytes.
fn namespace_cost(namespace: &Namespace) -> usize {
    namespace.as_str().len() + NAMESPACE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
