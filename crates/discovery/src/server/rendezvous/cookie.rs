//! The cookies of a registry: the position at which an answer ended, in a form that only that
//! registry reads.
//!
//! A cookie is eight bytes and the namespace, as the stock server (libp2p-rendezvous 0.18) writes
//! it: programs with the stock client use it to match answers to requests. Eight bytes hold a
//! position after the end of the members, not one among them. Positions among the members are
//! stored here, the latest [`MAX_WALKS`] of them. A client with an older one starts again.
//!
//! A cookie is neither secret nor authenticated: a client that invents one gets other members of a
//! namespace whose name it has to know anyway.

use std::collections::VecDeque;

use crate::machine::Namespace;

/// Positions among members that are stored, 65,536, which take 3 MiB. They suffice for ten thousand
/// nodes that read six large namespaces at once.
pub const MAX_WALKS: usize = 65_536;

/// Bits of the number in a cookie.
const NUMBER_BITS: u32 = 47;

/// Marks the number of a stored position. Other numbers are horizons.
const KEPT: u64 = 1 << NUMBER_BITS;

/// The position at which an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// While the members of the first request are returned: the order at which the client began,
    /// the one at which it continues, and whether it has passed the end.
    pub(super) walk: Option<(u64, u64, bool)>,
    /// The last serial at the first request; afterwards the last one that was returned.
    pub(super) horizon: u64,
}

/// The cookies of one registry.
#[derive(Clone, Debug)]
pub(super) struct Cookies {
    /// Distinguishes these cookies from those of other servers.
    epoch: u16,
    /// Number of the oldest stored position.
    oldest: u64,
    kept: VecDeque<(Namespace, Place)>,
}

impl Cookies {
    pub(super) fn new(epoch: u16) -> Self {
        Self {
            epoch,
            oldest: 0,
            kept: VecDeque::new(),
        }
    }

    pub(super) fn write(&mut self, place: Place, namespace: &Namespace) -> Vec<u8> {
        let number = match place.walk {
            None => place.horizon,
            Some(_) => KEPT | self.keep(place, namespace),
        };
        let head = u64::from(self.epoch) << (NUMBER_BITS + 1) | number;
        let mut bytes = head.to_be_bytes().to_vec();
        bytes.extend_from_slice(namespace.as_str().as_bytes());
        bytes
    }

    /// Returns `None` if the cookie was not written here for this namespace, or too long ago.
    pub(super) fn read(&self, cookie: &[u8], namespace: &Namespace) -> Option<Place> {
        let (head, text) = cookie.split_first_chunk::<8>()?;
        let head = u64::from_be_bytes(*head);
        if text != namespace.as_str().as_bytes()
            || head >> (NUMBER_BITS + 1) != u64::from(self.epoch)
        {
            return None;
        }
        let number = head & (KEPT - 1);
        if head & KEPT == 0 {
            return Some(Place {
                walk: None,
                horizon: number,
            });
        }
        let index = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        let (of, place) = self.kept.get(index)?;
        (of == namespace).then_some(*place)
    }

    fn keep(&mut self, place: Place, namespace: &Namespace) -> u64 {
        if self.kept.len() == MAX_WALKS {
            self.kept.pop_front();
            self.oldest += 1;
        }
        let number = self.oldest + self.kept.len() as u64;
        self.kept.push_back((namespace.clone(), place));
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        let walk = prop::option::of((any::<u64>(), any::<u64>(), any::<bool>()));
        (walk, 0..KEPT).prop_map(|(walk, horizon)| Place { walk, horizon })
    }

    proptest! {
        #[test]
        fn a_cookie_reads_as_it_was_written_and_nowhere_else(
            places in prop::collection::vec(place(), 1..8),
            [epoch, other] in any::<[u16; 2]>(),
            names in prop::array::uniform2("[a-z/]{1,255}"),
        ) {
            let [one, two] = names.map(|name| Namespace::new(&name).unwrap());
            let mut cookies = Cookies::new(epoch);
            let written: Vec<_> = places.iter().map(|place| cookies.write(*place, &one)).collect();
            for (cookie, place) in written.iter().zip(&places) {
                prop_assert_eq!(cookies.read(cookie, &one), Some(*place));
                prop_assert_eq!(&cookie[8..], one.as_str().as_bytes());
                if epoch != other {
                    prop_assert_eq!(Cookies::new(other).read(cookie, &one), None);
                }
                if one != two {
                    prop_assert_eq!(cookies.read(cookie, &two), None);
                }
            }
        }

        #[test]
        fn any_bytes_are_a_cookie_or_none(head in any::<[u8; 8]>(), tail in any::<Vec<u8>>()) {
            let namespace = Namespace::new("ns").unwrap();
            let mut cookies = Cookies::new(7);
            let ours = cookies.write(Place { walk: Some((1, 2, true)), horizon: 3 }, &namespace);
            let mut forged = ours.clone();
            forged[2..8].copy_from_slice(&head[2..]);
            for bytes in [[head.as_slice(), &tail].concat(), tail, forged] {
                let _ = cookies.read(&bytes, &namespace);
            }
        }
    }

    #[test]
    fn the_latest_places_are_kept() {
        let namespace = Namespace::new("ns").unwrap();
        let mut cookies = Cookies::new(7);
        let place = |from| Place {
            walk: Some((0, from, false)),
            horizon: 1,
        };
        let first = cookies.write(place(0), &namespace);
        let second = cookies.write(place(1), &namespace);
        for from in 2..=MAX_WALKS as u64 {
            cookies.write(place(from), &namespace);
        }
        assert_eq!(cookies.read(&first, &namespace), None);
        assert_eq!(cookies.read(&second, &namespace), Some(place(1)));
    }
}
