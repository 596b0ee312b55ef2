//! Configuration of the manager: its event queue, its runtime and its shutdown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check_durations, check_queues};
use crate::limits::MIB;

/// Where the swarm and its connections run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// On a dedicated thread with a single-threaded runtime. Connections share its time by their IP
    /// address (IPv4), prefix (IPv6 `/64`) or relay, and those of private addresses one by one. The
    /// packets of QUIC are handled by tasks that take no part in this.
    #[default]
    Dedicated,
    /// On the tokio runtime that starts the manager. Each connection is a task of it, so the share of
    /// an address grows with its connections.
    Shared,
}

/// The event queue of the manager, its runtime and its shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandleConfig {
    /// Topic messages, and as many inbound streams, that wait for the reader of events.
    ///
    /// A full queue drops its oldest messages and reports how many. Streams wait in their own accept
    /// queue. Other events describe a state and replace their predecessor instead of being counted.
    ///
    /// - Default: 8192, 0.4 s at the highest rate measured between two nodes.
    /// - Range: 1 to 1048576.
    /// - Reason: a program that pauses for longer between two reads needs a longer queue.
    pub event_queue: usize,
    /// Payload of the topic messages that wait for the reader of events, in bytes.
    ///
    /// - Default: 64 MiB, the memory that a stopped reader costs.
    /// - Range: at least `pubsub.max_message_bytes`.
    /// - Reason: a small host grants less memory, a busy one more.
    pub event_queue_bytes: usize,
    /// Where the swarm and its connections run, `dedicated` or `shared`.
    ///
    /// - Default: `dedicated`, which moves 1.4 times as many bytes over TCP as a tokio runtime of two
    ///   threads (measured), because no chunk wakes a task on another core. IP addresses share the
    ///   time of the thread, so that one with many connections slows the others less.
    /// - Reason: a program that must not start threads uses its own runtime.
    pub runtime: RuntimeKind,
    /// Time for operations in progress to end at shutdown, in milliseconds.
    ///
    /// - Default: 3 s.
    /// - Range: 1 to 31536000000.
    /// - Reason: a service manager may kill the process earlier, or grant more time.
    #[serde(rename = "shutdown_timeout_ms", with = "super::duration")]
    pub shutdown_timeout: Duration,
    /// Timers that tests vary. Not a key.
    #[serde(skip)]
    pub tuning: HandleTuning,
}

/// Timers of the manager: values that no file sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleTuning {
    /// Time for peers to read, at shutdown, what was written to them last. Default 200 ms: a round
    /// trip of 150 ms, the longest of the internet, and the delay of a busy reader. A peer loses
    /// what it has not read when its connection closes: without this time 62 of 80 messages were
    /// lost that were published right before (measured on loopback).
    pub linger: Duration,
}

impl Default for HandleConfig {
    fn default() -> Self {
        Self {
            event_queue: 8192,
            event_queue_bytes: 64 * MIB,
            runtime: RuntimeKind::default(),
            shutdown_timeout: Duration::from_secs(3),
            tuning: HandleTuning::default(),
        }
    }
}

impl Default for HandleTuning {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(200),
        }
    }
}

impl HandleConfig {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        check_queues(prefix, &[("event_queue", self.event_queue)])?;
        check_durations(
            prefix,
            &[
                ("shutdown_timeout_ms", self.shutdown_timeout),
                ("tuning.linger", self.tuning.linger),
            ],
        )
    }
}
