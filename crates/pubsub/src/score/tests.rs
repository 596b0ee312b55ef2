use proptest::prelude::*;

use super::*;

mod points;

const SECOND: Duration = Duration::from_secs(1);

fn scores() -> Scores {
    Scores::new(ScoreParams::default())
}

fn topic() -> TopicHash {
    TopicHash::from_raw("topic")
}

#[test]
fn preferences_order_peers_and_never_exclude_one() {
    let (mut scores, now) = (scores(), Instant::now());
    let mut score = |preference| {
        let peer = PeerId::random();
        scores.prefer(peer, preference, now);
        scores.score(&peer, now)
    };
    let wanted = [f64::NEG_INFINITY, -50.0, 0.0, 50.0, f64::INFINITY].map(&mut score);
    assert_eq!(wanted, [0.0, 50.0, 100.0, 150.0, 200.0]);
    assert_eq!(score(f64::NAN), BASE_SCORE);
    assert_eq!(scores.score(&PeerId::random(), now), BASE_SCORE);
}

#[test]
fn faults_fade() {
    let (mut scores, now) = (scores(), Instant::now());
    let peer = PeerId::random();
    assert_eq!(scores.fault(peer, Fault::Invalid(4), now), Verdict::Lower);
    assert_eq!(scores.score(&peer, now), -100.0);
    assert!(scores.score(&peer, now + HALF_LIFE).abs() < 0.001);
    assert!(scores.score(&peer, now + HALF_LIFE * 20) > 99.9);
}

#[test]
fn many_faults_ban_once_and_a_ban_ends() {
    let (mut scores, now) = (scores(), Instant::now());
    let peer = PeerId::random();
    let verdicts: Vec<_> = (0..25)
        .map(|_| scores.fault(peer, Fault::Invalid(1), now))
        .collect();
    let bans = verdicts.iter().filter(|v| **v == Verdict::Ban).count();
    assert_eq!((bans, verdicts[19]), (1, Verdict::Ban));
    assert!(scores.is_banned(&peer, now + SECOND * 30));
    assert!(!scores.is_banned(&peer, now + SECOND * 60));
}

#[test]
fn two_thousand_topics_at_a_heartbeat_are_no_fault_and_a_flood_is() {
    let (mut scores, mut now) = (scores(), Instant::now());
    let (honest, flooder) = (PeerId::random(), PeerId::random());
    for _ in 0..100 {
        scores.fault(honest, Fault::Control(6_000), now);
        now += SECOND;
    }
    assert_eq!(scores.score(&honest, now), BASE_SCORE);
    let mut banned = false;
    for _ in 0..20 {
        banned |= scores.fault(flooder, Fault::Control(10_000), now) == Verdict::Ban;
        now += Duration::from_millis(50);
    }
    assert!(banned);
}

/// P1 and P2 decide between peers of equal preference, and are below one point together.
#[test]
fn time_in_a_mesh_and_first_deliveries_count_a_little() {
    let (mut scores, now) = (scores(), Instant::now());
    let (member, other) = (PeerId::random(), PeerId::random());
    scores.grafted(member, topic(), now);
    let hour = now + SECOND * 3600;
    assert!(scores.score(&member, hour) > scores.score(&other, hour));
    let long = scores.score(&member, hour + SECOND * 360_000);
    for _ in 0..10_000 {
        scores.delivered(member, &topic(), true, hour);
    }
    let best = scores.score(&member, hour + SECOND);
    assert!(long < best && best < BASE_SCORE + 1.0, "{long} {best}");
}

/// P3 and P3b: a member that delivers nothing where others do, once that is turned on.
#[test]
fn a_silent_member_of_a_busy_mesh_falls_where_deficits_count() {
    let params = ScoreParams {
        delivery_deficit: 10.0,
        ..ScoreParams::default()
    };
    let (mut scores, now) = (Scores::new(params), Instant::now());
    let (busy, silent, quiet) = (PeerId::random(), PeerId::random(), PeerId::random());
    let idle = TopicHash::from_raw("idle");
    scores.grafted(busy, topic(), now);
    scores.grafted(silent, topic(), now);
    scores.grafted(quiet, idle, now);
    let later = now + ACTIVATION;
    for _ in 0..100 {
        scores.delivered(busy, &topic(), false, later);
    }
    assert!(scores.score(&busy, later) >= BASE_SCORE);
    assert!(
        scores.score(&quiet, later) >= BASE_SCORE,
        "a topic without traffic"
    );
    let low = scores.score(&silent, later);
    assert!(low < MESH_SCORE, "{low}");
    scores.pruned(&silent, &topic(), later);
    assert!(
        scores.score(&silent, later) < BASE_SCORE,
        "the deficit was forgotten"
    );
}

/// P6: many peers behind one address, once that is turned on.
#[test]
fn peers_that_share_an_address_fall_where_that_counts() {
    let params = ScoreParams {
        ip_colocation: 5.0,
        ip_tolerance: 2,
        ..ScoreParams::default()
    };
    let (mut scores, now) = (Scores::new(params), Instant::now());
    let ip = IpAddr::from([192, 0, 2, 1]);
    let peers: Vec<_> = (0..10).map(|_| PeerId::random()).collect();
    for (index, peer) in peers.iter().enumerate() {
        scores.connected(*peer, ip, now);
        assert_eq!(scores.score(peer, now) < BASE_SCORE, index >= 2);
    }
    assert!(scores.score(&peers[0], now) < MESH_SCORE);
    for peer in &peers[1..] {
        scores.disconnected(peer, now);
    }
    assert_eq!(scores.score(&peers[0], now), BASE_SCORE);
}

#[test]
fn as_many_as_fit_are_remembered_the_worst_first() {
    let (mut scores, now) = (scores(), Instant::now());
    let worst = PeerId::random();
    scores.fault(worst, Fault::Invalid(20), now);
    for _ in 0..MAX_PEERS + 100 {
        scores.fault(PeerId::random(), Fault::Invalid(1), now);
    }
    assert_eq!(scores.peers.len(), MAX_PEERS);
    assert!(scores.is_banned(&worst, now));
}

/// A peer that keeps one connection and opens and closes others from changing addresses.
#[test]
fn addresses_are_forgotten_with_their_connections() {
    let (mut scores, now) = (scores(), Instant::now());
    let (peer, other) = (PeerId::random(), PeerId::random());
    let kept = IpAddr::from([192, 0, 2, 1]);
    scores.connected(peer, kept, now);
    scores.connected(other, kept, now);
    for number in 0..20_u32 {
        let ip = IpAddr::from(number.to_be_bytes());
        // Two connections from the one address, and two from the other.
        for ip in [ip, ip, kept] {
            scores.connected(peer, ip, now);
        }
        for ip in [ip, ip, kept] {
            scores.connection_closed(&peer, ip);
        }
    }
    assert_eq!(scores.peers[&peer].ips, [(kept, 1)]);
    assert_eq!(scores.by_ip, HashMap::from([(kept, 2)]));
    scores.connection_closed(&peer, kept);
    scores.connection_closed(&peer, kept);
    scores.disconnected(&peer, now);
    scores.disconnected(&other, now);
    assert!(scores.by_ip.is_empty());
}

#[test]
fn a_peer_that_breaks_all_its_promises_falls_and_one_that_breaks_some_does_not() {
    let (mut scores, mut now) = (scores(), Instant::now());
    let peers: [PeerId; 4] = std::array::from_fn(|_| PeerId::random());
    let heartbeats = [(5_000, 0), (1, 99), (50, 4_950), (1, 0)];
    for _ in 0..20 {
        for (peer, (broken, kept)) in peers.iter().zip(heartbeats) {
            scores.fault(*peer, Fault::Promise { broken, kept }, now);
        }
        now += SECOND;
    }
    let [all, one, few, slow] = peers.map(|peer| scores.score(&peer, now));
    assert!(all < GOSSIP_SCORE, "{all}");
    assert!(
        one > 99.0 && few > 95.0 && slow > 80.0,
        "{one} {few} {slow}"
    );
}

proptest! {
    /// Without faults no preference leads below zero, whatever else happens.
    #[test]
    fn a_peer_without_faults_is_never_below_zero(
        preferences in prop::collection::vec(any::<f64>(), 1..20),
        control in 0..16_384usize,
    ) {
        let (mut scores, now) = (scores(), Instant::now());
        let peer = PeerId::random();
        for preference in preferences {
            scores.prefer(peer, preference, now);
            prop_assert!(scores.score(&peer, now) >= 0.0);
        }
        scores.fault(peer, Fault::Control(control), now);
        prop_assert!(scores.score(&peer, now) >= 0.0);
    }
}
