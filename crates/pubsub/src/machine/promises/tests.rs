use std::hash::RandomState;

use super::*;
use crate::validate::{MemoryLimits, Validator};

const STEP: Duration = NEXT_REQUEST;

/// Promises of numbered messages and peers.
struct Script {
    promises: Promises,
    keys: Validator,
    peers: Vec<PeerId>,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        let limits = MemoryLimits {
            ids: 1,
            settled: Duration::from_secs(1),
            max_message_bytes: 1,
        };
        Self {
            promises: Promises::default(),
            keys: Validator::new(limits, [(); 2].map(|()| RandomState::new())),
            peers: (0..20).map(|_| PeerId::random()).collect(),
            now: Instant::now(),
        }
    }

    fn id(message: u64) -> Bytes {
        Bytes::copy_from_slice(&message.to_be_bytes())
    }

    /// Returns `true` if the offer is followed by a request.
    fn offer(&mut self, message: u64, peer: usize) -> bool {
        let id = Self::id(message);
        let key = self.keys.key(&id);
        self.promises.add(key, &id, self.peers[peer], self.now)
    }

    /// Peers that are asked after `time`, and for which message.
    fn wait(&mut self, time: Duration) -> Vec<(usize, u64)> {
        self.now += time;
        let requests = self.promises.next_requests(self.now, |_| true);
        let number = |id: Bytes| id.first_chunk().map(|id| u64::from_be_bytes(*id));
        let requests = requests.into_iter().map(|(peer, id)| {
            let peer = self.peers.iter().position(|known| *known == peer);
            (peer.unwrap(), number(id).unwrap())
        });
        requests.collect()
    }

    fn arrived(&mut self, message: u64, from: usize) {
        let key = self.keys.key(&Self::id(message));
        self.promises.fulfilled(key, &self.peers[from]);
    }
}

#[test]
fn the_next_peer_is_asked_without_another_offer() {
    let mut script = Script::new();
    assert!(script.offer(1, 0));
    assert!(!script.offer(1, 0), "asked already");
    assert!(!script.offer(1, 1));
    assert!(!script.offer(1, 2));
    assert_eq!(script.promises.next_timeout(), Some(script.now + STEP));
    assert!(script.wait(STEP - Duration::from_millis(1)).is_empty());
    assert_eq!(script.wait(Duration::from_millis(1)), [(1, 1)]);
    assert_eq!(script.wait(STEP), [(2, 1)]);
    script.arrived(1, 2);
    assert_eq!(script.promises.next_timeout(), None);
    assert!(script.wait(STEP).is_empty());
    assert!(script.promises.wanted.is_empty());
}

#[test]
fn a_late_peer_delays_no_other_message() {
    let mut script = Script::new();
    assert!(script.offer(1, 0));
    script.wait(STEP);
    assert!(script.offer(2, 0), "no other peer offers it yet");
    assert!(script.offer(2, 1), "without a delay");
    assert!(!script.offer(2, 2), "peer 1 is not late");
    assert!(script.offer(3, 1));
    assert!(!script.offer(3, 0), "a late peer adds no request");
    assert!(!script.offer(3, 2));
    assert!(script.wait(STEP).contains(&(2, 3)), "before the late one");
    script.arrived(1, 0);
    assert!(script.offer(4, 0));
    assert!(!script.offer(4, 3), "peer 0 is not late any more");
}

#[test]
fn requests_and_offers_of_one_message_are_bounded() {
    let mut script = Script::new();
    for peer in 0..20 {
        script.offer(1, peer);
    }
    let (_, wanted) = script.promises.wanted.iter().next().unwrap();
    assert_eq!(wanted.others.len(), MAX_OTHERS);
    let asked: usize = (0..5).map(|_| script.wait(STEP).len()).sum();
    assert_eq!(asked, MAX_REQUESTS, "after the first");
    let blamed = script.promises.settle(script.now + STEP);
    let broken = blamed.values().map(|settled| settled.broken);
    assert_eq!(broken.sum::<usize>(), 1, "the first promise");
    assert_eq!(script.wait(STEP).len(), 1, "in the place of the first");
}

#[test]
fn a_peer_that_answers_takes_the_place_of_a_late_one() {
    let mut script = Script::new();
    script.promises.late.extend(&script.peers[1..10]);
    for peer in 0..=10 {
        script.offer(1, peer);
    }
    assert_eq!(script.wait(STEP), [(10, 1)]);
}

#[test]
fn a_peer_that_is_disconnected_is_neither_blamed_nor_asked() {
    let mut script = Script::new();
    script.offer(1, 0);
    script.offer(1, 1);
    script.offer(1, 2);
    let (first, second) = (script.peers[0], script.peers[1]);
    script.promises.forget(&first, script.now);
    script.promises.forget(&second, script.now);
    assert_eq!(script.wait(STEP), [(2, 1)]);
    let broken = script.promises.settle(script.now + PROMISE);
    assert_eq!(broken.keys().collect::<Vec<_>>(), [&script.peers[2]]);
    assert!(script.promises.wanted.is_empty());
}

#[test]
fn the_next_peer_is_asked_at_once_when_the_only_one_that_was_asked_disconnects() {
    let mut script = Script::new();
    script.offer(1, 0);
    script.offer(2, 1);
    for peer in 2..4 {
        script.offer(1, peer);
    }
    script.now += STEP / 2;
    script.promises.forget(&script.peers[2], script.now);
    assert_eq!(script.wait(Duration::ZERO), [], "that one was not asked");
    script.promises.forget(&script.peers[0], script.now);
    assert_eq!(script.promises.next_timeout(), Some(script.now));
    assert_eq!(script.wait(Duration::ZERO), [(3, 1)]);
    script.arrived(1, 3);
    script.promises.forget(&script.peers[1], script.now);
    assert!(script.promises.wanted.is_empty(), "no other peer offers it");
    assert_eq!(script.wait(STEP), []);
}

#[test]
fn messages_of_one_that_disconnects_are_requested_in_the_order_of_their_offers() {
    let mut script = Script::new();
    for message in 0..50 {
        script.offer(message, 0);
        script.offer(message, 1);
    }
    script.promises.forget(&script.peers[0], script.now);
    let requests = script.wait(Duration::ZERO);
    assert_eq!(
        requests,
        (0..50).map(|message| (1, message)).collect::<Vec<_>>()
    );
}

#[test]
fn peers_that_are_excluded_are_not_asked() {
    let mut script = Script::new();
    script.offer(1, 0);
    script.offer(1, 1);
    script.now += STEP;
    assert!((script.promises.next_requests(script.now, |_| false)).is_empty());
    assert!(script.wait(STEP).is_empty());
}

#[test]
fn open_requests_of_one_peer_are_bounded() {
    let mut script = Script::new();
    let most = u64::try_from(MAX_OPEN).unwrap();
    for message in 0..most {
        assert!(script.offer(message, 0));
    }
    assert!(!script.offer(most, 0));
    assert!(script.offer(most, 1), "other peers have their own");
    script.arrived(7, 1);
    assert!(script.offer(most + 1, 0), "what arrived is not open");
    assert!(!script.offer(most + 2, 0));
    // As the next peer for a message it is not asked either.
    script.offer(most, 0);
    assert_eq!(script.wait(STEP), []);
    script.now += PROMISE;
    let settled = script.promises.settle(script.now);
    assert_eq!(settled[&script.peers[0]].broken, MAX_OPEN);
    assert_eq!(script.promises.open(&script.peers[0]), 0);
    assert!(script.offer(most + 3, 0));
}

/// Each look at a message costs time, and nothing can be done for one that no other peer offers.
#[test]
fn a_message_that_one_peer_offers_is_examined_once() {
    let mut script = Script::new();
    assert!(script.offer(1, 0));
    assert!(script.promises.next_timeout().is_some());
    script.wait(STEP);
    assert_eq!(script.promises.next_timeout(), None);
    assert!(script.promises.late.contains(&script.peers[0]));
    // Another offer is followed at once, or looked at again.
    script.promises.late.insert(script.peers[1]);
    assert!(!script.offer(1, 1), "late as well");
    assert_eq!(script.wait(STEP), [(1, 1)]);
    assert!(script.offer(1, 2));
}

#[test]
fn messages_wanted_of_all_peers_are_bounded_and_shared() {
    let mut script = Script::new();
    script.peers.extend((0..20).map(|_| PeerId::random()));
    let open = u64::try_from(MAX_OPEN).unwrap();
    for peer in 0..script.peers.len() {
        for message in 0..open {
            script.offer(u64::try_from(peer).unwrap() * open + message, peer);
        }
    }
    let wanted = script.promises.wanted.len();
    assert!(wanted <= 2 * MAX_WANTED, "{wanted}");
    let fewest = script.peers.iter().map(|peer| script.promises.open(peer));
    let share = SHARED_WANTED / (script.peers.len() + 1);
    assert!(fewest.min().unwrap() >= share, "the last peers have none");
}

#[test]
fn a_message_that_is_refused_keeps_its_promise_and_is_not_requested_again() {
    let mut script = Script::new();
    assert!(script.offer(1, 0));
    script.wait(STEP);
    let key = script.keys.key(&Script::id(1));
    let until = script.now + PROMISE * 2;
    script.promises.refused(key, &script.peers[0], until);
    assert!(script.promises.late.is_empty() && script.promises.open.is_empty());
    assert!(!script.offer(1, 0) && !script.offer(1, 1));
    script.now += PROMISE;
    let kept = Settled { broken: 0, kept: 1 };
    let settled = script.promises.settle(script.now);
    assert_eq!(settled[&script.peers[0]], kept);
    script.now = until;
    script.promises.settle(script.now);
    assert!(script.offer(1, 0), "remembered for ever");
    for message in 0..2 * MAX_REFUSED as u64 {
        let key = script.keys.key(&Script::id(message));
        script.promises.refused(key, &script.peers[0], until);
    }
    assert_eq!(script.promises.refused.len(), MAX_REFUSED);
    assert_eq!(script.promises.refused_until.len(), MAX_REFUSED);
}

#[test]
fn what_was_asked_for_on_a_connection_that_failed_is_asked_for_again() {
    let mut script = Script::new();
    let peer = script.peers[0];
    assert!(script.offer(1, 0));
    assert!(script.offer(2, 0));
    assert!(!script.offer(2, 1));
    assert!(script.wait(STEP).contains(&(1, 2)));
    script.promises.ask_again(peer, script.now);
    assert_eq!(script.wait(Duration::ZERO), [(0, 1)]);
    assert_eq!(script.promises.open(&peer), 1);
    assert_eq!(script.wait(STEP), [(0, 2)], "after the one that was asked");
    // When the first requests would be late.
    script.now += PROMISE - STEP * 2;
    assert!(script.promises.settle(script.now).is_empty());
    script.now += STEP * 2;
    let settled = script.promises.settle(script.now);
    assert_eq!(settled[&peer].broken, 2, "promised anew");
}

#[test]
fn an_offer_is_requested_that_was_repeated_on_another_connection() {
    let mut script = Script::new();
    assert!(script.offer(1, 0));
    assert!(!script.offer(1, 0));
    script.promises.ask_again(script.peers[0], script.now);
    assert!(script.offer(1, 0));
}
