//! Logs, on standard error or in the journal of systemd.

#[cfg(feature = "otel")]
mod export;
mod limit;
#[cfg(not(feature = "otel"))]
mod no_export;
pub(crate) mod recent;

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

#[cfg(feature = "otel")]
pub(crate) use self::export::{ExportError, Exporter};
use self::limit::Limit;
#[cfg(not(feature = "otel"))]
pub(crate) use self::no_export::{Exporter, warn_of_variable};
use crate::{error::CommandError, output::LineWriter};

/// Levels without `--log` and `RUST_LOG`: warnings. Some libraries warn of what any peer can cause or what a node
/// without a network meets all the time; of those, errors alone.
const DEFAULT_FILTER: &str = "warn,libp2p_kad=error,quinn_udp=error,\
    libp2p_autonat=error,libp2p_relay=error,libp2p_dcutr=error,libp2p_identify=error,\
    libp2p_mdns=error,yamux=error";

/// Time between two reports of suppressed lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people, on standard error, with colours if that is a terminal.
    #[default]
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// Entries of the journal of systemd.
    Journald,
}

/// The filter of the command line, or else of `RUST_LOG`, or else the default.
pub(crate) fn filter(argument: Option<&str>) -> String {
    let variable = || {
        std::env::var("RUST_LOG")
            .ok()
            .filter(|text| !text.is_empty())
    };
    let given = argument.map(str::to_owned).or_else(variable);
    given.unwrap_or_else(|| DEFAULT_FILTER.to_owned())
}

/// The log of this process.
pub(crate) struct Log {
    limit: Limit,
    exporter: Option<Exporter>,
}

impl Log {
    /// Starts to log what `filter` admits, at most a bounded number of lines for each call site, and
    /// to export spans by `exporter`.
    ///
    /// # Errors
    ///
    /// [`CommandError::Journal`] if the journal is wanted and its socket cannot be used.
    pub(crate) fn start(
        filter: &str,
        format: LogFormat,
        errors: LineWriter,
        exporter: Option<Exporter>,
    ) -> Result<Self, CommandError> {
        let limit = Limit::new();
        let lines = tracing_subscriber::fmt::layer().with_writer(Lines(errors));
        let layer = match format {
            LogFormat::Text => lines.with_ansi(has_colours()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Journald => journal().map_err(CommandError::Journal)?,
        };
        let kept = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .fmt_fields(recent::Plain)
            .with_writer(recent::Recent);
        let filter = EnvFilter::builder().parse_lossy(filter);
        let lines = limit.clone().and_then(layer).and_then(kept);
        let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
        match &exporter {
            // The filter of the log does not apply to exported spans.
            Some(exporter) => registry.with(exporter.layer()).init(),
            None => registry.init(),
        }
        Ok(Self { limit, exporter })
    }

    /// Reports suppressed lines once a minute, for as long as it is polled.
    pub(crate) async fn report(&self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.limit.report();
        }
    }

    /// Exports the last spans, within a bounded time, and reports the lines that were suppressed since
    /// the last report.
    pub(crate) fn end(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.end();
        }
        self.limit.report();
    }
}

#[cfg(target_os = "linux")]
fn journal<S>() -> io::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = tracing_journald::layer()?;
    Ok(layer.with_syslog_identifier("calnet".to_owned()).boxed())
}

#[cfg(not(target_os = "linux"))]
fn journal<S: tracing::Subscriber>() -> io::Result<Box<dyn Layer<S> + Send + Sync>> {
    Err(io::ErrorKind::Unsupported.into())
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
