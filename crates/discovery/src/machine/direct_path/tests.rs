use calimero_network_primitives::{
    addr::DialPolicy,
    config::{BookTuning, DiscoveryConfig},
};
use rand::SeedableRng as _;

use super::{super::connections::Arrival, *};

/// The part, what it decides with, and what it asks for.
struct Rig {
    part: DirectPath,
    connections: Connections,
    book: AddressBook,
    rng: StdRng,
    out: VecDeque<Effect>,
}

#[expect(clippy::disallowed_methods, reason = "a test has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn dial_addr(peer: &PeerId, text: &str) -> DialAddr {
    DialAddr::of_peer(peer, &text.parse().unwrap(), DialPolicy::Local).unwrap()
}

fn via(peer: &PeerId) -> DialAddr {
    let relay = PeerId::random();
    dial_addr(
        peer,
        &format!("/ip4/203.0.113.1/tcp/1/p2p/{relay}/p2p-circuit"),
    )
}

impl Rig {
    fn new() -> Self {
        Self {
            part: DirectPath::new(&RelayTuning::default()),
            connections: Connections::default(),
            book: AddressBook::new(DiscoveryConfig::default().max_peers, BookTuning::default()),
            rng: StdRng::seed_from_u64(1),
            out: VecDeque::new(),
        }
    }

    /// A connection through a relay that this node dialled.
    fn relayed(&mut self, peer: PeerId, now: Instant) {
        self.connections
            .opened(peer, Path::Relayed, Arrival::default(), now);
        let best = self.connections.path(&peer);
        self.part.on_opened(
            peer,
            Path::Relayed,
            best,
            Some(&via(&peer)),
            now,
            &mut self.rng,
        );
    }

    fn closed(&mut self, peer: PeerId, path: Path, now: Instant) {
        self.connections.closed(peer, path);
        let best = self.connections.path(&peer);
        self.part.on_closed(peer, path, best, now, &mut self.rng);
    }

    fn ended(&mut self, peer: PeerId, outcome: HolePunch, now: Instant) {
        let best = self.connections.path(&peer);
        (self.part).on_ended(peer, outcome, best, now, &mut self.rng, &mut self.out);
    }

    fn advance(&mut self, now: Instant) -> Vec<Effect> {
        let Self {
            part,
            connections,
            book,
            rng,
            out,
        } = self;
        part.advance(connections, book, now, rng, out);
        out.drain(..).collect()
    }

    /// The dials of all attempts end without a connection.
    fn end_attempts(&mut self) {
        for id in self.part.attempts.keys().copied().collect::<Vec<_>>() {
            self.part.end(id);
        }
    }

    /// The waits between `count` rounds, each of which begins when it is due.
    fn waits(&mut self, peer: PeerId, start: Instant, count: usize) -> Vec<Duration> {
        let mut at = start;
        let wait = |_| {
            self.relayed(peer, at);
            let due = self.part.next_round(&peer).unwrap();
            assert!(self.advance(due - Duration::from_millis(1)).is_empty());
            assert!(rounds(&self.advance(due)).any(|round| round == peer));
            self.end_attempts();
            let wait = due - at;
            at = due;
            wait
        };
        (0..count).map(wait).collect()
    }
}

fn rounds(effects: &[Effect]) -> impl Iterator<Item = PeerId> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Attempt {
            kind: AttemptKind::Round,
            peer,
            ..
        } => Some(*peer),
        _ => None,
    })
}

#[test]
fn waits_grow_to_some_minutes_and_stay_there() {
    let waits = Rig::new().waits(PeerId::random(), start(), 12);
    for (wait, seconds) in waits.iter().zip([45, 90, 180, 300, 300, 300]) {
        let middle = Duration::from_secs(seconds);
        assert!(*wait >= middle.mul_f64(0.75), "{waits:?}");
        assert!(*wait <= middle.mul_f64(1.25), "{waits:?}");
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(375)));
}

#[test]
fn a_lost_connection_does_not_reset_the_waits_but_time_does() {
    let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
    rig.waits(peer, start, 4);
    for _ in 0..4 {
        rig.closed(peer, Path::Relayed, start);
    }
    assert_eq!(rig.part.next_round(&peer), None);
    rig.relayed(peer, start);
    let wait = rig.part.next_round(&peer).unwrap() - start;
    assert!(wait > Duration::from_secs(200), "{wait:?}");
    rig.closed(peer, Path::Relayed, start);
    assert_eq!(rounds(&rig.advance(start + MEMORY)).count(), 0);
    assert_eq!((rig.part.len(), rig.part.next()), (0, None));
}

#[test]
fn the_reason_follows_the_rounds() {
    let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
    let why = |rig: &Rig, at| rig.part.why_relayed(&peer, at);
    assert_eq!(why(&rig, start), WhyRelayed::DialledByPeer);
    rig.relayed(peer, start);
    assert_eq!(why(&rig, start), WhyRelayed::Punching { round: 1 });
    rig.ended(peer, HolePunch::Failed, start);
    assert_eq!(why(&rig, start), WhyRelayed::Failed { rounds: 1 });
    let due = rig.part.next_round(&peer).unwrap();
    rig.advance(due);
    rig.relayed(peer, due);
    assert_eq!(why(&rig, due), WhyRelayed::Punching { round: 2 });
    // A peer without DCUtR does not report the end of the round.
    assert_eq!(why(&rig, due + ROUND), WhyRelayed::Failed { rounds: 2 });
}

#[test]
fn a_round_that_is_known_to_have_failed_is_followed_sooner() {
    let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
    rig.ended(peer, HolePunch::Failed, start);
    assert_eq!((rig.part.next(), rig.out.len()), (None, 0));
    rig.relayed(peer, start);
    rig.ended(peer, HolePunch::Failed, start);
    let outcome = HolePunch::Failed;
    assert_eq!(
        rig.out.pop_front(),
        Some(Effect::HolePunchEnded { peer, outcome })
    );
    let due = rig.part.next_round(&peer).unwrap();
    assert!(due <= start + Duration::from_secs(7));
    // Its end was reported, so only the round is asked for.
    assert_eq!(rig.advance(due).len(), 1);
    // The dial of the round made no connection: it is due again.
    assert!(rig.part.next_round(&peer).unwrap() > due);
}

#[test]
fn a_direct_peer_has_no_rounds() {
    let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
    rig.relayed(peer, start);
    rig.part.on_opened(
        peer,
        Path::Direct,
        Some(Path::Direct),
        None,
        start,
        &mut rig.rng,
    );
    assert_eq!((rig.part.next(), rig.part.next_round(&peer)), (None, None));
    rig.part
        .on_closed(peer, Path::Direct, Some(Path::Relayed), start, &mut rig.rng);
    assert!(rig.part.next_round(&peer).is_some());
}

#[test]
fn another_network_is_tried_at_once() {
    let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
    rig.waits(peer, start, 6);
    rig.relayed(peer, start);
    rig.part.retry_now(start, &mut rig.rng);
    assert!(rig.part.next_round(&peer).unwrap() <= start + Duration::from_secs(7));
}

#[test]
fn the_connection_of_a_round_is_closed_after_it_unless_it_is_the_only_one() {
    for others in [0, 1] {
        let (start, peer, mut rig) = (start(), PeerId::random(), Rig::new());
        rig.relayed(peer, start);
        let due = rig.part.next_round(&peer).unwrap();
        let effects = rig.advance(due);
        let Some(Effect::Attempt { id, .. }) = effects.last() else {
            panic!("{effects:?}");
        };
        let mut out = VecDeque::new();
        rig.part.on_connected(*id, Path::Relayed, due, &mut out);
        rig.relayed(peer, due);
        if others == 0 {
            rig.closed(peer, Path::Relayed, due);
        }
        let closed = rig.advance(due + ROUND).into_iter();
        let closed =
            closed.filter(|e| matches!(e, Effect::CloseAttempt { id: of, .. } if of == id));
        assert_eq!(closed.count(), others);
    }
}

#[test]
fn a_hole_is_passed_after_the_head_start_of_the_peer() {
    let (start, mut rig) = (start(), Rig::new());
    let at = |seconds| start + Duration::from_secs(seconds);
    let [relayed, direct, gone] = [0; 3].map(|_| PeerId::random());
    rig.connections
        .opened(relayed, Path::Relayed, Arrival::default(), start);
    rig.connections
        .opened(direct, Path::Direct, Arrival::default(), start);
    let addresses = vec![dial_addr(&relayed, "/ip4/203.0.113.1/tcp/1")];
    for peer in [relayed, direct, gone] {
        rig.part.on_awaited(peer, addresses.clone(), start);
    }
    rig.part.on_awaited(relayed, addresses.clone(), at(1));
    assert_eq!(rig.part.next(), Some(at(3)));
    assert!(rig.advance(at(3)).is_empty());
    let dials: Vec<_> = rig.advance(at(4)).into_iter().map(|e| e.peer()).collect();
    assert_eq!(dials, [Some(relayed)]);
}

#[test]
fn no_more_is_kept_than_the_bounds_allow() {
    let (start, mut rig) = (start(), Rig::new());
    for _ in 0..=MAX_PEERS {
        rig.relayed(PeerId::random(), start);
        rig.part.on_awaited(PeerId::random(), Vec::new(), start);
    }
    assert_eq!(rig.part.len(), MAX_PEERS);
    assert_eq!(rig.part.awaited.len(), MAX_AWAITED);
}

#[test]
fn a_dial_back_is_made_at_known_direct_addresses_and_bounded() {
    let (start, mut rig) = (start(), Rig::new());
    let mut dialled = 0;
    for n in 0..=MAX_DIAL_BACKS {
        let peer = PeerId::random();
        let best = Some(Path::Relayed);
        let direct = dial_addr(&peer, &format!("/ip4/203.0.113.1/tcp/{}", n + 1));
        let known = [via(&peer), direct.clone()].into_iter();
        rig.book.learn(peer, known, Duration::ZERO, start, |_| ());
        rig.part
            .dial_back(peer, best, &rig.book, start, &mut rig.out);
        let direct = vec![direct];
        dialled += rig.out.drain(..).filter(|effect| {
            matches!(effect, Effect::Attempt { addresses, .. } if *addresses == direct)
        }).count();
    }
    assert_eq!(dialled, MAX_DIAL_BACKS);
    // An end that the driver does not report is assumed.
    rig.advance(start + DIAL_TIMEOUT);
    assert!(rig.part.attempts.is_empty());
}

fn dials_back(rig: &mut Rig, peer: PeerId, now: Instant) -> usize {
    let direct = [dial_addr(&peer, "/ip4/203.0.113.1/tcp/1")].into_iter();
    rig.book.learn(peer, direct, Duration::ZERO, now, |_| ());
    let best = Some(Path::Relayed);
    rig.part.dial_back(peer, best, &rig.book, now, &mut rig.out);
    rig.end_attempts();
    rig.out.drain(..).count()
}

#[test]
fn reports_of_addresses_direct_few_dials() {
    let (start, mut rig) = (start(), Rig::new());
    let at = |seconds| start + Duration::from_secs(seconds);
    // A peer that reports all the time is dialled once a minute, and at once after another
    // connection, with which it begins a round.
    let peer = PeerId::random();
    let dials = (0..120).map(|second| dials_back(&mut rig, peer, at(second)));
    assert_eq!(dials.sum::<usize>(), 2);
    let best = Some(Path::Relayed);
    (rig.part).on_opened(peer, Path::Relayed, best, None, at(120), &mut rig.rng);
    assert_eq!(dials_back(&mut rig, peer, at(120)), 1);
    assert_eq!(dials_back(&mut rig, peer, at(121)), 0);
    rig.closed(peer, Path::Relayed, at(122));
    assert_eq!(dials_back(&mut rig, peer, at(122)), 1);
    // Any number of peers together direct a bounded number of dials.
    let peers = (0..2 * MAX_DIAL_BACKS_A_MINUTE).map(|_| PeerId::random());
    let dials = peers.map(|peer| dials_back(&mut rig, peer, at(300)));
    assert_eq!(dials.sum::<usize>(), MAX_DIAL_BACKS_A_MINUTE);
}
