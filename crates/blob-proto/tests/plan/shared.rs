//! Other peers that fetch the blob at the same time.

use std::{collections::BTreeSet, time::Duration};

use calimero_network_blob::plan::{Effect, Input, Planner, PlannerConfig};
use calimero_network_primitives::PeerId;

use crate::sim::{CHUNK, asked, default_config, peer};

/// The chunks that effects ask of one provider.
fn asked_of(effects: Vec<Effect>, of: PeerId) -> BTreeSet<u64> {
    let asked = asked(effects).into_iter();
    let of = asked.filter(|(peer, _)| *peer == of);
    of.flat_map(|(_, chunks)| chunks).collect()
}

#[test]
fn a_complete_provider_is_asked_for_what_no_part_has() {
    for seed in 1..50 {
        let config = PlannerConfig {
            seed,
            ..default_config()
        };
        let mut planner = Planner::new(config, 0..10);
        let (part, whole) = (peer(1), peer(2));
        let now = Duration::ZERO;
        planner.handle(Input::Found(part), now);
        let chunks = Vec::from([0..5, 6..9]);
        planner.handle(Input::Has { peer: part, chunks }, now);
        let effects = planner.handle(Input::Found(whole), now);
        assert_eq!(asked_of(effects, whole), BTreeSet::from([5, 9]));
        // The part is silent, so it does not keep its chunks from the complete provider.
        let mut asked = BTreeSet::new();
        for index in [5, 9] {
            let verified = Input::Verified { peer: whole, index };
            let later = now + Duration::from_millis(1100);
            asked.extend(asked_of(planner.handle(verified, later), whole));
        }
        assert!(!asked.is_empty(), "seed {seed}");
    }
}

#[test]
fn the_rarest_chunk_is_asked_for_first() {
    for seed in 1..50 {
        let config = PlannerConfig {
            seed,
            provider_window_chunks: 1,
            ..default_config()
        };
        // All but the first three chunks, so that each provider is asked for one of those at first.
        let mut planner = Planner::new(config, 0..20);
        let now = Duration::ZERO;
        for (seed, chunks) in [
            (1, Vec::from([1..20])),
            (2, vec![0..7, 8..20]),
            (3, vec![0..7, 8..20]),
        ] {
            let peer = peer(seed);
            planner.handle(Input::Found(peer), now);
            planner.handle(Input::Has { peer, chunks }, now);
        }
        // Only the first one has chunk 7.
        let mut next = BTreeSet::new();
        for index in 0..20 {
            let verified = Input::Verified {
                peer: peer(1),
                index,
            };
            let was_asked = planner.is_asked(&peer(1));
            let effects = planner.handle(verified, now);
            next.extend(asked_of(effects, peer(1)));
            if was_asked && !next.is_empty() {
                break;
            }
        }
        assert_eq!(next, BTreeSet::from([7]), "seed {seed}");
    }
}

#[test]
fn a_chunk_that_is_put_off_is_asked_for_again_after_its_time() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, now) = (peer(1), Duration::ZERO);
    assert_eq!(asked(planner.handle(Input::Found(one), now)), [(one, 0..1)]);
    let after = Duration::from_secs(2);
    let absent = Input::Absent {
        peer: one,
        index: 0,
        retry_after: Some(after),
    };
    assert_eq!(asked(planner.handle(absent, now)), []);
    assert_eq!(planner.next_timeout(), Some(after));
    let before = after - Duration::from_millis(1);
    assert_eq!(asked(planner.handle(Input::Tick, before)), []);
    assert_eq!(asked(planner.handle(Input::Tick, after)), [(one, 0..1)]);
}

/// Reports `has` as a part of the blob.
fn part(planner: &mut Planner, peer: PeerId, has: std::ops::Range<u64>) -> Vec<Effect> {
    let mut effects = planner.handle(Input::Found(peer), Duration::ZERO);
    let chunks = Vec::from([has]);
    effects.extend(planner.handle(Input::Has { peer, chunks }, Duration::ZERO));
    effects
}

/// Runs a complete provider that sends a chunk in 100 ms, and others that put off each chunk after
/// `delay`. Returns when the transfer is complete, or `None` after 10 s.
fn with_chunks_put_off(delays: &[Duration], retry_after: Duration) -> Option<Duration> {
    let mut planner = Planner::new(default_config(), 0..10);
    let whole = peer(100);
    let parts: Vec<_> = (1..)
        .zip(delays)
        .map(|(seed, delay)| (peer(seed), *delay))
        .collect();
    let mut due = BTreeSet::new();
    let mut effects = Vec::new();
    for (peer, _) in &parts {
        effects.extend(part(&mut planner, *peer, 5..6));
    }
    effects.extend(planner.handle(Input::Found(whole), Duration::ZERO));
    let mut now = Duration::ZERO;
    loop {
        for effect in effects {
            match effect {
                Effect::Read { peer, chunks } => {
                    let mut parts = parts.iter().filter(|(part, _)| *part == peer);
                    let delay = parts
                        .next()
                        .map_or(Duration::from_millis(100), |(_, delay)| *delay);
                    due.extend(chunks.map(|index| (now + delay, peer, index)));
                }
                Effect::Cancel { peer } | Effect::Leave { peer, .. } => {
                    due.retain(|(_, of, _)| *of != peer);
                }
                Effect::Done => return Some(now),
                Effect::NoProviders { .. } => return None,
            }
        }
        let tick = planner.next_timeout();
        let next = due.first().copied();
        let first = next.filter(|(at, ..)| tick.is_none_or(|tick| *at <= tick));
        now = first.map_or(tick, |(at, ..)| Some(at))?;
        if now > Duration::from_secs(10) {
            return None;
        }
        effects = match first {
            None => planner.handle(Input::Tick, now),
            Some(answer) => {
                due.remove(&answer);
                let (_, peer, index) = answer;
                if peer == whole {
                    let received = planner.handle(Input::Received { peer, bytes: CHUNK }, now);
                    let verified = planner.handle(Input::Verified { peer, index }, now);
                    received.into_iter().chain(verified).collect()
                } else {
                    let retry_after = Some(retry_after);
                    planner.handle(
                        Input::Absent {
                            peer,
                            index,
                            retry_after,
                        },
                        now,
                    )
                }
            }
        };
    }
}

#[test]
fn a_provider_that_puts_off_a_chunk_does_not_keep_it_from_others() {
    let answer = Duration::from_millis(1);
    for retry_after in [1, 100, 10_000].map(Duration::from_millis) {
        let took = with_chunks_put_off(&[answer], retry_after);
        assert!(
            took < Some(Duration::from_secs(3)) && took.is_some(),
            "{took:?}"
        );
    }
}

/// Each of them answers shortly before it would count as silent.
#[test]
fn providers_that_put_off_a_chunk_in_turn_do_not_keep_it_from_others() {
    for retry_after in [1, 10_000].map(Duration::from_millis) {
        let took = with_chunks_put_off(&[Duration::from_millis(900); 20], retry_after);
        assert!(took.is_some(), "not complete after 10 s");
    }
}

/// An honest provider puts off a chunk once on each stream, so there may be a second time.
#[test]
fn a_sole_provider_that_puts_off_a_chunk_twice_is_asked_again() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (peer, mut now) = (peer(1), Duration::ZERO);
    let mut read = asked(planner.handle(Input::Found(peer), now));
    for _ in 0..3 {
        assert_eq!(read, [(peer, 0..1)]);
        let retry_after = Some(Duration::from_millis(1));
        let index = 0;
        planner.handle(
            Input::Absent {
                peer,
                index,
                retry_after,
            },
            now,
        );
        now = planner.next_timeout().unwrap();
        read = asked(planner.handle(Input::Tick, now));
    }
    assert!(now >= Duration::from_secs(20), "{now:?}");
}

#[test]
fn a_provider_without_a_chunk_is_asked_again_when_it_has_it() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, now) = (peer(1), Duration::ZERO);
    planner.handle(Input::Found(one), now);
    assert!(planner.is_useful(&one));
    let absent = Input::Absent {
        peer: one,
        index: 0,
        retry_after: None,
    };
    assert_eq!(asked(planner.handle(absent, now)), []);
    assert!(!planner.is_useful(&one));
    let hour = Duration::from_secs(3600);
    assert_eq!(asked(planner.handle(Input::Tick, hour)), []);
    let chunks = Vec::from([0..1]);
    let has = Input::Has { peer: one, chunks };
    assert_eq!(asked(planner.handle(has, hour)), [(one, 0..1)]);
}

#[test]
fn reports_of_an_idle_provider_are_no_measure_of_its_rate() {
    let mut planner = Planner::new(default_config(), 0..1);
    let (one, other, now) = (peer(1), peer(2), Duration::ZERO);
    planner.handle(Input::Found(one), now);
    planner.handle(Input::Found(other), now);
    let idle = [one, other]
        .into_iter()
        .find(|peer| !planner.is_asked(peer));
    let peer = idle.unwrap();
    for second in 1..4 {
        let few = Input::Received { peer, bytes: 12 };
        planner.handle(few, Duration::from_secs(second));
    }
    assert_eq!(planner.rate(&peer), None);
}

/// All that is missing at first, and then more.
#[test]
fn a_provider_of_all_that_is_missing_stays_one_when_it_reports_more() {
    let mut planner = Planner::new(default_config(), 0..4);
    let (peer, now) = (peer(1), Duration::ZERO);
    planner.handle(Input::Found(peer), now);
    for range in [0..4, 7..8] {
        let chunks = Vec::from([range]);
        planner.handle(Input::Has { peer, chunks }, now);
    }
    assert!(planner.is_useful(&peer));
    let mut asked = BTreeSet::new();
    for index in 0..2 {
        let verified = Input::Verified { peer, index };
        asked.extend(asked_of(planner.handle(verified, now), peer));
    }
    assert_eq!(asked, BTreeSet::from([2, 3]));
}
