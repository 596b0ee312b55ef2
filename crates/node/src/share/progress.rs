//! How much has arrived: a bar on a terminal, records elsewhere.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use calimero_network::{BlobId, blob::fetch::Progress};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{lines::Line, path::Route, small::Batch};
use crate::{output::Output, text::bytes};

/// Time between two records for programs.
const JSON_INTERVAL: Duration = Duration::from_millis(250);

/// Time between two records for people, where no terminal shows a bar.
const TEXT_INTERVAL: Duration = Duration::from_secs(1);

/// How much has arrived.
#[derive(Debug)]
pub(super) struct Receiving {
    verified_bytes: u64,
    size_bytes: Option<u64>,
    received_bytes: u64,
    rate_bytes_per_s: u64,
    left_s: Option<u64>,
    path: Route,
}

impl From<Receiving> for Line {
    fn from(receiving: Receiving) -> Self {
        Self::Receiving {
            verified_bytes: receiving.verified_bytes,
            size_bytes: receiving.size_bytes,
            received_bytes: receiving.received_bytes,
            rate_bytes_per_s: receiving.rate_bytes_per_s,
            left_s: receiving.left_s,
            path: receiving.path,
        }
    }
}

/// The sum of all transfers. Pure.
#[derive(Debug, Default)]
pub(super) struct Tally {
    size_bytes: Option<u64>,
    /// Transfers that run: bytes verified and received, and the rate.
    running: HashMap<BlobId, [u64; 3]>,
    verified_bytes: u64,
    received_bytes: u64,
}

impl Tally {
    /// The size of everything is known.
    pub(super) fn on_size(&mut self, size_bytes: u64) {
        self.size_bytes = Some(size_bytes);
    }

    /// A transfer made progress.
    pub(super) fn on_progress(&mut self, id: BlobId, progress: &Progress) {
        let numbers = [
            progress.verified_bytes,
            progress.received_bytes,
            progress.rate_bytes_per_s,
        ];
        self.running.insert(id, numbers);
    }

    /// A transfer ended with these bytes.
    pub(super) fn on_end(&mut self, id: &BlobId, verified_bytes: u64, received_bytes: u64) {
        self.running.remove(id);
        self.verified_bytes += verified_bytes;
        self.received_bytes += received_bytes;
    }

    /// A batch of small files ended.
    pub(super) fn on_batch(&mut self, batch: &Batch) {
        self.verified_bytes += batch.verified_bytes;
        self.received_bytes += batch.received_bytes;
    }

    fn sum(&self, nth: usize) -> u64 {
        let numbers = self.running.values().map(|numbers| numbers[nth]);
        numbers.fold(0, u64::saturating_add)
    }

    pub(super) fn now(&self, path: Route) -> Receiving {
        let verified_bytes = self.verified_bytes.saturating_add(self.sum(0));
        let rate_bytes_per_s = self.sum(2);
        let missing = self
            .size_bytes
            .map(|size| size.saturating_sub(verified_bytes));
        Receiving {
            verified_bytes,
            size_bytes: self.size_bytes,
            received_bytes: self.received_bytes.saturating_add(self.sum(1)),
            rate_bytes_per_s,
            left_s: missing.and_then(|missing| missing.checked_div(rate_bytes_per_s)),
            path,
        }
    }
}

/// Shows how much has arrived.
pub(super) struct Shown<'a> {
    output: &'a Output,
    /// Standard output holds the content, so no record is printed.
    quiet: bool,
    bar: Option<ProgressBar>,
    /// When the last record was printed, and what it said had arrived.
    last: Option<(Instant, u64)>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(output: &'a Output, quiet: bool) -> Self {
        let bar = (!output.is_json() && stderr().is_terminal()).then(bar);
        Self {
            output,
            quiet,
            bar,
            last: None,
        }
    }

    /// Prints a record that is not one of progress. The bar shows the path itself.
    pub(super) fn line(&self, line: &Line) {
        if !self.quiet && self.bar.is_none() {
            self.output.print(line);
        }
    }

    pub(super) fn receiving(&mut self, receiving: Receiving) {
        if let Some(bar) = &self.bar {
            if let Some(size_bytes) = receiving.size_bytes {
                bar.set_length(size_bytes);
            }
            bar.set_position(receiving.verified_bytes);
            let rate = bytes(receiving.rate_bytes_per_s);
            let left = match receiving.left_s {
                Some(left_s) => humantime::format_duration(Duration::from_secs(left_s)).to_string(),
                None => "-".to_owned(),
            };
            return bar.set_message(format!("{rate}/s, {left} left, {}", receiving.path));
        }
        let interval = match self.output.is_json() {
            true => JSON_INTERVAL,
            false => TEXT_INTERVAL,
        };
        let (now, verified_bytes) = (Instant::now(), receiving.verified_bytes);
        let is_news = match self.last {
            Some((at, bytes)) => now - at >= interval && verified_bytes != bytes,
            None => verified_bytes > 0,
        };
        if !self.quiet && is_news {
            self.last = Some((now, verified_bytes));
            self.output.print(&Line::from(receiving));
        }
    }

    /// Removes the bar, and prints the last record.
    pub(super) fn end(self, line: &Line) {
        self.clear();
        if !self.quiet {
            self.output.print(line);
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style =
        ProgressStyle::with_template("{bar:32} {binary_bytes} of {binary_total_bytes}, {msg}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_summed() {
        let (one, other) = (BlobId::from([1; 32]), BlobId::from([2; 32]));
        let progress = |verified_bytes, rate_bytes_per_s| Progress {
            verified_bytes,
            received_bytes: verified_bytes + 1,
            rate_bytes_per_s,
            ..Progress::default()
        };
        let mut tally = Tally::default();
        assert_eq!(tally.now(Route::None).left_s, None);
        tally.on_progress(one, &progress(10, 5));
        tally.on_progress(other, &progress(20, 5));
        tally.on_progress(one, &progress(40, 5));
        tally.on_size(100);
        let now = tally.now(Route::Relayed);
        assert_eq!((now.verified_bytes, now.received_bytes), (60, 62));
        assert_eq!((now.rate_bytes_per_s, now.left_s), (10, Some(4)));
        tally.on_end(&one, 50, 51);
        let now = tally.now(Route::Relayed);
        assert_eq!((now.verified_bytes, now.received_bytes), (70, 72));
        assert_eq!((now.rate_bytes_per_s, now.left_s), (5, Some(6)));
        // Without a rate there is no time that is left.
        tally.on_end(&other, 50, 51);
        assert_eq!(tally.now(Route::None).left_s, None);
    }
}
