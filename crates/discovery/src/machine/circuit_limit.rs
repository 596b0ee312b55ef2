//! What a relay lets a circuit carry.

use std::{fmt, time::Duration};

/// The limit of a circuit, as its relay names it. A limit of zero is none, as the [specification]
/// says.
///
/// Relays of libp2p differ in what they count: go-libp2p counts the bytes of each direction,
/// rust-libp2p those of both together.
///
/// [specification]: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CircuitLimit {
    /// Time after which the relay closes the circuit, in whole seconds; `None` without a limit.
    pub duration: Option<Duration>,
    /// Bytes after which the relay closes the circuit; `None` without a limit.
    pub bytes: Option<u64>,
}

impl CircuitLimit {
    /// The limit that a message of a relay names.
    #[must_use]
    pub fn new(duration: Option<Duration>, bytes: Option<u64>) -> Self {
        Self {
            duration: duration.filter(|duration| !duration.is_zero()),
            bytes: bytes.filter(|bytes| *bytes > 0),
        }
    }

    /// Whether the relay limits neither time nor bytes.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.duration.is_none() && self.bytes.is_none()
    }
}

impl fmt::Display for CircuitLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.duration.map(|time| time.as_secs())) {
            (None, None) => f.write_str("unlimited"),
            (Some(bytes), None) => write!(f, "{bytes} bytes"),
            (None, Some(seconds)) => write!(f, "{seconds} s"),
            (Some(bytes), Some(seconds)) => write!(f, "{bytes} bytes and {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_none() {
        let second = Duration::from_secs(1);
        for (duration, bytes, text) in [
            (None, None, "unlimited"),
            (Some(Duration::ZERO), Some(0), "unlimited"),
            (Some(second), Some(0), "1 s"),
            (Some(Duration::ZERO), Some(7), "7 bytes"),
            (Some(second), Some(7), "7 bytes and 1 s"),
        ] {
            let limit = CircuitLimit::new(duration, bytes);
            assert_eq!(limit.to_string(), text);
            assert_eq!(limit.is_unlimited(), text == "unlimited");
        }
    }
}
