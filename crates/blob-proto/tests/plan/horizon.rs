//! Chunks that are not to be asked for yet.

use std::time::Duration;

use calimero_network_blob::plan::{Input, Planner, PlannerConfig};

use crate::sim::{asked, peer};

#[test]
fn nothing_is_asked_for_beyond_the_horizon() {
    let mut planner = Planner::new(PlannerConfig::default(), 0..100);
    let at = Duration::from_millis;
    assert_eq!(planner.handle(Input::Horizon(1), at(0)), []);
    let first = asked(planner.handle(Input::Found(peer(1)), at(1)));
    assert_eq!(first, [(peer(1), 0..1)]);
    assert_eq!(asked(planner.handle(Input::Tick, at(2))), []);
    let next = asked(planner.handle(Input::Horizon(3), at(3)));
    assert_eq!(
        next,
        [(peer(1), 1..2)],
        "two in flight, until its rate is known"
    );
    let verified = Input::Verified {
        peer: peer(1),
        index: 0,
    };
    assert_eq!(asked(planner.handle(verified, at(4))), [(peer(1), 2..3)]);
}

#[test]
fn what_is_below_the_horizon_is_taken_over_from_a_silent_provider() {
    let mut planner = Planner::new(PlannerConfig::default(), 0..100);
    let at = Duration::from_secs;
    planner.handle(Input::Horizon(2), at(0));
    let first = asked(planner.handle(Input::Found(peer(1)), at(0)));
    assert_eq!(first, [(peer(1), 0..2)]);
    let mut stolen = asked(planner.handle(Input::Found(peer(2)), at(0)));
    stolen.extend(asked(planner.handle(Input::Tick, at(5))));
    assert!(
        stolen.iter().any(|(thief, _)| *thief == peer(2)),
        "{stolen:?}"
    );
}
