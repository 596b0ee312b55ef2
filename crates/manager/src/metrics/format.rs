//! The text formats in which metrics are served.

use std::fmt::Write as _;

use prometheus_client::{encoding::text, registry::Registry};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) 1.0.
    #[default]
    OpenMetrics,
    /// [Text format](https://prometheus.io/docs/instrumenting/exposition_formats/) 0.0.4 of
    /// Prometheus, which `promtool check metrics` and older scrapers read.
    Prometheus,
}

impl MetricsFormat {
    /// The value of `Content-Type` for this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the metrics of a registry as text in this format.
    #[must_use]
    pub fn encode(self, registry: &Registry) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, registry);
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// Converts OpenMetrics to the text format of Prometheus. There, the name of a family of counters
/// ends in `_total` as its samples do, and units and the end of the text have no line.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type, which decides about the name, follows.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = type_of(line) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((of, help)) = help.take()
                && of == name
            {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let kind = match kind {
                "unknown" => "untyped",
                "info" | "stateset" => "gauge",
                kind => kind,
            };
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The name and the kind of a family from its `# TYPE` line.
fn type_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        metrics::{counter::Counter, gauge::Gauge},
        registry::Unit,
    };

    use super::*;

    #[test]
    fn counters_have_their_suffix_in_the_format_of_prometheus() {
        let mut registry = Registry::default();
        let (bytes, peers) = (Counter::<u64>::default(), Gauge::<i64>::default());
        registry.register_with_unit("sent", "Bytes sent", Unit::Bytes, bytes.clone());
        registry.register("peers", "Peers", peers.clone());
        bytes.inc_by(7);
        peers.set(3);
        assert_eq!(
            MetricsFormat::Prometheus.encode(&registry),
            "# HELP sent_bytes_total Bytes sent.\n\
             # TYPE sent_bytes_total counter\n\
             sent_bytes_total 7\n\
             # HELP peers Peers.\n\
             # TYPE peers gauge\n\
             peers 3\n"
        );
        let text = MetricsFormat::OpenMetrics.encode(&registry);
        assert!(text.contains("# UNIT sent_bytes bytes\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
