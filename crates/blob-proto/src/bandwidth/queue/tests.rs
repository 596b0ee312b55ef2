//! The order of turns, and that no peer can keep a turn from others.

use calimero_network_primitives::Keypair;

use super::*;

const BLOB: BlobId = BlobId::new([1; 32]);

const INTERVAL: Duration = Duration::from_secs(16);

fn peer(number: u32) -> PeerId {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = Keypair::ed25519_from_bytes(seed).unwrap();
    key.public().to_peer_id()
}

fn origin(number: u8) -> Option<Origin> {
    Some(Origin::Ipv4([192, 0, 2, number]))
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn queue(max_active: usize) -> TurnQueue {
    TurnQueue::new(
        max_active,
        Some(INTERVAL * max_active as u32),
        &Extra::new(max_active),
    )
}

fn one(peer: PeerId, origin: Option<Origin>) -> Asking {
    Asking {
        peer,
        origin,
        protected: false,
    }
}

fn protected(number: u32) -> Asking {
    Asking {
        protected: true,
        ..one(peer(number), None)
    }
}

#[track_caller]
fn granted(answer: Answer) -> u64 {
    let Answer::Granted(number) = answer else {
        panic!("{answer:?}")
    };
    number
}

/// Takes the only turn, and returns its number.
fn take(queue: &mut TurnQueue, peer: PeerId, origin: Option<Origin>, now: Duration) -> u64 {
    queue.join(one(peer, origin), &BLOB, now);
    granted(queue.poll(&peer, now))
}

/// Gives each free turn to who is next, until no stream waits. Returns the order.
fn drain(queue: &mut TurnQueue, mut turn: u64, now: Duration) -> Vec<PeerId> {
    let mut order = Vec::new();
    while !queue.waiting.is_empty() {
        queue.release(turn, true, now);
        let next = queue.order()[0];
        turn = granted(queue.poll(&next, now));
        order.push(next);
    }
    order
}

#[test]
fn origins_take_turns_and_then_their_peers() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), origin(9), s(0));
    // Four peers of one origin came before the only one of another.
    for number in 1..=4 {
        queue.join(one(peer(number), origin(1)), &BLOB, s(0));
    }
    queue.join(one(peer(5), origin(2)), &BLOB, s(1));
    // A second stream of the first peer waits behind the other peers of its origin.
    queue.join(one(peer(1), origin(1)), &BLOB, s(1));
    let order = drain(&mut queue, busy, s(2));
    assert_eq!(order, [1, 5, 2, 3, 4, 1].map(peer));
}

#[test]
fn a_requester_that_returns_has_its_position() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), origin(1), s(0));
    queue.join(one(peer(1), origin(1)), &BLOB, s(0));
    let answer = queue.poll(&peer(1), s(0));
    assert_eq!(answer, Answer::Later { after: INTERVAL });
    queue.leave(&peer(1), &BLOB, Some(INTERVAL), s(0));
    queue.join(one(peer(2), origin(1)), &BLOB, s(1));
    let later = queue.poll(&peer(2), s(1));
    assert_eq!(
        later,
        Answer::Later {
            after: s(15) + INTERVAL
        }
    );
    // The turn is kept for the first one, for a moment.
    queue.release(busy, true, s(15));
    assert!(queue.is_contended(s(15)));
    assert_eq!(queue.poll(&peer(2), s(15)), Answer::Held { until: s(17) });
    queue.join(one(peer(1), origin(1)), &BLOB, s(16));
    granted(queue.poll(&peer(1), s(16)));
}

#[test]
fn one_that_does_not_return_is_passed_over_and_keeps_its_position() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), origin(1), s(0));
    for number in 1..=3 {
        queue.join(one(peer(number), origin(1)), &BLOB, s(0));
        queue.leave(&peer(number), &BLOB, Some(INTERVAL), s(0));
    }
    queue.join(one(peer(4), origin(1)), &BLOB, s(0));
    queue.release(busy, true, s(16));
    assert_eq!(queue.poll(&peer(4), s(16)), Answer::Held { until: s(18) });
    let turn = granted(queue.poll(&peer(4), s(18)));
    // They are not waited for once more.
    queue.join(one(peer(5), origin(1)), &BLOB, s(19));
    queue.release(turn, true, s(20));
    let turn = granted(queue.poll(&peer(5), s(20)));
    queue.release(turn, true, s(21));
    assert!(!queue.is_contended(s(21)));
    // One that is late is before one that came after it.
    queue.join(one(peer(6), origin(1)), &BLOB, s(22));
    queue.join(one(peer(2), origin(1)), &BLOB, s(23));
    assert_eq!(queue.order()[..3], [1, 2, 3].map(peer));
    granted(queue.poll(&peer(2), s(23)));
    // After a long time positions are given up.
    queue.join(one(peer(7), origin(1)), &BLOB, s(1000));
    assert_eq!(queue.waiting.len(), 2);
}

#[test]
fn the_time_until_a_turn_follows_from_those_that_run() {
    let mut queue = queue(2);
    take(&mut queue, peer(0), origin(1), s(0));
    take(&mut queue, peer(1), origin(1), s(8));
    // Each of two takes twice the interval.
    for (number, after) in [(2, 22), (3, 30), (4, 22 + 32), (5, 30 + 32)] {
        queue.join(one(peer(number), origin(1)), &BLOB, s(10));
        let later = queue.poll(&peer(number), s(10));
        assert_eq!(later, Answer::Later { after: s(after) });
    }
}

/// Requesters on slow links take longer than the limit alone. The first of them have not ended when
/// others are told their time.
#[test]
fn turns_that_take_longer_than_usual_lengthen_the_times_of_others() {
    let mut queue = queue(2);
    take(&mut queue, peer(0), origin(1), s(0));
    take(&mut queue, peer(1), origin(1), s(0));
    for (number, after) in [(2, 16), (3, 16), (4, 16 + 48), (5, 16 + 48)] {
        queue.join(one(peer(number), origin(1)), &BLOB, s(48));
        let later = queue.poll(&peer(number), s(48));
        assert_eq!(later, Answer::Later { after: s(after) }, "{number}");
    }
    // One that ends soon leaves no gap.
    let mut queue = self::queue(2);
    take(&mut queue, peer(0), origin(1), s(0));
    take(&mut queue, peer(1), origin(1), s(0));
    queue.join(one(peer(2), origin(1)), &BLOB, s(33));
    let later = queue.poll(&peer(2), s(33));
    assert_eq!(later, Answer::Later { after: s(1) });
    // One that is not slow shortens the times.
    let mut queue = self::queue(2);
    take(&mut queue, peer(0), origin(1), s(0));
    take(&mut queue, peer(1), origin(1), s(40));
    for (number, after) in [(2, 16), (3, 24), (4, 16 + 40), (5, 24 + 40)] {
        queue.join(one(peer(number), origin(1)), &BLOB, s(48));
        let later = queue.poll(&peer(number), s(48));
        assert_eq!(later, Answer::Later { after: s(after) }, "{number}");
    }
}

/// Requesters on slow links need more time for a turn than the limit does.
#[test]
fn the_length_of_a_turn_is_measured() {
    let mut queue = queue(1);
    let mut turn = take(&mut queue, peer(0), None, s(0));
    for number in 1..=20 {
        // A short answer is no measure.
        let begun = s(number * 100);
        queue.release(turn, false, begun);
        turn = take(&mut queue, peer(0), None, begun);
        queue.release(turn, true, begun + s(60));
        turn = take(&mut queue, peer(0), None, begun + s(60));
    }
    queue.join(one(peer(1), None), &BLOB, s(2060));
    let Answer::Later { after } = queue.poll(&peer(1), s(2060)) else {
        panic!("it is not its turn")
    };
    assert!(after > s(59) && after < s(61), "{after:?}");
}

#[test]
fn a_stream_that_is_dropped_gives_up_its_position() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), None, s(0));
    queue.join(one(peer(1), None), &BLOB, s(0));
    queue.join(one(peer(2), None), &BLOB, s(0));
    queue.leave(&peer(1), &BLOB, None, s(1));
    queue.release(busy, true, s(1));
    granted(queue.poll(&peer(2), s(1)));
    assert!(queue.waiting.is_empty() && queue.groups.is_empty());
}

#[test]
fn an_origin_with_many_peers_does_not_keep_out_others() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), origin(9), s(0));
    let many = 1 + MAX_WAITING as u32 + 10;
    for number in 1..many {
        queue.join(one(peer(number), origin(1)), &BLOB, s(0));
    }
    assert_eq!(queue.waiting.len(), MAX_WAITING);
    // It has no position, and is answered how long all others take.
    let last = queue.poll(&peer(many - 1), s(0));
    let Answer::Later { after } = last else {
        panic!("{last:?}")
    };
    assert!(after >= INTERVAL * MAX_WAITING as u32, "{after:?}");
    queue.join(one(peer(many), origin(2)), &BLOB, s(0));
    assert_eq!(queue.waiting.len(), MAX_WAITING);
    queue.release(busy, true, s(1));
    assert_eq!(queue.order()[..3], [1, many, 2].map(peer));
}

/// Positions of 1,024 origins, whose requesters are asked to try again and do not.
#[test]
fn positions_without_requesters_do_not_keep_out_others() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), None, s(0));
    let many = 1 + MAX_WAITING as u32;
    for number in 1..many {
        queue.join(one(peer(number), None), &BLOB, s(0));
        queue.leave(&peer(number), &BLOB, Some(s(16)), s(0));
    }
    assert_eq!(queue.waiting.len(), MAX_WAITING);
    queue.release(busy, true, s(10));
    // They are expected, so the turn is kept for them for a moment.
    queue.join(one(peer(many), None), &BLOB, s(10));
    assert_eq!(
        queue.poll(&peer(many), s(10)),
        Answer::Held { until: s(12) }
    );
    let turn = granted(queue.poll(&peer(many), s(12)));
    // From then on the position of the first one that is late is given to another one.
    queue.join(one(peer(many + 1), None), &BLOB, s(13));
    assert_eq!(queue.waiting.len(), MAX_WAITING);
    assert!(queue.waiting.contains_key(&peer(many + 1)));
    queue.release(turn, true, s(14));
    granted(queue.poll(&peer(many + 1), s(14)));
}

/// Requesters that are slower than their share do not keep the rest of the limit from others.
#[test]
fn more_turns_are_granted_while_the_limit_is_not_used() {
    let mut queue = queue(2);
    let slow = [0, 1].map(|number| take(&mut queue, peer(number), origin(1), s(0)));
    for number in 2..8 {
        queue.join(one(peer(number), origin(1)), &BLOB, s(0));
    }
    queue.measure(s(0), s(0));
    queue.measure(s(1), s(2));
    let later = queue.poll(&peer(2), s(2));
    assert!(
        matches!(later, Answer::Later { .. }),
        "the span is not over"
    );
    queue.measure(s(2), s(4));
    let third = granted(queue.poll(&peer(2), s(4)));
    queue.measure(s(4), s(8));
    granted(queue.poll(&peer(3), s(8)));
    // Not where another one would get too little.
    queue.measure(s(6), s(12));
    assert!(matches!(queue.poll(&peer(4), s(12)), Answer::Later { .. }));
    // The limit is used again: a turn that ends is not granted again.
    queue.measure(s(6), s(16));
    queue.release(third, true, s(17));
    assert!(matches!(queue.poll(&peer(4), s(17)), Answer::Later { .. }));
    queue.release(slow[0], true, s(18));
    granted(queue.poll(&peer(4), s(18)));
    // A quarter of the limit of two turns would be half a share.
    let mut queue = TurnQueue::new(2, None, &Extra::new(2));
    for number in 0..2 {
        take(&mut queue, peer(number), None, s(0));
    }
    queue.join(one(peer(2), None), &BLOB, s(0));
    queue.measure(s(0), s(0));
    queue.measure(s(1), s(4));
    assert!(matches!(queue.poll(&peer(2), s(4)), Answer::Later { .. }));
    // With fewer requesters than turns nothing is measured.
    let mut queue = TurnQueue::new(2, None, &Extra::new(2));
    take(&mut queue, peer(0), None, s(0));
    queue.measure(s(50), s(60));
    take(&mut queue, peer(1), None, s(60));
    queue.join(one(peer(2), None), &BLOB, s(61));
    queue.measure(s(51), s(61));
    assert!(matches!(queue.poll(&peer(2), s(61)), Answer::Later { .. }));
}

/// Both queues of a limit measure the same unused time.
#[test]
fn the_queues_of_a_limit_share_what_is_granted_beyond_it() {
    let extra = Extra::new(1);
    let mut queues = [1, 2].map(|_| TurnQueue::new(1, None, &extra));
    let mut turns = Vec::new();
    for queue in &mut queues {
        turns.push(take(queue, peer(0), None, s(0)));
        queue.join(one(peer(1), None), &BLOB, s(0));
        queue.measure(s(0), s(0));
    }
    let measured = |queue: &mut TurnQueue, unused, now| {
        queue.measure(unused, now);
        queue.poll(&peer(1), now)
    };
    let begun = granted(measured(&mut queues[0], s(4), s(4)));
    for now in [4, 8, 12] {
        let answer = measured(&mut queues[1], s(now), s(now));
        assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
    }
    // The first one needs no further turn any more.
    queues[0].release(begun, false, s(13));
    queues[0].release(turns[0], false, s(13));
    granted(measured(&mut queues[1], s(16), s(16)));
}

/// The transfers of a peer wait for each other, and are answered so.
#[test]
fn transfers_of_one_peer_have_their_turns_one_after_the_other() {
    let mut queue = queue(1);
    take(&mut queue, peer(0), origin(1), s(0));
    queue.join(one(peer(1), origin(1)), &BLOB, s(0));
    let mut ask = |blob: u8, now| {
        let blob = BlobId::new([blob; 32]);
        queue.join(one(peer(2), origin(2)), &blob, now);
        let Answer::Later { after } = queue.poll(&peer(2), now) else {
            panic!("it is not its turn")
        };
        queue.leave(&peer(2), &blob, Some(after), now);
        after
    };
    let waits = [1, 2, 3].map(|blob| ask(blob, s(0)));
    assert_eq!(waits, [2, 4, 6].map(|turns| turns * INTERVAL));
    // The same one again is no further one.
    assert_eq!(ask(3, s(1)), waits[2] - s(1));
}

/// However many strangers of however many origins wait.
#[test]
fn protected_peers_have_half_of_the_turns_and_a_position() {
    let mut queue = queue(1);
    let busy = take(&mut queue, peer(0), None, s(0));
    let many = 1 + MAX_WAITING as u32;
    for number in 1..many {
        queue.join(one(peer(number), None), &BLOB, s(0));
    }
    for number in [many, many + 1] {
        queue.join(protected(number), &BLOB, s(1));
    }
    assert_eq!(queue.waiting.len(), MAX_WAITING);
    queue.release(busy, true, s(2));
    assert_eq!(queue.order()[..4], [many, 1, many + 1, 2].map(peer));
    let turn = granted(queue.poll(&peer(many), s(2)));
    queue.release(turn, true, s(3));
    // The others are next, so that they wait for no more than twice the time.
    queue.join(protected(many), &BLOB, s(3));
    assert_eq!(queue.order()[..3], [1, many + 1, 2].map(peer));
}

#[test]
fn a_stranger_takes_no_position_of_a_protected_peer() {
    let mut queue = queue(1);
    take(&mut queue, peer(0), None, s(0));
    for number in 1..=MAX_WAITING as u32 {
        queue.join(protected(number), &BLOB, s(0));
        queue.leave(&peer(number), &BLOB, Some(s(16)), s(0));
    }
    let stranger = peer(5000);
    queue.join(one(stranger, None), &BLOB, s(60));
    assert!(!queue.waiting.contains_key(&stranger));
    // Another protected peer takes one that is late.
    queue.join(protected(5001), &BLOB, s(60));
    assert!(queue.waiting.contains_key(&peer(5001)));
    assert_eq!(queue.waiting.len(), MAX_WAITING);
}
