//! The callers that wait for dials: a table without IO or clock.
//!
//! Dials of one peer share one outcome. An address that is added while another one is dialled is
//! dialled next, before a failure is returned. Any connection with the peer, whichever side dialled
//! it, ends all dials of the peer with success.

use std::collections::{HashMap, HashSet};

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p::swarm::ConnectionId;

use crate::error::{AddressFailure, DialError};

/// Addresses tried for one peer before its dial fails: what identify may list, twice.
pub(crate) const MAX_ADDRESSES_PER_DIAL: usize = 64;

/// The table. `W` identifies a caller that waits; it is opaque here.
#[derive(Debug)]
pub(crate) struct Dials<W> {
    peers: HashMap<PeerId, PeerDial<W>>,
    addresses: HashMap<ConnectionId, AddressDial<W>>,
}

#[derive(Debug)]
struct PeerDial<W> {
    waiters: Vec<W>,
    /// Addresses that were added and not dialled yet.
    untried: Vec<Multiaddr>,
    /// All addresses that were added, so that none is dialled twice.
    known: HashSet<Multiaddr>,
    failures: Vec<AddressFailure>,
    /// The dial that was begun for these waiters. Without one they wait for a dial or a closing
    /// connection of another part of the node.
    begun: Option<ConnectionId>,
}

#[derive(Debug)]
struct AddressDial<W> {
    address: Multiaddr,
    waiters: Vec<W>,
}

impl<W> Default for Dials<W> {
    fn default() -> Self {
        Self {
            peers: HashMap::new(),
            addresses: HashMap::new(),
        }
    }
}

impl<W> Dials<W> {
    /// Adds a waiter for a connection with `peer`. `true` if this is the first one, so that the
    /// caller must begin a dial with [`take_untried`](Self::take_untried).
    pub(crate) fn wait_for_peer(
        &mut self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = Multiaddr>,
        waiter: W,
    ) -> bool {
        let first = !self.peers.contains_key(&peer);
        let dial = self.peers.entry(peer).or_insert_with(|| PeerDial {
            waiters: Vec::new(),
            untried: Vec::new(),
            known: HashSet::new(),
            failures: Vec::new(),
            begun: None,
        });
        for address in addresses {
            if dial.known.len() < MAX_ADDRESSES_PER_DIAL && dial.known.insert(address.clone()) {
                dial.untried.push(address);
            }
        }
        dial.waiters.push(waiter);
        first
    }

    /// The addresses of `peer` to dial now. They count as tried from here on.
    pub(crate) fn take_untried(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers
            .get_mut(peer)
            .map(|dial| std::mem::take(&mut dial.untried))
            .unwrap_or_default()
    }

    /// The caller has begun a dial of `peer` for its waiters.
    pub(crate) fn begun(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(dial) = self.peers.get_mut(peer) {
            dial.begun = Some(id);
        }
    }

    /// A dial of `peer` has failed. [`peer_failed`](Self::peer_failed) reports it to its waiters.
    pub(crate) fn ended(&mut self, peer: &PeerId, id: ConnectionId) {
        if let Some(dial) = self.peers.get_mut(peer) {
            dial.begun.take_if(|begun| *begun == id);
        }
    }

    /// Whether an address of `peer` waits to be tried.
    pub(crate) fn has_untried(&self, peer: &PeerId) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|dial| !dial.untried.is_empty())
    }

    /// Whether a caller waits for a connection with `peer`.
    pub(crate) fn is_waited_for(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Cancels the dial of `peer` and returns its waiters.
    pub(crate) fn give_up(&mut self, peer: &PeerId) -> Vec<W> {
        self.peers
            .remove(peer)
            .map(|dial| dial.waiters)
            .unwrap_or_default()
    }

    /// Returns addresses to the untried ones, because their dial could not begin yet.
    pub(crate) fn put_back(&mut self, peer: &PeerId, addresses: Vec<Multiaddr>) {
        if let Some(dial) = self.peers.get_mut(peer) {
            dial.untried.extend(addresses);
        }
    }

    /// The dial of this address that is under way, if there is one.
    pub(crate) fn under_way(&self, address: &Multiaddr) -> Option<ConnectionId> {
        self.addresses
            .iter()
            .find_map(|(id, dial)| (dial.address == *address).then_some(*id))
    }

    /// Adds a waiter for the dial of an address whose peer is not known.
    pub(crate) fn wait_for_address(&mut self, id: ConnectionId, address: Multiaddr, waiter: W) {
        self.addresses
            .entry(id)
            .or_insert_with(|| AddressDial {
                address,
                waiters: Vec::new(),
            })
            .waiters
            .push(waiter);
    }

    /// A connection was established. Returns the waiters for it and for its peer.
    pub(crate) fn connected(&mut self, peer: &PeerId, id: ConnectionId) -> Vec<W> {
        let of_peer = self.peers.remove(peer).map(|dial| dial.waiters);
        let of_address = self.addresses.remove(&id).map(|dial| dial.waiters);
        of_peer.into_iter().chain(of_address).flatten().collect()
    }

    /// A dial of `peer` failed. Returns its waiters and their error, or `None` if untried addresses
    /// are left, which the caller dials, or if no caller waits.
    pub(crate) fn peer_failed(
        &mut self,
        peer: &PeerId,
        error: DialError,
    ) -> Option<(Vec<W>, DialError)> {
        let dial = self.peers.get_mut(peer)?;
        let error = match error {
            DialError::Failed { attempts } => {
                for attempt in attempts {
                    let room = dial.failures.len() < MAX_ADDRESSES_PER_DIAL;
                    let known = dial.failures.iter().any(|f| f.address == attempt.address);
                    if room && !known {
                        dial.failures.push(attempt);
                    }
                }
                None
            }
            other => Some(other),
        };
        if !dial.untried.is_empty() {
            return None;
        }
        let dial = self.peers.remove(peer)?;
        let error = match error {
            Some(error) if dial.failures.is_empty() => error,
            _ => DialError::Failed {
                attempts: dial.failures,
            },
        };
        Some((dial.waiters, error))
    }

    /// The dial of an address failed. Returns its waiters.
    pub(crate) fn address_failed(&mut self, id: ConnectionId) -> Vec<W> {
        self.addresses
            .remove(&id)
            .map(|dial| dial.waiters)
            .unwrap_or_default()
    }

    /// Removes waiters that were dropped. Returns the peers without a waiter whose dial was begun for
    /// them. A dial that another part of the node began is not given up.
    pub(crate) fn forget(&mut self, gone: impl Fn(&W) -> bool) -> Vec<PeerId> {
        let mut abandoned = Vec::new();
        self.peers.retain(|peer, dial| {
            dial.waiters.retain(|waiter| !gone(waiter));
            if dial.waiters.is_empty() && dial.begun.is_some() {
                abandoned.push(*peer);
            }
            !dial.waiters.is_empty()
        });
        for dial in self.addresses.values_mut() {
            dial.waiters.retain(|waiter| !gone(waiter));
        }
        abandoned
    }

    /// Empties the table and returns all waiters.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        let peers = self.peers.drain().flat_map(|(_, dial)| dial.waiters);
        let mut waiters: Vec<_> = peers.collect();
        waiters.extend(self.addresses.drain().flat_map(|(_, dial)| dial.waiters));
        waiters
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_transport::AddressError;
    use proptest::prelude::*;

    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn failed(port: u16) -> DialError {
        DialError::Failed {
            attempts: vec![AddressFailure {
                address: address(port),
                cause: AddressError::Refused,
            }],
        }
    }

    #[test]
    fn dials_of_one_peer_share_a_failure() {
        let mut dials = Dials::default();
        let peer = PeerId::random();
        assert!(dials.wait_for_peer(peer, [address(1)], "first"));
        assert_eq!(dials.take_untried(&peer), [address(1)]);
        assert!(!dials.wait_for_peer(peer, [address(1)], "second"));
        let (waiters, error) = dials.peer_failed(&peer, failed(1)).unwrap();
        assert_eq!(waiters, ["first", "second"]);
        assert_eq!(error.to_string(), failed(1).to_string());
        assert!(dials.drain().is_empty());
    }

    #[test]
    fn an_address_that_comes_later_is_tried_before_anybody_hears_of_a_failure() {
        let mut dials = Dials::default();
        let peer = PeerId::random();
        dials.wait_for_peer(peer, [address(1)], "first");
        dials.take_untried(&peer);
        dials.wait_for_peer(peer, [address(2)], "second");
        assert!(dials.peer_failed(&peer, failed(1)).is_none());
        assert_eq!(dials.take_untried(&peer), [address(2)]);
        let (waiters, error) = dials.peer_failed(&peer, failed(2)).unwrap();
        assert_eq!(waiters, ["first", "second"]);
        let DialError::Failed { attempts } = error else {
            panic!("{error}");
        };
        let tried: Vec<_> = attempts.into_iter().map(|a| a.address).collect();
        assert_eq!(tried, [address(1), address(2)]);
    }

    #[test]
    fn any_connection_with_the_peer_ends_its_dials() {
        let mut dials = Dials::default();
        let peer = PeerId::random();
        dials.wait_for_peer(peer, [address(1)], "peer");
        let id = ConnectionId::new_unchecked(7);
        assert_eq!(dials.connected(&peer, id), ["peer"]);
        assert!(dials.peer_failed(&peer, failed(1)).is_none());
    }

    #[test]
    fn a_peer_that_is_given_up_has_nobody_who_waits() {
        let mut dials = Dials::default();
        let peer = PeerId::random();
        assert!(!dials.is_waited_for(&peer));
        dials.wait_for_peer(peer, [address(1)], "peer");
        assert!(dials.is_waited_for(&peer));
        assert_eq!(dials.give_up(&peer), ["peer"]);
        assert!(!dials.is_waited_for(&peer));
        // The end of what was under way comes later.
        assert!(dials.peer_failed(&peer, failed(1)).is_none());
    }

    #[test]
    fn dials_of_one_unknown_address_share_an_outcome() {
        let mut dials = Dials::default();
        let id = ConnectionId::new_unchecked(7);
        dials.wait_for_address(id, address(1), "first");
        assert_eq!(dials.under_way(&address(1)), Some(id));
        dials.wait_for_address(id, address(1), "second");
        assert_eq!(dials.connected(&PeerId::random(), id), ["first", "second"]);
        assert_eq!(dials.under_way(&address(1)), None);
    }

    #[test]
    fn a_peer_whose_waiters_all_left_is_named_if_it_is_dialled_for_them() {
        let mut dials = Dials::default();
        let [left, kept, of_others, failed] = [(); 4].map(|()| PeerId::random());
        for (number, peer) in [left, kept, of_others, failed].into_iter().enumerate() {
            dials.wait_for_peer(peer, [address(1)], "gone");
            if peer != of_others {
                dials.begun(&peer, ConnectionId::new_unchecked(number));
            }
        }
        dials.wait_for_peer(kept, [address(1)], "here");
        // The dial of another part of the node fails, and the dial of the waiters.
        dials.ended(&left, ConnectionId::new_unchecked(3));
        dials.ended(&failed, ConnectionId::new_unchecked(3));
        assert_eq!(dials.forget(|waiter| *waiter == "gone"), [left]);
        assert_eq!(dials.drain(), ["here"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Peer(u8, u16),
        Address(u8, u16),
        Connected(u8, u8),
        PeerFailed(u8, u16),
        AddressFailed(u8),
        GivenUp(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, 0..200u16).prop_map(|(p, a)| Step::Peer(p, a)),
            (0..3u8, 0..3u16).prop_map(|(c, a)| Step::Address(c, a)),
            (0..3u8, 0..3u8).prop_map(|(p, c)| Step::Connected(p, c)),
            (0..3u8, 0..3u16).prop_map(|(p, a)| Step::PeerFailed(p, a)),
            (0..3u8).prop_map(Step::AddressFailed),
            (0..3u8).prop_map(Step::GivenUp),
        ]
    }

    proptest! {
        #[test]
        fn every_waiter_is_told_exactly_once_and_addresses_are_bounded(
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let peers: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
            let peer = |n: u8| peers[usize::from(n)];
            let connection = |n: u8| ConnectionId::new_unchecked(n.into());
            let mut dials = Dials::default();
            let (mut asked, mut told) = (0..0u32, Vec::new());
            for step in steps {
                match step {
                    Step::Peer(p, a) => {
                        dials.wait_for_peer(peer(p), [address(a)], asked.end);
                        asked.end += 1;
                    }
                    Step::Address(c, a) => {
                        dials.wait_for_address(connection(c), address(a), asked.end);
                        asked.end += 1;
                    }
                    Step::Connected(p, c) => told.extend(dials.connected(&peer(p), connection(c))),
                    Step::PeerFailed(p, a) => {
                        prop_assert!(dials.take_untried(&peer(p)).len() <= MAX_ADDRESSES_PER_DIAL);
                        let failed = dials.peer_failed(&peer(p), failed(a));
                        told.extend(failed.map(|(waiters, _)| waiters).unwrap_or_default());
                    }
                    Step::AddressFailed(c) => told.extend(dials.address_failed(connection(c))),
                    Step::GivenUp(p) => told.extend(dials.give_up(&peer(p))),
                }
            }
            told.extend(dials.drain());
            told.sort_unstable();
            prop_assert_eq!(told, asked.collect::<Vec<_>>());
        }
    }
}
