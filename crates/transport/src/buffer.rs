//! A byte buffer that grows and shrinks below a hard limit.

use std::ops::Range;

/// Smallest allocation for bulk data, in bytes: one TLS record of full size with its header and
/// tag.
pub(crate) const MIN_BYTES: usize = 17 * 1024;

/// Largest allocation that is released as soon as it is empty, in bytes: 4 KiB, an identify
/// message. Readers receive up to this number of bytes on the stack while they have no allocation.
/// Idle connections, which still ping, then hold no buffer between two pings.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;

/// Smallest allocation, in bytes: a ping with the overhead of Yamux and TLS takes less.
const LEAST_BYTES: usize = 256;

/// Number of consecutive uses of less than an eighth of the buffer after which
/// it is halved, and released below [`MIN_BYTES`]. Bulk transfers with short
/// pauses retain their buffer.
const SMALL_USES: u8 = 32;

/// A queue of bytes in one allocation that never exceeds its limit. Memory is
/// zeroed only when the allocation grows. It is released when the queue is
/// empty and was not used for bulk data of late.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    filled: Range<usize>,
    limit: usize,
    small_uses: u8,
}

impl Buffer {
    /// Creates an empty buffer that allocates on first use and holds at most
    /// `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            filled: 0..0,
            limit,
            small_uses: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.filled.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Returns how many bytes still fit below the limit.
    #[cfg(any(feature = "tls", test))]
    pub(crate) fn space(&self) -> usize {
        self.limit.saturating_sub(self.len())
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }

    #[cfg(any(feature = "tls", test))]
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled.clone()]
    }

    /// Returns the free space after the filled bytes: at least `least` bytes,
    /// if they fit below the limit. An empty buffer shrinks first if its
    /// latest uses were small.
    pub(crate) fn spare(&mut self, least: usize) -> &mut [u8] {
        self.shrink();
        if self.bytes.len() - self.filled.end < least {
            self.compact();
        }
        let needed = self.filled.end + least;
        let target = match needed {
            ..=SMALL_BYTES => needed.next_power_of_two().max(LEAST_BYTES),
            _ => needed.max(MIN_BYTES),
        };
        let target = target.min(self.limit);
        if needed > self.bytes.len() && target > self.bytes.len() {
            self.bytes.resize(target, 0);
        }
        &mut self.bytes[self.filled.end..]
    }

    /// Marks the first `count` bytes of the spare space as filled.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled.end = (self.filled.end + count).min(self.bytes.len());
    }

    /// Appends bytes that fit below the limit.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let spare = self.spare(bytes.len());
        let count = bytes.len().min(spare.len());
        spare[..count].copy_from_slice(&bytes[..count]);
        self.fill(count);
    }

    /// Removes the first `count` filled bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.filled.start = (self.filled.start + count).min(self.filled.end);
        if self.filled.is_empty() {
            self.filled = 0..0;
            if self.bytes.len() <= SMALL_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    /// Returns `true` if the buffer has no allocation. A reader should then
    /// receive at most [`SMALL_BYTES`] in other memory and append them.
    pub(crate) fn is_released(&mut self) -> bool {
        self.shrink();
        self.bytes.is_empty()
    }

    /// Doubles the allocation up to the limit. Call it after a read that filled
    /// all spare space.
    pub(crate) fn grow(&mut self) {
        let target = (self.bytes.len() * 2).clamp(MIN_BYTES.min(self.limit), self.limit);
        if target > self.bytes.len() {
            self.bytes.resize(target, 0);
        }
        self.small_uses = 0;
    }

    /// Records how many bytes one use of the buffer moved. The buffer shrinks
    /// after many small uses, when space is requested and it is empty: a
    /// reader reports a use while the bytes are in the buffer.
    pub(crate) fn used(&mut self, count: usize) {
        if count >= self.bytes.len() / 8 {
            self.small_uses = 0;
        } else {
            self.small_uses = self.small_uses.saturating_add(1);
        }
    }

    fn shrink(&mut self) {
        if self.small_uses >= SMALL_USES && self.is_empty() {
            let target = match self.bytes.len() {
                ..=MIN_BYTES => 0,
                larger => (larger / 2).max(MIN_BYTES),
            };
            self.bytes = vec![0; target];
            self.small_uses = 0;
        }
    }

    /// Returns the size of the allocation, in bytes.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.bytes.len()
    }

    /// Moves the filled bytes to the front, so that all spare space follows
    /// them.
    pub(crate) fn compact(&mut self) {
        if self.filled.start > 0 {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shrinks_after_many_small_uses_and_not_after_a_large_one() {
        let mut buffer = Buffer::new(16 * MIN_BYTES);
        buffer.spare(MIN_BYTES);
        for _ in 0..4 {
            buffer.grow();
        }
        assert_eq!(buffer.bytes.len(), 16 * MIN_BYTES);
        for _ in 0..u16::from(SMALL_USES) - 1 {
            buffer.used(100);
            buffer.spare(1);
        }
        buffer.used(16 * MIN_BYTES);
        buffer.spare(1);
        assert_eq!(buffer.bytes.len(), 16 * MIN_BYTES);
        for _ in 0..u16::from(SMALL_USES) * 4 {
            buffer.used(100);
            buffer.spare(1);
        }
        assert_eq!(buffer.bytes.len(), MIN_BYTES);
        for _ in 0..SMALL_USES {
            assert!(!buffer.is_released());
            buffer.used(100);
        }
        assert!(buffer.is_released());
    }

    #[test]
    fn a_small_allocation_is_released_when_it_is_empty() {
        let mut buffer = Buffer::new(16 * MIN_BYTES);
        assert!(buffer.is_released());
        buffer.append(&[1; SMALL_BYTES - 1]);
        assert_eq!(buffer.allocated(), SMALL_BYTES);
        buffer.append(&[2]);
        assert_eq!(buffer.allocated(), SMALL_BYTES);
        buffer.consume(SMALL_BYTES - 1);
        assert_eq!(buffer.filled(), [2]);
        buffer.consume(1);
        assert!(buffer.is_released());
        buffer.append(&[3; SMALL_BYTES + 1]);
        assert_eq!(buffer.allocated(), MIN_BYTES);
        buffer.consume(SMALL_BYTES + 1);
        assert!(!buffer.is_released(), "more bulk data may follow");
    }

    proptest! {
        /// For any sequence of fills and consumes, the bytes keep their order
        /// and the allocation stays within the limit.
        #[test]
        fn keeps_order_and_limit(steps in proptest::collection::vec((0usize..9000, 0usize..9000), 1..60)) {
            let limit = 2 * MIN_BYTES;
            let mut buffer = Buffer::new(limit);
            let (mut written, mut read) = (0u64, 0u64);
            for (fill, consume) in steps {
                let fill = fill.min(buffer.space());
                let spare = buffer.spare(fill);
                prop_assert!(spare.len() >= fill);
                for byte in &mut spare[..fill] {
                    *byte = (written % 251) as u8;
                    written += 1;
                }
                buffer.fill(fill);
                let consume = consume.min(buffer.len());
                for byte in &buffer.filled()[..consume] {
                    prop_assert_eq!(*byte, (read % 251) as u8);
                    read += 1;
                }
                buffer.consume(consume);
                buffer.used(consume);
                prop_assert!(buffer.bytes.len() <= limit);
                prop_assert_eq!(buffer.len() as u64, written - read);
            }
        }
    }
}
