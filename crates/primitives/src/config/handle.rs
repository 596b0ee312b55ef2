//! Configuration of the manager's queues and of its end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check_duration, check_queue};
use crate::limits::MIB;

/// Where the swarm and its connections run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// On a thread of their own with a runtime of one thread.
    #[default]
    Dedicated,
    /// On the tokio runtime that starts the manager.
    Shared,
}

/// The queues between the manager and its users, and how long it may take to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandleConfig {
    /// Client calls that wait for the manager. Default 256; a full queue makes callers wait.
    pub command_queue: usize,
    /// Messages of topics that wait to be read, and as many inbound streams. Default 8192: 0.4 s
    /// of the highest rate measured between two nodes. The oldest messages give way to what does
    /// not fit, are counted, and their loss is said in their place; streams wait in
    /// `streams.accept_queue`. Other events are not counted: they tell a state, and of each
    /// connection, peer or request no more than the newest waits.
    pub event_queue: usize,
    /// Payload of the messages that wait to be read, in bytes. Default 64 MiB: the memory that a
    /// reader who stops costs. At least `pubsub.max_message_bytes`.
    pub event_queue_bytes: usize,
    /// Where the swarm and its connections run. Default `dedicated`: with streams read and
    /// written there too it moves 1.4 times what a tokio runtime of two threads moves over TCP
    /// (measured), where every chunk wakes a task on the other core.
    pub runtime: RuntimeKind,
    /// Time for the end of the work in hand at shutdown, in milliseconds. Default 3 s.
    #[serde(rename = "shutdown_timeout_ms", with = "super::duration")]
    pub shutdown_timeout: Duration,
    /// Time for peers at shutdown to read what was written to them last, in milliseconds. Default
    /// 200 ms: a way of 150 ms, the longest of the internet, and the turn of a busy reader. What a
    /// peer has not read when its connection closes is lost: without it 62 of 80 messages were that
    /// were published right before (measured on loopback).
    #[serde(rename = "linger_ms", with = "super::duration")]
    pub linger: Duration,
}

impl Default for HandleConfig {
    fn default() -> Self {
        Self {
            command_queue: 256,
            event_queue: 8192,
            event_queue_bytes: 64 * MIB,
            runtime: RuntimeKind::default(),
            shutdown_timeout: Duration::from_secs(3),
            linger: Duration::from_millis(200),
        }
    }
}

impl HandleConfig {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_queue(self.command_queue, || key("command_queue"))?;
        check_queue(self.event_queue, || key("event_queue"))?;
        check_duration(self.shutdown_timeout, || key("shutdown_timeout_ms"))?;
        check_duration(self.linger, || key("linger_ms"))
    }
}
