//! One accounting of what peers hold: connections, streams, bytes, requests and table entries.
//!
//! An amount is counted in nested scopes: for the peer, for the [`Origin`] of its connection (IP
//! prefix or relay), and for the node. Each scope has a [`Limit`] for each [`Resource`]; a resource
//! belongs to one protocol, and [totals](Resource::total) bound several protocols together. The
//! concept is that of the resource manager of go-libp2p.
//!
//! The module is pure: no IO, no clock, no runtime. Counters are atomic. A table is locked when a
//! [`Holder`] is made, which is once for each connection, and a queue is locked while callers wait.
//!
//! # Use
//!
//! One [`Resources`] exists for each node and is cloned into every behaviour. A connection makes a
//! [`Holder`]. The holder takes a [`Permit`] for each amount. Dropping the permit releases it.
//!
//! ```
//! use calimero_network_primitives::{
//!     PeerId,
//!     resources::{Limit, Limits, Origin, Resource, Resources, Scope},
//! };
//!
//! let mut limits = Limits::default();
//! limits.update(Resource::BlobTransfers, |limit| Limit { peer: 1, ..limit });
//! let resources = Resources::new(limits);
//!
//! let peer: PeerId = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".parse()?;
//! let origin = Origin::of_addr(&"/ip4/192.0.2.1/tcp/2428".parse()?);
//! let holder = resources.holder(Some(peer), origin);
//! let permit = holder.take(Resource::BlobTransfers, 1)?;
//! let refused = holder.take(Resource::BlobTransfers, 1).unwrap_err();
//! assert_eq!(refused.scope, Scope::Peer(peer));
//! drop(permit);
//! assert!(holder.take(Resource::BlobTransfers, 1).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Refuse or wait
//!
//! [`Holder::take`] refuses at once. [`Holder::acquire`] is a future that waits, without a deadline
//! of its own: the caller sets one. Waiters are served fairly: origins take turns, then the peers of
//! an origin, so one address with many identities and many streams gets one turn in each round. A
//! resource should use one of the two, because `take` does not queue behind waiters.
//!
//! # Protected peers
//!
//! Boot nodes, configured peers and members of overlays are [protected](Resources::protect). They
//! may use the [reserve](Limit::reserve) that other peers cannot take, and the limits of an origin do
//! not apply to them, so that strangers behind the same address cannot shut them out. The limits for
//! one peer apply to all.
//!
//! # Loopback and private addresses
//!
//! Many honest nodes can share a loopback, private or link-local address: those of one host, of a
//! container network, of a site behind a gateway. Limits of an origin are [doubled](Limit::for_local)
//! for these. An embedder whose peers all arrive through one gateway raises `max_established` or
//! configures the peers.
//!
//! # Memory
//!
//! The scope of a peer or an origin exists while a holder or a permit refers to it. Identities that
//! hold nothing cost nothing.

#[cfg(feature = "config")]
mod config;
mod limits;
mod origin;
mod queue;
mod scope;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use libp2p_identity::PeerId;
use serde::{Serialize, Serializer};

use self::{
    limits::COUNT,
    queue::Queue,
    scope::{Counters, Entry, Table, lock},
};
pub use self::{
    limits::{Limit, Limits, Resource, Unit, default_limit},
    origin::Origin,
    queue::Acquire,
};

/// The scope whose limit refused an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All peers of this node.
    Node,
    /// The peers of one IP prefix or one relay.
    Origin(Origin),
    /// A single remote peer.
    Peer(PeerId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Origin(origin) => origin.fmt(f),
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// An amount was refused because it exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {limit} {} are allowed for {scope}", resource.name().replace('_', " "))]
#[non_exhaustive]
pub struct Refused {
    /// The resource that was asked for, or its total.
    pub resource: Resource,
    /// The scope whose limit is reached.
    pub scope: Scope,
    /// The limit in that scope, without the reserve if the peer is not protected.
    pub limit: u64,
}

/// Why a peer is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protection {
    /// The operator or the embedder configured the peer.
    Configured = 1,
    /// The peer is a boot node.
    BootNode = 2,
    /// The peer is a member of an overlay of this node.
    Member = 4,
}

/// How far a peer is trusted with what is scarce. Later ranks compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rank {
    /// The peer is not protected.
    Stranger,
    /// The peer is a member of an overlay of this node. Peers can make themselves members.
    Member,
    /// The peer is configured or a boot node.
    Configured,
}

/// The waiters that an amount held blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contention {
    /// No waiter is blocked.
    None,
    /// Callers of the same peer wait.
    Peer,
    /// Callers of other peers wait because a scope is exhausted that this holder is part of.
    Shared,
}

/// The use of one resource at one moment, for `status` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// The resource that was counted.
    #[serde(serialize_with = "name")]
    pub resource: Resource,
    /// Amount in use on this node.
    pub used: u64,
    /// Amount that may be in use on this node.
    pub limit: u64,
    /// Part of `limit` that only protected peers may take.
    pub reserve: u64,
    /// Callers that wait for a permit.
    pub waiting: usize,
    /// Amounts refused since the start because of the limit of the node.
    pub refused_node: u64,
    /// Amounts refused since the start because of the limit of an origin.
    pub refused_origin: u64,
    /// Amounts refused since the start because of the limit of a peer.
    pub refused_peer: u64,
}

fn name<S: Serializer>(resource: &Resource, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(resource.name())
}

/// The accounting of one node. Clones share it.
#[derive(Clone, Debug)]
pub struct Resources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    node: Counters,
    origins: Arc<Table<Origin>>,
    peers: Arc<Table<PeerId>>,
    /// The reasons for which a peer is protected, as a set of bits. Never empty.
    protected: Mutex<HashMap<PeerId, u8>>,
    refused: [Refusals; COUNT],
    waiting: [AtomicUsize; COUNT],
    queues: [Mutex<Queue>; COUNT],
}

#[derive(Debug, Default)]
struct Refusals {
    node: AtomicU64,
    origin: AtomicU64,
    peer: AtomicU64,
}

impl Default for Resources {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Resources {
    /// An accounting in which nothing is held.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            node: Counters::default(),
            origins: Table::new(),
            peers: Table::new(),
            protected: Mutex::default(),
            refused: std::array::from_fn(|_| Refusals::default()),
            waiting: std::array::from_fn(|_| AtomicUsize::new(0)),
            queues: std::array::from_fn(|_| Mutex::default()),
        }))
    }

    /// The limit of `resource`.
    #[must_use]
    pub fn limit(&self, resource: Resource) -> Limit {
        self.0.limits.get(resource)
    }

    /// Amount of `resource` in use on this node.
    #[must_use]
    pub fn used(&self, resource: Resource) -> u64 {
        self.0.node.get(resource)
    }

    /// The scopes of one connection, or of one entry of a table.
    ///
    /// Without a peer, or without an origin, that scope does not limit. Locks a table: a connection
    /// makes one holder and clones it.
    #[must_use]
    pub fn holder(&self, peer: Option<PeerId>, origin: Option<Origin>) -> Holder {
        let peer = peer.map(|peer| self.0.peers.entry(peer, || self.protection(&peer)));
        let origin = origin.map(|origin| self.0.origins.entry(origin, || 0));
        Holder(Arc::new(Scopes {
            resources: self.clone(),
            peer,
            origin,
        }))
    }

    /// Protects a peer for `reason`: the reserve is open to it, and limits of its origin do not
    /// apply. The caller bounds the number of peers.
    pub fn protect(&self, peer: PeerId, reason: Protection) {
        *lock(&self.0.protected).entry(peer).or_default() |= reason as u8;
        self.update_protection(peer);
    }

    /// Withdraws `reason`. A peer is protected while one reason is left.
    pub fn unprotect(&self, peer: PeerId, reason: Protection) {
        let mut protected = lock(&self.0.protected);
        if let Some(reasons) = protected.get_mut(&peer) {
            *reasons &= !(reason as u8);
            if *reasons == 0 {
                protected.remove(&peer);
            }
        }
        drop(protected);
        self.update_protection(peer);
    }

    /// Returns `true` if the peer is protected.
    #[must_use]
    pub fn is_protected(&self, peer: &PeerId) -> bool {
        self.protection(peer) != 0
    }

    /// The use of every resource against its limit.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Usage> {
        let usage = |resource: Resource| {
            let (limit, refused) = (self.limit(resource), &self.0.refused[resource.index()]);
            Usage {
                resource,
                used: self.used(resource),
                limit: limit.node,
                reserve: limit.reserve,
                waiting: self.0.waiting[resource.index()].load(Ordering::Relaxed),
                refused_node: refused.node.load(Ordering::Relaxed),
                refused_origin: refused.origin.load(Ordering::Relaxed),
                refused_peer: refused.peer.load(Ordering::Relaxed),
            }
        };
        Resource::ALL.into_iter().map(usage).collect()
    }

    /// The peer that holds most of `resource`, and how much. Visits all peers.
    #[must_use]
    pub fn largest_peer(&self, resource: Resource) -> Option<(PeerId, u64)> {
        self.0.peers.largest(resource)
    }

    /// The origin that holds most of `resource`, and how much. Visits all origins.
    #[must_use]
    pub fn largest_origin(&self, resource: Resource) -> Option<(Origin, u64)> {
        self.0.origins.largest(resource)
    }

    /// Number of peers and origins that hold something or could: those with a [`Holder`].
    #[must_use]
    pub fn entries(&self) -> usize {
        self.0.peers.len() + self.0.origins.len()
    }

    /// The reasons for which a peer is protected, as a set of bits.
    fn protection(&self, peer: &PeerId) -> u8 {
        let protected = lock(&self.0.protected);
        protected.get(peer).copied().unwrap_or_default()
    }

    fn update_protection(&self, peer: PeerId) {
        let Some(entry) = self.0.peers.find(&peer) else {
            return;
        };
        // Stored under the lock, so that of two concurrent changes the later one is stored last. The
        // entry is looked up before: a new entry takes the two locks in the other order.
        let protected = lock(&self.0.protected);
        let reasons = protected.get(&peer).copied().unwrap_or_default();
        entry.protection.store(reasons, Ordering::SeqCst);
        drop(protected);
        for resource in Resource::ALL {
            self.serve(resource);
        }
    }

    fn has_waiters(&self, resource: Resource) -> bool {
        self.0.waiting[resource.index()].load(Ordering::SeqCst) > 0
    }

    fn with_queue<T>(&self, resource: Resource, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = lock(&self.0.queues[resource.index()]);
        let result = change(&mut queue);
        self.0.waiting[resource.index()].store(queue.len(), Ordering::SeqCst);
        result
    }

    /// Grants permits for `resource` to callers that wait.
    fn serve(&self, resource: Resource) {
        if self.has_waiters(resource) {
            let wakers = self.with_queue(resource, |queue| queue.serve(resource));
            // After the lock: a waker may run anything.
            wakers.into_iter().for_each(std::task::Waker::wake);
        }
    }

    fn count_refusal(&self, asked: Resource, refused: Refused) {
        let refusals = &self.0.refused[asked.index()];
        let counter = match refused.scope {
            Scope::Node => &refusals.node,
            Scope::Origin(_) => &refusals.origin,
            Scope::Peer(_) => &refusals.peer,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The scopes that the permits of one connection, stream or entry count in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holder(Arc<Scopes>);

#[derive(Debug)]
struct Scopes {
    resources: Resources,
    peer: Option<Arc<Entry<PeerId>>>,
    origin: Option<Arc<Entry<Origin>>>,
}

impl Holder {
    /// Takes `amount` of `resource` in all scopes, or in none.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the narrowest scope whose limit the amount exceeds.
    pub fn take(&self, resource: Resource, amount: u64) -> Result<Permit, Refused> {
        self.try_take(resource, amount)
            .inspect_err(|refused| self.0.resources.count_refusal(resource, *refused))
    }

    /// Waits until `amount` of `resource` is free in all scopes. Cancel safe.
    ///
    /// The caller sets the deadline, and bounds the number of callers that wait: usually by the
    /// limit of streams, of which each waits for one thing at a time.
    ///
    /// # Errors
    ///
    /// The future yields [`Refused`] at once if `amount` is above a limit, so that it could never be
    /// granted.
    pub fn acquire(&self, resource: Resource, amount: u64) -> Acquire {
        Acquire::new(self.clone(), resource, amount)
    }

    /// The peer that permits count for.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        self.0.peer.as_ref().map(|peer| peer.key)
    }

    /// The origin that permits count for.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.0.origin.as_ref().map(|origin| origin.key)
    }

    /// The accounting that permits are taken from.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.0.resources
    }

    /// Returns `true` if the peer is protected.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.protection() != 0
    }

    /// The rank of the peer.
    #[must_use]
    pub fn rank(&self) -> Rank {
        match self.protection() {
            0 => Rank::Stranger,
            reasons if reasons == Protection::Member as u8 => Rank::Member,
            _ => Rank::Configured,
        }
    }

    /// The callers that wait for `resource` because of what the peer of this holder may hold.
    ///
    /// Locks the queue of the resource if there are waiters.
    #[must_use]
    pub fn contention(&self, resource: Resource) -> Contention {
        if !self.0.resources.has_waiters(resource) {
            return Contention::None;
        }
        let queue = lock(&self.0.resources.0.queues[resource.index()]);
        queue.contention(self, resource)
    }

    fn protection(&self) -> u8 {
        let peer = self.0.peer.as_ref();
        peer.map_or(0, |peer| peer.protection.load(Ordering::SeqCst))
    }

    /// Amount of `resource` that the peer holds; 0 without a peer.
    #[must_use]
    pub fn used_by_peer(&self, resource: Resource) -> u64 {
        let peer = self.0.peer.as_ref();
        peer.map_or(0, |peer| peer.used.get(resource))
    }

    /// Amount of `resource` that the origin holds; 0 without an origin.
    #[must_use]
    pub fn used_by_origin(&self, resource: Resource) -> u64 {
        let origin = self.0.origin.as_ref();
        origin.map_or(0, |origin| origin.used.get(resource))
    }

    /// Returns `true` if at most half of every limit is in use once `amount` more is taken.
    ///
    /// For amounts that improve throughput and are not needed.
    #[must_use]
    pub fn has_half_left(&self, resource: Resource, amount: u64) -> bool {
        let limit = self.limit(resource);
        let half = |used: u64, limit: u64| used.saturating_add(amount) <= limit / 2;
        half(self.used_by_peer(resource), limit.peer)
            && half(self.used_by_origin(resource), limit.origin)
            && half(self.0.resources.used(resource), limit.node)
    }

    /// Returns `true` if `amount` more would be granted now. Counts no refusal.
    #[must_use]
    pub fn has_left(&self, resource: Resource, amount: u64) -> bool {
        self.exhausted(resource, amount).is_none()
    }

    /// Returns `true` if the peer holds anything that `wanted` selects.
    pub fn peer_holds(&self, wanted: impl Fn(Resource) -> bool) -> bool {
        self.0
            .peer
            .as_ref()
            .is_some_and(|peer| peer.used.any(wanted))
    }

    fn try_take(&self, resource: Resource, amount: u64) -> Result<Permit, Refused> {
        if let Err(refused) = self.charge(resource, amount) {
            // The attempt was counted in the inner scopes for a moment, where a waiter may have met
            // it.
            self.0.resources.serve(resource);
            return Err(refused);
        }
        Ok(Permit {
            holder: self.clone(),
            resource,
            amount,
        })
    }

    /// Adds `amount` to the counters of `resource` and of its total.
    fn charge(&self, resource: Resource, amount: u64) -> Result<(), Refused> {
        self.charge_one(resource, amount)?;
        if let Some(total) = resource.total()
            && let Err(refused) = self.charge_one(total, amount)
        {
            self.discharge_one(resource, amount);
            return Err(refused);
        }
        Ok(())
    }

    fn charge_one(&self, resource: Resource, amount: u64) -> Result<(), Refused> {
        let limit = self.limit(resource);
        let refused = |scope, limit| {
            Err(Refused {
                resource,
                scope,
                limit,
            })
        };
        if let Some(peer) = &self.0.peer
            && !peer.used.add(resource, amount, limit.peer)
        {
            return refused(Scope::Peer(peer.key), limit.peer);
        }
        if let Some(origin) = &self.0.origin
            && !origin.used.add(resource, amount, limit.origin)
        {
            if let Some(peer) = &self.0.peer {
                peer.used.sub(resource, amount);
            }
            return refused(Scope::Origin(origin.key), limit.origin);
        }
        if !self.0.resources.0.node.add(resource, amount, limit.node) {
            self.discharge_inner(resource, amount);
            return refused(Scope::Node, limit.node);
        }
        Ok(())
    }

    fn discharge_inner(&self, resource: Resource, amount: u64) {
        if let Some(peer) = &self.0.peer {
            peer.used.sub(resource, amount);
        }
        if let Some(origin) = &self.0.origin {
            origin.used.sub(resource, amount);
        }
    }

    fn discharge_one(&self, resource: Resource, amount: u64) {
        self.discharge_inner(resource, amount);
        self.0.resources.0.node.sub(resource, amount);
    }

    /// Subtracts `amount`, then serves the callers that may have waited for it.
    fn discharge(&self, resource: Resource, amount: u64) {
        self.discharge_one(resource, amount);
        let Some(total) = resource.total() else {
            return self.0.resources.serve(resource);
        };
        self.discharge_one(total, amount);
        for sibling in Resource::ALL {
            if sibling == total || sibling.total() == Some(total) {
                self.0.resources.serve(sibling);
            }
        }
    }

    /// The limits that apply to this holder: for strangers without the reserve, for protected peers
    /// without that of the origin.
    fn limit(&self, resource: Resource) -> Limit {
        let limit = self.0.resources.limit(resource);
        let limit = match self.origin() {
            Some(origin) if origin.is_local() => limit.for_local(),
            _ => limit,
        };
        if self.is_protected() {
            let origin = u64::MAX;
            Limit { origin, ..limit }
        } else {
            let node = limit.node.saturating_sub(limit.reserve);
            Limit { node, ..limit }
        }
    }

    /// The narrowest scope that has less than `amount` of `resource` left.
    fn exhausted(&self, resource: Resource, amount: u64) -> Option<Scope> {
        let limit = self.limit(resource);
        let full = |used: u64, limit: u64| used.saturating_add(amount) > limit;
        if let Some(peer) = self.peer()
            && full(self.used_by_peer(resource), limit.peer)
        {
            return Some(Scope::Peer(peer));
        }
        if let Some(origin) = self.origin()
            && full(self.used_by_origin(resource), limit.origin)
        {
            return Some(Scope::Origin(origin));
        }
        full(self.0.resources.used(resource), limit.node).then_some(Scope::Node)
    }

    /// Refuses an amount that no release could make room for.
    fn check_possible(&self, resource: Resource, amount: u64) -> Result<(), Refused> {
        for resource in [Some(resource), resource.total()].into_iter().flatten() {
            let limit = self.limit(resource);
            let scopes = [
                self.peer().map(|peer| (Scope::Peer(peer), limit.peer)),
                self.origin()
                    .map(|origin| (Scope::Origin(origin), limit.origin)),
                Some((Scope::Node, limit.node)),
            ];
            for (scope, limit) in scopes.into_iter().flatten() {
                if amount > limit {
                    return Err(Refused {
                        resource,
                        scope,
                        limit,
                    });
                }
            }
        }
        Ok(())
    }
}

/// An amount of a resource that is held in all scopes of its [`Holder`]. Dropping it releases the
/// amount.
#[derive(Debug)]
#[must_use = "dropping a permit releases it"]
pub struct Permit {
    holder: Holder,
    resource: Resource,
    amount: u64,
}

impl Permit {
    /// Returns the amount that the permit holds.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The scopes that the amount counts in.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Adds the amount of `other`, which becomes part of this permit.
    ///
    /// # Errors
    ///
    /// Returns `other` unchanged if it is of another resource or not of the same [`Holder`].
    pub fn absorb(&mut self, mut other: Self) -> Result<(), Self> {
        let same = Arc::ptr_eq(&self.holder.0, &other.holder.0) && self.resource == other.resource;
        if !same {
            return Err(other);
        }
        self.amount += std::mem::take(&mut other.amount);
        Ok(())
    }

    /// Changes the amount held. A smaller amount is always granted.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the difference exceeds a limit. The permit is unchanged.
    pub fn resize(&mut self, amount: u64) -> Result<(), Refused> {
        if amount > self.amount {
            let more = amount - self.amount;
            self.holder
                .charge(self.resource, more)
                .inspect_err(|refused| {
                    self.holder
                        .0
                        .resources
                        .count_refusal(self.resource, *refused);
                })?;
        } else if amount < self.amount {
            self.holder.discharge(self.resource, self.amount - amount);
        }
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.holder.discharge(self.resource, self.amount);
        }
    }
}
