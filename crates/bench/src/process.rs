//! What the operating system says of this process (Linux), and its allocator.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// Clock ticks a second in `/proc`, fixed by Linux' interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory and time of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Seconds of CPU, user and system, since the last mark.
    pub(crate) cpu_seconds: f64,
    /// Peak of resident memory since the last mark, in KiB.
    pub(crate) peak_kib: u64,
}

/// A moment from which usage is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    cpu_seconds: f64,
}

impl Mark {
    /// Now; forgets the memory peak so far.
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

/// Seconds of CPU of this process, user and system, since its start.
pub(crate) fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may hold anything; the fields follow it.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let user = times.next().ok_or("no user time")??;
    let system = times.next().ok_or("no system time")??;
    Ok((user + system) / TICKS_PER_SECOND)
}

fn peak_kib() -> Result<u64, Failure> {
    status("VmHWM:")
}

/// A number of `/proc/self/status`: memory in KiB, threads.
pub(crate) fn status(name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let missing = || format!("/proc/self/status has no {name}");
    Ok(number.ok_or_else(missing)?.parse()?)
}

/// Bytes that are allocated and not freed, where the allocator tells.
#[cfg(feature = "jemalloc")]
pub(crate) fn allocated_bytes() -> Option<u64> {
    use tikv_jemalloc_ctl::{epoch, stats};
    // Its figures are copies, made when the epoch advances.
    epoch::advance().ok()?;
    Some(stats::allocated::read().ok()? as u64)
}

#[cfg(not(feature = "jemalloc"))]
pub(crate) fn allocated_bytes() -> Option<u64> {
    None
}
