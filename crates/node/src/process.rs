//! Metrics of this process, under the names that every exporter of Prometheus uses.

use std::fmt;

use calimero_network::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Reads the resources of this process when metrics are encoded. A value that the system does not
/// report is missing from the metrics.
#[derive(Debug)]
pub(crate) struct ProcessMetrics;

/// The resources that this process uses.
#[derive(Debug, Default)]
struct Usage {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_memory_bytes: Option<u64>,
    virtual_memory_bytes: Option<u64>,
    threads: Option<u64>,
    open_descriptors: Option<u64>,
    max_descriptors: Option<u64>,
}

impl Usage {
    #[cfg(target_os = "linux")]
    fn read() -> Self {
        use procfs::process::{LimitValue, Process};

        let Ok(process) = Process::myself() else {
            return Self::default();
        };
        let mut usage = Self::default();
        if let Ok(stat) = process.stat() {
            let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
            usage.cpu_seconds = Some(seconds(stat.utime + stat.stime));
            let boot = procfs::boot_time_secs().ok();
            usage.start_time_seconds = boot.map(|boot| boot as f64 + seconds(stat.starttime));
            usage.resident_memory_bytes = Some(stat.rss * procfs::page_size());
            usage.virtual_memory_bytes = Some(stat.vsize);
            usage.threads = u64::try_from(stat.num_threads).ok();
        }
        usage.open_descriptors = process.fd_count().ok().map(|count| count as u64);
        let limits = process.limits().ok();
        usage.max_descriptors = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most),
            LimitValue::Unlimited => None,
        });
        usage
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Self {
        Self::default()
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usage = Usage::read();
        let mut write = |name: &str, help: &str, unit: Option<&Unit>, metric: &dyn Value| {
            metric.write(&mut encoder, name, help, unit)
        };
        if let Some(seconds) = usage.cpu_seconds {
            write(
                "process_cpu",
                "Processor time that the process used, in all threads.",
                Some(&Unit::Seconds),
                &ConstCounter::new(seconds),
            )?;
        }
        if let Some(seconds) = usage.start_time_seconds {
            write(
                "process_start_time",
                "Start time of the process since 1970-01-01 UTC.",
                Some(&Unit::Seconds),
                &ConstGauge::new(seconds),
            )?;
        }
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Resident memory of the process.",
                Some(&Unit::Bytes),
                usage.resident_memory_bytes,
            ),
            (
                "process_virtual_memory",
                "Virtual memory of the process.",
                Some(&Unit::Bytes),
                usage.virtual_memory_bytes,
            ),
            (
                "process_threads",
                "Threads of the process.",
                None,
                usage.threads,
            ),
            (
                "process_open_fds",
                "Open file descriptors of the process.",
                None,
                usage.open_descriptors,
            ),
            (
                "process_max_fds",
                "Most file descriptors that the process may open.",
                None,
                usage.max_descriptors,
            ),
        ] {
            if let Some(value) = value {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                write(name, help, unit, &ConstGauge::new(value))?;
            }
        }
        Ok(())
    }
}

/// A metric that is written as a family of its own.
trait Value {
    fn write(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> Result<(), fmt::Error>;
}

impl<M: EncodeMetric> Value for M {
    fn write(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> Result<(), fmt::Error> {
        let family = encoder.encode_descriptor(name, help, unit, self.metric_type())?;
        self.encode(family)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_values_are_those_of_this_process() {
        let usage = Usage::read();
        let file = tempfile::tempfile().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let started = usage.start_time_seconds.unwrap();
        // The kernel counts the start in hundredths of a second since the boot of the host.
        assert!(started < now.as_secs_f64() + 2.0, "{started}");
        assert!(started > now.as_secs_f64() - 24.0 * 3600.0, "{started}");
        let resident = usage.resident_memory_bytes.unwrap();
        assert!(resident > 1 << 20, "{resident}");
        assert!(usage.virtual_memory_bytes.unwrap() >= resident);
        assert!(usage.open_descriptors.unwrap() >= 3);
        assert!(usage.open_descriptors <= usage.max_descriptors);
        drop(file);
    }
}
