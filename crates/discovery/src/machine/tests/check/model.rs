//! The state of a driver: connections and requests under way, derived from inputs and effects.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    Multiaddr, PeerId,
    addr::{Circuit, DialAddr, MAX_ADDRESS_BYTES},
    config::DiscoveryConfig,
    multiaddr::Protocol,
};

use super::{
    super::machine::{
        AddressSource, AttemptId, AttemptKind, Cookie, Effect, HolePunch, Input, Namespace, Path,
        RelayListener, RendezvousFailure,
    },
    script::{LOCAL, peer},
};

/// The deadline of a dial. The constant of the machine is private, and a fuzz target compiles this
/// module with the public API alone.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(35);
/// The deadline of a request to a rendezvous server, repeated here for the same reason.
pub(crate) const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

type Key = (PeerId, Namespace);

/// What is asked for and not answered carries the time at which it was asked for.
#[derive(Debug)]
pub(crate) struct Model {
    dial_timeout: Duration,
    answer_timeout: Duration,
    max_answer: u32,
    max_slots: usize,
    max_dialled: usize,
    pub(crate) boot: BTreeSet<PeerId>,
    pub(crate) blocked: BTreeSet<PeerId>,
    /// Direct and relayed connections of each peer.
    pub(crate) connected: BTreeMap<PeerId, [u32; 2]>,
    /// Connections of peers that were blocked, which are not closed yet.
    closing: BTreeMap<PeerId, [u32; 2]>,
    pub(crate) followed: BTreeSet<Namespace>,
    pub(crate) registrations: BTreeMap<Key, Instant>,
    pub(crate) questions: BTreeMap<Key, Instant>,
    cookies: BTreeMap<Key, Cookie>,
    pub(crate) dials: BTreeMap<PeerId, Instant>,
    pub(crate) listeners: BTreeMap<RelayListener, PeerId>,
    last_listener: RelayListener,
    /// Dials of the direct path under way.
    pub(crate) attempts: BTreeMap<AttemptId, (PeerId, AttemptKind)>,
    /// Connections of hole punch rounds.
    rounds: BTreeMap<AttemptId, PeerId>,
    last_attempt: AttemptId,
    pub(crate) probes: BTreeSet<Multiaddr>,
    pub(crate) external: BTreeSet<Multiaddr>,
    serves_probes: bool,
    pub(crate) stopped: bool,
    now: Instant,
}

impl Model {
    pub(super) fn new(config: &DiscoveryConfig, now: Instant) -> Self {
        let boot = config
            .boot
            .iter()
            .filter_map(|address| match address.iter().last() {
                Some(Protocol::P2p(boot)) if boot != peer(LOCAL) => Some(boot),
                _ => None,
            });
        Self {
            dial_timeout: DIAL_TIMEOUT,
            answer_timeout: SERVER_TIMEOUT,
            max_answer: config.rendezvous.max_answer,
            max_slots: config.relays as usize,
            // What the book knows and what a redial has captured.
            max_dialled: config.boot.len() + 2 * config.book.max_addresses_per_peer as usize,
            boot: boot.collect(),
            blocked: BTreeSet::new(),
            connected: BTreeMap::new(),
            closing: BTreeMap::new(),
            followed: Namespace::new(&config.global_namespace)
                .into_iter()
                .collect(),
            registrations: BTreeMap::new(),
            questions: BTreeMap::new(),
            cookies: BTreeMap::new(),
            dials: BTreeMap::new(),
            listeners: BTreeMap::new(),
            last_listener: RelayListener(0),
            attempts: BTreeMap::new(),
            rounds: BTreeMap::new(),
            last_attempt: AttemptId(0),
            probes: BTreeSet::new(),
            external: BTreeSet::new(),
            serves_probes: false,
            stopped: false,
            now,
        }
    }

    pub(super) fn is_stranger(&self, who: &PeerId) -> bool {
        *who == peer(LOCAL) || self.blocked.contains(who)
    }

    /// What `input` ends and begins, before the machine hears of it.
    pub(super) fn hear(&mut self, input: &Input, now: Instant) {
        self.now = now;
        if self.stopped {
            return;
        }
        match input {
            Input::Stop => self.stopped = true,
            Input::Follow(namespace) => {
                self.followed.insert(namespace.clone());
            }
            Input::Unfollow(namespace) => {
                self.followed.remove(namespace);
                self.questions.retain(|(_, of), _| of != namespace);
                self.cookies.retain(|(_, of), _| of != namespace);
            }
            Input::Block(blocked) if *blocked != peer(LOCAL) => self.block(*blocked),
            Input::Unblock(peer) => {
                self.blocked.remove(peer);
            }
            Input::ConnectionOpened { peer, path, .. } if !self.is_stranger(peer) => {
                let counts = self.connected.entry(*peer).or_default();
                counts[usize::from(*path == Path::Relayed)] += 1;
                self.dials.remove(peer);
            }
            Input::ConnectionOpened { peer, path, .. } if self.blocked.contains(peer) => {
                let counts = self.closing.entry(*peer).or_default();
                counts[usize::from(*path == Path::Relayed)] += 1;
            }
            Input::ConnectionClosed { peer, path } => self.close(peer, *path),
            Input::DialFailed { peer, .. } => {
                self.dials.remove(peer);
            }
            Input::RelayListenerClosed { listener } => {
                self.listeners.remove(listener);
            }
            Input::AttemptConnected { id, path } => {
                if let Some((peer, AttemptKind::Round)) = self.attempts.remove(id)
                    && *path == Path::Relayed
                {
                    self.rounds.insert(*id, peer);
                }
            }
            Input::AttemptFailed { id } => {
                self.attempts.remove(id);
            }
            Input::Probed { address, .. } => {
                self.probes.remove(address);
            }
            _ => self.hear_server(input),
        }
        self.expire();
    }

    fn hear_server(&mut self, input: &Input) {
        match input.clone() {
            Input::Registered {
                server, namespace, ..
            }
            | Input::RegisterFailed {
                server, namespace, ..
            } => {
                self.registrations.remove(&(server, namespace));
            }
            Input::Discovered {
                server,
                namespace,
                cookie,
                ..
            } => {
                let key = (server, namespace);
                if self.questions.remove(&key).is_some() {
                    self.remember(key, cookie);
                }
            }
            Input::DiscoverFailed {
                server,
                namespace,
                why,
            } => {
                let key = (server, namespace);
                let asked = self.questions.remove(&key).is_some();
                if asked && why == RendezvousFailure::InvalidCookie {
                    self.remember(key, None);
                }
            }
            _ => {}
        }
    }

    fn remember(&mut self, key: Key, cookie: Option<Cookie>) {
        match cookie {
            Some(cookie) => self.cookies.insert(key, cookie),
            None => self.cookies.remove(&key),
        };
    }

    /// Returns the earliest time at which a request under way counts as failed. No other input may
    /// wake the machine for it.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        let answers = self.registrations.values().chain(self.questions.values());
        let answers = answers.map(|since| *since + self.answer_timeout);
        let dials = self.dials.values().map(|since| *since + self.dial_timeout);
        answers.chain(dials).min()
    }

    fn expire(&mut self) {
        let (now, answer, dial) = (self.now, self.answer_timeout, self.dial_timeout);
        self.registrations.retain(|_, since| now < *since + answer);
        self.questions.retain(|_, since| now < *since + answer);
        self.dials.retain(|_, since| now < *since + dial);
    }

    fn block(&mut self, peer: PeerId) {
        self.blocked.insert(peer);
        self.dials.remove(&peer);
        let closing = self.closing.entry(peer).or_default();
        let open = self.connected.remove(&peer).unwrap_or_default();
        for (closing, open) in closing.iter_mut().zip(open) {
            *closing += open;
        }
        self.attempts.retain(|_, (of, _)| *of != peer);
        self.rounds.retain(|_, of| *of != peer);
        self.server_gone(&peer);
    }

    fn close(&mut self, peer: &PeerId, path: Path) {
        let closing = self.closing.entry(*peer).or_default();
        let closing = &mut closing[usize::from(path == Path::Relayed)];
        if *closing > 0 {
            *closing -= 1;
            return;
        }
        let Some(counts) = self.connected.get_mut(peer) else {
            return;
        };
        let count = &mut counts[usize::from(path == Path::Relayed)];
        *count = count.saturating_sub(1);
        if *counts == [0, 0] {
            self.connected.remove(peer);
            self.server_gone(peer);
        }
    }

    fn server_gone(&mut self, gone: &PeerId) {
        self.registrations.retain(|(server, _), _| server != gone);
        self.questions.retain(|(server, _), _| server != gone);
    }

    /// What `effect` asks for. It must be something that may be asked for now.
    pub(super) fn take(&mut self, effect: &Effect) {
        if let Some(peer) = effect.peer() {
            assert_ne!(peer, super::script::peer(LOCAL), "{effect:?}");
            let disconnects = matches!(effect, Effect::Disconnect { .. });
            assert_eq!(self.blocked.contains(&peer), disconnects, "{effect:?}");
        }
        match effect {
            Effect::Dial {
                peer, addresses, ..
            } => self.dialled(*peer, addresses),
            Effect::DialCircuits { peer, addresses } => {
                assert!(!self.connected.contains_key(peer), "{effect:?}");
                let relays = addresses
                    .iter()
                    .map(|one| Circuit::parse(one).unwrap().relay());
                let relays: BTreeSet<_> = relays.collect();
                assert_eq!(relays.len(), 1, "{effect:?}");
                let up = relays
                    .iter()
                    .all(|relay| self.connected.contains_key(relay));
                assert!(up, "{effect:?}");
            }
            Effect::CloseRelayed { peer } => {
                let counts = self.connected.get(peer);
                let both = counts.is_some_and(|[direct, relayed]| *direct > 0 && *relayed > 0);
                assert!(both, "the only way to {peer} is closed");
            }
            Effect::Attempt {
                id,
                kind,
                peer,
                addresses,
            } => {
                assert!(*id > self.last_attempt, "an id used again");
                self.last_attempt = *id;
                assert!((1..=self.max_dialled + 1).contains(&addresses.len()));
                let relayed_only =
                    matches!(self.connected.get(peer), Some([0, relayed]) if *relayed > 0);
                assert!(relayed_only, "{kind:?} of {peer}, which is not relayed");
                self.attempts.insert(*id, (*peer, *kind));
            }
            Effect::CloseAttempt { id, peer } => {
                assert_eq!(self.rounds.remove(id).as_ref(), Some(peer), "no round");
                let others = matches!(self.connected.get(peer), Some([_, relayed]) if *relayed > 1);
                assert!(others, "the only relayed connection with {peer} is closed");
            }
            Effect::HolePunchEnded {
                peer,
                outcome: HolePunch::Failed,
            } => {
                let relayed_only =
                    matches!(self.connected.get(peer), Some([0, relayed]) if *relayed > 0);
                assert!(relayed_only, "a failure that says nothing");
            }
            Effect::AddExternalAddress { address } => {
                assert!(self.external.insert(address.clone()), "{address} again");
            }
            Effect::RemoveExternalAddress { address } => {
                assert!(self.external.remove(address), "{address} is none of ours");
            }
            Effect::ServeProbes(serve) => {
                assert_ne!(*serve, self.serves_probes, "said again");
                self.serves_probes = *serve;
            }
            Effect::RefuseFollow { namespace } => {
                assert!(self.followed.remove(namespace), "{namespace} not asked for");
            }
            Effect::Probe { address } => {
                self.probes.insert(address.clone());
            }
            _ => self.take_of_server(effect),
        }
    }

    fn take_of_server(&mut self, effect: &Effect) {
        match effect.clone() {
            Effect::Register {
                server, namespace, ..
            } => {
                self.may_ask(&server, &namespace);
                assert!(!self.external.is_empty(), "nothing to register");
                let before = self.registrations.insert((server, namespace), self.now);
                assert_eq!(before, None, "two registrations under way");
            }
            Effect::Unregister { server, namespace } => {
                self.registrations.remove(&(server, namespace));
            }
            Effect::Discover {
                server,
                namespace,
                cookie,
                limit,
            } => {
                self.may_ask(&server, &namespace);
                assert!((1..=self.max_answer).contains(&limit), "{limit}");
                let key = (server, namespace);
                assert!(
                    cookie.is_none() || cookie.as_ref() == self.cookies.get(&key),
                    "a cookie of another question"
                );
                let before = self.questions.insert(key, self.now);
                assert_eq!(before, None, "two questions under way");
            }
            Effect::Reserve {
                listener,
                relay,
                address,
            } => {
                assert!(listener > self.last_listener, "a name used again");
                self.last_listener = listener;
                let named = address.iter().any(|part| part == Protocol::P2p(relay));
                let ends = address.iter().last() == Some(Protocol::P2pCircuit);
                assert!(named && ends, "{address} is not complete");
                assert!(!self.listeners.values().any(|other| *other == relay));
                self.listeners.insert(listener, relay);
                assert!(self.listeners.len() <= self.max_slots, "too many slots");
            }
            Effect::StopListening { listener } => {
                assert!(self.listeners.remove(&listener).is_some(), "not listening");
            }
            _ => {}
        }
    }

    fn dialled(&mut self, peer: PeerId, addresses: &[DialAddr]) {
        assert!(!self.connected.contains_key(&peer), "dialled and connected");
        assert!((1..=self.max_dialled).contains(&addresses.len()));
        assert!(addresses.iter().all(|a| a.len() <= MAX_ADDRESS_BYTES));
        let before = self.dials.insert(peer, self.now);
        assert_eq!(before, None, "two dials of {peer} under way");
    }

    fn may_ask(&self, server: &PeerId, namespace: &Namespace) {
        assert!(self.boot.contains(server), "{server} serves nothing");
        assert!(self.connected.contains_key(server), "{server} is not there");
        assert!(
            self.followed.contains(namespace),
            "{namespace} not followed"
        );
    }

    /// External addresses that a probe has found.
    pub(super) fn probed(
        external: &[(Multiaddr, Vec<AddressSource>)],
    ) -> impl Iterator<Item = &Multiaddr> {
        external
            .iter()
            .filter(|(_, sources)| sources.contains(&AddressSource::Probed))
            .map(|(address, _)| address)
    }
}
