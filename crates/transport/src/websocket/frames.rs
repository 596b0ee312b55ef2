//! The frames of WebSocket ([RFC 6455], section 5) without IO.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

/// Longest header of a frame, in bytes: two, a length of eight and a mask of four.
pub(super) const MAX_HEADER_BYTES: usize = 14;

/// Longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL_BYTES: usize = 125;

/// A violation of the protocol by the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a WebSocket frame uses reserved bits, and no extension was negotiated")]
    ReservedBits,
    #[error("a WebSocket frame has opcode {0}, which is not binary data or a control frame")]
    Opcode(u8),
    #[error("a WebSocket control frame is fragmented or longer than 125 bytes")]
    Control,
    #[error("a WebSocket frame has a length of 2^63 bytes or more")]
    Length,
    #[error("a WebSocket frame from a client is not masked, or one from a server is")]
    Mask,
    #[error("a WebSocket frame does not continue the message before it")]
    Fragment,
}

/// The type of a frame. Text is not used by libp2p and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        self.bits() & 8 != 0
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the frame is the last one of its message.
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Length of the payload in bytes. Control frames have at most [`MAX_CONTROL_BYTES`].
    pub(super) length: u64,
    /// Key of the payload. Clients mask their frames, servers do not.
    pub(super) mask: Option<[u8; 4]>,
}

/// Result of decoding the start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The header is complete when this number of bytes is known.
    Need(usize),
    /// The header.
    Header(Header),
}

/// Decodes the header at the start of `bytes`, which are no more than the header needs.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(Decoded::Need(2));
    };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let (fin, bits) = (first & 0x80 != 0, first & 0x0f);
    let opcode = Opcode::of(bits).ok_or(FrameError::Opcode(bits))?;
    let short = second & 0x7f;
    if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL_BYTES) {
        return Err(FrameError::Control);
    }
    let length_bytes = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    let Some((long, rest)) = rest.split_at_checked(length_bytes) else {
        return Ok(Decoded::Need(2 + length_bytes + mask_bytes));
    };
    if rest.len() < mask_bytes {
        return Ok(Decoded::Need(2 + length_bytes + mask_bytes));
    }
    let length = match length_bytes {
        0 => u64::from(short),
        _ => long
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    };
    if length >> 63 != 0 {
        return Err(FrameError::Length);
    }
    let mask = if mask_bytes == 0 {
        None
    } else {
        rest.first_chunk().copied()
    };
    Ok(Decoded::Header(Header {
        fin,
        opcode,
        length,
        mask,
    }))
}

/// Encodes the header of an unfragmented frame. Returns the bytes and their number.
pub(super) fn encode(
    opcode: Opcode,
    length: usize,
    mask: Option<[u8; 4]>,
) -> ([u8; MAX_HEADER_BYTES], usize) {
    let mut bytes = [0; MAX_HEADER_BYTES];
    bytes[0] = 0x80 | opcode.bits();
    let mut end = 2;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => bytes[1] = short,
        (_, Ok(long)) => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&long.to_be_bytes());
            end = 4;
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            end = 10;
        }
    }
    if let Some(mask) = mask {
        bytes[1] |= 0x80;
        bytes[end..end + 4].copy_from_slice(&mask);
        end += 4;
    }
    (bytes, end)
}

/// Masks or unmasks `data`, which begins `offset` bytes after the start of the payload.
pub(super) fn apply_mask(data: &mut [u8], mut mask: [u8; 4], offset: u64) {
    mask.rotate_left((offset % 4) as usize);
    let (words, rest) = data.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_the_specification_are_decoded() {
        // RFC 6455, section 5.7.
        let header = |fin, opcode, length, mask| {
            Ok(Decoded::Header(Header {
                fin,
                opcode,
                length,
                mask,
            }))
        };
        let masked_ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d];
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(
            decode(&masked_ping),
            header(true, Opcode::Ping, 5, Some(mask))
        );
        let mut hello = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply_mask(&mut hello, mask, 0);
        assert_eq!(&hello, b"Hello");
        let medium = [0x82, 0x7e, 0x01, 0x00];
        assert_eq!(decode(&medium), header(true, Opcode::Binary, 256, None));
        let large = [0x02, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(decode(&large), header(false, Opcode::Binary, 65_536, None));
    }

    #[test]
    fn violations_are_refused() {
        for (bytes, error) in [
            (&[0xc2, 0][..], FrameError::ReservedBits),
            (&[0x81, 0], FrameError::Opcode(1)),
            (&[0x8b, 0], FrameError::Opcode(11)),
            (&[0x09, 0], FrameError::Control),
            (&[0x88, 126], FrameError::Control),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_with_a_header_or_an_error(bytes in any::<[u8; MAX_HEADER_BYTES]>()) {
            let mut known = 0;
            while let Ok(Decoded::Need(more)) = decode(&bytes[..known]) {
                prop_assert!(known < more && more <= MAX_HEADER_BYTES);
                known = more;
            }
        }

        #[test]
        fn headers_survive_encoding(length in prop_oneof![0_usize..300, 65_000_usize..66_000], mask in any::<Option<[u8; 4]>>()) {
            let (bytes, end) = encode(Opcode::Binary, length, mask);
            let header = Header { fin: true, opcode: Opcode::Binary, length: length as u64, mask };
            prop_assert_eq!(decode(&bytes[..end]), Ok(Decoded::Header(header)));
            prop_assert!(matches!(decode(&bytes[..end - 1]), Ok(Decoded::Need(_))));
        }

        #[test]
        fn parts_are_masked_as_the_whole(data in prop::collection::vec(any::<u8>(), 0..40), cut in 0_usize..40, mask in any::<[u8; 4]>()) {
            let cut = cut.min(data.len());
            let (mut whole, mut parts) = (data.clone(), data);
            apply_mask(&mut whole, mask, 0);
            apply_mask(&mut parts[..cut], mask, 0);
            apply_mask(&mut parts[cut..], mask, cut as u64);
            prop_assert_eq!(whole, parts);
        }
    }
}
