//! Progress of a transfer: a bar on a terminal, records elsewhere.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use calimero_network::blob::fetch::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    output::Output,
    text::{bytes, short_text},
};

/// Time between two records while less than a quarter of the blob arrives.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Records of a fast transfer, at least.
const STEPS: u64 = 4;

/// Shows progress: a bar on a terminal, some records in a file, all of them for programs.
pub(crate) struct Shown<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    last: Option<(Instant, u64)>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let bar = (!output.is_json() && stderr().is_terminal()).then(bar);
        let last = None;
        Self { output, bar, last }
    }

    pub(crate) fn show(&mut self, line: &Line) {
        match &self.bar {
            Some(bar) => {
                if let Some(size_bytes) = line.size_bytes {
                    bar.set_length(size_bytes);
                }
                bar.set_position(line.verified_bytes);
                bar.set_message(line.sources());
            }
            None => self.print(line),
        }
    }

    fn print(&mut self, line: &Line) {
        let Some(size_bytes) = line.size_bytes else {
            return;
        };
        let now = Instant::now();
        let step = |bytes: u64| bytes.saturating_mul(STEPS) / size_bytes.max(1);
        let is_news = self.output.is_json()
            || self.last.is_none_or(|(at, bytes)| {
                now - at >= LINE_INTERVAL || step(line.verified_bytes) > step(bytes)
            });
        if is_news {
            self.last = Some((now, line.verified_bytes));
            self.output.print(&Event::Progress(line));
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(
        "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {msg}",
    );
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A record of progress with the name of its event.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Progress(&'a Line),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Progress(line) = self;
        line.fmt(f)
    }
}

/// Progress of a transfer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ProgressRecord)]
pub(crate) struct Line {
    verified_bytes: u64,
    size_bytes: Option<u64>,
    received_bytes: u64,
    rate_bytes_per_s: u64,
    providers: Vec<Source>,
}

/// The part that came from one provider.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
struct Source {
    peer: String,
    verified_bytes: u64,
    connected: bool,
}

impl Line {
    pub(crate) fn of(progress: &Progress) -> Self {
        let providers = progress.providers.iter().map(|provider| Source {
            peer: provider.peer.to_base58(),
            verified_bytes: provider.verified_bytes,
            connected: provider.connected,
        });
        Self {
            verified_bytes: progress.verified_bytes,
            size_bytes: progress.size_bytes,
            received_bytes: progress.received_bytes,
            rate_bytes_per_s: progress.rate_bytes_per_s,
            providers: providers.collect(),
        }
    }

    /// The providers, and how much came from each.
    fn sources(&self) -> String {
        let gave = self.providers.iter().filter(|one| one.verified_bytes > 0);
        let texts: Vec<_> = gave
            .map(|one| {
                let gone = if one.connected { "" } else { " (gone)" };
                format!(
                    "{} from ..{}{gone}",
                    bytes(one.verified_bytes),
                    short_text(&one.peer)
                )
            })
            .collect();
        texts.join(", ")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fetching {}", bytes(self.verified_bytes))?;
        if let Some(size_bytes) = self.size_bytes {
            write!(f, " of {}", bytes(size_bytes))?;
        }
        let sources = self.sources();
        if !sources.is_empty() {
            write!(f, ": {sources}")?;
        }
        Ok(())
    }
}
