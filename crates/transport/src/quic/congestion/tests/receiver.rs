//! What a receiver holds of a stream whose packets do not all arrive.

use std::collections::{BTreeMap, VecDeque};

/// The data of one stream: which packet carries which part, and what has arrived. A part fills one
/// packet. Parts that were lost are sent again before new ones, as `quinn` does.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Parts of the packets on their way, by packet.
    sent: BTreeMap<u64, u64>,
    lost: VecDeque<u64>,
    next: u64,
    /// Part before which everything has arrived.
    read: u64,
    /// Parts that arrived beyond it: the end of each run by its beginning.
    runs: BTreeMap<u64, u64>,
    most_runs: usize,
}

impl Stream {
    /// `packet` is sent, with the part that is due.
    pub(super) fn on_sent(&mut self, packet: u64) {
        let part = self.lost.pop_front().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.sent.insert(packet, part);
    }

    /// The sender takes `packet` for lost.
    pub(super) fn on_lost(&mut self, packet: u64) {
        self.lost.extend(self.sent.remove(&packet));
    }

    /// `packet` arrives. One that was taken for lost before counts as lost.
    pub(super) fn on_arrived(&mut self, packet: u64) {
        let Some(part) = self.sent.remove(&packet) else {
            return;
        };
        if part < self.read {
            return;
        }
        let before = self.runs.range(..=part).next_back();
        let (begin, end) = match before {
            Some((_, &end)) if end > part => return,
            Some((&begin, &end)) if end == part => (begin, part + 1),
            _ => (part, part + 1),
        };
        let end = self.runs.remove(&end).unwrap_or(end);
        self.runs.insert(begin, end);
        if begin == self.read {
            self.runs.remove(&begin);
            self.read = end;
        }
        self.most_runs = self.most_runs.max(self.runs.len());
    }

    /// Most runs of data that were held at one time, with gaps between them.
    pub(super) fn most_runs(&self) -> usize {
        self.most_runs
    }
}

#[test]
fn runs_end_at_gaps_and_join_when_they_are_filled() {
    let mut stream = Stream::default();
    (0..6).for_each(|packet| stream.on_sent(packet));
    for packet in [0, 2, 4, 5] {
        stream.on_arrived(packet);
    }
    assert_eq!((stream.read, stream.runs.len()), (1, 2));
    stream.on_lost(1);
    stream.on_lost(3);
    stream.on_sent(6);
    stream.on_sent(7);
    stream.on_arrived(7);
    assert_eq!((stream.read, stream.runs.len()), (1, 1));
    stream.on_arrived(6);
    assert_eq!((stream.read, stream.runs.len()), (6, 0));
    assert_eq!(stream.most_runs(), 2);
}
