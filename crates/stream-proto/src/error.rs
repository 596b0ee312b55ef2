//! What can go wrong, one type per operation.

use std::{fmt, io, time::Duration};

/// Where in a frame the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FramePart {
    /// Inside the four bytes of the length.
    Prefix,
    /// Inside the payload.
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

/// Why a frame could not be sent or received.
///
/// After [`TooLarge`](Self::TooLarge), [`Cut`](Self::Cut), [`Revoked`](Self::Revoked),
/// [`NoMemory`](Self::NoMemory) and [`Io`](Self::Io) the direction it occurred in has ended: a
/// receiver yields `None`, a sender [`Closed`](Self::Closed). After the others the stream goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer claims a payload above the limit. Nothing was allocated for it.
    #[error("peer claims a frame of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// Largest payload accepted, in bytes.
        limit: usize,
        /// What the prefix claims, in bytes.
        claimed: usize,
    },
    /// The payload to be sent is above the limit. Nothing was written, the stream goes on.
    #[error("payload of {len} bytes does not fit a frame, the limit is {limit}")]
    PayloadTooLarge {
        /// Largest payload sent, in bytes.
        limit: usize,
        /// Length of the payload, in bytes.
        len: usize,
    },
    /// The stream ended inside a frame. An end between frames is no error.
    #[error("stream cut inside the {part} of a frame: {arrived} bytes arrived, {missing} missing")]
    Cut {
        /// Which part of the frame was cut.
        part: FramePart,
        /// Bytes of that part that arrived.
        arrived: usize,
        /// Bytes of that part that did not.
        missing: usize,
    },
    /// The operation did not end in time. Nothing is lost: what was received stays buffered and
    /// a frame that was taken for sending stays queued.
    #[error("deadline of {after:?} passed")]
    Deadline {
        /// The time that was given.
        after: Duration,
    },
    /// The memory of an incomplete frame was given to another stream because this one stalled.
    #[error("frame dropped: it stalled while other streams waited for its {held} bytes of memory")]
    Revoked {
        /// Memory that the frame held, in bytes.
        held: usize,
    },
    /// No memory was free for a frame.
    #[error(
        "no memory for a frame within {after:?}: {wanted} bytes are above the budget or in use"
    )]
    NoMemory {
        /// Memory that the frame needs in addition, in bytes.
        wanted: usize,
        /// Time for which the receiver waited.
        after: Duration,
    },
    /// The sending direction is closed or has failed before.
    #[error("the sending direction is closed")]
    Closed,
    /// The byte stream failed.
    #[error("byte stream failed: {0}")]
    Io(#[from] io::Error),
}
