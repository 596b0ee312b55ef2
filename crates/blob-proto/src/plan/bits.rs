//! A set of chunk indices as bits.

use std::ops::Range;

const WORD: u64 = u64::BITS as u64;

/// Indices below a length that is given when the set is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    end: u64,
    count: u64,
}

impl Bits {
    /// Creates an empty set of indices below `end`.
    pub(super) fn new(end: u64) -> Self {
        let words = usize::try_from(end.div_ceil(WORD)).unwrap_or_default();
        Self {
            words: vec![0; words],
            end,
            count: 0,
        }
    }

    /// Returns an empty set with the same end.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.end)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds the indices of a range that are below the end.
    pub(super) fn insert_all(&mut self, range: Range<u64>) {
        self.change(range, |word, mask| word | mask);
    }

    pub(super) fn remove(&mut self, index: u64) {
        self.change(index..index.saturating_add(1), |word, mask| word & !mask);
    }

    /// Removes what is not in `other`.
    pub(super) fn retain(&mut self, other: &Self) {
        self.count = 0;
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or_default();
            self.count += u64::from(word.count_ones());
        }
    }

    /// The lowest index from `from` on, or else the lowest of all.
    pub(super) fn next_around(&self, from: u64) -> Option<u64> {
        self.next(from).or_else(|| self.next(0))
    }

    /// The lowest index from `from` on.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let first = usize::try_from(from / WORD).ok()?;
        let mut mask = u64::MAX << (from % WORD);
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let word = word & std::mem::replace(&mut mask, u64::MAX);
            if word != 0 {
                return Some(at as u64 * WORD + u64::from(word.trailing_zeros()));
            }
        }
        None
    }

    fn change(&mut self, range: Range<u64>, change: impl Fn(u64, u64) -> u64) {
        let (mut at, end) = (range.start, range.end.min(self.end));
        while at < end {
            let next = (at / WORD + 1).saturating_mul(WORD).min(end);
            // At most 64 bits, of one word.
            let mask = (u64::MAX >> (WORD - (next - at))) << (at % WORD);
            if let Some(word) = self.words.get_mut(place(at).0) {
                self.count -= u64::from(word.count_ones());
                *word = change(*word, mask);
                self.count += u64::from(word.count_ones());
            }
            at = next;
        }
    }
}

fn place(index: u64) -> (usize, u64) {
    let word = usize::try_from(index / WORD).unwrap_or(usize::MAX);
    (word, 1 << (index % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    proptest! {
        #[test]
        fn it_is_a_set(
            end in 0_u64..300,
            steps in prop::collection::vec((0_u8..4, 0_u64..320, 0_u64..150), 0..60),
        ) {
            let (mut bits, mut model) = (Bits::new(end), BTreeSet::new());
            let mut others = Bits::new(end);
            for (kind, start, len) in steps {
                match kind {
                    0 | 1 => {
                        bits.insert_all(start..start + len);
                        model.extend((start..start + len).filter(|index| *index < end));
                    }
                    2 => {
                        bits.remove(start);
                        model.remove(&start);
                    }
                    _ => {
                        others.insert_all(start..start + len);
                        bits.retain(&others);
                        model.retain(|index| others.contains(*index));
                    }
                }
                prop_assert_eq!(bits.count(), model.len() as u64);
                prop_assert_eq!(bits.contains(start), model.contains(&start));
                prop_assert_eq!(bits.next(start), model.range(start..).next().copied());
                let around = model.range(start..).next().or(model.first());
                prop_assert_eq!(bits.next_around(start), around.copied());
            }
        }
    }
}
