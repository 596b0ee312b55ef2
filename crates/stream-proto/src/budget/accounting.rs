//! What a receiver reserves and releases.

use std::task::Waker;

use calimero_network_primitives::{
    PeerId,
    resources::{Limit, Limits, Resources},
};

use super::*;

const PAGE: usize = FIRST_BUFFER_BYTES;

/// Resources in which all peers together may hold `node` bytes of frames, and each one `peer`.
fn resources(node: u64, peer: u64) -> Resources {
    let mut limits = Limits::default();
    limits.update(Resource::FrameBytes, |_| Limit {
        node,
        peer,
        ..Limit::UNLIMITED
    });
    Resources::new(limits)
}

fn reader(resources: &Resources) -> Box<dyn ReadBudget> {
    let holder = resources.holder(Some(PeerId::random()), None);
    FrameBudget::new(holder).reader()
}

fn reserve(
    reader: &mut Box<dyn ReadBudget>,
    needed: usize,
    wanted: usize,
) -> Poll<Result<usize, FrameError>> {
    reader.poll_reserve(&mut Context::from_waker(Waker::noop()), needed, wanted)
}

/// Reserves what is granted at once.
fn granted(reader: &mut Box<dyn ReadBudget>, needed: usize, wanted: usize) -> usize {
    match reserve(reader, needed, wanted) {
        Poll::Ready(Ok(granted)) => granted,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_page_is_not_reserved_and_all_beyond_it_is() {
    let resources = resources(100_000, 100_000);
    let used = || resources.used(Resource::FrameBytes);
    let mut reader = reader(&resources);
    assert_eq!(granted(&mut reader, PAGE, PAGE), PAGE);
    assert_eq!(used(), 0);
    assert_eq!(granted(&mut reader, PAGE + 1, PAGE + 1), PAGE + 1);
    assert_eq!(used(), 1);
    assert_eq!(granted(&mut reader, PAGE + 1_000, 0), PAGE + 1_000);
    assert_eq!(used(), 1_000);
    // What is reserved is not reserved again.
    assert_eq!(granted(&mut reader, PAGE + 500, PAGE + 1_000), PAGE + 1_000);
    assert_eq!(used(), 1_000);
    drop(reader);
    assert_eq!(used(), 0);
}

#[test]
fn more_than_needed_is_reserved_while_half_of_the_memory_is_free() {
    let resources = resources(10_000, 10_000);
    let mut reader = reader(&resources);
    assert_eq!(granted(&mut reader, PAGE, PAGE + 5_000), PAGE + 5_000);
    let mut other = self::reader(&resources);
    assert_eq!(granted(&mut other, PAGE + 7, PAGE + 100), PAGE + 7);
    assert_eq!(resources.used(Resource::FrameBytes), 5_007);
}

#[test]
fn a_frame_beyond_the_budget_of_its_peer_is_refused_at_once() {
    let resources = resources(100_000, 1_000);
    let mut reader = reader(&resources);
    assert_eq!(granted(&mut reader, PAGE + 1_000, PAGE), PAGE + 1_000);
    let mut other = self::reader(&resources);
    let refused = reserve(&mut other, PAGE + 1_001, PAGE);
    let Poll::Ready(Err(FrameError::NoMemory { wanted, after })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((wanted, after), (1_001, Duration::ZERO));
}

#[test]
fn a_frame_waits_for_the_memory_of_others() {
    let resources = resources(1_000, 1_000);
    let (mut first, mut second) = (reader(&resources), reader(&resources));
    assert_eq!(granted(&mut first, PAGE + 600, PAGE), PAGE + 600);
    assert!(reserve(&mut second, PAGE + 500, PAGE).is_pending());
    // It needs less now.
    assert_eq!(granted(&mut second, PAGE + 400, PAGE), PAGE + 400);
    assert!(reserve(&mut second, PAGE + 500, PAGE).is_pending());
    drop(first);
    assert_eq!(granted(&mut second, PAGE + 500, PAGE), PAGE + 500);
    assert_eq!(resources.used(Resource::FrameBytes), 500);
}

#[test]
fn a_frame_that_has_arrived_releases_its_memory() {
    let resources = resources(10_000, 10_000);
    let used = || resources.used(Resource::FrameBytes);
    let mut reader = reader(&resources);
    assert_eq!(reader.settle(0, 1 << 20), PAGE, "nothing is reserved");
    assert_eq!(granted(&mut reader, PAGE + 4_000, PAGE), PAGE + 4_000);
    // The buffer is kept for reuse while half of the memory is free, as far as it is reserved.
    assert_eq!(reader.settle(0, PAGE + 9_000), PAGE + 4_000);
    assert_eq!(reader.settle(0, PAGE + 3_000), PAGE + 3_000);
    assert_eq!(used(), 3_000);
    let others = resources.holder(None, None);
    let _most = others.take(Resource::FrameBytes, 5_000).unwrap();
    assert_eq!(reader.settle(PAGE + 100, PAGE + 3_000), PAGE + 100);
    assert_eq!(used(), 5_100);
    assert_eq!(reader.settle(PAGE, PAGE + 3_000), PAGE);
    assert_eq!(used(), 5_000);
}

#[test]
fn a_round_below_the_rate_is_stalled_and_one_at_it_is_not() {
    let least = MIN_RATE * ROUND.as_secs();
    assert_eq!(least, 8 * 1024);
    let mut frame = Progress::default();
    for (arrived, rounds, stalled) in [
        (0, 1, 1),
        (least - 1, 2, 2),
        (least, 3, 0),
        (least - 1, 4, 1),
    ] {
        frame.arrived = arrived;
        frame.end_round();
        let counted = (frame.arrived, frame.rounds, frame.stalled);
        assert_eq!(counted, (0, rounds, stalled));
    }
}
