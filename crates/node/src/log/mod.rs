//! Logs, on standard error.

mod limit;

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::limit::Limit;
use crate::output::LineWriter;

/// Levels without `--log`: warnings. Some libraries warn of what any peer can cause or what a node
/// without a network meets all the time; of those, errors alone.
pub(crate) const DEFAULT_FILTER: &str = "warn,libp2p_kad=error,quinn_udp=error,\
    libp2p_autonat=error,libp2p_relay=error,libp2p_dcutr=error,libp2p_identify=error,\
    libp2p_mdns=error,yamux=error";

/// Time between two reports of suppressed lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The log of this process.
#[derive(Clone, Debug)]
pub(crate) struct Log(Limit);

impl Log {
    /// Starts to log what `filter` admits, at most a bounded number of lines for each call site.
    pub(crate) fn start(filter: &str, errors: LineWriter) -> Self {
        let limit = Limit::new();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(has_colours())
            .with_writer(Lines(errors));
        tracing_subscriber::registry()
            .with(EnvFilter::builder().parse_lossy(filter))
            .with(limit.clone())
            .with(lines)
            .init();
        Self(limit)
    }

    /// Reports suppressed lines once a minute, for as long as it is polled.
    pub(crate) async fn report(&self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.0.report();
        }
    }

    /// Reports the lines that were suppressed since the last report.
    pub(crate) fn report_now(&self) {
        self.0.report();
    }
}

/// Colours are for terminals, unless the user declines them (<https://no-color.org>).
fn has_colours() -> bool {
    let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !declined && io::stderr().is_terminal()
}

/// Appends each line of the log to the queue of standard error.
struct Lines(LineWriter);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a LineWriter);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push_or_drop(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
