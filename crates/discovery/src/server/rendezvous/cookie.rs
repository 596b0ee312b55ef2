//! Cookies of a registry: where an answer ended, written so that only that registry reads them.
//!
//! A cookie is no secret and no promise: who makes one up is told other members, of a namespace
//! whose name it has to know anyway.

use crate::machine::Namespace;

/// Tells the cookies of one registry from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(pub(super) u32);

/// Where an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// While the members of the first question are walked through: the order at which the walk
    /// began, the one at which it goes on, and whether it has come past the end.
    pub(super) walk: Option<(u64, u64, bool)>,
    /// The last serial that was there at the first question; after the walk, the last one told.
    pub(super) horizon: u64,
}

impl Epoch {
    /// Eight bytes, then a text: the stock client takes nothing else for a cookie.
    pub(super) fn write(self, place: Place, namespace: &Namespace) -> Vec<u8> {
        let mut bytes = self.head(namespace).to_vec();
        let text = match place.walk {
            Some((start, from, wrapped)) => {
                let sign = if wrapped { '>' } else { '<' };
                format!("{:x}{sign}{start:x}.{from:x}", place.horizon)
            }
            None => format!("{:x}", place.horizon),
        };
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// `None` where the cookie was not written by this epoch for this namespace.
    pub(super) fn read(self, cookie: &[u8], namespace: &Namespace) -> Option<Place> {
        let (head, text) = cookie.split_first_chunk::<8>()?;
        if *head != self.head(namespace) {
            return None;
        }
        let text = str::from_utf8(text).ok()?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let Some(at) = text.find(['<', '>']) else {
            return Some(Place {
                walk: None,
                horizon: number(text)?,
            });
        };
        let (horizon, walk) = text.split_at(at);
        let wrapped = walk.starts_with('>');
        let (start, from) = walk[1..].split_once('.')?;
        Some(Place {
            walk: Some((number(start)?, number(from)?, wrapped)),
            horizon: number(horizon)?,
        })
    }

    /// The epoch, and what tells namespaces apart.
    fn head(self, namespace: &Namespace) -> [u8; 8] {
        let hash = fnv1a(namespace.as_str().as_bytes());
        let mut head = [0; 8];
        head[..4].copy_from_slice(&self.0.to_be_bytes());
        head[4..].copy_from_slice(&hash.to_be_bytes());
        head
    }
}

/// Fowler, Noll and Vo's hash, 1a, of 32 bits. It tells mistakes from cookies; who wants to
/// collide gains nothing.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        let walk = prop::option::of((any::<u64>(), any::<u64>(), any::<bool>()));
        (walk, any::<u64>()).prop_map(|(walk, horizon)| Place { walk, horizon })
    }

    proptest! {
        #[test]
        fn a_cookie_reads_as_it_was_written_and_nowhere_else(
            place in place(),
            [epoch, other] in any::<[u32; 2]>(),
            names in prop::array::uniform2("[a-z/]{1,255}"),
        ) {
            let [one, two] = names.map(|name| Namespace::new(&name).unwrap());
            let cookie = Epoch(epoch).write(place, &one);
            prop_assert_eq!(Epoch(epoch).read(&cookie, &one), Some(place));
            // What the stock client takes: eight bytes and a namespace.
            prop_assert!(cookie.len() <= 8 + 255);
            prop_assert!(str::from_utf8(&cookie[8..]).is_ok());
            if epoch != other {
                prop_assert_eq!(Epoch(other).read(&cookie, &one), None);
            }
            if fnv1a(one.as_str().as_bytes()) != fnv1a(two.as_str().as_bytes()) {
                prop_assert_eq!(Epoch(epoch).read(&cookie, &two), None);
            }
        }

        #[test]
        fn any_bytes_are_a_cookie_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            text in "[0-9a-f<>.+-]{0,40}",
        ) {
            let namespace = Namespace::new("ns").unwrap();
            let epoch = Epoch(7);
            let mut ours = epoch.head(&namespace).to_vec();
            ours.extend(text.bytes());
            for bytes in [bytes, ours] {
                let _ = epoch.read(&bytes, &namespace);
            }
        }
    }
}
