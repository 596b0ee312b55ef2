//! The messages of multistream-select 1.0.0, as far as this module reads them.

/// The header with its length prefix, which both sides send first.
pub(super) const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// The message of a listener that does not support the proposed protocol.
const REFUSAL: &[u8] = b"\x03na\n";

/// Longest protocol name in bytes that is answered locally, 256. The names of libp2p and of this
/// workspace have up to 40 bytes.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// Longest line in bytes: two bytes of length, a name and a newline.
pub(super) const MAX_LINE_BYTES: usize = 2 + MAX_NAME_BYTES + 1;

/// Returns the protocol line if `written` is the header followed by exactly one proposal.
///
/// The line is the length as an unsigned varint, the name, and a newline. Names that are longer
/// than [`MAX_NAME_BYTES`] and every other input return `None`.
pub(super) fn proposal(written: &[u8]) -> Option<&[u8]> {
    let line = written.strip_prefix(HEADER)?;
    let (length, message) = match *line {
        [low, ref message @ ..] if low < 0x80 => (usize::from(low), message),
        [low, high @ 1..0x80, ref message @ ..] => {
            (usize::from(low & 0x7f) | usize::from(high) << 7, message)
        }
        _ => return None,
    };
    let name = message.strip_suffix(b"\n")?;
    let is_name = name.first() == Some(&b'/') && !name.contains(&b'\n');
    (is_name && message.len() == length && name.len() <= MAX_NAME_BYTES).then_some(line)
}

/// Returns the protocol name of a line that [`proposal`] returned.
pub(super) fn name_of(line: &[u8]) -> String {
    let prefix = if line.first().is_some_and(|first| *first < 0x80) {
        1
    } else {
        2
    };
    let name = line.get(prefix..line.len().saturating_sub(1));
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}

/// What is known of the answer of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is incomplete.
    Incomplete,
    /// The listener has confirmed the protocol.
    Confirmed,
    /// The listener does not support the protocol.
    Refused,
    /// The listener sent anything else.
    Invalid,
}

/// Reads the answer to a proposal, in pieces of any length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    /// Number of bytes that were received and are as expected.
    received: u16,
    /// The bytes after the header are those of a refusal, and not those of the confirmation.
    is_refusal: bool,
}

impl Answer {
    /// Returns a number of bytes, at least one, that belong to the answer to the proposal `line`
    /// whatever it is. A reader that reads no more than that takes nothing from the data behind.
    pub(super) fn missing(self, line: &[u8]) -> usize {
        let received = usize::from(self.received);
        let message = if received <= HEADER.len() {
            line.len().min(REFUSAL.len())
        } else if self.is_refusal {
            REFUSAL.len()
        } else {
            line.len()
        };
        (HEADER.len() + message).saturating_sub(received).max(1)
    }

    /// Continues with `bytes`. Those behind the end of the answer are ignored.
    pub(super) fn receive(&mut self, line: &[u8], bytes: &[u8]) -> Verdict {
        for byte in bytes {
            let verdict = self.next(line, *byte);
            if verdict != Verdict::Incomplete {
                return verdict;
            }
        }
        Verdict::Incomplete
    }

    fn next(&mut self, line: &[u8], byte: u8) -> Verdict {
        let received = usize::from(self.received);
        let Some(at) = received.checked_sub(HEADER.len()) else {
            if HEADER.get(received) != Some(&byte) {
                return Verdict::Invalid;
            }
            self.received += 1;
            return Verdict::Incomplete;
        };
        if !self.is_refusal && line.get(at) != Some(&byte) {
            // A name of two bytes has the same length prefix as a refusal.
            self.is_refusal = line.get(..at) == REFUSAL.get(..at);
            if !self.is_refusal {
                return Verdict::Invalid;
            }
        }
        let (expected, complete) = if self.is_refusal {
            (REFUSAL, Verdict::Refused)
        } else {
            (line, Verdict::Confirmed)
        };
        if expected.get(at) != Some(&byte) {
            return Verdict::Invalid;
        }
        self.received += 1;
        if at + 1 == expected.len() {
            complete
        } else {
            Verdict::Incomplete
        }
    }
}
