//! Splits long received Yamux frames into shorter ones. Pure: converts bytes to
//! bytes.
//!
//! The specification limits a data frame only by the window of the receiver,
//! and js-libp2p sends frames of that size. The `yamux` crate closes the
//! connection on a frame above 1 MiB and allocates the body when its header
//! claims a length. This module therefore passes each long frame to the crate
//! as several short ones. The stream is not affected: data is a byte stream,
//! and the window counts bytes. Memory then grows with received bytes only, and
//! windows may exceed 1 MiB.

/// Length of a frame header, by the specification.
const HEADER_BYTES: usize = 12;

/// Type of a data frame, the only one with a body.
const TYPE_DATA: u8 = 0;

/// Type of a frame that changes a window, or opens a stream without data.
const TYPE_WINDOW_UPDATE: u8 = 1;

/// Type of the frame that ends a connection. Its length is a code, which is 0 without an error.
const TYPE_GO_AWAY: u8 = 3;

/// Flag of the first frame of a stream.
const FLAG_SYN: u16 = 0x1;

/// Flag of a frame that resets its stream. Its other flags and its body have no effect.
const FLAG_RST: u16 = 0x8;

/// Flags that belong to the first of several frames: a stream is opened (1) or
/// acknowledged (2) before its data.
const FIRST_FLAGS: u16 = FLAG_SYN | 0x2;

/// Flags that belong to the last of several frames: a stream ends (4) or is
/// reset (8) after its data.
const LAST_FLAGS: u16 = 0x4 | FLAG_RST;

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header([u8; HEADER_BYTES]);

impl Header {
    /// Returns the header if `bytes` is one as a whole.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The number of the stream.
    pub(super) fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Returns `true` if the frame opens its stream.
    pub(super) fn opens_stream(&self) -> bool {
        matches!(self.0[1], TYPE_DATA | TYPE_WINDOW_UPDATE)
            && flags(&self.0) & (FLAG_SYN | FLAG_RST) == FLAG_SYN
    }

    /// Number of bytes that the frame adds to the data of its stream.
    pub(super) fn data_bytes(&self) -> u32 {
        match self.0[1] {
            TYPE_DATA if flags(&self.0) & FLAG_RST == 0 => length(&self.0),
            _ => 0,
        }
    }

    /// Returns `true` if the sender ends the connection because of an error.
    pub(super) fn reports_error(&self) -> bool {
        self.0[1] == TYPE_GO_AWAY && length(&self.0) != 0
    }
}

/// State of the conversion of one byte stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// Largest body that is passed on, in bytes.
    limit: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Reads the header of a frame.
    Reading {
        header: [u8; HEADER_BYTES],
        read: usize,
    },
    /// Passes on a header, received or created here. A body follows if its
    /// length is not 0.
    Showing {
        header: [u8; HEADER_BYTES],
        shown: usize,
        rest: Rest,
    },
    /// Passes on a body.
    Passing {
        header: [u8; HEADER_BYTES],
        left: u32,
        rest: Rest,
    },
}

/// The part of a split frame that follows the current header and its body.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Bytes of the body after the current part.
    bytes: u32,
    /// Flags of the last part.
    flags: u16,
}

/// The next operation that the caller must execute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Read bytes of a header into this slice.
    Read(&'a mut [u8]),
    /// Pass on these bytes.
    Show(&'a [u8]),
    /// Pass on at most this number of body bytes as they arrive.
    Pass(usize),
}

impl Frames {
    /// Starts at the beginning of a byte stream and limits bodies to `limit`
    /// bytes.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit: limit.max(1),
            state: State::start(),
        }
    }

    /// Returns the next operation.
    pub(super) fn next(&mut self) -> Next<'_> {
        match &mut self.state {
            State::Reading { header, read } => Next::Read(&mut header[*read..]),
            State::Showing { header, shown, .. } => Next::Show(&header[*shown..]),
            State::Passing { left, .. } => Next::Pass(*left as usize),
        }
    }

    /// Returns `true` if the byte stream may end here without a truncated
    /// frame.
    pub(super) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Reading { read: 0, .. })
    }

    /// Reports that `count` bytes of the operation returned by [`Frames::next`]
    /// were read or passed on.
    pub(super) fn done(&mut self, count: usize) {
        let limit = self.limit;
        match &mut self.state {
            State::Reading { header, read } => {
                *read += count;
                if *read == HEADER_BYTES {
                    let header = *header;
                    self.state = State::received(header, limit);
                }
            }
            State::Showing {
                header,
                shown,
                rest,
            } => {
                *shown += count;
                if *shown == HEADER_BYTES {
                    let (header, rest) = (*header, *rest);
                    self.state = State::shown(header, rest);
                }
            }
            State::Passing { header, left, rest } => {
                *left = left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                if *left == 0 {
                    let (header, rest) = (*header, *rest);
                    self.state = State::passed(header, rest, limit);
                }
            }
        }
    }
}

impl State {
    fn start() -> Self {
        Self::Reading {
            header: [0; HEADER_BYTES],
            read: 0,
        }
    }

    fn received(mut header: [u8; HEADER_BYTES], limit: u32) -> Self {
        let length = length(&header);
        let mut rest = Rest { bytes: 0, flags: 0 };
        if header[1] == TYPE_DATA && length > limit {
            let flags = flags(&header);
            rest = Rest {
                bytes: length - limit,
                flags: flags & LAST_FLAGS,
            };
            set_flags(&mut header, flags & !LAST_FLAGS);
            set_length(&mut header, limit);
        }
        Self::Showing {
            header,
            shown: 0,
            rest,
        }
    }

    fn shown(header: [u8; HEADER_BYTES], rest: Rest) -> Self {
        match length(&header) {
            left if header[1] == TYPE_DATA && left > 0 => Self::Passing { header, left, rest },
            _ => Self::start(),
        }
    }

    fn passed(mut header: [u8; HEADER_BYTES], rest: Rest, limit: u32) -> Self {
        if rest.bytes == 0 {
            return Self::start();
        }
        let length = rest.bytes.min(limit);
        let bytes = rest.bytes - length;
        let mut flags = flags(&header) & !FIRST_FLAGS;
        if bytes == 0 {
            flags |= rest.flags;
        }
        set_flags(&mut header, flags);
        set_length(&mut header, length);
        Self::Showing {
            header,
            shown: 0,
            rest: Rest { bytes, ..rest },
        }
    }
}

fn flags(header: &[u8; HEADER_BYTES]) -> u16 {
    u16::from_be_bytes([header[2], header[3]])
}

fn set_flags(header: &mut [u8; HEADER_BYTES], flags: u16) {
    header[2..4].copy_from_slice(&flags.to_be_bytes());
}

fn length(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_be_bytes([header[8], header[9], header[10], header[11]])
}

fn set_length(header: &mut [u8; HEADER_BYTES], length: u32) {
    header[8..].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod headers;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, kind];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Converts `wire` in steps of the given sizes, which repeat.
    fn show(limit: u32, wire: &[u8], steps: &[usize]) -> Vec<u8> {
        let mut frames = Frames::new(limit);
        let (mut wire, mut seen) = (wire, Vec::new());
        let mut steps = steps.iter().cycle().copied();
        loop {
            let step = steps.next().unwrap_or(1).max(1);
            let count = match frames.next() {
                Next::Read(space) => {
                    let count = step.min(space.len()).min(wire.len());
                    space[..count].copy_from_slice(&wire[..count]);
                    wire = &wire[count..];
                    count
                }
                Next::Show(bytes) => {
                    let count = step.min(bytes.len());
                    seen.extend(&bytes[..count]);
                    count
                }
                Next::Pass(left) => {
                    let count = step.min(left).min(wire.len());
                    seen.extend(&wire[..count]);
                    wire = &wire[count..];
                    count
                }
            };
            if count == 0 {
                return seen;
            }
            frames.done(count);
        }
    }

    #[test]
    fn cuts_a_long_frame_and_moves_its_flags() {
        let body: Vec<u8> = (0..10).collect();
        let wire = frame(TYPE_DATA, 0x1 | 0x4, 3, 10, &body);
        let expected = [
            frame(TYPE_DATA, 0x1, 3, 4, &body[..4]),
            frame(TYPE_DATA, 0, 3, 4, &body[4..8]),
            frame(TYPE_DATA, 0x4, 3, 2, &body[8..]),
        ]
        .concat();
        assert_eq!(show(4, &wire, &[usize::MAX]), expected);
    }

    #[test]
    fn leaves_frames_without_body_alone() {
        let wire = [
            frame(1, 0x1, 3, u32::MAX, &[]),
            frame(2, 0x2, 0, 0xdead_beef, &[]),
            frame(TYPE_DATA, 0x4, 3, 0, &[]),
            frame(3, 0, 0, 1, &[]),
        ]
        .concat();
        assert_eq!(show(4, &wire, &[usize::MAX]), wire);
    }

    #[derive(Debug, Clone)]
    struct Sent {
        kind: u8,
        flags: u16,
        stream: u32,
        body: Vec<u8>,
        value: u32,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        (
            0u8..4,
            0u16..16,
            0u32..4,
            proptest::collection::vec(any::<u8>(), 0..100),
            any::<u32>(),
        )
            .prop_map(|(kind, flags, stream, body, value)| Sent {
                kind,
                flags,
                stream,
                body,
                value,
            })
    }

    /// Parses frames with the simplest possible parser.
    fn parse(mut bytes: &[u8]) -> Vec<Sent> {
        let mut frames = Vec::new();
        while bytes.len() >= HEADER_BYTES {
            let mut header = [0; HEADER_BYTES];
            header.copy_from_slice(&bytes[..HEADER_BYTES]);
            bytes = &bytes[HEADER_BYTES..];
            let take = if header[1] == TYPE_DATA {
                length(&header) as usize
            } else {
                0
            };
            frames.push(Sent {
                kind: header[1],
                flags: flags(&header),
                stream: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                body: bytes[..take].to_vec(),
                value: length(&header),
            });
            bytes = &bytes[take..];
        }
        assert!(bytes.is_empty());
        frames
    }

    proptest! {
        /// Joining the parts gives the sent frames, no part exceeds the limit,
        /// and short frames are unchanged, for all step sizes.
        #[test]
        fn shows_what_was_sent(
            frames in proptest::collection::vec(sent(), 0..12),
            limit in 1u32..64,
            steps in proptest::collection::vec(1usize..40, 1..6),
        ) {
            let mut wire = Vec::new();
            for sent in &frames {
                wire.extend(if sent.kind == TYPE_DATA {
                    frame(sent.kind, sent.flags, sent.stream, sent.body.len() as u32, &sent.body)
                } else {
                    frame(sent.kind, sent.flags, sent.stream, sent.value, &[])
                });
            }
            let mut shown = parse(&show(limit, &wire, &steps)).into_iter();
            for sent in frames {
                let first = shown.next().unwrap();
                prop_assert_eq!((first.kind, first.stream), (sent.kind, sent.stream));
                if sent.kind != TYPE_DATA {
                    prop_assert_eq!((first.flags, first.value), (sent.flags, sent.value));
                    continue;
                }
                let (mut flags, mut body) = (first.flags, first.body);
                while body.len() < sent.body.len() {
                    prop_assert_eq!(flags & LAST_FLAGS, 0);
                    let next = shown.next().unwrap();
                    prop_assert_eq!((next.kind, next.stream), (sent.kind, sent.stream));
                    prop_assert_eq!(next.flags & FIRST_FLAGS, 0);
                    prop_assert!(next.body.len() <= limit as usize);
                    flags |= next.flags;
                    body.extend(next.body);
                }
                prop_assert_eq!(flags, sent.flags);
                prop_assert_eq!(body, sent.body);
            }
            prop_assert!(shown.next().is_none());
        }
    }
}
