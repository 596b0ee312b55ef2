//! As much of Protocol Buffers as messages of a rendezvous server have: fields that are a number
//! or bytes.

use bytes::{BufMut as _, BytesMut};

/// Bytes are not Protocol Buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// `None` for a number of fixed length, which no message here has.
    pub(super) value: Option<Value<'a>>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Some(Value::Varint(self.varint()?)),
            1 => self.take(8).map(|_| None)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Some(Value::Bytes(self.take(len)?))
            }
            5 => self.take(4).map(|_| None)?,
            // Groups have gone out of use before this protocol was made.
            _ => return Err(Malformed),
        };
        Ok(Field { number, value })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of at most ten bytes that fits 64 bits. Longer forms than need be are allowed, as
    /// everywhere in Protocol Buffers.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else {
                return Err(Malformed);
            };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Writes a number as field `number`.
pub(super) fn put_varint(to: &mut BytesMut, number: u32, value: u64) {
    varint(to, u64::from(number) << 3);
    varint(to, value);
}

/// Writes bytes as field `number`.
pub(super) fn put_bytes(to: &mut BytesMut, number: u32, value: &[u8]) {
    varint(to, u64::from(number) << 3 | 2);
    put_length(to, value.len());
    to.put_slice(value);
}

/// Writes a length.
pub(super) fn put_length(to: &mut BytesMut, len: usize) {
    varint(to, len as u64);
}

/// Bytes that a number takes.
pub(super) fn varint_len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_over_64_bits_and_fields_over_the_end_are_malformed() {
        for bytes in [
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02".as_slice(),
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
            b"\x08",
            b"\x0a\x02a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\x01\x02",
            b"\x0d\x01\x02",
            b"\x0b",
            b"\x00\x01",
        ] {
            let fields: Vec<_> = Fields::new(bytes).collect();
            assert_eq!(fields, [Err(Malformed)], "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            fields in prop::collection::vec(
                (1..1u32 << 29, any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let mut bytes = BytesMut::new();
            for (number, value, text) in &fields {
                put_varint(&mut bytes, *number, *value);
                put_bytes(&mut bytes, *number, text);
            }
            let read: Result<Vec<_>, _> = Fields::new(&bytes).collect();
            let expected: Vec<_> = fields
                .iter()
                .flat_map(|(number, value, text)| {
                    let field = |value| Field { number: *number, value: Some(value) };
                    [field(Value::Varint(*value)), field(Value::Bytes(text))]
                })
                .collect();
            prop_assert_eq!(read, Ok(expected));
        }

        #[test]
        fn the_length_of_a_number_is_known_before(value in any::<u64>(), bits in 0..64) {
            let value = value >> bits;
            let mut bytes = BytesMut::new();
            varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
        }
    }
}
