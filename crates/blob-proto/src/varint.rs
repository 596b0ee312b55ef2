//! Numbers of variable length, each with one encoding.

use unsigned_varint::{decode, encode};

/// Reads a leading number of at most 64 bits in its shortest form. Returns it with what follows it.
///
/// # Errors
///
/// [`decode::Error`]: [`Insufficient`](decode::Error::Insufficient) where its end has not arrived.
pub(crate) fn read(from: &[u8]) -> Result<(u64, &[u8]), decode::Error> {
    let (number, rest) = decode::u64(from)?;
    // The decoder drops bits beyond the 64th, so that several encodings would give one number.
    if *encode::u64(number, &mut encode::u64_buffer()) != from[..from.len() - rest.len()] {
        return Err(decode::Error::Overflow);
    }
    Ok((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_encoding() {
        let longest = |last: u8| [&[0xff; 9][..], &[last]].concat();
        for (bytes, read_as) in [
            (vec![0], Some(0)),
            (vec![0x7f], Some(0x7f)),
            (vec![0x80, 1], Some(0x80)),
            (longest(1), Some(u64::MAX)),
            (vec![], None),
            (vec![0x80], None),
            (vec![0x80, 0], None),
            (longest(0xff), None),
        ] {
            let read = read(&bytes).ok().map(|(number, _)| number);
            assert_eq!(read, read_as, "{bytes:?}");
        }
        // Bits beyond the 64th.
        for last in (2..0x80).filter(|last| last & 1 == 1) {
            let bytes = longest(last);
            let read = read(&bytes);
            assert!(matches!(read, Err(decode::Error::Overflow)), "{last}");
        }
        assert_eq!(read(&[7, 8, 9]).unwrap(), (7, &[8, 9][..]));
    }
}
