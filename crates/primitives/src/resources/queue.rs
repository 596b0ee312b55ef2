//! The callers that wait for a resource, served in turn by origin, then by peer.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use libp2p_identity::PeerId;

use super::{Contention, Holder, Origin, Permit, Refused, Resource, Scope, scope::lock};

/// The waiters for one resource.
///
/// The origins take turns, the peers of an origin take turns, and the waiters of a peer are served
/// in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<OfOrigin>);

#[derive(Debug)]
struct OfOrigin {
    origin: Option<Origin>,
    peers: VecDeque<OfPeer>,
}

#[derive(Debug)]
struct OfPeer {
    peer: Option<PeerId>,
    waiters: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    holder: Holder,
    amount: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Granted(Permit),
    /// The caller no longer waits, or has the permit.
    Done,
}

impl Queue {
    fn push(&mut self, waiter: Arc<Waiter>) {
        let (origin, peer) = (waiter.holder.origin(), waiter.holder.peer());
        let at = self.0.iter().position(|of| of.origin == origin);
        let at = at.unwrap_or_else(|| {
            let peers = VecDeque::new();
            self.0.push_back(OfOrigin { origin, peers });
            self.0.len() - 1
        });
        let peers = &mut self.0[at].peers;
        match peers.iter_mut().find(|of| of.peer == peer) {
            Some(of) => of.waiters.push_back(waiter),
            None => peers.push_back(OfPeer {
                peer,
                waiters: VecDeque::from([waiter]),
            }),
        }
    }

    fn remove(&mut self, waiter: &Arc<Waiter>) {
        for of_origin in &mut self.0 {
            for of_peer in &mut of_origin.peers {
                of_peer.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
            }
            of_origin.peers.retain(|of| !of.waiters.is_empty());
        }
        self.0.retain(|of| !of.peers.is_empty());
    }

    pub(super) fn len(&self) -> usize {
        let waiters = self.0.iter().flat_map(|of| &of.peers);
        waiters.map(|of| of.waiters.len()).sum()
    }

    /// Returns which waiters the amount held by the peer of `holder` blocks.
    pub(super) fn contention(&self, holder: &Holder, resource: Resource) -> Contention {
        let mut contention = Contention::None;
        let peers = self.0.iter().flat_map(|of| &of.peers);
        for waiter in peers.filter_map(|of| of.waiters.front()) {
            let blocked = match waiter.holder.exhausted(resource, waiter.amount) {
                Some(Scope::Peer(peer)) => holder.peer() == Some(peer),
                Some(Scope::Origin(origin)) => holder.origin() == Some(origin),
                // What a protected peer holds is not in the way of strangers.
                Some(Scope::Node) => waiter.holder.is_protected() || !holder.is_protected(),
                None => false,
            };
            match blocked {
                true if waiter.holder.peer() == holder.peer() => contention = Contention::Peer,
                true => return Contention::Shared,
                false => {}
            }
        }
        contention
    }

    /// Grants permits as far as the limits allow. Returns the wakers of those who got one.
    pub(super) fn serve(&mut self, resource: Resource) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(waker) = self.serve_one(resource) {
            wakers.extend(waker);
        }
        wakers
    }

    /// Removes the first waiter whose amount fits, or that no longer waits. `None`: there is none.
    fn serve_one(&mut self, resource: Resource) -> Option<Option<Waker>> {
        // A waiter that the limit of the node refuses keeps all behind it waiting, else a large
        // amount would never be free. The reserve is open to protected peers behind it.
        let mut only_protected = false;
        for at_origin in 0..self.0.len() {
            // A stranger whose origin is full does not keep protected peers behind the same
            // address waiting.
            let mut is_full = false;
            for at_peer in 0..self.0[at_origin].peers.len() {
                let Some(waiter) = self.0[at_origin].peers[at_peer].waiters.front() else {
                    continue;
                };
                if (only_protected || is_full) && !waiter.holder.is_protected() {
                    continue;
                }
                let mut state = lock(&waiter.state);
                if let State::Waiting(waker) = &mut *state {
                    match waiter.holder.charge(resource, waiter.amount) {
                        Ok(()) => {
                            let waker = mem::replace(waker, Waker::noop().clone());
                            *state = State::Granted(Permit {
                                holder: waiter.holder.clone(),
                                resource,
                                amount: waiter.amount,
                            });
                            drop(state);
                            self.rotate(at_origin, at_peer);
                            return Some(Some(waker));
                        }
                        Err(refused) => match refused.scope {
                            Scope::Peer(_) => continue,
                            Scope::Origin(_) => {
                                is_full = true;
                                continue;
                            }
                            Scope::Node if waiter.holder.is_protected() => return None,
                            Scope::Node => {
                                only_protected = true;
                                continue;
                            }
                        },
                    }
                }
                drop(state);
                self.rotate(at_origin, at_peer);
                return Some(None);
            }
        }
        None
    }

    /// Removes the first waiter of a peer. The peer and its origin go to the end of their queues.
    fn rotate(&mut self, at_origin: usize, at_peer: usize) {
        let Some(mut of_origin) = self.0.remove(at_origin) else {
            return;
        };
        if let Some(mut of_peer) = of_origin.peers.remove(at_peer) {
            of_peer.waiters.pop_front();
            if !of_peer.waiters.is_empty() {
                of_origin.peers.push_back(of_peer);
            }
        }
        if !of_origin.peers.is_empty() {
            self.0.push_back(of_origin);
        }
    }
}

/// Waits for a permit. Made by [`Holder::acquire`].
///
/// Cancel safe: dropping it gives up the place in the queue, and a permit that was granted but not
/// taken is released.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Acquire {
    holder: Holder,
    resource: Resource,
    amount: u64,
    waiter: Option<Arc<Waiter>>,
}

impl Acquire {
    pub(super) fn new(holder: Holder, resource: Resource, amount: u64) -> Self {
        Self {
            holder,
            resource,
            amount,
            waiter: None,
        }
    }

    fn begin(&mut self, cx: &Context<'_>) -> Poll<Result<Permit, Refused>> {
        self.holder.check_possible(self.resource, self.amount)?;
        if !self.holder.0.resources.has_waiters(self.resource)
            && let Ok(permit) = self.holder.try_take(self.resource, self.amount)
        {
            return Poll::Ready(Ok(permit));
        }
        let waiter = Arc::new(Waiter {
            holder: self.holder.clone(),
            amount: self.amount,
            state: Mutex::new(State::Waiting(cx.waker().clone())),
        });
        self.waiter = Some(waiter.clone());
        self.holder
            .0
            .resources
            .with_queue(self.resource, |queue| queue.push(waiter));
        // What was released since the attempt above goes to the first in turn.
        self.holder.0.resources.serve(self.resource);
        Poll::Pending
    }
}

impl Future for Acquire {
    type Output = Result<Permit, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.waiter.is_none()
            && let Poll::Ready(result) = self.begin(cx)
        {
            return Poll::Ready(result);
        }
        let Some(waiter) = &self.waiter else {
            return Poll::Pending;
        };
        let mut state = lock(&waiter.state);
        match mem::replace(&mut *state, State::Done) {
            State::Granted(permit) => Poll::Ready(Ok(permit)),
            State::Waiting(_) => {
                *state = State::Waiting(cx.waker().clone());
                Poll::Pending
            }
            State::Done => Poll::Pending,
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        let state = mem::replace(&mut *lock(&waiter.state), State::Done);
        if let State::Waiting(_) = state {
            let resources = &self.holder.0.resources;
            resources.with_queue(self.resource, |queue| queue.remove(&waiter));
            // Others may have waited behind this one alone.
            resources.serve(self.resource);
        }
        // A permit that was granted is released here, with no lock held.
        drop(state);
    }
}
