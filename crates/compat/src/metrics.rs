//! The metrics of the manager in the registry of the node.
//!
//! The two use different versions of the crate `prometheus-client`, so that the metrics cross as the
//! text that they are exported in.

use std::{collections::BTreeMap, fmt};

use network::prometheus_client::{encoding::text, registry::Registry};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet,
        LabelSetEncoder, MetricEncoder,
    },
    metrics::MetricType,
};

/// The registry of the manager as a collector for the registry of the node.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) Registry);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exported = String::new();
        text::encode(&mut exported, &self.0)?;
        for family in families(&exported) {
            let unit = None;
            let kind = family.kind;
            let metrics = encoder.encode_descriptor(family.name, family.help, unit, kind)?;
            family.encode(metrics)?;
        }
        Ok(())
    }
}

/// One metric with all its label sets, as the text has them.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: MetricType,
    samples: Vec<Sample<'a>>,
}

struct Sample<'a> {
    /// What follows the name of the metric, such as `_total`.
    suffix: &'a str,
    labels: Labels,
    value: f64,
}

/// Labels in the order of the text. Values are escaped as they are there, because the older encoder
/// does not escape them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Labels(Vec<(String, String)>);

/// Reads the families of an exported text. Lines of another form are left out.
fn families(exported: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut help = "";
    for line in exported.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, text)| text);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else {
                continue;
            };
            let kind = match kind {
                "counter" => MetricType::Counter,
                "gauge" => MetricType::Gauge,
                "histogram" => MetricType::Histogram,
                _ => MetricType::Unknown,
            };
            families.push(Family {
                name,
                help,
                kind,
                samples: Vec::new(),
            });
        } else if !line.starts_with('#')
            && let Some(family) = families.last_mut()
            && let Some(sample) = sample(line, family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// Reads `name_suffix{label="value"} number`.
fn sample<'a>(line: &'a str, name: &str) -> Option<Sample<'a>> {
    let rest = line.strip_prefix(name)?;
    let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::default(), rest),
    };
    let value = value.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample {
        suffix,
        labels,
        value,
    })
}

/// Reads labels up to the closing brace, and returns what follows it.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((Labels(labels), rest));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                // The character after a backslash is part of the value.
                (_, '\\') => _ = chars.next()?,
                _ => {}
            }
        };
        let value = after[..end].to_owned();
        rest = &after[end + 1..];
        labels.push((key.to_owned(), value));
    }
}

impl Family<'_> {
    fn encode(&self, mut metrics: MetricEncoder<'_>) -> fmt::Result {
        if matches!(self.kind, MetricType::Histogram) {
            return self.encode_histograms(metrics);
        }
        for sample in &self.samples {
            labelled(&mut metrics, &sample.labels, |one| match self.kind {
                MetricType::Counter => {
                    one.encode_counter::<Labels, _, u64>(&Number(sample.value), None)
                }
                _ => one.encode_gauge(&Number(sample.value)),
            })?;
        }
        Ok(())
    }

    fn encode_histograms(&self, mut metrics: MetricEncoder<'_>) -> fmt::Result {
        let mut histograms: BTreeMap<Labels, Histogram> = BTreeMap::new();
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            let bound = labels.0.iter().position(|(key, _)| key == "le");
            let bound = bound.map(|at| labels.0.remove(at).1);
            let histogram = histograms.entry(labels).or_default();
            match (sample.suffix, bound) {
                ("_sum", _) => histogram.sum = sample.value,
                ("_count", _) => histogram.count = sample.value as u64,
                ("_bucket", Some(bound)) => {
                    let bound = match bound.as_str() {
                        "+Inf" => f64::MAX,
                        bound => bound.parse().map_err(|_| fmt::Error)?,
                    };
                    // The text counts all values up to the bound, the encoder those of the bucket.
                    let total = sample.value as u64;
                    let before = histogram.in_buckets;
                    histogram
                        .buckets
                        .push((bound, total.saturating_sub(before)));
                    histogram.in_buckets = total;
                }
                _ => {}
            }
        }
        for (labels, histogram) in &histograms {
            labelled(&mut metrics, labels, |one| {
                let Histogram {
                    sum,
                    count,
                    buckets,
                    ..
                } = histogram;
                one.encode_histogram::<Labels>(*sum, *count, buckets, None)
            })?;
        }
        Ok(())
    }
}

/// Encodes one metric of a family. A metric without labels is not a family.
fn labelled(
    metrics: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.0.is_empty() {
        return encode(metrics);
    }
    encode(&mut metrics.encode_family(labels)?)
}

#[derive(Default)]
struct Histogram {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
    in_buckets: u64,
}

/// A number of the text: counters of the manager are whole and below 2^53.
struct Number(f64);

impl EncodeCounterValue for Number {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::CounterValueEncoder<'_>,
    ) -> fmt::Result {
        EncodeCounterValue::encode(&(self.0 as u64), encoder)
    }
}

impl EncodeGaugeValue for Number {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::GaugeValueEncoder<'_>,
    ) -> fmt::Result {
        if self.0.fract() == 0.0 {
            return EncodeGaugeValue::encode(&(self.0 as i64), encoder);
        }
        EncodeGaugeValue::encode(&self.0, encoder)
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, mut encoder: LabelSetEncoder<'_>) -> fmt::Result {
        for (key, value) in &self.0 {
            (key.as_str(), value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use network::prometheus_client::metrics::{
        counter::Counter,
        family::Family as OurFamily,
        gauge::Gauge,
        histogram::{Histogram as OurHistogram, exponential_buckets},
    };

    use super::*;

    #[test]
    fn every_kind_of_metric_is_exported_unchanged() {
        let mut ours = Registry::with_prefix("calimero_network");
        let counters = OurFamily::<Vec<(String, String)>, Counter>::default();
        let label = |value: &str| vec![("cause".to_owned(), value.to_owned())];
        counters.get_or_create(&label("plain")).inc_by(7);
        counters
            .get_or_create(&label("a \"quote\", a \\ and a\nline"))
            .inc();
        ours.register("closed", "Connections closed", counters);
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(0.25);
        ours.register("share", "A share", gauge);
        let peers = Gauge::<i64>::default();
        peers.set(-3);
        ours.register("peers", "Connected peers", peers);
        let histogram = OurHistogram::new(exponential_buckets(1.0, 2.0, 3));
        for value in [0.5, 1.5, 3.0, 100.0] {
            histogram.observe(value);
        }
        ours.register("duration", "Durations", histogram);
        let mut expected = String::new();
        text::encode(&mut expected, &ours).unwrap();

        let mut node = prometheus_client::registry::Registry::default();
        node.register_collector(Box::new(Metrics(ours)));
        let mut exported = String::new();
        prometheus_client::encoding::text::encode(&mut exported, &node).unwrap();
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&exported), sorted(&expected));
    }
}
