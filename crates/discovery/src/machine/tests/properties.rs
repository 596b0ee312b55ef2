//! What holds after any inputs in any order at any times, also times that go back.

use calimero_network_primitives::config::{
    BookConfig, CacheConfig, DialsConfig, ReachabilityConfig, RedialConfig, RendezvousConfig,
};
use proptest::prelude::*;

use super::*;

const PEERS: u32 = 12;
const OVERLAYS: u32 = 6;

/// Bounds so small that every one is met.
fn tight() -> DiscoveryConfig {
    DiscoveryConfig {
        book: BookConfig {
            max_addresses_per_peer: 2,
            max_peers: 6,
            ..BookConfig::default()
        },
        dials: DialsConfig {
            max_in_flight: 2,
            max_queued: 2,
            members_target: 2,
            max_per_answer: 2,
            ..DialsConfig::default()
        },
        redial: RedialConfig {
            max_peers: 3,
            ..RedialConfig::default()
        },
        rendezvous: RendezvousConfig {
            max_overlays: 4,
            max_members: 3,
            max_registrations_per_server: 2,
            max_answer: 4,
            discoveries_per_tick: 3,
            ..RendezvousConfig::default()
        },
        reachability: ReachabilityConfig {
            max_candidates: 3,
            ..ReachabilityConfig::default()
        },
        cache: CacheConfig {
            max_peers: 4,
            dialled_at_start: 2,
            ..CacheConfig::default()
        },
        ..config()
    }
}

fn any_peer() -> impl Strategy<Value = PeerId> {
    (0..PEERS).prop_map(peer)
}

fn any_namespace() -> impl Strategy<Value = Namespace> {
    (0..OVERLAYS).prop_map(namespace)
}

fn any_address() -> impl Strategy<Value = Multiaddr> {
    prop_oneof![
        8 => (0..20_u32).prop_map(address),
        1 => Just("/ip4/127.0.0.1/tcp/1".parse().unwrap()),
        1 => (0..20_u32, any_peer()).prop_map(|(at, relay)| circuit_address(&address(at), relay)),
        1 => (0..20_u32, any_peer()).prop_map(|(at, of)| address(at).with(Protocol::P2p(of))),
    ]
}

fn any_addresses() -> impl Strategy<Value = Vec<Multiaddr>> {
    prop::collection::vec(any_address(), 0..6)
}

fn any_path() -> impl Strategy<Value = Path> {
    prop_oneof![Just(Path::Direct), Just(Path::Relayed)]
}

fn any_failure() -> impl Strategy<Value = RendezvousFailure> {
    prop_oneof![
        Just(RendezvousFailure::InvalidCookie),
        Just(RendezvousFailure::Unavailable),
        Just(RendezvousFailure::Refused),
    ]
}

fn any_outcome() -> impl Strategy<Value = ProbeOutcome> {
    prop_oneof![
        Just(ProbeOutcome::Reached),
        Just(ProbeOutcome::NotReached),
        Just(ProbeOutcome::NotTried),
    ]
}

fn of_the_operator() -> impl Strategy<Value = Input> {
    let entry = (any_peer(), any_addresses(), 0..100_000_u64).prop_map(|(peer, addresses, age)| {
        let age = Duration::from_secs(age);
        CacheEntry {
            peer,
            addresses,
            age,
        }
    });
    prop_oneof![
        4 => any_namespace().prop_map(Input::Follow),
        2 => any_namespace().prop_map(Input::Unfollow),
        1 => any_peer().prop_map(Input::Block),
        1 => any_peer().prop_map(Input::Unblock),
        1 => prop::collection::vec(entry, 0..8).prop_map(Input::CacheLoaded),
        1 => Just(Input::NetworkChanged),
    ]
}

fn of_connections() -> impl Strategy<Value = Input> {
    let peer = any_peer;
    prop_oneof![
        3 => (peer(), any_path(), prop::option::of(any_address()))
            .prop_map(|(peer, path, dialled)| Input::ConnectionOpened { peer, path, dialled }),
        2 => (peer(), any_path()).prop_map(|(peer, path)| Input::ConnectionClosed { peer, path }),
        2 => (peer(), any_addresses()).prop_map(|(peer, tried)| Input::DialFailed { peer, tried }),
        1 => (peer(), any_addresses())
            .prop_map(|(peer, addresses)| Input::Identified { peer, addresses }),
        1 => (peer(), any_addresses())
            .prop_map(|(peer, addresses)| Input::LocalPeer { peer, addresses }),
        1 => (any_namespace(), peer())
            .prop_map(|(namespace, peer)| Input::MemberSeen { namespace, peer }),
        1 => (any_namespace(), peer())
            .prop_map(|(namespace, peer)| Input::MemberGone { namespace, peer }),
    ]
}

fn of_servers() -> impl Strategy<Value = Input> {
    let key = || ((0..4_u32).prop_map(peer), any_namespace());
    let members = prop::collection::vec((any_peer(), any_addresses()), 0..12);
    let cookie = prop::option::of(any::<u8>().prop_map(cookie));
    let listener = || (0..30_u64).prop_map(RelayListener);
    prop_oneof![
        2 => (key(), any::<u32>()).prop_map(|((server, namespace), ttl)| {
            let ttl = Duration::from_secs(ttl.into());
            Input::Registered { server, namespace, ttl }
        }),
        2 => (key(), any_failure()).prop_map(|((server, namespace), why)| {
            Input::RegisterFailed { server, namespace, why }
        }),
        3 => (key(), members, cookie).prop_map(|((server, namespace), members, cookie)| {
            Input::Discovered { server, namespace, members, cookie }
        }),
        1 => (key(), any_failure()).prop_map(|((server, namespace), why)| {
            Input::DiscoverFailed { server, namespace, why }
        }),
        2 => listener().prop_map(|listener| Input::ReservationAccepted { listener }),
        2 => listener().prop_map(|listener| Input::RelayListenerClosed { listener }),
        1 => any_address().prop_map(Input::AddressCandidate),
        1 => any_address().prop_map(Input::AddressGone),
        2 => (any_address(), any_peer(), any_outcome()).prop_map(|(address, server, outcome)| {
            Input::Probed { address, server, outcome }
        }),
    ]
}

/// What happens next: anything at all, or an end of something that is under way.
#[derive(Clone, Debug)]
enum Happening {
    Anything(Input),
    Ending { kind: u8, pick: usize, well: bool },
}

/// What happens and how far the clock has moved before it, in milliseconds.
fn any_step() -> impl Strategy<Value = (Happening, i64)> {
    let input = prop_oneof![
        2 => Just(Input::Timeout),
        2 => of_the_operator(),
        5 => of_connections(),
        3 => of_servers(),
    ];
    let ending = (0..6_u8, 0..100_usize, any::<bool>());
    let happening = prop_oneof![
        2 => input.prop_map(Happening::Anything),
        3 => ending.prop_map(|(kind, pick, well)| Happening::Ending { kind, pick, well }),
    ];
    let time = prop_oneof![
        8 => 0..2_000_i64,
        4 => 0..40_000_i64,
        1 => -100_000..0_i64,
        1 => 0..90_000_000_i64,
    ];
    (happening, time)
}

/// What the driver knows to be under way.
#[derive(Default)]
struct UnderWay {
    registrations: BTreeMap<(PeerId, Namespace), Instant>,
    questions: BTreeMap<(PeerId, Namespace), Instant>,
    dials: BTreeMap<PeerId, Instant>,
    listeners: BTreeSet<RelayListener>,
    probes: BTreeSet<Multiaddr>,
    blocked: BTreeSet<PeerId>,
}

fn nth<T>(mut of: impl ExactSizeIterator<Item = T>, pick: usize) -> Option<T> {
    let len = of.len().max(1);
    of.nth(pick % len)
}

impl UnderWay {
    /// The input by which something under way ends, well or not.
    fn end(&self, kind: u8, pick: usize, well: bool) -> Option<Input> {
        let why = RendezvousFailure::Unavailable;
        let number = u32::try_from(pick).ok()?;
        Some(match (kind, well) {
            (0, _) => {
                let (server, namespace) = nth(self.registrations.keys().cloned(), pick)?;
                let ttl = Duration::from_secs(7200);
                if well {
                    Input::Registered {
                        server,
                        namespace,
                        ttl,
                    }
                } else {
                    Input::RegisterFailed {
                        server,
                        namespace,
                        why,
                    }
                }
            }
            (1, _) => {
                let (server, namespace) = nth(self.questions.keys().cloned(), pick)?;
                let members = vec![(peer(number % PEERS), vec![address(number % PEERS)])];
                let cookie = Some(cookie(1));
                if well {
                    Input::Discovered {
                        server,
                        namespace,
                        members,
                        cookie,
                    }
                } else {
                    Input::DiscoverFailed {
                        server,
                        namespace,
                        why,
                    }
                }
            }
            (2 | 3, true) => Input::ConnectionOpened {
                peer: nth(self.dials.keys().copied(), pick)?,
                path: Path::Direct,
                dialled: Some(address(number % 20)),
            },
            (2 | 3, false) => Input::DialFailed {
                peer: nth(self.dials.keys().copied(), pick)?,
                tried: vec![address(number % 20)],
            },
            (4, true) => Input::ReservationAccepted {
                listener: nth(self.listeners.iter().copied(), pick)?,
            },
            (4, false) => Input::RelayListenerClosed {
                listener: nth(self.listeners.iter().copied(), pick)?,
            },
            _ => Input::Probed {
                address: nth(self.probes.iter().cloned(), pick)?,
                server: peer(BOOT),
                outcome: if well {
                    ProbeOutcome::Reached
                } else {
                    ProbeOutcome::NotReached
                },
            },
        })
    }

    /// What `input` ends, before the machine hears of it.
    fn before(&mut self, input: &Input, now: Instant) {
        let timeout = RendezvousConfig::default().timeout;
        self.registrations.retain(|_, since| now < *since + timeout);
        self.questions.retain(|_, since| now < *since + timeout);
        match input {
            Input::Registered {
                server, namespace, ..
            }
            | Input::RegisterFailed {
                server, namespace, ..
            } => {
                self.registrations.remove(&(*server, namespace.clone()));
            }
            Input::Discovered {
                server, namespace, ..
            }
            | Input::DiscoverFailed {
                server, namespace, ..
            } => {
                self.questions.remove(&(*server, namespace.clone()));
            }
            Input::Unfollow(namespace) => self.questions.retain(|(_, of), _| of != namespace),
            Input::Block(peer) => {
                self.blocked.insert(*peer);
                self.server_gone(peer);
            }
            Input::Unblock(peer) => {
                self.blocked.remove(peer);
            }
            _ => {}
        }
    }

    fn server_gone(&mut self, gone: &PeerId) {
        self.registrations.retain(|(server, _), _| server != gone);
        self.questions.retain(|(server, _), _| server != gone);
    }

    fn take(&mut self, effect: &Effect, now: Instant) -> Result<(), TestCaseError> {
        if let Some(peer) = effect.peer() {
            prop_assert_ne!(peer, super::peer(LOCAL));
            let disconnects = matches!(effect, Effect::Disconnect { .. });
            prop_assert!(!self.blocked.contains(&peer) || disconnects, "{:?}", effect);
        }
        match effect {
            Effect::Register {
                server, namespace, ..
            } => {
                let before = self.registrations.insert((*server, namespace.clone()), now);
                prop_assert_eq!(before, None, "two registrations under way");
            }
            Effect::Unregister { server, namespace } => {
                self.registrations.remove(&(*server, namespace.clone()));
            }
            Effect::Discover {
                server, namespace, ..
            } => {
                let before = self.questions.insert((*server, namespace.clone()), now);
                prop_assert_eq!(before, None, "two questions under way");
            }
            Effect::Dial {
                peer, addresses, ..
            } => {
                prop_assert!(!addresses.is_empty());
                self.dials.insert(*peer, now);
            }
            Effect::Reserve { listener, .. } => {
                prop_assert!(
                    self.listeners.insert(*listener),
                    "a listener's name used again"
                );
            }
            Effect::Probe { address } => {
                self.probes.insert(address.clone());
            }
            _ => {}
        }
        Ok(())
    }
}

fn bounds_hold(machine: &Machine) -> Result<(), TestCaseError> {
    let config = &machine.config;
    let status = machine.status();
    let boot = machine.boot.len();
    prop_assert!(status.dials_in_flight <= config.dials.max_in_flight as usize);
    prop_assert!(status.queued_dials <= config.dials.max_queued as usize);
    prop_assert!(status.lost_peers <= config.redial.max_peers as usize + boot);
    let kept = status.connected_peers + boot;
    prop_assert!(status.known_peers <= config.book.max_peers as usize + kept);
    prop_assert!(machine.book.longest() <= config.book.max_addresses_per_peer as usize);
    prop_assert!(machine.prober.len() <= config.reachability.max_candidates as usize);
    prop_assert!(status.overlays.len() <= config.rendezvous.max_overlays as usize);
    for (_, overlay) in &status.overlays {
        prop_assert!(overlay.known <= config.rendezvous.max_members as usize);
    }
    for server in machine.boot.keys() {
        let of_server = status.registrations.iter().filter(|(at, ..)| at == server);
        let held = of_server.filter(|(.., state)| *state != Registration::Pending);
        prop_assert!(held.count() <= config.rendezvous.max_registrations_per_server as usize);
    }
    prop_assert!(machine.cache().len() <= config.cache.max_peers as usize);
    Ok(())
}

/// Everything lost is asked for again, or waits for a time at which it will be.
fn nothing_is_given_up(machine: &Machine, now: Instant) -> Result<(), TestCaseError> {
    let next = machine.next_timeout();
    prop_assert!(
        next.is_some_and(|next| next >= now),
        "{:?} < {:?}",
        next,
        now
    );
    for boot in machine.boot.keys() {
        let there = machine.connections.is_connected(boot) || machine.blocked.contains(boot);
        let sought = machine.redials.peers().any(|lost| lost == boot);
        prop_assert_ne!(there, sought, "{}", boot);
    }
    for lost in machine.redials.peers() {
        let dialled = machine.dials.is_pending(lost);
        prop_assert!(dialled || machine.redials.is_waiting(lost), "{}", lost);
    }
    let status = machine.status();
    let is_idle = |(_, state): &&(PeerId, Reservation)| *state == Reservation::Idle;
    let rests = |state: &Reservation| matches!(state, Reservation::Resting { .. });
    let idle = status.reservations.iter().filter(is_idle).count();
    let resting = status.reservations.iter().filter(|(_, s)| rests(s)).count();
    let active = status.reservations.len() - idle - resting;
    let wanted = match status.reachability {
        Reachability::Unreachable => machine.config.relay.reservations as usize,
        _ => 0,
    };
    prop_assert!(active >= wanted || idle == 0, "{:?}", status.reservations);
    for (relay, state) in &status.reservations {
        let timed = machine.relays.has_time(relay);
        prop_assert_eq!(timed, *state != Reservation::Idle, "{:?}", state);
    }
    for (server, namespace, state) in &status.registrations {
        let key = (*server, namespace.clone());
        let timed = machine.registrations.has_time(&key);
        prop_assert_eq!(timed, *state != Registration::Pending, "{:?}", state);
        let asks = machine.connections.is_connected(server);
        prop_assert_eq!(machine.discoveries.has_time(&key), asks, "{}", namespace);
    }
    // A registration that could be asked for waits only where a server is full, and then it has
    // its turn.
    let can_register = !status.external_addresses.is_empty();
    for (server, _, state) in &status.registrations {
        let connected = machine.connections.is_connected(server);
        if can_register && connected && *state == Registration::Pending {
            prop_assert!(machine.registrations.next().is_some());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_inputs_at_any_times_keep_every_promise(
        steps in prop::collection::vec(any_step(), 1..120),
        seed in any::<u64>(),
        vouched in any::<bool>(),
    ) {
        let external = vouched.then(|| address(LOCAL)).into_iter().collect();
        let mut driver = Driver::new(DiscoveryConfig { external, ..tight() });
        driver.machine.rng = StdRng::seed_from_u64(seed);
        let mut under_way = UnderWay::default();
        for boot in driver.machine.boot.keys() {
            under_way.dials.insert(*boot, driver.now);
        }
        let (mut clock, mut latest) = (driver.now, driver.now);
        for (happening, moved) in steps {
            let input = match happening {
                Happening::Anything(input) => input,
                Happening::Ending { kind, pick, well } => {
                    let end = under_way.end(kind, pick, well);
                    end.unwrap_or(Input::Timeout)
                }
            };
            let by = Duration::from_millis(moved.unsigned_abs());
            clock = if moved < 0 { clock.checked_sub(by).unwrap_or(clock) } else { clock + by };
            latest = latest.max(clock);
            driver.now = clock;
            let connected: BTreeSet<_> = (0..PEERS)
                .map(peer)
                .filter(|peer| driver.machine.connections.is_connected(peer))
                .collect();
            under_way.before(&input, latest);
            if let Input::ConnectionClosed { peer, path } = &input {
                let mut after = driver.machine.connections.clone();
                if after.closed(*peer, *path) {
                    under_way.server_gone(peer);
                }
            }
            let effects = driver.tell(input.clone());
            let dials = dialled(&effects);
            prop_assert!(dials.len() <= 8, "a storm of dials: {:?}", dials);
            for effect in &effects {
                under_way.take(effect, latest)?;
            }
            for peer in dials {
                let was = connected.contains(&peer);
                let still = driver.machine.connections.is_connected(&peer);
                prop_assert!(!(was && still), "dialled while connected");
            }
            for (peer, since) in &under_way.dials {
                let age = latest - *since;
                let waits = driver.machine.dials.is_in_flight(peer);
                let timeout = driver.machine.config.dials.timeout;
                prop_assert!(!waits || age < timeout, "a dial without an end");
            }
            bounds_hold(&driver.machine)?;
            nothing_is_given_up(&driver.machine, latest)?;
        }
        // Time alone moves it on: no instant holds it for ever.
        driver.now = latest;
        for _ in 0..50 {
            let Some(at) = driver.machine.next_timeout() else { break };
            let before = at;
            for _ in 0..8 {
                driver.now = at;
                driver.tell(Input::Timeout);
            }
            prop_assert!(driver.machine.next_timeout().is_some_and(|next| next > before));
        }
    }

    #[test]
    fn the_same_inputs_times_and_seed_give_the_same_effects(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut one = Driver::new(tight());
        let mut other = Driver::new(tight());
        let offset = other.now - one.now;
        for (happening, moved) in steps {
            let Happening::Anything(input) = happening else { continue };
            one.now += Duration::from_millis(moved.unsigned_abs());
            other.now = one.now + offset;
            prop_assert_eq!(one.tell(input.clone()), other.tell(input));
        }
    }

    #[test]
    fn nothing_follows_the_end(steps in prop::collection::vec(any_step(), 1..30)) {
        let mut driver = Driver::registered(tight());
        driver.tell(Input::Stop);
        for (happening, moved) in steps {
            let Happening::Anything(input) = happening else { continue };
            driver.now += Duration::from_millis(moved.unsigned_abs());
            prop_assert_eq!(driver.tell(input), []);
            prop_assert_eq!(driver.machine.next_timeout(), None);
        }
    }
}
