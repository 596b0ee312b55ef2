//! What commands print: lines for people, or the same as JSON lines.

use std::{
    fmt::Display,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

/// Standard output in one of the two forms. Clones write to the same place, a line at a time.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    line: Arc<Mutex<()>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            line: Arc::default(),
        }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a value by its `Display`, or as one line of JSON. A reader that has gone away is
    /// no reason to stop the network.
    pub(crate) fn print(&self, value: &(impl Display + Serialize)) {
        let text = if self.json {
            serde_json::to_string(value)
                .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            value.to_string()
        };
        let _one = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(io::stdout(), "{text}");
    }
}
