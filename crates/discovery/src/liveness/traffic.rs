//! The pure part that distinguishes a busy connection from a dead one.

/// Bytes sent and not proven to have arrived above which the answer to a probe may be late, 64 KiB:
/// a ping waits behind them for 3 s on an uplink of 175 kbit/s.
const BUSY_BYTES: u64 = 64 * 1024;

/// Bytes that a connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Number of bytes received.
    pub received: u64,
    /// Number of bytes handed to the operating system to be sent.
    pub sent: u64,
}

/// Whether bytes that were sent explain that a probe is not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// They do: the path probably works, and its queue may be long.
    Explain,
    /// They do not: the path has probably failed, and they are lost.
    DoNotExplain,
}

/// The traffic of one connection as far as it matters for a probe.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// Bytes sent before the latest two answers, the later first. What was sent before the ping
    /// of an answer has arrived with it; at the latest the answer before that one proves it.
    sent_at_answers: [u64; 2],
    probe: Option<(Carried, Sent)>,
}

impl Traffic {
    /// A probe begins. One that is under way goes on.
    pub(super) fn on_probe(&mut self, now: Carried, sent: Sent) {
        self.probe.get_or_insert((now, sent));
    }

    /// A ping was answered.
    pub(super) fn on_answer(&mut self, now: Carried) {
        self.sent_at_answers = [now.sent, self.sent_at_answers[0]];
        self.probe = None;
    }

    /// A ping failed, and a probe with it. The next one begins with the bytes of its own time.
    pub(super) fn on_failure(&mut self) {
        self.probe = None;
    }

    /// The probe was not answered in time. Returns whether the connection may be busy: it received
    /// bytes since the probe began, or so many were sent that the probe may wait behind them.
    pub(super) fn on_late(&mut self, now: Carried) -> bool {
        let Some((before, sent)) = self.probe.take() else {
            return false;
        };
        let unproven = now.sent.saturating_sub(self.sent_at_answers[1]);
        now.received > before.received || (sent == Sent::Explain && unproven > BUSY_BYTES)
    }
}

#[cfg(test)]
mod tests;
