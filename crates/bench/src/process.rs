//! Resource usage of this process as reported by Linux and by the allocator.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// Clock ticks per second in `/proc`, a constant of the Linux user space
/// interface.
const TICKS_PER_SECOND: f64 = 100.0;

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
        let cpu_seconds = cpu_seconds()?;
        Ok(Self { cpu_seconds })
    }

    pub(crate) fn usage(self) -> Result<Usage, Failure> {
        Ok(Usage {
            cpu_seconds: cpu_seconds()? - self.cpu_seconds,
            peak_kib: peak_kib()?,
        })
    }
}

/// Returns the CPU seconds of this process, user and system, since its start.
pub(crate) fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The program name in parentheses may contain any character, so the fields
    // are read after it.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = times.next().ok_or("no user time")??;
    let system = times.next().ok_or("no system time")??;
    Ok((user + system) / TICKS_PER_SECOND)
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
