//! A set of chunk indices that are mostly in runs.

use std::{collections::BTreeMap, ops::Range};

/// Indices, as the start and end of each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    runs: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        let before = self.runs.range(..=index).next_back();
        before.is_some_and(|(_, end)| index < *end)
    }

    /// The lowest index from `from` on, or else the lowest of all.
    pub(super) fn next_around(&self, from: u64) -> Option<u64> {
        if self.contains(from) {
            return Some(from);
        }
        let after = self.runs.range(from..).next();
        after.map(|(start, _)| *start).or_else(|| self.first())
    }

    pub(super) fn insert(&mut self, index: u64) {
        let before = self.runs.range(..=index).next_back();
        let before = before.map(|(&start, &end)| start..end);
        if before.as_ref().is_some_and(|run| run.contains(&index)) {
            return;
        }
        self.len += 1;
        let start = match before {
            Some(run) if run.end == index => run.start,
            _ => index,
        };
        let end = self.runs.remove(&(index + 1)).unwrap_or(index + 1);
        self.runs.insert(start, end);
    }

    /// The lowest indices, at most `most`, of one run and below `limit`.
    pub(super) fn front(&self, most: u64, limit: u64) -> Range<u64> {
        let Some((&start, &end)) = self.runs.first_key_value() else {
            return 0..0;
        };
        let cut = end.min(start.saturating_add(most)).min(limit);
        if cut <= start { 0..0 } else { start..cut }
    }

    /// One more than the highest index, or 0 where there is none.
    pub(super) fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(_, end)| *end)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    pub(super) fn remove(&mut self, index: u64) -> bool {
        let Some((&start, &end)) = self.runs.range(..=index).next_back() else {
            return false;
        };
        if index >= end {
            return false;
        }
        self.runs.remove(&start);
        if start < index {
            self.runs.insert(start, index);
        }
        if index + 1 < end {
            self.runs.insert(index + 1, end);
        }
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Ranges;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(u64),
        Pop(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..40).prop_map(Step::Insert),
            1 => (0_u64..40).prop_map(Step::Remove),
            1 => (0_u64..5, 0_u64..50).prop_map(|(most, limit)| Step::Pop(most, limit)),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec(step(), 0..200)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(index) => {
                        ranges.insert(index);
                        model.insert(index);
                    }
                    Step::Remove(index) => {
                        prop_assert_eq!(ranges.remove(index), model.remove(&index));
                    }
                    Step::Pop(most, limit) => {
                        let first = model.first().copied().filter(|first| *first < limit);
                        let popped = ranges.front(most, limit);
                        popped.clone().for_each(|index| assert!(ranges.remove(index)));
                        prop_assert!(popped.is_empty() || popped.end <= limit);
                        prop_assert!(popped.end - popped.start <= most);
                        prop_assert_eq!(popped.is_empty(), most == 0 || first.is_none());
                        if !popped.is_empty() {
                            prop_assert_eq!(Some(popped.start), first);
                        }
                        popped.for_each(|index| assert!(model.remove(&index)));
                    }
                }
                prop_assert_eq!(ranges.len(), model.len() as u64);
                for index in [0, 7, 20, 39] {
                    prop_assert_eq!(ranges.contains(index), model.contains(&index));
                    let around = model.range(index..).next().or(model.first());
                    prop_assert_eq!(ranges.next_around(index), around.copied());
                }
                prop_assert_eq!(ranges.first(), model.first().copied());
            }
            prop_assert_eq!(ranges.end(), model.last().map_or(0, |last| last + 1));
            let rest: Vec<u64> = ranges.runs().flatten().collect();
            prop_assert_eq!(rest, model.into_iter().collect::<Vec<_>>());
        }
    }
}
