use proptest::prelude::*;

use super::*;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Connections that were compared after each round of round trips, in milliseconds.
fn after(rounds: &[&[u64]]) -> Vec<bool> {
    let mut all = vec![RoundTrips::default(); rounds[0].len()];
    for round in rounds {
        for (one, round_trip) in all.iter_mut().zip(*round) {
            one.add(ms(*round_trip));
        }
        compare(all.iter_mut());
    }
    all.iter().map(RoundTrips::is_slow).collect()
}

#[test]
fn a_connection_is_slow_above_one_mark_until_it_is_below_the_other() {
    assert_eq!(after(&[&[30, 45][..]; MIN_SAMPLES]), [false, false]);
    assert_eq!(after(&[&[30, 46][..]; MIN_SAMPLES]), [false, true]);
    // Between the marks it is what it was. Four round trips replace the ones before.
    let again = [&[30, 40][..]; SAMPLES];
    assert_eq!(after(&again), [false, false]);
    let mut rounds = vec![&[30, 46][..]; SAMPLES];
    rounds.extend(again);
    assert_eq!(after(&rounds), [false, true]);
    rounds.extend([&[30, 36][..]; SAMPLES]);
    assert_eq!(after(&rounds), [false, false]);
}

#[test]
fn one_round_trip_under_load_does_not_count() {
    let mut rounds = vec![&[30, 30][..]; SAMPLES];
    rounds.extend([&[900, 30][..]; SAMPLES - 1]);
    assert_eq!(after(&rounds), [false, false]);
    rounds.push(&[900, 30]);
    assert_eq!(after(&rounds), [true, false]);
}

#[test]
fn a_connection_with_one_round_trip_is_neither_slow_nor_compared_with() {
    assert_eq!(after(&[&[1, 900]]), [false, false]);
    let mut all = [RoundTrips::default(); 2];
    compare(all.iter_mut());
    for _ in 0..SAMPLES {
        all[0].add(ms(900));
    }
    all[1].add(ms(1));
    compare(all.iter_mut());
    assert!(all.iter().all(|one| !one.is_slow()));
}

proptest! {
    #[test]
    fn the_fastest_is_never_slow(
        steps in prop::collection::vec((0..4_usize, 0_u64..10_000_000), 1..100),
    ) {
        let mut all = [RoundTrips::default(); 4];
        for (which, micros) in steps {
            all[which].add(Duration::from_micros(micros));
            compare(all.iter_mut());
            let fastest = all.iter().filter(|one| one.measure().is_some());
            let Some(fastest) = fastest.min_by_key(|one| one.measure()) else {
                prop_assert!(all.iter().all(|one| !one.is_slow()));
                continue;
            };
            prop_assert!(!fastest.is_slow());
            let clearly = |one: &RoundTrips| {
                one.measure() > Some(SLOW.of(fastest.measure().unwrap()))
            };
            prop_assert!(all.iter().all(|one| one.is_slow() || !clearly(one)));
        }
    }

    /// Of paths that do not change, round trips that vary by 5 % change nothing more than once.
    #[test]
    fn connections_do_not_flap(
        paths in prop::collection::vec(100_u64..500_000, 2..5),
        jitter in prop::collection::vec(950_u64..=1_050, 200),
    ) {
        let mut all = vec![RoundTrips::default(); paths.len()];
        let mut changes = vec![0; paths.len()];
        for (at, jitter) in jitter.into_iter().enumerate() {
            let which = at % paths.len();
            let before: Vec<_> = all.iter().map(RoundTrips::is_slow).collect();
            all[which].add(Duration::from_micros(paths[which] * jitter / 1_000));
            compare(all.iter_mut());
            // Until each has a full set, the fastest one is not known.
            if at >= paths.len() * SAMPLES {
                for ((one, before), changes) in all.iter().zip(before).zip(&mut changes) {
                    *changes += u32::from(one.is_slow() != before);
                }
            }
        }
        prop_assert!(changes.iter().all(|changes| *changes <= 1), "{changes:?}");
    }
}
