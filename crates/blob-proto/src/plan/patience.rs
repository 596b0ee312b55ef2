//! For how long a provider may be busy before that is a failure.

use std::time::Duration;

/// Time after which a busy provider is asked again, however long it says: 30 s. It may be free
/// earlier.
const RECHECK: Duration = Duration::from_secs(30);

/// Time for which a provider may be busy, in addition to twice the time that it said at first: 60
/// s.
const GRACE: Duration = Duration::from_secs(60);

/// Longest such time: 2 h. With 256 requesters, the default of a server, and the smallest upload
/// limit each has its turn after 68 min.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// The patience with one provider, from its first refusal until it sends something that verifies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    until: Option<Duration>,
    /// Time that it said last.
    retry_after: Duration,
}

impl Patience {
    /// Notes that the provider is busy and says for how long. Returns `true` where that is no
    /// failure.
    pub(crate) fn on_busy(&mut self, retry_after: Duration, now: Duration) -> bool {
        self.retry_after = retry_after;
        let until = self.from(now);
        self.until.get_or_insert(until);
        // A longer time is no turn among requesters.
        retry_after <= LONGEST && self.is_left(now)
    }

    /// Time for which the provider said last that it is busy.
    pub(crate) fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Notes that something of the provider verifies. It may have been busy since it sent that.
    pub(crate) fn on_verified(&mut self, is_busy: bool, now: Duration) {
        self.until = is_busy.then(|| self.from(now));
    }

    /// Whether the provider was busy and may still be.
    pub(crate) fn is_left(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn from(&self, now: Duration) -> Duration {
        let patience = self.retry_after.saturating_mul(2).saturating_add(GRACE);
        now.saturating_add(patience.min(LONGEST))
    }
}

/// Time after which a provider that is busy for `retry_after` is asked again: half of it, because
/// the turn comes earlier where other requesters leave.
pub(crate) fn pause(retry_after: Duration, least: Duration, most: Duration) -> Duration {
    let most = RECHECK.min(most);
    (retry_after / 2).clamp(least.min(most), most)
}
