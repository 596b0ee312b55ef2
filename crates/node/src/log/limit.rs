//! A bound on log lines, so that no peer fills a log.
//!
//! A peer can make a node log: it sends bytes that no protocol accepts, or leaves in the middle of a
//! handshake, as often as it likes. Which crate logs that, and at which level, is not under control
//! of this program. [`Limit`] therefore bounds the lines of each call site and of all call sites
//! together, and counts those that it suppresses.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one call site: enough to see several peers or addresses fail, few enough to read.
const SITE: Rate = Rate {
    burst: 4,
    refill: Duration::from_secs(30),
};

/// Lines of all call sites together. A start on a host with faults logs some ten different lines.
const TOTAL: Rate = Rate {
    burst: 40,
    refill: Duration::from_secs(5),
};

/// Target of the lines that report suppressed ones. They are not limited.
pub(super) const TARGET: &str = "calnet::log";

/// A token bucket: `burst` lines at once, then one each `refill`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    refill: Duration,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token was added.
    refilled: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.burst,
            refilled: now,
        }
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        let due = elapsed.as_millis() / rate.refill.as_millis();
        let missing = rate.burst - self.tokens;
        match u32::try_from(due) {
            Ok(due) if due < missing => {
                self.tokens += due;
                self.refilled += rate.refill * due;
            }
            _ => *self = Self::full(rate, now),
        }
    }
}

/// A call site with its bucket and the lines suppressed since the last report.
#[derive(Debug)]
struct Site {
    bucket: Bucket,
    target: &'static str,
    suppressed: u64,
}

/// Decides which lines are written. Pure: the time is an argument. Holds one entry for each call
/// site of the program that has logged, so peers cannot make it grow.
#[derive(Debug)]
struct Buckets {
    total: Bucket,
    sites: HashMap<Identifier, Site>,
}

impl Buckets {
    fn new(now: Instant) -> Self {
        Self {
            total: Bucket::full(TOTAL, now),
            sites: HashMap::new(),
        }
    }

    fn admits(&mut self, site: Identifier, target: &'static str, now: Instant) -> bool {
        let site = self.sites.entry(site).or_insert_with(|| Site {
            bucket: Bucket::full(SITE, now),
            target,
            suppressed: 0,
        });
        site.bucket.refill(SITE, now);
        self.total.refill(TOTAL, now);
        if site.bucket.tokens == 0 || self.total.tokens == 0 {
            site.suppressed += 1;
            return false;
        }
        site.bucket.tokens -= 1;
        self.total.tokens -= 1;
        true
    }

    /// The suppressed lines by target, which are counted from zero again.
    fn report(&mut self) -> Vec<(&'static str, u64)> {
        let mut suppressed: HashMap<&'static str, u64> = HashMap::new();
        for site in self.sites.values_mut().filter(|site| site.suppressed > 0) {
            *suppressed.entry(site.target).or_default() += std::mem::take(&mut site.suppressed);
        }
        let mut suppressed: Vec<_> = suppressed.into_iter().collect();
        suppressed.sort_unstable();
        suppressed
    }
}

/// A layer that admits a bounded number of lines at the levels `ERROR`, `WARN` and `INFO`. The
/// other levels are for who looks for a fault, and are not limited.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    buckets: Arc<Mutex<Buckets>>,
}

impl Limit {
    pub(super) fn new() -> Self {
        Self {
            buckets: Arc::new(Mutex::new(Buckets::new(Instant::now()))),
        }
    }

    /// Logs how many lines were suppressed since the last call, one line for each target.
    pub(super) fn report(&self) {
        let suppressed = self.lock().report();
        for (source, lines) in suppressed {
            tracing::warn!(target: TARGET, source, lines, "similar log lines were suppressed");
        }
    }

    fn admits(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        self.lock()
            .admits(metadata.callsite(), metadata.target(), now)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admits(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_is_a_few_lines_and_the_rest_is_counted() {
        let (written, limit) = (Written::default(), Limit::new());
        let sink = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || sink.clone());
        // As the log is put together.
        let limited = limit.clone().and_then(lines);
        let subscriber =
            tracing_subscriber::registry().with(limited.with_filter(EnvFilter::new("debug")));
        tracing::subscriber::with_default(subscriber, || {
            for nth in 0..2_000 {
                tracing::warn!(nth, "a peer sent garbage");
            }
            tracing::error!("another line");
            limit.report();
            // Nothing is left to report.
            limit.report();
            (0..100).for_each(|_| tracing::debug!("detail"));
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("garbage"), SITE.burst as usize, "{text}");
        assert_eq!(count("another line"), 1);
        assert_eq!(count("suppressed"), 1);
        let rest = 2_000 - SITE.burst;
        assert!(text.contains(&format!("lines={rest}")), "{text}");
        assert_eq!(count("detail"), 100);
    }

    #[test]
    fn a_call_site_logs_again_after_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(SITE, start);
        bucket.tokens = 0;
        bucket.refill(SITE, at(29));
        assert_eq!(bucket.tokens, 0);
        bucket.refill(SITE, at(61));
        assert_eq!(bucket.tokens, 2);
        // The second of the remainder is not lost.
        bucket.refill(SITE, at(90));
        assert_eq!(bucket.tokens, 3);
        bucket.refill(SITE, at(100_000));
        assert_eq!(bucket.tokens, SITE.burst);
    }
}
