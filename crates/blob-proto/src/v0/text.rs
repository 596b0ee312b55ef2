//! How JSON spells byte arrays: a public key as base58 text, a signature as 64 numbers.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, SeqAccess, Visitor},
    ser::SerializeTuple,
};

/// Length of an Ed25519 signature, in bytes.
pub(super) const SIGNATURE_BYTES: usize = 64;

/// 32 bytes as base58 text.
pub(super) mod base58 {
    use super::{Deserializer, Error, Serializer, Visitor, fmt};

    pub(in crate::v0) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // 32 bytes are at most 44 digits.
        let mut digits = [0; 44];
        let len = bs58::encode(bytes)
            .onto(digits.as_mut_slice())
            .map_err(serde::ser::Error::custom)?;
        let text = std::str::from_utf8(&digits[..len]).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }

    pub(in crate::v0) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = [u8; 32];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes as base58 text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let mut bytes = [0; 32];
                match bs58::decode(text).onto(&mut bytes) {
                    Ok(32) => Ok(bytes),
                    _ => Err(E::custom("not 32 bytes of base58")),
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// 64 bytes as a sequence of exactly 64 numbers.
pub(super) mod signature {
    use super::{
        Deserializer, Error, SIGNATURE_BYTES, SeqAccess, SerializeTuple, Serializer, Visitor, fmt,
    };

    pub(in crate::v0) fn serialize<S: Serializer>(
        bytes: &[u8; SIGNATURE_BYTES],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut numbers = serializer.serialize_tuple(SIGNATURE_BYTES)?;
        for byte in bytes {
            numbers.serialize_element(byte)?;
        }
        numbers.end()
    }

    pub(in crate::v0) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; SIGNATURE_BYTES], D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = [u8; SIGNATURE_BYTES];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 numbers from 0 to 255")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Self::Value, A::Error> {
                let mut bytes = [0; SIGNATURE_BYTES];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = numbers
                        .next_element()?
                        .ok_or_else(|| A::Error::invalid_length(index, &self))?;
                }
                // A tuple of serde_json ends at its closing bracket; what is left is refused there.
                Ok(bytes)
            }
        }

        deserializer.deserialize_tuple(SIGNATURE_BYTES, Numbers)
    }
}
