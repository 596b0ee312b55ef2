//! Logs, on standard error or in the journal of systemd.

#[cfg(feature = "otel")]
mod export;
mod limit;
#[cfg(not(feature = "otel"))]
mod no_export;
pub(crate) mod recent;

use std::{
    fmt,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    filter::Directive,
    fmt::{
        FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

#[cfg(feature = "otel")]
pub(crate) use self::export::{ExportError, Exporter};
use self::limit::Limit;
#[cfg(not(feature = "otel"))]
pub(crate) use self::no_export::Exporter;
use crate::{
    environment::{self, Ignored},
    error::CommandError,
    output::LineWriter,
    printable::{self, Escaping},
};

/// The variable with the levels of all programs that log by `tracing`.
const VARIABLE: &str = "RUST_LOG";

/// Levels without `--log` and `RUST_LOG`: warnings. Some libraries warn of what any peer can cause or what a node
/// without a network meets all the time; of those, errors alone.
const DEFAULT_FILTER: &str = "warn,libp2p_kad=error,quinn_udp=error,\
    libp2p_autonat=error,libp2p_relay=error,libp2p_dcutr=error,libp2p_identify=error,\
    libp2p_mdns=error,yamux=off";

/// Time between two reports of suppressed lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people, on standard error, with colours if that is a terminal.
    // An empty variable of the environment counts as absent.
    #[default]
    #[value(alias = "")]
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// Entries of the journal of systemd.
    Journald,
}

/// The filter of the command line or `CALNET_LOG`, or else of `RUST_LOG`, or else the default. An
/// empty one counts as absent: it would suppress warnings. So does a wrong one of `RUST_LOG`.
///
/// # Errors
///
/// [`CommandError::Usage`] with the directive of `argument` that is not valid.
pub(crate) fn filter(
    argument: Option<&str>,
    ignored: &mut Vec<Ignored>,
) -> Result<EnvFilter, CommandError> {
    if let Some(text) = argument.filter(|text| !text.trim().is_empty()) {
        return parse(text).map_err(CommandError::Usage);
    }
    let variable = environment::text(VARIABLE).and_then(|text| {
        let filter = text.as_deref().map(parse).transpose();
        filter.map_err(|reason| Ignored::new(VARIABLE, reason))
    });
    match environment::used(variable, ignored) {
        Some(filter) => Ok(filter),
        None => parse(DEFAULT_FILTER).map_err(CommandError::Usage),
    }
}

/// Reads a filter. The error names the directive that is not valid.
fn parse(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| {
        let is_wrong = |part: &&str| !part.is_empty() && part.parse::<Directive>().is_err();
        // A directive of a span may hold commas, so its parts alone may all be wrong or all be right.
        let directive = text.split(',').find(is_wrong).unwrap_or(text);
        format!(
            "the log filter has a wrong directive {directive:?}: {error} (directives are levels, such \
             as info, and TARGET=LEVEL, separated by commas)"
        )
    })
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
        filter: EnvFilter,
        format: LogFormat,
        errors: LineWriter,
        exporter: Option<Exporter>,
    ) -> Result<Self, CommandError> {
        let limit = Limit::new();
        let lines = tracing_subscriber::fmt::layer().with_writer(Lines {
            errors,
            json: format == LogFormat::Json,
        });
        let layer = match format {
            LogFormat::Text => lines.with_ansi(has_colours()).fmt_fields(Escaped).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Journald => journal().map_err(CommandError::Journal)?,
        };
        let kept = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .fmt_fields(Escaped)
            .with_writer(recent::Recent);
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

/// Formats the fields of events and spans as text on one line, without control characters: a field
/// may hold what a peer sent. Fields have no colours, because layers whose formats have one type share
/// the text of the fields of spans.
struct Escaped;

impl<'w> FormatFields<'w> for Escaped {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut escaping = Escaping(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut escaping), fields)
    }
}

/// Appends each line of the log to the queue of standard error.
struct Lines {
    errors: LineWriter,
    json: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.to_vec();
        self.0.errors.push_or_drop(match self.0.json {
            true => printable::json(text),
            false => text,
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
