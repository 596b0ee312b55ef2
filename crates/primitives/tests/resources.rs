//! The accounting of resources: limits in every scope, release, fairness, and memory.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    resources::{
        Acquire, Holder, Limit, Limits, Origin, Permit, Protection, Resource, Resources, Scope,
    },
};
use proptest::prelude::*;

fn peer(seed: u8) -> PeerId {
    let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key");
    key.public().to_peer_id()
}

fn origin(last: u8) -> Origin {
    Origin::of_ip(IpAddr::from([192, 0, 2, last]))
}

fn addr(text: &str) -> Multiaddr {
    text.parse().expect("a valid address")
}

fn limits(resource: Resource, limit: Limit) -> Limits {
    let mut limits = Limits::default();
    limits.set(resource, limit);
    limits
}

const SMALL: Limit = Limit {
    node: 10,
    reserve: 2,
    origin: 6,
    peer: 4,
};

/// The four resources of the property tests: two with one total, the total, and one alone.
const TRIED: [Resource; 4] = [
    Resource::InviteRequests,
    Resource::RendezvousRequests,
    Resource::Requests,
    Resource::FrameBytes,
];

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    for resource in TRIED {
        limits.set(resource, SMALL);
    }
    limits
}

#[derive(Clone, Debug)]
enum Step {
    Take { by: usize, of: usize, amount: u64 },
    Resize { at: usize, amount: u64 },
    Drop { at: usize },
    Protect { by: usize, on: bool },
}

const PEERS: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..PEERS, 0..TRIED.len(), 0..5_u64).prop_map(|(by, of, amount)| Step::Take { by, of, amount }),
        2 => (any::<usize>(), 0..6_u64).prop_map(|(at, amount)| Step::Resize { at, amount }),
        3 => any::<usize>().prop_map(|at| Step::Drop { at }),
        1 => (0..PEERS, any::<bool>()).prop_map(|(by, on)| Step::Protect { by, on }),
    ]
}

/// Sums the amounts of `permits` that count in `resource`, for those that `select` selects.
fn sum(
    permits: &[(usize, Resource, Permit)],
    resource: Resource,
    select: impl Fn(usize) -> bool,
) -> u64 {
    permits
        .iter()
        .filter(|(by, of, _)| (*of == resource || of.total() == Some(resource)) && select(*by))
        .map(|(.., permit)| permit.amount())
        .sum()
}

proptest! {
    /// Amounts are granted exactly if a model of the limits grants them, every counter is the sum of
    /// the permits that exist, and nothing is left once they are dropped.
    #[test]
    fn no_scope_exceeds_its_limit_and_everything_returns(steps in prop::collection::vec(step(), 0..120)) {
        let resources = Resources::new(small_limits());
        // Two peers for each of three origins.
        let holders: Vec<Holder> = (0..PEERS)
            .map(|at| resources.holder(Some(peer(at as u8)), Some(origin(at as u8 / 2))))
            .collect();
        let mut protected = [false; PEERS];
        let mut permits: Vec<(usize, Resource, Permit)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { by, of, amount } => {
                    let resource = TRIED[of];
                    let fits = [Some(resource), resource.total()].into_iter().flatten().all(|one| {
                        let node = if protected[by] { SMALL.node } else { SMALL.node - SMALL.reserve };
                        sum(&permits, one, |_| true) + amount <= node
                            && sum(&permits, one, |other| other == by) + amount <= SMALL.peer
                            && (protected[by]
                                || sum(&permits, one, |other| other / 2 == by / 2) + amount <= SMALL.origin)
                    });
                    match holders[by].take(resource, amount) {
                        Ok(permit) => {
                            prop_assert!(fits);
                            permits.push((by, resource, permit));
                        }
                        Err(refused) => prop_assert!(!fits, "{refused}"),
                    }
                }
                Step::Resize { at, amount } if !permits.is_empty() => {
                    let at = at % permits.len();
                    let (.., permit) = &mut permits[at];
                    let before = permit.amount();
                    match permit.resize(amount) {
                        Ok(()) => prop_assert_eq!(permit.amount(), amount),
                        Err(_) => {
                            prop_assert!(amount > before);
                            prop_assert_eq!(permit.amount(), before);
                        }
                    }
                }
                Step::Drop { at } if !permits.is_empty() => {
                    drop(permits.swap_remove(at % permits.len()));
                }
                Step::Protect { by, on } => {
                    protected[by] = on;
                    if on {
                        resources.protect(peer(by as u8), Protection::Member);
                    } else {
                        resources.unprotect(peer(by as u8), Protection::Member);
                    }
                }
                Step::Resize { .. } | Step::Drop { .. } => {}
            }
            for resource in TRIED {
                prop_assert_eq!(resources.used(resource), sum(&permits, resource, |_| true));
                prop_assert!(resources.used(resource) <= SMALL.node);
                for (by, holder) in holders.iter().enumerate() {
                    let used = holder.used_by_peer(resource);
                    prop_assert_eq!(used, sum(&permits, resource, |other| other == by));
                    prop_assert!(used <= SMALL.peer);
                    let used = holder.used_by_origin(resource);
                    prop_assert_eq!(used, sum(&permits, resource, |other| other / 2 == by / 2));
                }
            }
        }
        drop(permits);
        for resource in Resource::ALL {
            prop_assert_eq!(resources.used(resource), 0);
        }
        drop(holders);
        prop_assert_eq!(resources.entries(), 0);
    }

    /// All addresses of a `/64` are one origin, addresses of different ones are not, and a mapped
    /// address is its IPv4 address.
    #[test]
    fn an_origin_is_a_host(bits in any::<u128>(), other in any::<u64>(), v4 in any::<u32>()) {
        let host = |bits: u128| Origin::of_ip(IpAddr::V6(bits.into()));
        // Mapped and translated addresses have the origin of their IPv4 address.
        let mapped = |ip: u128| {
            [0xffff, 0x64_ff9b << 64].contains(&(ip >> 32)) || ip >> 112 == 0x2002
        };
        let same = (bits & !u128::from(u64::MAX)) | u128::from(other);
        let far = bits ^ (1 << 64);
        prop_assume!(!mapped(bits) && !mapped(same) && !mapped(far));
        prop_assert_eq!(host(bits), host(same));
        prop_assert_ne!(host(bits), host(far));
        let v4 = std::net::Ipv4Addr::from(v4);
        prop_assert_eq!(Origin::of_ip(v4.to_ipv6_mapped().into()), Origin::of_ip(v4.into()));
    }

    /// Hosts behind a NAT64 are different origins, and the whole 6to4 prefix of a host is one.
    #[test]
    fn a_translated_address_has_the_origin_of_its_ipv4_address(
        first in 1_u8..10, rest in any::<[u8; 3]>(), low in any::<[u16; 5]>(),
    ) {
        let v4 = std::net::Ipv4Addr::from([first, rest[0], rest[1], rest[2]]);
        let [a, b] = [u32::from(v4) >> 16, u32::from(v4) & 0xffff].map(|part| part as u16);
        let [c, d, e, f, g] = low;
        for translated in [[0x64, 0xff9b, 0, 0, 0, 0, a, b], [0x2002, a, b, c, d, e, f, g]] {
            prop_assert_eq!(Origin::of_ip(translated.into()), Origin::of_ip(v4.into()));
        }
    }
}

/// A translator leads to no private network, so such an address has no larger limits.
#[test]
fn a_translated_private_address_is_not_local() {
    let origins = ["2002:a00:1::1", "2002:a00:1:2::1", "2002:c0a8:7::1"].map(|ip| {
        let origin = Origin::of_ip(ip.parse().unwrap());
        assert!(!origin.is_local(), "{ip}");
        origin
    });
    assert!(
        origins.iter().all(|origin| *origin == origins[0]),
        "{origins:?}"
    );
    assert!(!Origin::of_ip("64:ff9b::10.0.0.1".parse().unwrap()).is_local());
}

#[test]
fn threads_never_exceed_a_limit_and_release_everything() {
    let resources = Resources::new(small_limits());
    thread::scope(|scope| {
        for by in 0..4 {
            let resources = &resources;
            scope.spawn(move || {
                for round in 0..5_000_u64 {
                    // The entries come and go as well.
                    let holder = resources.holder(Some(peer(by / 2)), Some(origin(0)));
                    let permit = holder.take(Resource::InviteRequests, 1 + round % 3);
                    assert!(resources.used(Resource::InviteRequests) <= SMALL.origin);
                    assert!(resources.used(Resource::Requests) <= SMALL.origin);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(resources.used(Resource::InviteRequests), 0);
    assert_eq!(resources.used(Resource::Requests), 0);
    assert_eq!(resources.entries(), 0);
}

#[test]
fn the_reserve_and_a_full_origin_are_open_to_protected_peers_only() {
    let resources = Resources::new(limits(Resource::InboundConnections, SMALL));
    let strangers: Vec<_> = (0..10)
        .map(|at| resources.holder(Some(peer(at)), Some(origin(at))))
        .map(|holder| holder.take(Resource::InboundConnections, 1))
        .collect();
    assert_eq!(
        strangers.iter().flatten().count() as u64,
        SMALL.node - SMALL.reserve
    );
    let refused = strangers[8].as_ref().unwrap_err();
    assert_eq!((refused.scope, refused.limit), (Scope::Node, 8));

    resources.protect(peer(100), Protection::BootNode);
    let boot = resources.holder(Some(peer(100)), Some(origin(0)));
    let _first = boot
        .take(Resource::InboundConnections, 1)
        .expect("the reserve");
    resources.unprotect(peer(100), Protection::BootNode);
    assert!(boot.take(Resource::InboundConnections, 1).is_err());

    // Protection that comes later reaches a holder that exists, and is kept for each reason.
    resources.protect(peer(100), Protection::Member);
    resources.protect(peer(100), Protection::Configured);
    resources.unprotect(peer(100), Protection::Member);
    assert!(boot.is_protected());
    drop(strangers);
    let many: Vec<_> = (0..2)
        .map(|at| resources.holder(Some(peer(at)), Some(origin(0))))
        .map(|holder| holder.take(Resource::InboundConnections, 3))
        .collect();
    let full = many[1].as_ref().unwrap_err();
    assert_eq!(full.scope, Scope::Origin(origin(0)));
    let _second = boot
        .take(Resource::InboundConnections, 3)
        .expect("not limited by the origin");
}

#[test]
fn refusals_are_counted_by_scope() {
    let resources = Resources::new(limits(Resource::FrameBytes, SMALL));
    let holder = resources.holder(Some(peer(1)), Some(origin(1)));
    let refused = holder.take(Resource::FrameBytes, 5).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("at most 4 frame bytes are allowed for peer {}", peer(1)),
    );
    let _permit = holder.take(Resource::FrameBytes, 3).expect("it is free");
    let usage = resources.snapshot();
    let usage = usage
        .iter()
        .find(|usage| usage.resource == Resource::FrameBytes);
    let usage = usage.expect("every resource is in a snapshot");
    assert_eq!((usage.used, usage.limit, usage.reserve), (3, 10, 2));
    assert_eq!(
        (usage.refused_peer, usage.refused_origin, usage.refused_node),
        (1, 0, 0)
    );
    assert_eq!(
        resources.largest_peer(Resource::FrameBytes),
        Some((peer(1), 3))
    );
    assert_eq!(
        resources.largest_origin(Resource::FrameBytes),
        Some((origin(1), 3))
    );
}

#[test]
fn connections_through_a_relay_count_for_the_relay() {
    let relay = peer(7);
    let through = Some(Origin::Relay(relay));
    let dialled = addr(&format!(
        "/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{}",
        peer(8)
    ));
    assert_eq!(Origin::of_addr(&dialled), through);
    let local = addr(&format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit"));
    let remote = addr(&format!("/p2p/{}", peer(8)));
    assert_eq!(Origin::of_inbound(&local, &remote), through);

    let direct = addr("/ip4/192.0.2.9/udp/1/quic-v1");
    assert_eq!(
        Origin::of_inbound(&addr("/ip4/0.0.0.0/udp/1/quic-v1"), &direct),
        Some(origin(9))
    );
    assert_eq!(
        Origin::of_addr(&addr("/ip6/::ffff:192.0.2.9/tcp/1")),
        Some(origin(9))
    );
    assert_eq!(
        Origin::of_addr(&addr("/ip6zone/eth0/ip6/fe80::1/tcp/1")),
        Some(Origin::of_ip("fe80::2".parse().expect("an address"))),
    );
    assert_eq!(Origin::of_addr(&addr("/memory/1")), None);
    assert_eq!(Origin::of_addr(&addr("/dns4/example.com/tcp/1")), None);
    // Without its peer id, the relay cannot be distinguished from others.
    assert_eq!(
        Origin::of_addr(&addr("/ip4/192.0.2.9/tcp/1/p2p-circuit")),
        Some(origin(9))
    );
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(acquire: &mut Acquire, waker: &Waker) -> Option<Permit> {
    match Pin::new(acquire).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(permit) => Some(permit.expect("it is possible")),
        Poll::Pending => None,
    }
}

#[test]
fn a_waiter_is_woken_by_the_release_that_makes_room() {
    let resources = Resources::new(limits(Resource::BlobBytes, SMALL));
    let holder = resources.holder(Some(peer(1)), None);
    let (first, second) = (
        holder.take(Resource::BlobBytes, 2).expect("it is free"),
        holder.take(Resource::BlobBytes, 2).expect("it is free"),
    );
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut waiting = holder.acquire(Resource::BlobBytes, 3);
    assert!(poll(&mut waiting, &waker).is_none());
    drop(first);
    assert_eq!(
        woken.0.load(Ordering::SeqCst),
        0,
        "two are free, three are asked for"
    );
    drop(second);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(
        holder.used_by_peer(Resource::BlobBytes),
        3,
        "granted before it is polled"
    );
    drop(poll(&mut waiting, &waker).expect("it was granted"));
    assert_eq!(resources.used(Resource::BlobBytes), 0);

    // What could never be granted is refused instead of waited for.
    let mut never = holder.acquire(Resource::BlobBytes, 5);
    let refused = Pin::new(&mut never).poll(&mut Context::from_waker(&waker));
    assert!(matches!(refused, Poll::Ready(Err(refused)) if refused.limit == 4));
}

#[test]
fn a_waiter_that_is_dropped_leaves_nothing_behind() {
    let resources = Resources::new(limits(Resource::BlobBytes, SMALL));
    let holder = resources.holder(Some(peer(1)), Some(origin(1)));
    let waker = Waker::noop();
    let held = holder.take(Resource::BlobBytes, 4).expect("it is free");
    let mut front = holder.acquire(Resource::BlobBytes, 4);
    let mut behind = holder.acquire(Resource::BlobBytes, 1);
    assert!(poll(&mut front, waker).is_none());
    assert!(poll(&mut behind, waker).is_none());
    drop(held);
    // Granted, not taken, dropped: it passes on to the next.
    drop(front);
    assert!(poll(&mut behind, waker).is_some());
    drop(behind);
    let held = holder.take(Resource::BlobBytes, 3).expect("it is free");
    let mut front = holder.acquire(Resource::BlobBytes, 4);
    let mut behind = holder.acquire(Resource::BlobBytes, 1);
    assert!(poll(&mut front, waker).is_none());
    assert!(
        poll(&mut behind, waker).is_none(),
        "it waits behind the first of its peer"
    );
    drop(front);
    assert!(poll(&mut behind, waker).is_some());
    drop((held, behind, holder));
    assert_eq!(resources.entries(), 0);
    assert!(
        resources
            .snapshot()
            .iter()
            .all(|usage| usage.used == 0 && usage.waiting == 0)
    );
}

#[test]
fn a_stranger_that_waits_for_its_origin_does_not_keep_a_protected_peer_waiting() {
    let limit = Limit {
        node: 8,
        reserve: 0,
        origin: 2,
        peer: 2,
    };
    let resources = Resources::new(limits(Resource::BlobTransfers, limit));
    let waker = Waker::noop();
    let at_origin = |identity| resources.holder(Some(peer(identity)), Some(origin(1)));
    let held = at_origin(1).take(Resource::BlobTransfers, 2);
    let mut stranger = at_origin(2).acquire(Resource::BlobTransfers, 1);
    assert!(poll(&mut stranger, waker).is_none());
    resources.protect(peer(3), Protection::Configured);
    let mut member = at_origin(3).acquire(Resource::BlobTransfers, 1);
    assert!(poll(&mut member, waker).is_some());
    // Another stranger behind the same address waits.
    let mut behind = at_origin(4).acquire(Resource::BlobTransfers, 1);
    assert!(poll(&mut behind, waker).is_none());
    drop(held);
    assert!(poll(&mut stranger, waker).is_some());
    assert!(poll(&mut behind, waker).is_some());
}

/// One address with twenty identities of ten streams each, and one peer of another address: each
/// gets every second permit.
#[test]
fn origins_take_turns_whatever_the_number_of_their_identities() {
    let limit = Limit {
        node: 1,
        reserve: 0,
        origin: 1,
        peer: 1,
    };
    let resources = Resources::new(limits(Resource::BlobTransfers, limit));
    let waker = Waker::noop();
    let first = resources.holder(Some(peer(200)), Some(origin(200)));
    let mut held = first.take(Resource::BlobTransfers, 1).expect("it is free");
    let mut waiting = Vec::new();
    for identity in 0..20 {
        let holder = resources.holder(Some(peer(identity)), Some(origin(1)));
        waiting.extend((0..10).map(|_| (1, holder.acquire(Resource::BlobTransfers, 1))));
    }
    let alone = resources.holder(Some(peer(100)), Some(origin(2)));
    waiting.extend((0..20).map(|_| (2, alone.acquire(Resource::BlobTransfers, 1))));
    for (_, acquire) in &mut waiting {
        assert!(poll(acquire, waker).is_none());
    }
    let mut served = HashMap::new();
    for _ in 0..40 {
        drop(held);
        let (at, permit) = waiting
            .iter_mut()
            .enumerate()
            .find_map(|(at, (_, acquire))| poll(acquire, waker).map(|permit| (at, permit)))
            .expect("a release serves one");
        held = permit;
        let (from, _) = waiting.swap_remove(at);
        *served.entry(from).or_insert(0) += 1;
    }
    assert_eq!(served, HashMap::from([(1, 20), (2, 20)]));
}

/// Smaller requests do not overtake a large one indefinitely.
#[test]
fn a_large_amount_is_served_in_its_turn() {
    let limit = Limit {
        node: 4,
        reserve: 1,
        origin: 4,
        peer: 4,
    };
    let resources = Resources::new(limits(Resource::FrameBytes, limit));
    let waker = Waker::noop();
    let holder = |at| resources.holder(Some(peer(at)), Some(origin(at)));
    let (first, second) = (holder(1), holder(2));
    let held = first.take(Resource::FrameBytes, 2).expect("it is free");
    let mut large = second.acquire(Resource::FrameBytes, 3);
    let mut small = holder(3).acquire(Resource::FrameBytes, 1);
    assert!(poll(&mut large, waker).is_none());
    assert!(poll(&mut small, waker).is_none());
    // A protected peer uses the reserve in that time.
    resources.protect(peer(4), Protection::Member);
    let mut member = holder(4).acquire(Resource::FrameBytes, 2);
    let member = poll(&mut member, waker).expect("the reserve");
    drop((held, member));
    let large = poll(&mut large, waker).expect("its turn");
    assert!(poll(&mut small, waker).is_none());
    drop(large);
    assert!(poll(&mut small, waker).is_some());
}
