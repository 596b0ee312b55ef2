//! Figures of runs, and their medians as Markdown or JSON.

use serde::Serialize;

use super::{Implementation, Work, member::Cost, tally::Arrivals};
use crate::{Failure, measure::median};

/// The figures of one run, or the medians of several ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Messages delivered per second to the receiver that got them slowest.
    pub(super) per_second: f64,
    /// Messages delivered, summed over receivers and runs.
    pub(super) delivered: u64,
    /// Messages that a receiver did not get, summed over receivers and runs.
    pub(super) lost: u64,
    /// Median latency at the receiver where it is longest, in milliseconds.
    pub(super) p50_ms: f64,
    /// The same for 99 % of the messages.
    pub(super) p99_ms: f64,
    /// CPU time of a receiver for each message delivered, in microseconds. The
    /// mean of the receivers.
    pub(super) receiver_us: f64,
    /// CPU time of the publisher for each message published, in microseconds.
    pub(super) publisher_us: f64,
    /// Copies received of each message delivered, the first one included. The
    /// mean of the receivers.
    pub(super) copies: f64,
}

impl Figures {
    /// # Errors
    ///
    /// A message was delivered twice, or a receiver got none.
    pub(super) fn new(
        work: Work,
        publisher: &Cost,
        receivers: &[(Arrivals, Cost)],
    ) -> Result<Self, Failure> {
        let arrivals = || receivers.iter().map(|(arrivals, _)| arrivals);
        let repeated: u64 = arrivals().map(|arrivals| arrivals.repeated).sum();
        if repeated > 0 {
            return Err(format!("{repeated} messages were delivered twice").into());
        }
        if arrivals().any(|arrivals| arrivals.delivered == 0) {
            return Err("a receiver got no message".into());
        }
        let mean = |each: &dyn Fn(&Arrivals, &Cost) -> f64| {
            let sum: f64 = receivers.iter().map(|(one, cost)| each(one, cost)).sum();
            sum / receivers.len() as f64
        };
        let rate = |one: &Arrivals| (one.delivered - 1) as f64 / one.seconds;
        Ok(Self {
            per_second: arrivals().map(rate).fold(f64::INFINITY, f64::min),
            delivered: arrivals().map(|arrivals| arrivals.delivered).sum(),
            lost: arrivals()
                .map(|arrivals| work.messages - arrivals.delivered)
                .sum(),
            p50_ms: arrivals().map(|one| one.p50_ms).fold(0.0, f64::max),
            p99_ms: arrivals().map(|one| one.p99_ms).fold(0.0, f64::max),
            receiver_us: mean(&|one, cost| cost.cpu_seconds * 1e6 / one.delivered as f64),
            publisher_us: publisher.cpu_seconds * 1e6 / work.messages as f64,
            copies: mean(&|one, cost| cost.copies as f64 / one.delivered as f64),
        })
    }
}

/// A table row: one implementation with one piece of work, and its runs.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) work: Work,
    pub(super) implementation: Implementation,
    pub(super) runs: Vec<Figures>,
}

/// The medians of a row.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Medians {
    nodes: usize,
    /// Messages per second, or 0 without a limit.
    rate: u32,
    implementation: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

impl Row {
    pub(super) fn new(work: Work, implementation: Implementation) -> Self {
        Self {
            work,
            implementation,
            runs: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        let rate = rate(self.work.rate);
        let name = self.implementation.name();
        format!("{} processes, {rate}: {name}", self.work.nodes)
    }

    pub(super) fn medians(&self) -> Medians {
        let of = |figure: fn(&Figures) -> f64| median(self.runs.iter().map(figure).collect());
        Medians {
            nodes: self.work.nodes,
            rate: self.work.rate,
            implementation: self.implementation.name(),
            figures: Figures {
                per_second: of(|run| run.per_second),
                delivered: self.runs.iter().map(|run| run.delivered).sum(),
                lost: self.runs.iter().map(|run| run.lost).sum(),
                p50_ms: of(|run| run.p50_ms),
                p99_ms: of(|run| run.p99_ms),
                receiver_us: of(|run| run.receiver_us),
                publisher_us: of(|run| run.publisher_us),
                copies: of(|run| run.copies),
            },
        }
    }

    /// The row in Markdown.
    pub(super) fn markdown(&self) -> String {
        let Figures {
            per_second,
            lost,
            p50_ms,
            p99_ms,
            receiver_us,
            publisher_us,
            copies,
            ..
        } = self.medians().figures;
        format!(
            "| {} | {} | {} | {per_second:.0} | {lost} | {p50_ms:.2} | {p99_ms:.2} | \
             {receiver_us:.1} | {publisher_us:.1} | {copies:.2} |",
            self.work.nodes,
            rate(self.work.rate),
            self.implementation.name(),
        )
    }
}

fn rate(rate: u32) -> String {
    match rate {
        0 => "no rate limit".to_owned(),
        rate => format!("{rate}/s"),
    }
}

pub(super) fn print(rows: &[Row]) {
    println!(
        "| processes | published | implementation | delivered per second to each | lost | p50, ms \
         | p99, ms | CPU µs per message, receiver | CPU µs per message, publisher | copies |"
    );
    println!("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in rows {
        println!("{}", row.markdown());
    }
}
