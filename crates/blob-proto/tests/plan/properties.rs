//! What holds for any providers and any inputs.

use std::time::Duration;

use calimero_network_blob::plan::{Failure, Input, Planner, PlannerConfig};
use proptest::prelude::*;

use crate::sim::{Behaviour, End, MIB, default_config, peer, simulate, whole};

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let end = prop_oneof![
        Just(End::Silence),
        Just(End::Lie),
        Just(End::Refuse),
        Just(End::Break),
        Just(End::Busy),
        Just(End::PutOff),
    ];
    let ends = prop::option::of((0_u64..30, end));
    (100_000_u64..200 * MIB, 0_u64..500, ends).prop_map(|(bytes_per_s, latency_ms, ends)| {
        Behaviour {
            bytes_per_s,
            latency: Duration::from_millis(latency_ms),
            ends,
        }
    })
}

proptest! {
    #[test]
    fn it_ends_and_one_honest_provider_is_enough(
        behaviours in prop::collection::vec(behaviour(), 1..6), chunks in 0_u64..200,
        window in 1_usize..20, provider_window in 1_usize..9, seed in any::<u64>(),
    ) {
        let config = PlannerConfig {
            window_chunks: window,
            provider_window_chunks: provider_window,
            seed,
            ..default_config()
        };
        let honest = behaviours.iter().any(Behaviour::is_honest);
        let outcome = simulate(&config, chunks, &behaviours);
        if outcome.done {
            prop_assert_eq!(&outcome.verified, &whole(chunks));
        } else {
            prop_assert!(!honest, "{:?}", outcome);
            prop_assert_eq!(outcome.missing, Some(chunks - outcome.verified.len() as u64));
        }
        let sent: u64 = outcome.sent.values().sum();
        prop_assert!(sent <= 2 * chunks, "no chunk is asked of more than two at a time");
    }

    #[test]
    fn arbitrary_inputs_never_panic(
        steps in prop::collection::vec((0_u8..10, 1_u8..4, any::<u64>(), 0_u64..30_000), 0..60),
    ) {
        let mut planner = Planner::new(default_config(), (0..50).chain(90..95));
        let mut now = Duration::ZERO;
        for (kind, seed, number, millis) in steps {
            now += Duration::from_millis(millis);
            let peer = peer(seed);
            let failed = |failure| Input::Failed { peer, failure };
            let input = match kind {
                0 => Input::Found(peer),
                1 => Input::Received { peer, bytes: number },
                2 => Input::Verified { peer, index: number % 120 },
                3 => failed(Failure::Broken),
                4 => failed(Failure::Busy { retry_after: Duration::from_millis(number) }),
                5 => {
                    let start = number % 120;
                    let chunks = Vec::from([start..start + 1 + number % 30]);
                    Input::Has { peer, chunks }
                }
                6 | 7 => Input::Absent {
                    peer,
                    index: number % 120,
                    retry_after: (kind == 6).then_some(Duration::from_millis(number)),
                },
                8 => Input::Forgotten(peer),
                _ => Input::Tick,
            };
            let before = planner.missing();
            planner.handle(input, now);
            prop_assert!(planner.missing() <= before);
            prop_assert!(planner.in_flight() <= 16 + 3);
            if let Some(due) = planner.next_timeout() {
                prop_assert!(due > now, "what is due is done");
            }
        }
    }
}
