//! Bytes as what happens to a machine, so that a fuzzer and a property test speak one language.

use std::time::Duration;

use calimero_network_primitives::{
    Multiaddr, PeerId,
    config::{
        BookTuning, CacheTuning, DialsTuning, DiscoveryConfig, ReachabilityTuning, RedialTuning,
        RendezvousTuning,
    },
    multiaddr::Protocol,
};

use super::{
    super::machine::{
        CacheEntry, CircuitLimit, Cookie, HolePunch, Input, Namespace, Path, ProbeOutcome,
        RelayListener, RendezvousFailure,
    },
    model::Model,
};

pub(crate) const LOCAL: u32 = 0;
pub(crate) const BOOT: u32 = 1;
pub(crate) const SECOND_BOOT: u32 = 2;

/// Peers there are, ourselves and the boot nodes among them.
const PEERS: u8 = 12;
const OVERLAYS: u8 = 6;

/// Bytes of one step.
pub(crate) const STEP: usize = 8;

/// The peer with this number.
pub(crate) fn peer(number: u32) -> PeerId {
    let [a, b, c, d] = number.to_be_bytes();
    // An identity multihash of four bytes.
    PeerId::from_bytes(&[0, 4, a, b, c, d]).unwrap()
}

/// A public address with this number.
pub(crate) fn address(number: u32) -> Multiaddr {
    let [_, a, b, c] = number.to_be_bytes();
    format!("/ip4/45.{a}.{b}.{c}/tcp/2428").parse().unwrap()
}

pub(crate) fn namespace(number: u32) -> Namespace {
    Namespace::new(&format!("/calimero/ctx/{number}")).unwrap()
}

pub(crate) fn cookie(number: u8) -> Cookie {
    Cookie::new(&[number; 16]).unwrap()
}

/// Bounds so small that every one is met, waits so short that all of them end within
/// [`settle`](super::Checked::settle). The bits of `variant` choose what else varies.
pub(crate) fn config(variant: u8) -> DiscoveryConfig {
    let bit = |at: u32| variant & (1 << at) != 0;
    let minute = Duration::from_secs(60);
    let boot = |number| address(number).with(Protocol::P2p(peer(number)));
    let boots = [boot(BOOT), boot(SECOND_BOOT), boot(LOCAL)];
    DiscoveryConfig {
        boot: boots.into_iter().take(if bit(0) { 1 } else { 3 }).collect(),
        external: bit(1).then(|| address(LOCAL)).into_iter().collect(),
        local_network: bit(2),
        global_namespace: match bit(3) {
            true => namespace(0).to_string(),
            false => String::new(),
        },
        max_peers: 6,
        members_target: 2,
        relays: if bit(4) { 1 } else { 2 },
        book: BookTuning {
            max_addresses_per_peer: 2,
        },
        dials: DialsTuning {
            max_in_flight: 2,
            max_queued: 2,
            max_per_answer: 2,
            ..DialsTuning::default()
        },
        redial: RedialTuning {
            max_peers: 3,
            ..RedialTuning::default()
        },
        rendezvous: RendezvousTuning {
            max_overlays: 4,
            max_members: 3,
            max_registrations_per_server: 2,
            max_answer: 4,
            discoveries_per_tick: 3,
            rotation: minute,
            ..RendezvousTuning::default()
        },
        reachability: ReachabilityTuning {
            max_candidates: 3,
            retest: minute,
            max_backoff: minute,
            ..ReachabilityTuning::default()
        },
        cache: CacheTuning {
            max_peers: 4,
            dialled_at_start: 2,
        },
        ..DiscoveryConfig::default()
    }
}

/// How far the clock moves, and what happens then.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) back: bool,
    pub(crate) moved: Duration,
    pub(crate) what: What,
}

/// An input: its kind, and five bytes for its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct What {
    kind: u8,
    of: [u8; 5],
}

impl Step {
    pub(crate) fn of([kind, clock, amount, of @ ..]: [u8; STEP]) -> Self {
        let amount = u64::from(amount);
        let millis = match clock {
            // Up to 2 s, 40 s, 100 s back, a day.
            0..=159 => amount * 8,
            160..=223 => amount * 160,
            224..=239 => amount * 400,
            240..=255 => amount * 350_000,
        };
        Self {
            back: (224..=239).contains(&clock),
            moved: Duration::from_millis(millis),
            what: What { kind, of },
        }
    }
}

impl What {
    /// The input, which may end something that is under way.
    pub(super) fn input(self, model: &Model) -> Input {
        let [a, b, c, d, e] = self.of;
        let (peer, namespace) = (peer_of(a), namespace_of(b));
        let path = match c % 2 {
            0 => Path::Direct,
            _ => Path::Relayed,
        };
        let addresses = addresses_of(c, d, e);
        match self.kind % 40 {
            0 if a == u8::MAX => Input::Stop,
            0 => Input::Dialled {
                peer: (b % 2 == 0).then_some(peer),
                addresses,
            },
            1..=3 => Input::Follow(namespace),
            4 => Input::Unfollow(namespace),
            5 => Input::Block(peer),
            6 => Input::Unblock(peer),
            7 => Input::CacheLoaded(cache_of(self.of)),
            8 => Input::NetworkChanged,
            9 | 10 => Input::ConnectionOpened {
                peer,
                path,
                dialled: (d % 4 > 0).then(|| address_of(e)),
                remote_ip: (b % 4 > 0).then(|| [45, 0, 0, e % 20].into()),
                is_local: false,
            },
            11 => Input::ConnectionClosed { peer, path },
            12 => Input::DialFailed {
                peer,
                tried: addresses,
            },
            13 => Input::Identified { peer, addresses },
            14 => Input::LocalPeer { peer, addresses },
            15 => Input::MemberSeen { namespace, peer },
            16 => Input::MemberGone { namespace, peer },
            17 if d % 2 == 0 => Input::Listening {
                address: address_of(e),
                open_for: Duration::from_millis(u64::from(c)),
            },
            17 => Input::AddressCandidate(address_of(e)),
            18 => Input::AddressGone(address_of(e)),
            19 => Input::Probed {
                address: address_of(e),
                server: peer,
                outcome: outcome_of(c),
            },
            20 => Input::ReservationAccepted {
                listener: RelayListener(c.into()),
                limit: CircuitLimit::default(),
            },
            21 => Input::RelayListenerClosed {
                listener: RelayListener(c.into()),
            },
            22 => unasked(peer, namespace, self.of),
            23..=34 => self.end(model).unwrap_or(Input::Timeout),
            35 => Input::HolePunchEnded {
                peer,
                outcome: match d % 4 {
                    0 => HolePunch::Direct,
                    _ => HolePunch::Failed,
                },
            },
            36 => Input::HolePunchAwaited { peer, addresses },
            37 => Input::ReachedThroughRelay { peer },
            38 => Input::RoutingRefreshed {
                answers: u32::from(c % 2),
                last: d % 2 == 0,
            },
            39 => Input::AddressObserved {
                observer: peer,
                address: address_of(e),
            },
            _ => Input::Timeout,
        }
    }

    /// The end of something that is under way, well or not.
    fn end(self, model: &Model) -> Option<Input> {
        let [pick, how, c, d, e] = self.of;
        let (pick, well) = (usize::from(pick), how % 2 == 0);
        Some(match self.kind % 40 {
            23 | 24 => {
                let (server, namespace) = nth(model.registrations.keys().cloned(), pick)?;
                registration_ends(server, namespace, well, c)
            }
            25 | 26 => {
                let (server, namespace) = nth(model.questions.keys().cloned(), pick)?;
                question_ends(server, namespace, well, [c, d, e])
            }
            27 => Input::ConnectionOpened {
                peer: nth(model.dials.keys().copied(), pick)?,
                path: if well { Path::Direct } else { Path::Relayed },
                dialled: Some(address_of(e)),
                remote_ip: None,
                is_local: false,
            },
            28 => Input::DialFailed {
                peer: nth(model.dials.keys().copied(), pick)?,
                tried: addresses_of(c, d, e),
            },
            29 => {
                let (peer, [direct, _]) = nth(model.connected.iter(), pick)?;
                let peer = *peer;
                let path = match direct {
                    0 => Path::Relayed,
                    _ => Path::Direct,
                };
                Input::ConnectionClosed { peer, path }
            }
            30 => {
                let listener = nth(model.listeners.keys().copied(), pick)?;
                match well {
                    true => Input::ReservationAccepted {
                        listener,
                        limit: CircuitLimit::default(),
                    },
                    false => Input::RelayListenerClosed { listener },
                }
            }
            32 | 33 => {
                let (id, (peer, _)) = nth(model.attempts.iter(), pick)?;
                let (id, peer) = (*id, *peer);
                let path = match c % 2 {
                    0 => Path::Direct,
                    _ => Path::Relayed,
                };
                debug_assert!(!model.is_stranger(&peer));
                match well {
                    true => Input::AttemptConnected { id, path },
                    false => Input::AttemptFailed { id },
                }
            }
            34 => {
                // A peer that is reached through a relay.
                Input::ConnectionOpened {
                    peer: nth(model.connected.keys().copied(), pick)?,
                    path: Path::Relayed,
                    dialled: well.then(|| through(&address(BOOT), peer(BOOT))),
                    remote_ip: None,
                    is_local: false,
                }
            }
            _ => Input::Probed {
                address: nth(model.probes.iter().cloned(), pick)?,
                server: peer(BOOT),
                outcome: outcome_of(how),
            },
        })
    }
}

fn nth<T>(mut of: impl ExactSizeIterator<Item = T>, pick: usize) -> Option<T> {
    let len = of.len().max(1);
    of.nth(pick % len)
}

fn registration_ends(server: PeerId, namespace: Namespace, well: bool, how: u8) -> Input {
    match well {
        true => Input::Registered {
            server,
            namespace,
            // From nothing to days.
            ttl: Duration::from_secs(u64::from(how).pow(2) * 10),
        },
        false => Input::RegisterFailed {
            server,
            namespace,
            why: failure_of(how),
        },
    }
}

fn question_ends(server: PeerId, namespace: Namespace, well: bool, of: [u8; 3]) -> Input {
    let [c, d, e] = of;
    match well {
        true => Input::Discovered {
            server,
            namespace,
            members: (0..c % 12)
                .map(|n| (peer_of(d.wrapping_add(n)), addresses_of(c, d, n)))
                .collect(),
            cookie: (e % 4 > 0).then(|| cookie(e)),
        },
        false => Input::DiscoverFailed {
            server,
            namespace,
            why: failure_of(c),
        },
    }
}

/// An answer without a request.
fn unasked(server: PeerId, namespace: Namespace, [_, _, c, d, e]: [u8; 5]) -> Input {
    match c & 4 {
        0 => registration_ends(server, namespace, c & 1 == 0, d),
        _ => question_ends(server, namespace, c & 1 == 0, [c, d, e]),
    }
}

fn peer_of(byte: u8) -> PeerId {
    peer((byte % PEERS).into())
}

fn namespace_of(byte: u8) -> Namespace {
    namespace((byte % OVERLAYS).into())
}

fn failure_of(byte: u8) -> RendezvousFailure {
    match byte % 3 {
        0 => RendezvousFailure::InvalidCookie,
        1 => RendezvousFailure::Unavailable,
        _ => RendezvousFailure::Refused,
    }
}

fn outcome_of(byte: u8) -> ProbeOutcome {
    match byte % 4 {
        0 => ProbeOutcome::NotTried,
        1 => ProbeOutcome::Reached,
        _ => ProbeOutcome::NotReached,
    }
}

/// The circuit address of any peer behind `relay` at `address`.
pub(crate) fn through(address: &Multiaddr, relay: PeerId) -> Multiaddr {
    let relay = address.clone().with(Protocol::P2p(relay));
    relay.with(Protocol::P2pCircuit)
}

/// Mostly addresses that lead somewhere, some of them of a peer with the same number.
fn address_of(byte: u8) -> Multiaddr {
    let plain = address((byte % 20).into());
    match byte % 32 {
        24 => "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        25 => "/ip4/0.0.0.0/tcp/1".parse().unwrap(),
        26 => through(&plain, peer_of(byte / 32)),
        27 => through(&plain, peer(LOCAL)),
        28 => plain.with(Protocol::P2p(peer_of(byte / 32))),
        29 => plain.with(Protocol::P2pCircuit),
        30 => {
            let name = "a".repeat(250);
            format!("/dns/{name}/tcp/1/http/p2p-circuit/dns/{name}/dns/{name}")
                .parse()
                .unwrap()
        }
        _ => plain,
    }
}

fn addresses_of(count: u8, first: u8, step: u8) -> Vec<Multiaddr> {
    let address = |n: u8| address_of(first.wrapping_add(n.wrapping_mul(step)));
    (0..count % 6).map(address).collect()
}

fn cache_of([a, b, c, d, e]: [u8; 5]) -> Vec<CacheEntry> {
    let entry = |n: u8| CacheEntry {
        peer: peer_of(a.wrapping_add(n)),
        addresses: addresses_of(c, d.wrapping_add(n), e),
        // Up to a day and a half.
        age: Duration::from_secs(u64::from(b.wrapping_mul(n)) * 500),
    };
    (0..8).map(entry).collect()
}
