//! Names on the wire: topic hashes, message ids and sequence numbers.

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use calimero_network_primitives::{PeerId, Topic};

/// A topic as gossipsub names it: the topic string itself. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicHash(Arc<str>);

impl TopicHash {
    /// The hash whose text is `text`.
    #[must_use]
    pub fn from_raw(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text as it goes over the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicHash {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicHash({:?})", &*self.0)
    }
}

/// Returns the hash of `topic`: the topic string itself.
#[must_use]
pub fn topic_hash(topic: &Topic) -> TopicHash {
    TopicHash::from_raw(topic.to_string())
}

/// The id of a message: the base58 text of its author's peer id, followed by its sequence number
/// in decimal digits. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Bytes);

impl MessageId {
    /// The id of message `sequence_number` of `author`.
    #[must_use]
    pub fn new(author: &PeerId, sequence_number: u64) -> Self {
        Self::with_text(&author.to_base58(), sequence_number)
    }

    /// The same with the base58 text of the author, which takes longer to compute than the rest.
    pub(crate) fn with_text(author: &str, sequence_number: u64) -> Self {
        Self(format!("{author}{sequence_number}").into())
    }

    /// The id as it goes over the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Bits at the end of a sequence number that mark it as a time. A sequence number is then the time
/// of publication in units of 2^16 ns, 66 µs: 15,000 messages a second before numbers run ahead of
/// the clock. A counter carries the mark by accident once in 65,536 numbers.
const MARK_BITS: u32 = 16;

/// Returns the sequence number of a message published at `unix`, the time since 1970. It is above
/// `last`.
///
/// Other implementations see a number that grows, as gossipsub requires. Nodes of this kind read
/// the time of publication out of it ([`time_of`]), so that a node which has just started can
/// recognize an old message.
#[must_use]
pub fn sequence_number(unix: Duration, last: u64) -> u64 {
    let nanos = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
    let time = (nanos >> MARK_BITS).max((last >> MARK_BITS) + 1);
    time << MARK_BITS | mark(time)
}

/// Returns the time of publication since 1970 that `sequence_number` carries, if it is marked as
/// a time.
#[must_use]
pub fn time_of(sequence_number: u64) -> Option<Duration> {
    let marked = mark(sequence_number >> MARK_BITS) == sequence_number & ((1 << MARK_BITS) - 1);
    (marked && is_plausible(sequence_number)).then(|| Duration::from_nanos(sequence_number))
}

/// Returns `true` if `sequence_number` can be a number of nanoseconds since 1970 in the years 2017
/// to 2103, which is where the counters of rust-libp2p and go-libp2p start.
#[must_use]
pub fn is_plausible(sequence_number: u64) -> bool {
    (1_500_000_000_000_000_000..4_200_000_000_000_000_000).contains(&sequence_number)
}

/// Multiplication by the golden ratio spreads neighbouring times over all marks.
fn mark(time: u64) -> u64 {
    time.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - MARK_BITS)
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn sequence_numbers_grow_and_carry_the_time() {
        let mut last = 0;
        for step in 0..1_000_u64 {
            let now = NOW + Duration::from_micros(step / 10);
            let number = sequence_number(now, last);
            assert!(number > last);
            let time = time_of(number).unwrap();
            assert!(time.abs_diff(now) < Duration::from_millis(100), "{time:?}");
            last = number;
        }
        // A clock that steps back does not make numbers step back.
        assert!(sequence_number(NOW / 2, last) > last);
    }

    #[test]
    fn counters_and_random_numbers_are_not_times() {
        let start = 1_700_000_000_000_000_000_u64;
        let marked = (0..65_536).filter(|n| time_of(start + n).is_some()).count();
        assert_eq!(marked, 1);
        for number in [0, 7, u64::MAX] {
            assert_eq!(time_of(number), None);
        }
    }
}
