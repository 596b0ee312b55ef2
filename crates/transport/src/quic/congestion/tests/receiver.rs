//! What a receiver holds of a stream whose packets do not all arrive.

use std::collections::{BTreeMap, VecDeque};

/// Chunks of a stream that `quinn` holds before it joins those that it can.
const COMPACT_ABOVE: usize = 2_048;

/// Chunks among which `quinn` spreads what it holds: one that has its share is not copied again.
const SHARES: u64 = 1_024;

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
    /// The same as `quinn` stores it, with the number of parts in each chunk.
    chunks: BTreeMap<u64, u64>,
    most_chunks: usize,
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
        self.chunks.insert(part, 1);
        if begin == self.read {
            self.runs.remove(&begin);
            self.read = end;
            self.chunks = self.chunks.split_off(&end);
        }
        self.most_runs = self.most_runs.max(self.runs.len());
        if self.chunks.len() > COMPACT_ABOVE {
            self.compact();
            self.most_chunks = self.most_chunks.max(self.chunks.len());
        }
    }

    /// Joins chunks that follow each other, except for those that have their share.
    fn compact(&mut self) {
        let share = self.chunks.values().sum::<u64>().div_ceil(SHARES);
        let mut joined: BTreeMap<u64, u64> = BTreeMap::new();
        // The chunk that the next one can be joined to.
        let mut open: Option<(u64, u64)> = None;
        for (begin, parts) in std::mem::take(&mut self.chunks) {
            if parts >= share {
                joined.insert(begin, parts);
            } else if let Some((first, count)) =
                open.filter(|(first, count)| first + count == begin)
            {
                open = Some((first, count + parts));
            } else {
                joined.extend(open.replace((begin, parts)));
            }
        }
        joined.extend(open);
        self.chunks = joined;
    }

    /// Most runs of data that were held at one time, with gaps between them.
    pub(super) fn most_runs(&self) -> usize {
        self.most_runs
    }

    /// Most chunks that were left after some were joined.
    pub(super) fn most_chunks(&self) -> usize {
        self.most_chunks
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

#[test]
fn chunks_that_follow_each_other_are_joined_when_there_are_many() {
    let mut stream = Stream::default();
    let parts = 2 * COMPACT_ABOVE as u64 + 2;
    (0..parts).for_each(|packet| stream.on_sent(packet));
    // Every second one but the first: each is alone.
    (3..parts)
        .step_by(2)
        .for_each(|packet| stream.on_arrived(packet));
    assert_eq!(
        (stream.chunks.len(), stream.most_chunks()),
        (COMPACT_ABOVE, 0)
    );
    stream.on_arrived(2);
    // The one that follows is joined to it.
    assert_eq!(
        (stream.chunks.len(), stream.most_chunks()),
        (COMPACT_ABOVE, COMPACT_ABOVE)
    );
    stream.on_arrived(1);
    stream.on_arrived(0);
    assert_eq!((stream.read, stream.chunks.len()), (4, COMPACT_ABOVE - 1));
}
