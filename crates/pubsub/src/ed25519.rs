//! Verification of Ed25519 signatures with tables, for authors that publish often.
//!
//! A signature of [RFC 8032] holds if `R = s B - k A`, where `k` is a hash of `R`, the key `A` and
//! the message. To compute the right side for a key seen for the first time takes 253 doublings of a
//! point and some 70 additions. With multiples of the key in a table, 16 doublings suffice.
//!
//! As a verifier without tables does, this one compares the bytes of the point with the bytes of
//! `R`, so both accept the same signatures, whatever the order of key and `R` and however they are
//! encoded. No input is secret, so no operation takes constant time.
//!
//! [RFC 8032]: https://www.rfc-editor.org/rfc/rfc8032

use std::sync::LazyLock;

use calimero_network_primitives::identity::PublicKey;
use curve25519_dalek::{
    EdwardsPoint, Scalar, constants::ED25519_BASEPOINT_POINT, edwards::CompressedEdwardsY,
    traits::Identity,
};
use sha2::{Digest, Sha512};

/// Bits of a scalar that share one table.
const PART_BITS: usize = 16;

/// Tables of one point, in number.
const PARTS: usize = 256 / PART_BITS;

/// Bits of a digit. Digits are odd and between `-2^5` and `2^5`; of six in a row all but one are
/// zero.
const WIDTH: usize = 6;

/// Multiples of a point in a table: one for each odd digit above zero.
const MULTIPLES: usize = 1 << (WIDTH - 2);

/// Odd multiples of a point times each power of `2^16`: 40 KiB.
struct Multiples(Box<[[EdwardsPoint; MULTIPLES]; PARTS]>);

/// Multiples of the base point, which all keys share.
static BASE: LazyLock<Multiples> = LazyLock::new(|| Multiples::new(ED25519_BASEPOINT_POINT));

impl Multiples {
    fn new(mut point: EdwardsPoint) -> Self {
        let mut tables = Box::new([[EdwardsPoint::identity(); MULTIPLES]; PARTS]);
        for table in tables.iter_mut() {
            let twice = point + point;
            let mut odd = point;
            for multiple in table.iter_mut() {
                *multiple = odd;
                odd += twice;
            }
            for _ in 0..PART_BITS {
                point += point;
            }
        }
        Self(tables)
    }

    /// Adds the multiples that the digits at `position` of every part stand for.
    fn add_to(&self, sum: &mut EdwardsPoint, digits: &Digits, position: usize) {
        for (part, table) in self.0.iter().enumerate() {
            let digit = digits[part * PART_BITS + position];
            let multiple = usize::from(digit.unsigned_abs() / 2);
            if digit > 0 {
                *sum += table[multiple];
            } else if digit < 0 {
                *sum -= table[multiple];
            }
        }
    }
}

/// A scalar as a sum of digits times powers of two.
type Digits = [i8; 256];

/// The digits of a scalar less than 2^253, or of its negative.
fn digits(scalar: &Scalar, negative: bool) -> Digits {
    let mut digits = [0; 256];
    let bytes = scalar.as_bytes();
    let bit = |at: usize| {
        bytes
            .get(at / 8)
            .map_or(0, |byte| i16::from(byte >> (at % 8) & 1))
    };
    let (mut at, mut carry) = (0, 0);
    while at < digits.len() {
        if bit(at) + carry != 1 {
            // Even: no digit here, and the carry equals the bit.
            at += 1;
            continue;
        }
        let mut digit = (0..WIDTH).fold(carry, |sum, index| sum + (bit(at + index) << index));
        carry = i16::from(digit >= 1 << (WIDTH - 1));
        digit -= carry << WIDTH;
        let digit = if negative { -digit } else { digit };
        // Less than 2^5 either way.
        digits[at] = i8::try_from(digit).unwrap_or_default();
        at += WIDTH;
    }
    digits
}

/// A public key with its tables, which take 40 KiB.
pub struct Verifier {
    key: CompressedEdwardsY,
    multiples: Multiples,
}

impl Verifier {
    /// Computes the tables of `key`, which takes as long as verifying three signatures. Returns
    /// `None` if it is not an Ed25519 key.
    #[must_use]
    pub fn new(key: &PublicKey) -> Option<Self> {
        let key = key.clone().try_into_ed25519().ok()?;
        let key = CompressedEdwardsY(key.to_bytes());
        let multiples = Multiples::new(key.decompress()?);
        Some(Self { key, multiples })
    }

    /// Returns `true` if the key has signed `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((r, s)) = signature.split_first_chunk::<32>() else {
            return false;
        };
        let Ok(s) = <[u8; 32]>::try_from(s) else {
            return false;
        };
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else {
            return false;
        };
        let mut hash = Sha512::new();
        hash.update(r);
        hash.update(self.key.as_bytes());
        hash.update(message);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());

        let (s, k) = (digits(&s, false), digits(&k, true));
        let mut sum = EdwardsPoint::identity();
        for position in (0..PART_BITS).rev() {
            sum += sum;
            BASE.add_to(&mut sum, &s, position);
            self.multiples.add_to(&mut sum, &k, position);
        }
        sum.compress().as_bytes() == r
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.key).finish()
    }
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::Keypair;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    use super::*;

    fn public(bytes: [u8; 32]) -> Option<PublicKey> {
        let key = libp2p_identity::ed25519::PublicKey::try_from_bytes(&bytes).ok()?;
        Some(PublicKey::from(key))
    }

    /// Returns `true` if both verifiers accept a signature, and `false` if both refuse it.
    fn agreed(key: [u8; 32], message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = public(key) else {
            return false;
        };
        let accepted = key.verify(message, signature);
        let verifier = Verifier::new(&key).unwrap();
        assert_eq!(
            verifier.verify(message, signature),
            accepted,
            "{verifier:?}"
        );
        accepted
    }

    fn signed(message: &[u8]) -> ([u8; 32], Vec<u8>) {
        let key = Keypair::generate_ed25519();
        let public = key.public().try_into_ed25519().unwrap().to_bytes();
        (public, key.sign(message).unwrap())
    }

    /// The group order, little-endian (RFC 8032, section 5.1).
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn add_order(s: &mut [u8]) {
        let mut carry = 0;
        for (byte, order) in s.iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
    }

    #[test]
    fn the_vectors_of_the_specification_are_accepted() {
        let hex = |text: &str| -> Vec<u8> {
            let digits = (0..text.len()).step_by(2);
            digits
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        for (key, message, signature) in [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                 5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ] {
            let key = hex(key).try_into().unwrap();
            assert!(agreed(key, &hex(message), &hex(signature)));
        }
    }

    #[test]
    fn a_scalar_beyond_the_order_is_refused() {
        let (key, mut signature) = signed(b"message");
        assert!(agreed(key, b"message", &signature));
        add_order(&mut signature[32..]);
        assert!(!agreed(key, b"message", &signature));
    }

    #[test]
    fn other_lengths_are_refused() {
        let (key, signature) = signed(b"message");
        for length in 0..64 {
            assert!(!agreed(key, b"message", &signature[..length]));
        }
        assert!(!agreed(key, b"message", &[&signature[..], &[0]].concat()));
    }

    /// Keys and `R` of small and mixed order, in all their encodings: where verifiers differ.
    #[test]
    fn points_outside_the_prime_order_group_are_judged_alike() {
        let mut keys: Vec<[u8; 32]> = Vec::new();
        let secret = Scalar::from(7_u64);
        for torsion in EIGHT_TORSION {
            keys.push(torsion.compress().to_bytes());
            let mixed = EdwardsPoint::mul_base(&secret) + torsion;
            keys.push(mixed.compress().to_bytes());
        }
        // y of 0 and 1 as p and p + 1, and 1 with the sign of an x that is 0.
        for (low, high) in [(0xed, 0x7f), (0xed, 0xff), (0xee, 0x7f), (0xee, 0xff)] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            keys.push(bytes);
        }
        let mut one = [0; 32];
        (one[0], one[31]) = (1, 0x80);
        keys.push(one);

        let mut accepted = 0;
        for key in &keys {
            for torsion in EIGHT_TORSION {
                for s in 0..4_u64 {
                    let s = Scalar::from(s);
                    let r = (EdwardsPoint::mul_base(&s) + torsion).compress();
                    let signature = [&r.as_bytes()[..], s.as_bytes()].concat();
                    accepted += usize::from(agreed(*key, b"message", &signature));
                    // And one that was made with the secret of the mixed keys.
                    let hash =
                        Sha512::new_with_prefix([&r.as_bytes()[..], key, b"message"].concat());
                    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
                    let signature = [&r.as_bytes()[..], (s + k * secret).as_bytes()].concat();
                    accepted += usize::from(agreed(*key, b"message", &signature));
                }
            }
        }
        // With a key of small order some signatures are valid without its secret, so there is
        // something on which verifiers could differ.
        assert!(accepted > 20, "{accepted}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn signatures_are_accepted_and_changed_ones_refused(
            message in prop::collection::vec(any::<u8>(), 0..300),
            at in 0..64_usize,
            bit in 0..8_u32,
        ) {
            let (key, mut signature) = signed(&message);
            prop_assert!(agreed(key, &message, &signature));
            signature[at] ^= 1 << bit;
            prop_assert!(!agreed(key, &message, &signature));
        }

        #[test]
        fn digits_add_up_to_the_scalar(bytes in any::<[u8; 32]>(), negative in any::<bool>()) {
            let scalar = Scalar::from_bytes_mod_order(bytes);
            let digits = digits(&scalar, negative);
            let sum = digits.iter().rev().fold(Scalar::ZERO, |sum, digit| {
                let size = Scalar::from(digit.unsigned_abs());
                sum + sum + if *digit < 0 { -size } else { size }
            });
            prop_assert_eq!(sum, if negative { -scalar } else { scalar });
            prop_assert!(digits.iter().all(|digit| *digit == 0 || digit % 2 != 0));
            prop_assert!(digits.iter().all(|digit| digit.unsigned_abs() < 1 << (WIDTH - 1)));
        }
    }
}
