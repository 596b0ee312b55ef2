//! Errors of sending and receiving frames.

use std::{fmt, io, time::Duration};

/// The part of a frame in which the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FramePart {
    /// Inside the four bytes of the length.
    Prefix,
    /// Inside the payload of a frame.
    Payload,
}

impl fmt::Display for FramePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "length prefix",
            Self::Payload => "payload",
        })
    }
}

/// An error of sending or receiving a frame.
///
/// [`TooLarge`](Self::TooLarge), [`Cut`](Self::Cut),
/// [`Revoked`](Self::Revoked), [`NoMemory`](Self::NoMemory) and
/// [`Io`](Self::Io) end the direction in which they occur: the receiver then
/// yields `None`, and the sender returns [`Closed`](Self::Closed). The stream
/// stays usable after the other errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer claims a payload above the limit. No memory was allocated for
    /// it.
    #[error("peer claims a frame of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest payload accepted, in bytes.
        limit: usize,
        /// Payload length in the prefix, in bytes.
        claimed: usize,
    },
    /// The payload to send is above the limit. Nothing was written, and the
    /// stream stays usable.
    #[error("payload of {len} bytes does not fit a frame, the limit is {limit}")]
    PayloadTooLarge {
        /// Largest payload sent, in bytes.
        limit: usize,
        /// Length of the payload, in bytes.
        len: usize,
    },
    /// The stream ended inside a frame. An end of stream between frames is not
    /// an error.
    #[error("stream cut inside the {part} of a frame: {arrived} bytes arrived, {missing} missing")]
    Cut {
        /// Part of the frame in which the stream ended.
        part: FramePart,
        /// Number of bytes of that part that arrived.
        arrived: usize,
        /// Number of bytes of that part that are missing.
        missing: usize,
    },
    /// The operation did not complete in time. No data is lost: received bytes
    /// stay buffered, and a frame that was accepted for sending stays queued.
    #[error("deadline of {after:?} passed")]
    Deadline {
        /// The deadline that was given.
        after: Duration,
    },
    /// The receiver dropped an incomplete frame because it stalled while other
    /// streams waited for its memory.
    #[error("frame dropped: it stalled while other streams waited for its {held} bytes of memory")]
    Revoked {
        /// Memory that the frame held, in bytes.
        held: usize,
    },
    /// The budget had no free memory for a frame.
    #[error(
        "no memory for a frame within {after:?}: {wanted} bytes are above the budget or in use"
    )]
    NoMemory {
        /// Additional memory that the frame needs, in bytes.
        wanted: usize,
        /// Time for which the receiver waited.
        after: Duration,
    },
    /// The sending direction was closed or failed earlier.
    #[error("the sending direction is closed")]
    Closed,
    /// The byte stream failed.
    #[error("byte stream failed: {0}")]
    Io(#[from] io::Error),
}
