//! Identifiers: 32 bytes each, in one text form each.

use std::{
    fmt,
    str::{FromStr, from_utf8},
};

use borsh::{BorshDeserialize, BorshSerialize, io};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use crate::limits::ID_LEN_BYTES;

/// Fewest characters of 32 bytes in base58: one for each byte, all of them zero.
const MIN_BASE58_LEN: usize = ID_LEN_BYTES;
/// Most characters of 32 bytes in base58: 256 bits at 5.86 bits a character.
const MAX_BASE58_LEN: usize = 44;
/// Characters of 32 bytes in hexadecimal.
const HEX_LEN: usize = 2 * ID_LEN_BYTES;

/// The two text forms of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextEncoding {
    /// Base58 with the Bitcoin alphabet, 32 to 44 characters.
    Base58,
    /// Lower-case hexadecimal, 64 digits.
    Hex,
}

impl fmt::Display for TextEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base58 => "base58",
            Self::Hex => "hex",
        })
    }
}

/// Why a text or a run of bytes is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// The text has a length that no id has. It was not looked at further.
    #[error("{encoding} id of {len} bytes of text, must have {min} to {max}")]
    TextLength {
        /// The form that was read.
        encoding: TextEncoding,
        /// Length of the text, in bytes.
        len: usize,
        /// Shortest text of an id, in bytes.
        min: usize,
        /// Longest text of an id, in bytes.
        max: usize,
    },
    /// A character is not of the alphabet. Hexadecimal digits above 9 are lower case, so that
    /// one id has one text.
    #[error("character {character:?} at byte {position} is not of the {encoding} alphabet")]
    Character {
        /// The form that was read.
        encoding: TextEncoding,
        /// The first refused character.
        character: char,
        /// Where it begins, in bytes from the start of the text.
        position: usize,
    },
    /// The input does not have, or does not encode, exactly 32 bytes.
    #[error("id of {len} bytes, must have {ID_LEN_BYTES}")]
    ByteLength {
        /// How many there are.
        len: usize,
    },
}

fn check_text_len(
    text: &str,
    encoding: TextEncoding,
    min: usize,
    max: usize,
) -> Result<(), ParseIdError> {
    let len = text.len();
    if (min..=max).contains(&len) {
        return Ok(());
    }
    Err(ParseIdError::TextLength {
        encoding,
        len,
        min,
        max,
    })
}

/// The first character of `text` that `allowed` refuses, as the error that names it.
fn check_alphabet(
    text: &str,
    encoding: TextEncoding,
    allowed: impl Fn(char) -> bool,
) -> Result<(), ParseIdError> {
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        None => Ok(()),
        Some((position, character)) => Err(ParseIdError::Character {
            encoding,
            character,
            position,
        }),
    }
}

fn array(bytes: &[u8]) -> Result<[u8; ID_LEN_BYTES], ParseIdError> {
    bytes
        .try_into()
        .map_err(|_| ParseIdError::ByteLength { len: bytes.len() })
}

fn decode_base58(text: &str) -> Result<[u8; ID_LEN_BYTES], ParseIdError> {
    let encoding = TextEncoding::Base58;
    check_text_len(text, encoding, MIN_BASE58_LEN, MAX_BASE58_LEN)?;
    check_alphabet(
        text,
        encoding,
        |c| matches!(c, '1'..='9' | 'A'..='H' | 'J'..='N' | 'P'..='Z' | 'a'..='k' | 'm'..='z'),
    )?;
    // A leading '1' is a whole zero byte, so 44 characters are at most 44 bytes.
    let mut bytes = [0; MAX_BASE58_LEN];
    let len = bs58::decode(text)
        .onto(&mut bytes[..])
        .map_err(|_| ParseIdError::ByteLength { len: bytes.len() })?;
    array(&bytes[..len])
}

fn decode_hex(text: &str) -> Result<[u8; ID_LEN_BYTES], ParseIdError> {
    let encoding = TextEncoding::Hex;
    check_text_len(text, encoding, HEX_LEN, HEX_LEN)?;
    check_alphabet(text, encoding, |c| matches!(c, '0'..='9' | 'a'..='f'))?;
    let mut bytes = [0; ID_LEN_BYTES];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError::ByteLength {
        len: text.len() / 2,
    })?;
    Ok(bytes)
}

/// Writes the text of an id from the stack.
fn fmt_id(
    bytes: &[u8; ID_LEN_BYTES],
    encoding: TextEncoding,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut text = [0; HEX_LEN];
    let len = match encoding {
        TextEncoding::Base58 => bs58::encode(bytes)
            .onto(&mut text[..])
            .map_err(|_| fmt::Error)?,
        TextEncoding::Hex => hex::encode_to_slice(bytes, &mut text)
            .map(|()| HEX_LEN)
            .map_err(|_| fmt::Error)?,
    };
    f.pad(from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
}

/// An id in one of its text forms, chosen by value.
struct Text<'a>(&'a [u8; ID_LEN_BYTES], TextEncoding);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_id(self.0, self.1, f)
    }
}

/// Reads 32 bytes from any serde format, as text by `parse` or as bytes.
struct IdVisitor {
    parse: fn(&str) -> Result<[u8; ID_LEN_BYTES], ParseIdError>,
}

impl<'de> Visitor<'de> for IdVisitor {
    type Value = [u8; ID_LEN_BYTES];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id of {ID_LEN_BYTES} bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        array(bytes).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut bytes = [0; ID_LEN_BYTES];
        for (len, byte) in bytes.iter_mut().enumerate() {
            *byte = seq
                .next_element()?
                .ok_or_else(|| de::Error::custom(ParseIdError::ByteLength { len }))?;
        }
        match seq.next_element::<u8>()? {
            None => Ok(bytes),
            Some(_) => Err(de::Error::custom(ParseIdError::ByteLength {
                len: ID_LEN_BYTES + 1,
            })),
        }
    }
}

/// Declares one id: a name, what it names, and its canonical text form.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $encoding:ident, $decode:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LEN_BYTES]);

        impl $name {
            /// The id of these bytes.
            #[must_use]
            pub const fn new(bytes: [u8; ID_LEN_BYTES]) -> Self {
                Self(bytes)
            }

            /// Borrows the 32 bytes of the id.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_LEN_BYTES] {
                &self.0
            }

            /// Returns the 32 bytes of the id.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; ID_LEN_BYTES] {
                self.0
            }

            /// 32 to 44 characters of base58, Bitcoin alphabet.
            #[must_use]
            pub fn to_base58(&self) -> String {
                Text(&self.0, TextEncoding::Base58).to_string()
            }

            /// 64 lower-case hexadecimal digits.
            #[must_use]
            pub fn to_hex(&self) -> String {
                Text(&self.0, TextEncoding::Hex).to_string()
            }

            /// Reads base58, Bitcoin alphabet.
            ///
            /// # Errors
            ///
            /// [`ParseIdError`] with the length, character or position that is wrong.
            pub fn from_base58(text: &str) -> Result<Self, ParseIdError> {
                decode_base58(text).map(Self)
            }

            /// Reads 64 lower-case hexadecimal digits.
            ///
            /// # Errors
            ///
            /// [`ParseIdError`] with the length, character or position that is wrong.
            pub fn from_hex(text: &str) -> Result<Self, ParseIdError> {
                decode_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt_id(&self.0, TextEncoding::$encoding, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $decode(text).map(Self)
            }
        }

        impl From<[u8; ID_LEN_BYTES]> for $name {
            fn from(bytes: [u8; ID_LEN_BYTES]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; ID_LEN_BYTES] {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                array(bytes).map(Self)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        // What the derive macro would write: it alone comes with a dozen crates.
        impl BorshSerialize for $name {
            fn serialize<W: io::Write>(&self, to: &mut W) -> io::Result<()> {
                BorshSerialize::serialize(&self.0, to)
            }
        }

        impl BorshDeserialize for $name {
            fn deserialize_reader<R: io::Read>(from: &mut R) -> io::Result<Self> {
                BorshDeserialize::deserialize_reader(from).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    to.collect_str(self)
                } else {
                    to.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let visitor = IdVisitor { parse: $decode };
                if from.is_human_readable() {
                    from.deserialize_str(visitor).map(Self)
                } else {
                    from.deserialize_bytes(visitor).map(Self)
                }
            }
        }
    };
}

id! {
    /// Names a context: one shared state and its members. Text: base58.
    ///
    /// ```
    /// use calimero_network_primitives::ContextId;
    ///
    /// let id: ContextId = "29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2".parse()?;
    /// assert_eq!(id, ContextId::new([0x11; 32]));
    /// # Ok::<(), calimero_network_primitives::ParseIdError>(())
    /// ```
    ContextId, Base58, decode_base58
}
id! {
    /// Names a blob by its content: the SHA-256 of the SHA-256 of each chunk. Text: base58.
    BlobId, Base58, decode_base58
}
id! {
    /// Names a group of contexts. Text: 64 lower-case hexadecimal digits.
    GroupId, Hex, decode_hex
}
id! {
    /// Names a namespace of groups. Text: 64 lower-case hexadecimal digits.
    NamespaceId, Hex, decode_hex
}
