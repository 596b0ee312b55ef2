//! The registry of the rendezvous server: bounds, pages, cookies, and ten thousand nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "in a test a surprise ends the test, and any time will do to start from"
)]

#[cfg(target_os = "linux")]
#[path = "support/alone.rs"]
mod alone;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use alone::ran_alone;
use bytes::Bytes;
use calimero_network_discovery::{
    machine::Namespace,
    server::rendezvous::{
        registry::{
            Held, MAX_EXAMINED, NAMESPACE_OVERHEAD_BYTES, PEER_OVERHEAD_BYTES,
            REGISTRATION_OVERHEAD_BYTES, Registered, Registry,
        },
        wire::{Found, Refusal},
    },
};
use calimero_network_primitives::{PeerId, config::RendezvousServerConfig};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

const HOUR: Duration = Duration::from_secs(3600);

/// A registry with everything that it is given in hand.
struct Server {
    registry: Registry,
    rng: StdRng,
    now: Instant,
}

impl Server {
    fn new(change: impl FnOnce(&mut RendezvousServerConfig)) -> Self {
        let mut config = RendezvousServerConfig::default();
        change(&mut config);
        Self {
            registry: Registry::new(config, 7),
            rng: StdRng::seed_from_u64(42),
            now: Instant::now(),
        }
    }

    fn register(&mut self, peer: PeerId, namespace: &str) -> Result<Registered, Refusal> {
        self.register_with(peer, namespace, peer.to_bytes(), None)
    }

    fn register_with(
        &mut self,
        peer: PeerId,
        namespace: &str,
        record: Vec<u8>,
        ttl_s: Option<u64>,
    ) -> Result<Registered, Refusal> {
        let namespace = Namespace::new(namespace).unwrap();
        let (now, rng) = (self.now, &mut self.rng);
        self.registry
            .register(peer, &namespace, &record, ttl_s, now, rng)
    }

    fn unregister(&mut self, peer: PeerId, namespace: &str) -> bool {
        let namespace = Namespace::new(namespace).unwrap();
        self.registry.unregister(&peer, &namespace, self.now)
    }

    fn ask(
        &mut self,
        namespace: &str,
        cookie: Option<&Bytes>,
        limit: Option<u64>,
    ) -> Result<(Vec<Found>, Bytes), Refusal> {
        let namespace = Namespace::new(namespace).unwrap();
        let (now, rng) = (self.now, &mut self.rng);
        self.registry
            .discover(&namespace, cookie.map(|c| &c[..]), limit, now, rng)
    }

    /// Asks page by page until a page is empty.
    fn ask_all(&mut self, cookie: Option<Bytes>, limit: u64) -> (Vec<PeerId>, Bytes) {
        let (mut all, mut cookie) = (Vec::new(), cookie);
        loop {
            let (found, next) = self.ask("ns", cookie.as_ref(), Some(limit)).unwrap();
            assert!(found.len() as u64 <= limit);
            if found.is_empty() {
                return (all, next);
            }
            all.extend(found.iter().map(peer));
            cookie = Some(next);
        }
    }

    fn held(&self) -> Held {
        self.registry.held()
    }
}

/// The tests' records are peer ids.
fn peer(found: &Found) -> PeerId {
    PeerId::from_bytes(&found.record).unwrap()
}

fn peers(count: usize) -> Vec<PeerId> {
    (0..count).map(|_| PeerId::random()).collect()
}

#[test]
fn a_peer_may_renew_at_every_bound_of_numbers() {
    let mut server = Server::new(|config| {
        config.max_registrations = 4;
        config.tuning.max_registrations_per_peer = 2;
        config.tuning.max_registrations_per_namespace = 3;
    });
    let [one, two, three, four] = [(); 4].map(|()| PeerId::random());
    for namespace in ["a", "b"] {
        assert!(!server.register(one, namespace).unwrap().renewed);
    }
    assert_eq!(server.register(one, "c"), Err(Refusal::Unavailable));
    assert!(server.register(one, "a").unwrap().renewed);

    server.register(two, "a").unwrap();
    server.register(three, "a").unwrap();
    assert_eq!(server.register(four, "a"), Err(Refusal::Unavailable));
    assert_eq!(server.register(four, "b"), Err(Refusal::Unavailable));
    for (peer, namespace) in [(one, "a"), (one, "b"), (two, "a"), (three, "a")] {
        assert!(server.register(peer, namespace).unwrap().renewed);
    }

    assert!(server.unregister(two, "a"));
    assert!(!server.unregister(two, "a"));
    server.register(four, "b").unwrap();
    assert_eq!((server.held().registrations, server.held().peers), (4, 3));
}

#[test]
fn memory_is_bounded_and_a_refused_renewal_keeps_what_was() {
    let record = 300;
    let each = record + REGISTRATION_OVERHEAD_BYTES + PEER_OVERHEAD_BYTES;
    let room = 3 * each + 2 + NAMESPACE_OVERHEAD_BYTES;
    let mut server = Server::new(|config| config.max_bytes = room);
    let peers = peers(4);
    for peer in &peers[..3] {
        server
            .register_with(*peer, "ns", vec![0; record], None)
            .unwrap();
    }
    assert_eq!(server.held().bytes, room);
    let more = server.register_with(peers[3], "ns", vec![0; 1], None);
    assert_eq!(more, Err(Refusal::Unavailable));
    let longer = server.register_with(peers[0], "ns", vec![0; record + 1], None);
    assert_eq!(longer, Err(Refusal::Unavailable));
    assert_eq!(server.held().registrations, 3);
    server
        .register_with(peers[0], "ns", vec![0; record], None)
        .unwrap();
    server
        .register_with(peers[0], "ns", vec![0; 1], None)
        .unwrap();
    assert_eq!(server.held().bytes, room - record + 1);
    for peer in &peers {
        server.unregister(*peer, "ns");
    }
    assert_eq!(server.held(), Held::default());
}

#[test]
fn a_record_over_the_bound_is_refused() {
    let mut server = Server::new(|config| config.tuning.max_record_bytes = 256);
    let peer = PeerId::random();
    server
        .register_with(peer, "ns", vec![0; 256], None)
        .unwrap();
    let over = server.register_with(peer, "ns", vec![0; 257], None);
    assert_eq!(over, Err(Refusal::Record));
}

#[test]
fn a_life_is_within_the_specification_and_ends() {
    let mut server = Server::new(|_| {});
    let peer = PeerId::random();
    let mut ttl = |ttl| {
        server
            .register_with(peer, "ns", vec![1], ttl)
            .map(|r| r.ttl_s)
    };
    assert_eq!(ttl(None), Ok(7200));
    assert_eq!(ttl(Some(72 * 3600)), Ok(72 * 3600));
    for wrong in [0, 7199, 72 * 3600 + 1, u64::MAX] {
        assert_eq!(ttl(Some(wrong)), Err(Refusal::Ttl));
    }
    assert_eq!(ttl(Some(7200)), Ok(7200));

    server.now += HOUR;
    let (found, cookie) = server.ask("ns", None, None).unwrap();
    assert_eq!(found[0].ttl_s, 3600);
    assert_eq!(server.registry.next_expiry(), Some(server.now + HOUR));
    server.now += HOUR;
    assert!(server.ask("ns", None, None).unwrap().0.is_empty());
    assert_eq!(server.held(), Held::default());
    // The cookie outlives the namespace.
    server.register(peer, "ns").unwrap();
    let (found, _) = server.ask("ns", Some(&cookie), None).unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn a_cookie_of_another_registry_namespace_or_time_is_refused() {
    let mut server = Server::new(|_| {});
    server.register(PeerId::random(), "ns").unwrap();
    let (_, cookie) = server.ask("ns", None, Some(0)).unwrap();
    server.ask("ns", Some(&cookie), None).unwrap();
    assert_eq!(
        server.ask("other", Some(&cookie), None),
        Err(Refusal::Cookie)
    );
    assert_eq!(
        server.ask("ns", Some(&Bytes::new()), None),
        Err(Refusal::Cookie)
    );

    let mut restarted = Server::new(|_| {});
    assert_eq!(
        restarted.ask("ns", Some(&cookie), None),
        Err(Refusal::Cookie)
    );
    restarted.registry = Registry::new(RendezvousServerConfig::default(), 8);
    restarted.register(PeerId::random(), "ns").unwrap();
    assert_eq!(
        restarted.ask("ns", Some(&cookie), None),
        Err(Refusal::Cookie)
    );
}

#[test]
fn page_by_page_everybody_is_told_once_and_then_who_is_new() {
    let mut server = Server::new(|_| {});
    let members = peers(500);
    for member in &members {
        server.register(*member, "ns").unwrap();
        server.register(*member, "elsewhere").unwrap();
    }
    let (told, cookie) = server.ask_all(None, 7);
    assert_eq!(told.len(), 500);
    assert_eq!(
        BTreeSet::from_iter(told),
        BTreeSet::from_iter(members.clone())
    );

    let late = peers(20);
    for member in &late {
        server.register(*member, "ns").unwrap();
    }
    server.register(members[0], "ns").unwrap();
    server.unregister(late[3], "ns");
    let (told, cookie) = server.ask_all(Some(cookie), 6);
    let mut expected = late.clone();
    expected.remove(3);
    expected.push(members[0]);
    assert_eq!(told, expected, "in the order in which they came");
    assert!(server.ask("ns", Some(&cookie), None).unwrap().0.is_empty());
}

#[test]
fn a_page_is_bounded_in_number_and_bytes_whatever_is_asked_for() {
    let mut server = Server::new(|config| {
        config.tuning.max_answer = 10;
        config.tuning.max_record_bytes = 1024;
        config.tuning.max_answer_bytes = 4096;
    });
    for (index, member) in peers(100).into_iter().enumerate() {
        let namespace = if index < 50 { "short" } else { "long" };
        let record = if index < 50 { 10 } else { 1000 };
        server
            .register_with(member, namespace, vec![0; record], None)
            .unwrap();
    }
    for limit in [None, Some(u64::MAX), Some(11)] {
        assert_eq!(server.ask("short", None, limit).unwrap().0.len(), 10);
        assert_eq!(server.ask("long", None, limit).unwrap().0.len(), 3);
    }
    assert_eq!(server.ask("short", None, Some(2)).unwrap().0.len(), 2);
    assert_eq!(server.ask("short", None, Some(0)).unwrap().0.len(), 0);
}

#[test]
fn every_member_is_told_as_often_as_any_other() {
    let mut server = Server::new(|_| {});
    let members = peers(200);
    for member in &members {
        server.register(*member, "ns").unwrap();
    }
    let mut told = BTreeMap::new();
    for _ in 0..4000 {
        for found in server.ask("ns", None, Some(10)).unwrap().0 {
            *told.entry(peer(&found)).or_insert(0u32) += 1;
        }
    }
    // 200 each are expected, give or take 14: five times that is beyond chance.
    assert_eq!(told.len(), 200);
    for count in told.values() {
        assert!((130..=270).contains(count), "{count}");
    }
}

#[test]
fn made_up_members_fill_no_page_beyond_their_share() {
    let mut server = Server::new(|_| {});
    let honest = BTreeSet::from_iter(peers(100));
    for member in &honest {
        server.register(*member, "ns").unwrap();
    }
    // All at once, after all other peers.
    for sybil in peers(900) {
        server.register(sybil, "ns").unwrap();
    }
    let pages_without_honest = (0..1000)
        .filter(|_| {
            let (found, _) = server.ask("ns", None, Some(64)).unwrap();
            !found.iter().any(|found| honest.contains(&peer(found)))
        })
        .count();
    // 0.9^64 of a thousand pages: one.
    assert!(pages_without_honest <= 20, "{pages_without_honest}");
}

#[test]
fn a_question_examines_a_bounded_number_of_members() {
    let mut server = Server::new(|config| config.tuning.max_registrations_per_namespace = 100_000);
    let members = peers(3 * MAX_EXAMINED);
    for member in &members {
        server.register(*member, "ns").unwrap();
    }
    let (_, mut cookie) = server.ask("ns", None, Some(1)).unwrap();
    // All but the last refresh, so that a walk that began before passes nearly all of them over.
    for member in &members[1..] {
        server.register(*member, "ns").unwrap();
    }
    let mut told = BTreeSet::new();
    let mut questions = 0;
    while told.len() < members.len() - 1 {
        questions += 1;
        assert!(questions < 1000, "{} told", told.len());
        let (found, next) = server.ask("ns", Some(&cookie), None).unwrap();
        told.extend(found.iter().map(peer));
        cookie = next;
    }
    // Two empty answers at least: what is passed over is more than two questions examine.
    assert!(questions > (members.len() - 1) / 128 + 2, "{questions}");
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        peer: usize,
        namespace: usize,
        record: usize,
        ttl_h: u64,
    },
    Unregister {
        peer: usize,
        namespace: usize,
    },
    Ask {
        namespace: usize,
        go_on: bool,
        limit: u64,
    },
    Wait {
        minutes: u64,
    },
}

/// Room for some 15 registrations of the list below.
const MAX_BYTES: usize = 14_000;

/// The memory that a list would be counted for, its namespaces named by one letter.
fn counted(list: &BTreeMap<(PeerId, usize), (Vec<u8>, Instant)>) -> usize {
    let records = list
        .values()
        .map(|(record, _)| record.len() + REGISTRATION_OVERHEAD_BYTES);
    let peers: BTreeSet<_> = list.keys().map(|key| key.0).collect();
    let namespaces: BTreeSet<_> = list.keys().map(|key| key.1).collect();
    records.sum::<usize>()
        + peers.len() * PEER_OVERHEAD_BYTES
        + namespaces.len() * (1 + NAMESPACE_OVERHEAD_BYTES)
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, namespace) = (0..12usize, 0..3usize);
    prop_oneof![
        6 => (peer.clone(), namespace.clone(), 0..400usize, 0..80u64).prop_map(
            |(peer, namespace, record, ttl_h)| Step::Register { peer, namespace, record, ttl_h }),
        2 => (peer, namespace.clone()).prop_map(
            |(peer, namespace)| Step::Unregister { peer, namespace }),
        5 => (namespace, any::<bool>(), 0..6u64).prop_map(
            |(namespace, go_on, limit)| Step::Ask { namespace, go_on, limit }),
        1 => (0..600u64).prop_map(|minutes| Step::Wait { minutes }),
    ]
}

proptest! {
    /// Compares the registry with a simple list: both hold the same registrations, no limit is
    /// exceeded, every answer holds members only, and no member is returned twice for one cookie
    /// unless it registered again.
    #[test]
    fn it_holds_what_a_list_would(steps in prop::collection::vec(step(), 1..150)) {
        let mut server = Server::new(|config| {
            config.max_registrations = 20;
            config.tuning.max_registrations_per_peer = 2;
            config.tuning.max_registrations_per_namespace = 8;
            config.max_bytes = MAX_BYTES;
            config.tuning.max_record_bytes = 380;
            config.tuning.max_answer = 4;
        });
        let names = ["a", "b", "c"];
        let everybody = peers(12);
        let mut list: BTreeMap<(PeerId, usize), (Vec<u8>, Instant)> = BTreeMap::new();
        let mut asked: [Option<(Bytes, BTreeSet<Vec<u8>>)>; 3] = [const { None }; 3];
        let mut nonce = 0u64;
        for step in steps {
            match step {
                Step::Register { peer, namespace, record, ttl_h } => {
                    let peer = everybody[peer];
                    // Every record is one of its kind.
                    nonce += 1;
                    let mut bytes = nonce.to_be_bytes().to_vec();
                    bytes.resize(8 + record, 0);
                    let ttl_s = ttl_h * 3600;
                    let result = server.register_with(
                        peer, names[namespace], bytes.clone(), Some(ttl_s));
                    let key = (peer, namespace);
                    let before = list.get(&key).cloned();
                    let renewed = before.is_some();
                    match result {
                        Ok(registered) => {
                            prop_assert_eq!(registered, Registered { ttl_s, renewed });
                            list.insert(key, (bytes, server.now + Duration::from_secs(ttl_s)));
                        }
                        Err(Refusal::Ttl) => prop_assert!(!(2..=72).contains(&ttl_h)),
                        Err(Refusal::Record) => prop_assert!(bytes.len() > 380),
                        Err(refusal) => {
                            prop_assert_eq!(refusal, Refusal::Unavailable);
                            let full = list.len() == 20
                                || list.keys().filter(|key| key.0 == peer).count() == 2
                                || list.keys().filter(|key| key.1 == namespace).count() == 8;
                            list.insert(key, (bytes, server.now));
                            let heavy = counted(&list) > MAX_BYTES;
                            if let Some(before) = before {
                                list.insert(key, before);
                            } else {
                                list.remove(&key);
                            }
                            prop_assert!(heavy || (full && !renewed));
                        }
                    }
                }
                Step::Unregister { peer, namespace } => {
                    let peer = everybody[peer];
                    let was = list.remove(&(peer, namespace)).is_some();
                    prop_assert_eq!(server.unregister(peer, names[namespace]), was);
                }
                Step::Ask { namespace, go_on, limit } => {
                    let before = asked[namespace].take().filter(|_| go_on);
                    let (cookie, mut told) = before.unzip();
                    let told = told.get_or_insert_default();
                    let (found, next) =
                        server.ask(names[namespace], cookie.as_ref(), Some(limit)).unwrap();
                    prop_assert!(found.len() as u64 <= limit.min(4));
                    for found in &found {
                        let member = list.iter().find(|(_, (record, _))| **record == *found.record);
                        let (key, (_, until)) = member.expect("a member");
                        prop_assert_eq!(key.1, namespace);
                        let left = until.saturating_duration_since(server.now).as_secs();
                        prop_assert_eq!(found.ttl_s, left);
                        prop_assert!(told.insert(found.record.to_vec()), "told twice");
                    }
                    if found.is_empty() && limit > 0 {
                        let members = list.iter().filter(|(key, _)| key.1 == namespace);
                        for (_, (record, _)) in members {
                            prop_assert!(told.contains(record), "never told");
                        }
                    }
                    asked[namespace] = Some((next, std::mem::take(told)));
                }
                Step::Wait { minutes } => {
                    server.now += Duration::from_secs(60 * minutes);
                    let now = server.now;
                    server.registry.expire(now);
                    list.retain(|_, (_, until)| *until > now);
                }
            }
            let held = server.held();
            prop_assert_eq!(held.registrations, list.len());
            let held_by: BTreeSet<_> = list.keys().map(|key| key.0).collect();
            let held_in: BTreeSet<_> = list.keys().map(|key| key.1).collect();
            prop_assert_eq!((held.peers, held.namespaces), (held_by.len(), held_in.len()));
            prop_assert_eq!(held.bytes, counted(&list));
            prop_assert!(held.bytes <= MAX_BYTES);
            let next = list.values().map(|(_, until)| *until).min();
            prop_assert_eq!(server.registry.next_expiry(), next);
        }
    }

    /// Requests with invented cookies end and return at most a page.
    #[test]
    fn made_up_cookies_are_refused_or_answered(
        tail in prop::collection::vec(prop_oneof![Just(b'<'), Just(b'>'), Just(b'.'), b'0'..=b'9',
            b'a'..=b'f'], 0..40),
    ) {
        let mut server = Server::new(|_| {});
        for member in peers(10) {
            server.register(member, "ns").unwrap();
        }
        let (_, cookie) = server.ask("ns", None, Some(3)).unwrap();
        let mut made_up = cookie[..8].to_vec();
        made_up.extend(tail);
        match server.ask("ns", Some(&made_up.into()), None) {
            Ok((found, next)) => {
                prop_assert!(found.len() <= 10);
                server.ask("ns", Some(&next), None).unwrap();
            }
            Err(refusal) => prop_assert_eq!(refusal, Refusal::Cookie),
        }
    }
}

/// Resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// 10,000 nodes in the global namespace and 31 more each, as many as a node holds at one server.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_nodes_fit_into_the_memory_that_is_counted_for_them() {
    const NODES: usize = 10_000;
    const OVERLAYS: usize = 31;
    if ran_alone("ten_thousand_nodes_fit_into_the_memory_that_is_counted_for_them") {
        return;
    }
    let mut server = Server::new(|_| {});
    let nodes = peers(NODES);
    let namespaces: Vec<_> = std::iter::once("/calimero/devnet/global".to_owned())
        .chain((0..1000).map(|number| format!("/calimero/ctx/{number:044}")))
        .map(|name| Namespace::new(&name).unwrap())
        .collect();
    let before = resident();
    let started = Instant::now();
    let record = vec![7; 400];
    for (index, node) in nodes.iter().enumerate() {
        for overlay in 0..=OVERLAYS {
            // All nodes are in the first namespace, 310 nodes in each of the others.
            let namespace = match overlay {
                0 => &namespaces[0],
                _ => &namespaces[1 + (index * OVERLAYS + overlay) % 1000],
            };
            let (now, rng) = (server.now, &mut server.rng);
            server
                .registry
                .register(*node, namespace, &record, None, now, rng)
                .unwrap();
        }
    }
    let registered = started.elapsed();
    let grown = resident().saturating_sub(before);
    let held = server.held();
    assert_eq!(held.registrations, NODES * (1 + OVERLAYS));
    assert_eq!((held.peers, held.namespaces), (NODES, 1001));
    assert!(held.bytes <= RendezvousServerConfig::default().max_bytes);

    let started = Instant::now();
    for _ in 0..1000 {
        let (found, _) = server
            .ask("/calimero/devnet/global", None, Some(64))
            .unwrap();
        assert_eq!(found.len(), 64);
    }
    let asked = started.elapsed();
    println!(
        "{} registrations: {} MB counted, {} MB resident ({} bytes each besides the record); \
         {:.1} µs to register, {:.1} µs to ask for 64",
        held.registrations,
        held.bytes / 1_000_000,
        grown / 1_000_000,
        grown / held.registrations - 400,
        registered.as_secs_f64() * 1e6 / held.registrations as f64,
        asked.as_secs_f64() * 1e6 / 1000.0,
    );
    assert!(
        grown <= held.bytes,
        "{grown} resident, {} counted",
        held.bytes
    );
    server.now += 3 * HOUR;
    assert_eq!(server.registry.expire(server.now), NODES * (1 + OVERLAYS));
    assert_eq!(server.held(), Held::default());
}

/// What costs most for its bytes: peers with one registration each, in namespaces of their own.
#[cfg(target_os = "linux")]
#[test]
fn whoever_spreads_thin_is_counted_in_full() {
    if ran_alone("whoever_spreads_thin_is_counted_in_full") {
        return;
    }
    let mut server = Server::new(|config| config.max_bytes = 32 << 20);
    let before = resident();
    let mut registered = 0;
    loop {
        let name = format!("/calimero/ctx/{registered:020}");
        match server.register_with(PeerId::random(), &name, vec![7; 20], None) {
            Ok(_) => registered += 1,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Unavailable);
                break;
            }
        }
    }
    let grown = resident().saturating_sub(before);
    println!("{registered} registered, {} bytes each", grown / registered);
    assert!(registered > 10_000, "{registered}");
    assert!(grown <= 32 << 20, "{grown}");
}
