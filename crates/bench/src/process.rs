//! Resource usage of this process as reported by Linux and by the allocator.

use std::fs;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Memory and CPU time of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU seconds, user and system, since the last mark.
    pub(crate) cpu_seconds: f64,
    /// Peak of resident memory since the last mark, in KiB.
    pub(crate) peak_kib: u64,
}

/// The start of an interval of usage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    cpu_seconds: f64,
}

impl Mark {
    /// Starts an interval and resets the memory peak.
    pub(crate) fn now() -> Result<Self, Failure> {
        fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self {
            cpu_seconds: cpu_seconds(),
        })
    }

    pub(crate) fn usage(self) -> Result<Usage, Failure> {
        Ok(Usage {
            cpu_seconds: cpu_seconds() - self.cpu_seconds,
            peak_kib: peak_kib()?,
        })
    }
}

/// Returns the CPU seconds of this process, user and system, since its start.
pub(crate) fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Returns the load average of the host over 1, 5 and 15 minutes, as text.
pub(crate) fn load_average() -> Result<String, Failure> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let numbers: Vec<_> = text.split_whitespace().take(3).collect();
    Ok(numbers.join(", "))
}

fn peak_kib() -> Result<u64, Failure> {
    status("VmHWM:")
}

/// Returns a number of `/proc/self/status`, for example memory in KiB or the
/// number of threads.
pub(crate) fn status(name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let missing = || format!("/proc/self/status has no {name}");
    Ok(number.ok_or_else(missing)?.parse()?)
}

/// Returns the number of allocated bytes, if the allocator reports it.
#[cfg(feature = "jemalloc")]
pub(crate) fn allocated_bytes() -> Option<u64> {
    use tikv_jemalloc_ctl::{epoch, stats};
    // The statistics are cached and updated when the epoch advances.
    epoch::advance().ok()?;
    Some(stats::allocated::read().ok()? as u64)
}

#[cfg(not(feature = "jemalloc"))]
pub(crate) fn allocated_bytes() -> Option<u64> {
    None
}
