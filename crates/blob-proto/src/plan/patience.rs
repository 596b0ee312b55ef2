//! For how long a provider may be busy before that is a failure, and when it is asked again.

use std::time::Duration;

/// Time after which a busy provider is asked again, however long it says: 30 s. It may be free
/// earlier.
const RECHECK: Duration = Duration::from_secs(30);

/// Time by which a requester is later than the provider said, at most: 3 s. A provider passes over
/// one that is more than 5 s late, and a new stream takes a few round trips.
const LATE: Duration = Duration::from_secs(3);

/// Number of refusals after the announced time that lengthen the pause by one second, 4. A provider
/// keeps a turn free for 2 s, so the first few do not make the pause longer than that.
const REFUSALS_PER_S: u32 = 4;

/// Time for which a provider may be busy, in addition to twice the time that it said at first: 60
/// s.
const GRACE: Duration = Duration::from_secs(60);

/// Longest such time of a provider that has sent nothing of the blob that verifies: 5 min. It may
/// not have the blob.
const UNPROVEN: Duration = Duration::from_secs(5 * 60);

/// Longest such time: 2 h. With 256 requesters, the default of a server, and the smallest upload
/// limit each has its turn after 68 min.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// The patience with one provider, from its first refusal until it sends something that verifies.
/// One that has proven that it has the blob may be busy for [`LONGEST`]: the times that it says are
/// too short where the requesters before this one are slow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Its first refusal, and the time that it said then.
    first: Option<(Duration, Duration)>,
    /// Whether something that it sent verifies.
    is_proven: bool,
    /// Time that it said last.
    retry_after: Duration,
    /// End of a time that it said. The next one counts once this is over.
    announced: Duration,
    /// Refusals after such an end, since something verified.
    late: u32,
}

impl Patience {
    /// Notes that the provider is busy and says for how long. Returns `true` where that is no
    /// failure.
    pub(crate) fn on_busy(&mut self, retry_after: Duration, now: Duration) -> bool {
        let is_over = self.first.is_some() && now >= self.announced;
        if is_over {
            self.late = self.late.saturating_add(1);
        }
        if is_over || self.first.is_none() {
            self.announced = now.saturating_add(retry_after);
        }
        self.first.get_or_insert((now, retry_after));
        self.retry_after = retry_after;
        // A longer time is no turn among requesters.
        retry_after <= LONGEST && self.is_left(now)
    }

    /// Notes that the provider has the blob: it sent its list.
    pub(crate) fn on_proven(&mut self) {
        self.is_proven = true;
    }

    /// Notes that something of the provider verifies. It may have been busy since it sent that.
    pub(crate) fn on_verified(&mut self, is_busy: bool, now: Duration) {
        self.is_proven = true;
        self.late = 0;
        self.first = is_busy.then_some((now, self.retry_after));
    }

    /// Whether nothing that the provider sent has verified yet, or since it was busy.
    #[cfg(feature = "transfer")]
    pub(crate) fn lacks_proof(&self) -> bool {
        self.first.is_some() || !self.is_proven
    }

    /// Whether the provider was busy and may still be.
    pub(crate) fn is_left(&self, now: Duration) -> bool {
        self.first.is_some_and(|(since, said)| {
            let patience = match self.is_proven {
                true => LONGEST,
                false => (said.saturating_mul(2).saturating_add(GRACE)).min(UNPROVEN),
            };
            now < since.saturating_add(patience)
        })
    }

    /// Time after which the provider is asked again: half of what it said last, because the turn
    /// comes earlier where other requesters leave, at least `least` and at most `most`. Longer by
    /// up to [`LATE`] after refusals that came after an announced time. `jitter` is a number up to
    /// 1,024, and shortens that part by up to a quarter.
    pub(crate) fn pause(&self, least: Duration, most: Duration, jitter: u32) -> Duration {
        let most = RECHECK.min(most);
        let half = (self.retry_after / 2).clamp(least.min(most), most);
        let late = Duration::from_secs(u64::from(self.late / REFUSALS_PER_S)).min(LATE);
        half + late - late / 4 * jitter.min(1024) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_provider_that_has_proven_nothing_is_waited_for_at_most_five_minutes() {
        for (said, patience) in [(0, 60), (20, 100), (120, 300), (121, 300), (7200, 300)] {
            let mut one = Patience::default();
            assert!(!one.is_left(S(0)), "it is not busy");
            assert!(one.on_busy(S(said), S(10)));
            // What it says later changes nothing.
            assert!(one.on_busy(S(7200), S(10 + patience) - Duration::from_nanos(1)));
            assert!(!one.on_busy(S(1), S(10 + patience)), "{said}");
        }
        assert!(!Patience::default().on_busy(S(7201), S(0)), "no turn");
    }

    #[test]
    fn a_provider_that_has_the_blob_is_waited_for_however_short_its_times_are() {
        let mut one = Patience::default();
        assert!(one.on_busy(S(1), S(10)));
        one.on_proven();
        assert!(one.on_busy(S(1), S(10 + 7199)));
        assert!(!one.on_busy(S(1), S(10 + 7200)));
        // What verifies begins the time again.
        one.on_verified(true, S(8000));
        assert!(one.is_left(S(15_199)) && !one.is_left(S(15_200)));
        one.on_verified(false, S(8000));
        assert!(!one.is_left(S(8000)));
    }

    #[test]
    fn refusals_after_the_announced_time_make_pauses_longer() {
        let mut one = Patience::default();
        let (mut now, mut pauses) = (S(0), Vec::new());
        for _ in 0..21 {
            one.on_busy(S(1), now);
            let pause = one.pause(S(1), S(60), 0);
            pauses.push(pause.as_secs());
            now += pause;
        }
        let runs: Vec<_> = pauses.chunk_by(|a, b| a == b).collect();
        let runs: Vec<_> = runs.iter().map(|run| (run[0], run.len())).collect();
        assert_eq!(runs, [(1, 4), (2, 4), (3, 4), (4, 9)]);
        let shortest = one.pause(S(1), S(60), 1024);
        assert_eq!(shortest, Duration::from_millis(3250));
        // One that is asked at half of the time is late once a time that it said is over.
        let mut one = Patience::default();
        one.on_busy(S(100), S(0));
        one.on_busy(S(70), S(30));
        assert_eq!(one.late, 0);
        let mut one = Patience::default();
        for second in 0..=40 {
            one.on_busy(S(4), S(2 * second));
        }
        assert_eq!(one.late, 20);
        for number in 0..40 {
            one.on_busy(S(60), S(100 * number));
        }
        assert_eq!(one.pause(S(1), S(60), 0), S(33));
        one.on_verified(true, now);
        assert_eq!(one.pause(S(1), S(60), 0), S(30));
    }
}
