//! Samples of the resources of the process over time.

use std::{
    collections::HashMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::network::Network;
use crate::{Failure, process};

/// One sample of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) nodes: usize,
    pub(crate) resident_kib: u64,
    /// Allocated bytes, if the allocator reports them.
    pub(crate) allocated_bytes: Option<u64>,
    pub(crate) tasks: usize,
    pub(crate) threads: u64,
    pub(crate) files: usize,
    /// Connected peers of all nodes. Each connection counts twice.
    pub(crate) peers: usize,
    /// CPU seconds since the start of the process.
    pub(crate) cpu_seconds: f64,
    pub(crate) delivered: u64,
}

impl Sample {
    pub(crate) fn take(net: &Arc<Network>, began: Instant) -> Result<Self, Failure> {
        let present = net.present();
        let mut runtimes = HashMap::new();
        let mut peers = 0;
        runtimes.insert(Handle::current().id(), Handle::current());
        for member in &present {
            let runtime = member.client.runtime();
            runtimes
                .entry(runtime.id())
                .or_insert_with(|| runtime.clone());
            peers += member.client.peer_count().unwrap_or(0);
        }
        let alive = |runtime: &Handle| runtime.metrics().num_alive_tasks();
        Ok(Self {
            at: began.elapsed(),
            nodes: present.len(),
            resident_kib: process::status("VmRSS:")?,
            allocated_bytes: process::allocated_bytes(),
            tasks: runtimes.values().map(alive).sum(),
            threads: process::status("Threads:")?,
            files: fs::read_dir("/proc/self/fd")?.count(),
            peers,
            cpu_seconds: process::cpu_seconds(),
            delivered: net.ledger().counts().delivered,
        })
    }

    fn per_node(&self, what: f64) -> f64 {
        what / self.nodes.max(1) as f64
    }

    pub(crate) fn resident_kib_per_node(&self) -> f64 {
        self.per_node(self.resident_kib as f64)
    }

    /// Returns the allocated KiB per node, or zero if the allocator does not
    /// report it.
    pub(crate) fn allocated_kib_per_node(&self) -> f64 {
        self.per_node(self.allocated_bytes.unwrap_or(0) as f64 / 1024.0)
    }

    /// Returns the allocated MiB, or a question mark if the allocator does not
    /// report it.
    pub(crate) fn allocated_mib(&self) -> String {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        self.allocated_bytes.map_or_else(|| "?".to_owned(), mib)
    }

    pub(crate) fn tasks_per_node(&self) -> f64 {
        self.per_node(self.tasks as f64)
    }

    pub(crate) fn peers_per_node(&self) -> f64 {
        self.per_node(self.peers as f64)
    }
}

/// Returns the means of a figure in the first and in the last third of the
/// samples. The first fifth is excluded, because tables and pools fill in it.
pub(crate) fn growth(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Option<(f64, f64)> {
    let settled = &samples[samples.len() / 5..];
    let third = settled.len() / 3;
    if third == 0 {
        return None;
    }
    let mean = |part: &[Sample]| part.iter().map(&figure).sum::<f64>() / part.len() as f64;
    Some((
        mean(&settled[..third]),
        mean(&settled[settled.len() - third..]),
    ))
}
