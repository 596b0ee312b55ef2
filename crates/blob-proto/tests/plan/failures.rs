//! Providers that fail, and when they are asked again.

use std::time::Duration;

use calimero_network_blob::plan::{Effect, Failure, Input, Planner};

use crate::sim::{End, MIB, default_config, ending, peer, simulate, steady, whole};

#[test]
fn a_provider_that_does_not_have_the_blob_is_asked_again_when_it_is_found_again() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..4);
    let peer = peer(1);
    let failed = |failure| Input::Failed { peer, failure };
    planner.handle(Input::Found(peer), Duration::ZERO);
    planner.handle(failed(Failure::Refused), Duration::ZERO);
    let soon = Duration::from_secs(1);
    assert_eq!(planner.handle(Input::Found(peer), soon), [], "too soon");
    let read = Effect::Read { peer, chunks: 0..2 };
    assert_eq!(planner.handle(Input::Found(peer), config.rest_max), [read]);
    planner.handle(failed(Failure::Lied), config.rest_max);
    let later = config.rest_max * 9;
    assert_eq!(planner.handle(Input::Found(peer), later), [], "it lied");
}

#[test]
fn a_listed_provider_that_cannot_be_reached_is_soon_out() {
    let mut planner = Planner::new(default_config(), 0..4);
    let peer = peer(1);
    let unreachable = Input::Failed {
        peer,
        failure: Failure::Unreachable,
    };
    planner.handle(Input::Found(peer), Duration::ZERO);
    planner.handle(unreachable.clone(), Duration::ZERO);
    let rested = planner.next_timeout().unwrap();
    assert!(
        !planner.handle(Input::Tick, rested).is_empty(),
        "it is tried again"
    );
    let effects = planner.handle(unreachable, rested);
    assert!(effects.contains(&Effect::NoProviders { missing: 4 }));
}

#[test]
fn rests_grow_and_end() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..4);
    let mut now = Duration::ZERO;
    planner.handle(Input::Found(peer(1)), now);
    let mut rests = Vec::new();
    let broken = Input::Failed {
        peer: peer(1),
        failure: Failure::Broken,
    };
    loop {
        let effects = planner.handle(broken.clone(), now);
        if effects.contains(&Effect::NoProviders { missing: 4 }) {
            break;
        }
        // The stream that was left ends as well, which is no second failure.
        assert_eq!(planner.handle(broken.clone(), now), []);
        let until = planner.next_timeout().unwrap();
        rests.push(until - now);
        now = until;
        assert!(!planner.handle(Input::Tick, now).is_empty());
    }
    assert_eq!(rests.len() as u32, config.max_failures - 1);
    for (doublings, rest) in rests.iter().enumerate() {
        let full = config.rest_initial * 2_u32.pow(doublings as u32);
        assert!(
            *rest > full / 2 - Duration::from_millis(1) && *rest <= full,
            "{rest:?}"
        );
    }
    // Another one carries on.
    let found = planner.handle(Input::Found(peer(2)), now);
    assert_eq!(
        found,
        [Effect::Read {
            peer: peer(2),
            chunks: 0..2
        }]
    );
}

#[test]
fn liars_and_refusers_are_out_and_the_rest_finishes() {
    for end in [End::Lie, End::Refuse, End::Break, End::Busy] {
        let outcome = simulate(&default_config(), 60, &[ending(5, end), steady(MIB)]);
        assert_eq!(outcome.verified, whole(60), "{end:?}");
        assert!(
            outcome.left.iter().any(|(left, _)| *left == peer(1)),
            "{end:?}"
        );
    }
    let outcome = simulate(
        &default_config(),
        60,
        &[ending(5, End::Lie), ending(7, End::Refuse)],
    );
    assert_eq!(outcome.missing, Some(60 - outcome.verified.len() as u64));
}

/// A provider with an upload limit serves its requesters in turn, and says when.
#[test]
fn a_provider_that_is_busy_for_as_long_as_it_says_has_not_failed() {
    let config = default_config();
    let mut planner = Planner::new(config.clone(), 0..3);
    let peer = peer(1);
    let busy = |seconds| Input::Failed {
        peer,
        failure: Failure::Busy {
            retry_after: Duration::from_secs(seconds),
        },
    };
    let s = Duration::from_secs;
    planner.handle(Input::Found(peer), s(0));
    planner.handle(busy(100), s(0));
    // Far more often than a provider may fail. It is asked every 30 s, or when it says.
    let (mut now, mut asked) = (s(0), 0);
    while now < s(230) {
        assert!(planner.is_promised(now));
        now = planner.next_timeout().unwrap();
        assert!(!planner.handle(Input::Tick, now).is_empty(), "it is asked");
        asked += 1;
        planner.handle(busy(100_u64.saturating_sub(now.as_secs()).max(5)), now);
    }
    assert!(asked > 2 * config.max_failures, "{asked}");
    // What it sends makes up for all of it.
    now = planner.next_timeout().unwrap();
    planner.handle(Input::Tick, now);
    planner.handle(Input::Verified { peer, index: 0 }, now);
    assert!(!planner.is_promised(now));
    planner.handle(busy(20), now);
    let until = |now| now + s(7200);
    assert!(planner.is_promised(until(now) - s(1)) && !planner.is_promised(until(now)));
    // So does what it sent right before it was busy, and is verified only then, also where it was
    // busy for too long before.
    for later in [50, 7250] {
        now += s(later);
        planner.handle(Input::Tick, now);
        planner.handle(busy(20), now);
        assert_eq!(planner.is_promised(now), later == 50);
        planner.handle(Input::Verified { peer, index: 1 }, now);
        assert!(planner.is_promised(until(now) - s(1)) && !planner.is_promised(until(now)));
    }
    now = until(now);
    planner.handle(Input::Tick, now);
    // From then on it fails, and at last it is out.
    for _ in 0..20 {
        let Some(due) = planner.next_timeout() else {
            break;
        };
        now = due;
        planner.handle(Input::Tick, now);
        planner.handle(busy(20), now);
    }
    assert!(planner.is_alone() && !planner.is_promised(now));
}

/// One that sent the list has the blob, so that its requesters may be many or slow. Others may have
/// nothing.
#[test]
fn a_busy_provider_is_waited_for_longer_once_it_has_shown_that_it_has_the_blob() {
    let s = Duration::from_secs;
    let (shown, silent) = (peer(1), peer(2));
    let mut planner = Planner::new(default_config(), 0..3);
    for peer in [shown, silent] {
        let retry_after = s(7000);
        planner.handle(Input::Found(peer), s(0));
        let failure = Failure::Busy { retry_after };
        planner.handle(Input::Failed { peer, failure }, s(0));
        assert!(planner.was_busy(&peer));
    }
    let mut one = planner.clone();
    one.handle(Input::Forgotten(shown), s(1));
    assert!(one.is_promised(s(299)) && !one.is_promised(s(300)));
    planner.handle(Input::Proven(shown), s(1));
    assert!(planner.is_promised(s(7199)) && !planner.is_promised(s(7200)));
}
