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

    /// Takes the lowest indices, at most `most`, of one run and below `limit`.
    pub(super) fn pop(&mut self, most: u64, limit: u64) -> Range<u64> {
        if most == 0 || self.first().is_none_or(|first| first >= limit) {
            return 0..0;
        }
        let Some((start, end)) = self.runs.pop_first() else {
            return 0..0;
        };
        let cut = end.min(start.saturating_add(most)).min(limit);
        if cut < end {
            self.runs.insert(cut, end);
        }
        self.len -= cut - start;
        start..cut
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
                        let popped = ranges.pop(most, limit);
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
                prop_assert_eq!(ranges.first(), model.first().copied());
            }
            let rest: Vec<u64> = std::iter::from_fn(|| {
                let popped = ranges.pop(1, u64::MAX);
                (!popped.is_empty()).then_some(popped.start)
            })
            .collect();
            prop_assert_eq!(rest, model.into_iter().collect::<Vec<_>>());
        }
    }
}
