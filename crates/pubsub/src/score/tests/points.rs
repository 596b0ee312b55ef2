//! How many points each fault and each parameter is worth.

use super::*;

/// Points that faults take from a peer of which nothing else is known.
fn points(faults: &[Fault]) -> f64 {
    let (mut scores, now) = (scores(), Instant::now());
    let peer = PeerId::random();
    for fault in faults {
        assert_eq!(scores.fault(peer, *fault, now), Verdict::Lower);
    }
    BASE_SCORE - scores.score(&peer, now)
}

fn promise(broken: usize, kept: usize) -> Fault {
    Fault::Promise { broken, kept }
}

#[test]
fn each_fault_takes_its_points() {
    for (fault, expected) in [
        (Fault::Invalid(3), 150.0),
        (Fault::Excess(128), 2.0),
        (Fault::Replayed(7), 7.0),
        (Fault::Backoff(24), 3.0),
        (Fault::Control(16_384), 0.0),
        (Fault::Control(16_384 + 640), 10.0),
        (promise(0, 0), 0.0),
        (promise(0, 100), 0.0),
        (promise(1, 0), 1.0),
        (promise(5, 5), 0.5),
        (promise(20, 60), 1.0),
        (promise(30, 0), 6.0),
        (promise(60, 0), 12.0),
        (promise(5_000, 0), 12.0),
    ] {
        assert_eq!(points(&[fault]), expected, "{fault:?}");
    }
}

#[test]
fn control_beyond_the_burst_counts_in_full() {
    let all = [
        Fault::Control(16_384),
        Fault::Control(64),
        Fault::Control(64),
    ];
    assert_eq!(points(&all), 2.0);
}

#[test]
fn the_allowance_for_control_grows_with_time_and_not_beyond_the_burst() {
    let (mut scores, now) = (scores(), Instant::now());
    let peer = PeerId::random();
    let mut lost = |count, at: Instant| {
        let before = scores.score(&peer, at);
        scores.fault(peer, Fault::Control(count), at);
        before - scores.score(&peer, at)
    };
    assert_eq!(lost(16_384, now), 0.0);
    let second = now + SECOND;
    assert_eq!(lost(8_192, second), 0.0);
    assert_eq!(lost(64, second), 1.0);
    let hour = now + SECOND * 3600;
    assert_eq!(lost(16_384, hour), 0.0);
    assert_eq!(lost(64, hour), 1.0);
}

#[test]
fn a_ban_begins_at_its_points_and_clears_them() {
    let (mut scores, now) = (scores(), Instant::now());
    let peer = PeerId::random();
    assert_eq!(
        scores.fault(peer, Fault::Replayed(999), now),
        Verdict::Lower
    );
    assert!(!scores.is_banned(&peer, now));
    assert_eq!(scores.fault(peer, Fault::Replayed(1), now), Verdict::Ban);
    assert!(scores.is_banned(&peer, now));
    assert_eq!(scores.score(&peer, now), BASE_SCORE);
    assert!(!scores.is_banned(&PeerId::random(), now));
}

/// Scores are stored at most once a second, which must change nothing that is read.
#[test]
fn a_score_does_not_depend_on_when_it_is_stored() {
    let (mut scores, now) = (scores(), Instant::now());
    let (often, once) = (PeerId::random(), PeerId::random());
    for peer in [often, once] {
        scores.fault(peer, Fault::Invalid(4), now);
    }
    for step in 1..=100 {
        let at = now + Duration::from_millis(300) * step;
        scores.fault(often, Fault::Invalid(0), at);
    }
    let at = now + SECOND * 60;
    let (often, once) = (scores.score(&often, at), scores.score(&once, at));
    assert!((often - once).abs() < 1e-9, "{often} {once}");
    assert!(once.abs() < 1e-9, "{once}");
}

#[test]
fn hours_in_meshes_count_for_each_mesh_and_end_with_it() {
    let params = ScoreParams {
        time_in_mesh: 0.01,
        ..ScoreParams::default()
    };
    let (mut scores, now) = (Scores::new(params), Instant::now());
    let peer = PeerId::random();
    let gained = |scores: &Scores, hours: u32| {
        let score = scores.score(&peer, now + SECOND * 3600 * hours);
        ((score - BASE_SCORE) * 1e6).round() / 1e6
    };
    scores.grafted(peer, topic(), now);
    assert_eq!(gained(&scores, 2), 0.02);
    let other = TopicHash::from_raw("other");
    scores.grafted(peer, other.clone(), now + SECOND * 3600);
    assert_eq!(gained(&scores, 2), 0.03);
    assert_eq!(gained(&scores, 4), 0.07);
    scores.pruned(&peer, &other, now + SECOND * 3600 * 4);
    assert_eq!(gained(&scores, 5), 0.05);
    // Time in a mesh is never worth more than this.
    assert_eq!(gained(&scores, 10_000), 0.4);
    scores.disconnected(&peer, now + SECOND * 3600 * 5);
    assert_eq!(gained(&scores, 6), 0.0);
}

#[test]
fn first_deliveries_fade_and_others_do_not_count() {
    let (mut scores, now) = (scores(), Instant::now());
    let (first, second) = (PeerId::random(), PeerId::random());
    for _ in 0..20 {
        scores.delivered(first, &topic(), true, now);
        scores.delivered(second, &topic(), false, now);
    }
    assert_eq!(scores.score(&first, now), BASE_SCORE + 0.2);
    assert_eq!(scores.score(&second, now), BASE_SCORE);
    let later = scores.score(&first, now + HALF_LIFE);
    assert!((later - BASE_SCORE - 0.1).abs() < 1e-9, "{later}");
    for _ in 0..1_000 {
        scores.delivered(first, &topic(), true, now);
    }
    assert_eq!(scores.score(&first, now), BASE_SCORE + P2_CAP);
}

/// Nothing is expected before [`ACTIVATION`], and then half of what the busiest member delivers, at
/// most 5 messages.
#[test]
fn a_deficit_is_the_square_of_what_is_missing() {
    let params = ScoreParams {
        delivery_deficit: 1.0,
        time_in_mesh: 0.0,
        ..ScoreParams::default()
    };
    let (mut scores, now) = (Scores::new(params), Instant::now());
    let (busy, lazy) = (PeerId::random(), PeerId::random());
    for peer in [busy, lazy] {
        scores.grafted(peer, topic(), now);
    }
    let active = now + ACTIVATION;
    let lost = |scores: &Scores| BASE_SCORE - scores.score(&lazy, active);
    for _ in 0..4 {
        scores.delivered(busy, &topic(), false, active);
    }
    let early = active - Duration::from_nanos(1);
    assert_eq!(scores.score(&lazy, early), BASE_SCORE);
    assert_eq!(lost(&scores), 4.0);
    for _ in 0..96 {
        scores.delivered(busy, &topic(), false, active);
    }
    assert_eq!(lost(&scores), 25.0);
    scores.delivered(lazy, &topic(), false, active);
    assert_eq!(lost(&scores), 16.0);
    assert_eq!(scores.score(&busy, active), BASE_SCORE);
    // P3b: what was missing when it left the mesh counts on.
    scores.pruned(&lazy, &topic(), active);
    assert_eq!(lost(&scores), 16.0);
    let later = BASE_SCORE - scores.score(&lazy, active + HALF_LIFE);
    assert!((later - 8.0).abs() < 1e-9, "{later}");
}

#[test]
fn peers_behind_one_address_count_in_squares() {
    let params = ScoreParams {
        ip_colocation: 2.0,
        ip_tolerance: 1,
        ..ScoreParams::default()
    };
    let (mut scores, now) = (Scores::new(params), Instant::now());
    let ips = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    let peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
    for peer in &peers {
        scores.connected(*peer, ips[0], now);
    }
    assert_eq!(scores.score(&peers[0], now), BASE_SCORE - 2.0 * 9.0);
    scores.connected(peers[0], ips[1], now);
    scores.connected(peers[1], ips[1], now);
    assert_eq!(scores.score(&peers[0], now), BASE_SCORE - 2.0 * 10.0);
    scores.connection_closed(&peers[3], ips[0]);
    assert_eq!(scores.score(&peers[0], now), BASE_SCORE - 2.0 * 5.0);
}

/// The order in which peers are forgotten: the one of which there is least to remember first.
#[test]
fn the_peer_that_matters_least_is_forgotten() {
    let now = Instant::now();
    let [liked, disliked, faulty, old, recent] = [(); 5].map(|()| PeerId::random());
    let mut scores = scores();
    scores.fault(faulty, Fault::Replayed(1), now);
    scores.prefer(liked, 1.0, now);
    scores.prefer(disliked, -1.0, now);
    scores.prefer(old, 0.0, now);
    scores.prefer(recent, 0.0, now + SECOND * 2);
    scores.connected(old, IpAddr::from([192, 0, 2, 1]), now);
    let at = now + SECOND * 3;
    for forgotten in [old, recent] {
        scores.forget_one(at);
        assert!(!scores.peers.contains_key(&forgotten));
    }
    assert!(scores.by_ip.is_empty());
    scores.forget_one(at);
    scores.forget_one(at);
    assert_eq!(scores.peers.keys().collect::<Vec<_>>(), [&faulty]);
}
