//! How chunks are spread over providers.

use std::time::Duration;

use calimero_network_blob::plan::{Effect, Input, Planner};

use crate::sim::{Behaviour, MIB, default_config, peer, simulate, steady, whole};

#[test]
fn nothing_missing_is_done_at_once() {
    let mut planner = Planner::new(default_config(), []);
    assert_eq!(planner.handle(Input::Tick, Duration::ZERO), [Effect::Done]);
    assert_eq!(planner.handle(Input::Found(peer(1)), Duration::ZERO), []);
    assert_eq!(planner.next_timeout(), None);
}

#[test]
fn two_providers_are_nearly_twice_as_fast() {
    let one = simulate(&default_config(), 256, &[steady(12 * MIB)]);
    let two = simulate(
        &default_config(),
        256,
        &[steady(12 * MIB), steady(12 * MIB)],
    );
    assert_eq!((one.verified.len(), two.verified.len()), (256, 256));
    assert!(
        two.took * 18 < one.took * 10,
        "{:?} and {:?}",
        two.took,
        one.took
    );
}

#[test]
fn unequal_providers_end_together() {
    let outcome = simulate(&default_config(), 330, &[steady(30 * MIB), steady(3 * MIB)]);
    // 33 MiB/s for 330 MiB.
    assert!(outcome.took < Duration::from_secs(11), "{:?}", outcome.took);
    let sent: u64 = outcome.sent.values().sum();
    assert!(sent <= 332, "{sent} chunks for 330");
}

#[test]
fn the_tail_of_a_slow_provider_is_taken_over() {
    let slow = Behaviour {
        bytes_per_s: 64 << 10,
        ..steady(0)
    };
    let outcome = simulate(&default_config(), 40, &[slow, steady(20 * MIB)]);
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
}

/// As many slow providers as fill the window, each above the floor, do not keep an idle one out. A
/// slow provider takes 8.5 s for a chunk; the transfer ends before the first of them has sent one.
#[test]
fn slow_providers_cannot_hold_a_transfer() {
    for (chunks, dribblers) in [(1, 1), (3, 1), (40, 16)] {
        let dribbling = (0..dribblers).map(|_| steady(120 << 10));
        let behaviours: Vec<_> = dribbling.chain([steady(10 * MIB)]).collect();
        let outcome = simulate(&default_config(), chunks, &behaviours);
        assert_eq!(outcome.verified, whole(chunks));
        assert!(outcome.took < Duration::from_secs(8), "{:?}", outcome.took);
    }
}

#[test]
fn equal_providers_send_few_duplicates() {
    for chunks in [3, 4, 5, 7, 40, 200] {
        for rate in [MIB / 2, 3 * MIB, 100 * MIB] {
            let outcome = simulate(&default_config(), chunks, &[steady(rate), steady(rate)]);
            let sent: u64 = outcome.sent.values().sum();
            assert!((sent - chunks) * 20 <= chunks, "{sent} chunks for {chunks}");
        }
    }
}
