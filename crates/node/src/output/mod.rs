//! Standard output: records as text for people, or as one JSON object a line for programs.

mod descriptor;
mod stdout;
mod writer;

use std::{fmt::Display, io, path::Path, time::Duration};

use serde::Serialize;

use self::writer::OnFailure;
pub(crate) use self::{stdout::StdoutWriter, writer::LineWriter};
use crate::{
    error::{Code, CommandError, Failure},
    printable::{self, Printable, PrintableLines},
};

/// What happens to a record when the reader of standard output is slower than the command, or a
/// write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The record is dropped and counted: a node does not wait for the reader of its output, and
    /// outlives a full disk.
    Drop,
    /// The command waits, and fails with a write: its output is what it is run for.
    Wait,
}

/// Standard output in one of the two forms. Clones write to the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: bool,
    overflow: Overflow,
    writer: LineWriter,
}

impl Output {
    /// Standard output of this process.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be duplicated or no thread can be started.
    pub(crate) fn start(json: bool, overflow: Overflow) -> io::Result<Self> {
        let notice = match json {
            true => dropped_json,
            false => dropped_text,
        };
        let on_failure = match overflow {
            Overflow::Drop => OnFailure::Retry,
            Overflow::Wait => OnFailure::End,
        };
        let writer = LineWriter::start(descriptor::stdout()?, notice, on_failure)?;
        Ok(Self {
            json,
            overflow,
            writer,
        })
    }

    /// Returns `true` if the records are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a record as one line: its `Display` with control characters escaped, or JSON with the
    /// time.
    pub(crate) fn print(&self, record: &(impl Display + Serialize)) {
        self.push(match self.json {
            true => json_line(record),
            false => Printable(record).to_string().into_bytes(),
        });
    }

    /// As [`print`](Self::print), for a record whose `Display` has several lines. Fields that may come
    /// from a peer must be [`Printable`] in it.
    pub(crate) fn print_lines(&self, record: &(impl Display + Serialize)) {
        self.push(match self.json {
            true => json_line(record),
            false => PrintableLines(record).to_string().into_bytes(),
        });
    }

    fn push(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        match self.overflow {
            Overflow::Drop => self.writer.push_or_drop(line),
            // A record that was dropped fails the flush at the end of the command.
            Overflow::Wait => drop(self.writer.push_or_wait(line)),
        }
    }

    /// Writes bytes as they are, and waits for room.
    ///
    /// # Errors
    ///
    /// If the bytes were dropped: after a signal, or because the output failed or is closed.
    pub(crate) fn write_bytes(&self, bytes: Vec<u8>) -> Result<(), CommandError> {
        let written = self.writer.push_or_wait(bytes);
        written.map_err(CommandError::of_output)
    }

    /// Ends all waits for room, now and later.
    pub(crate) fn release(&self) {
        self.writer.release();
    }

    /// Waits until the reader of a command has closed its end. Cancel safe.
    pub(crate) async fn closed(&self) {
        tokio::select! {
            () = self.writer.closed() => {}
            () = descriptor::reader_closed() => self.writer.close(),
        }
    }

    /// Waits until everything is written, at most for `limit`.
    ///
    /// # Errors
    ///
    /// See [`LineWriter::flush`].
    pub(crate) fn flush(&self, limit: Duration) -> io::Result<()> {
        self.writer.flush(limit)
    }
}

/// A record with the time at which it was printed.
#[derive(Serialize)]
struct Stamped<'a, T> {
    #[serde(flatten)]
    record: &'a T,
    /// RFC 3339, UTC, in milliseconds.
    time: String,
}

/// One line of JSON without its line feed.
pub(crate) fn json_line(record: &impl Serialize) -> Vec<u8> {
    let time = now();
    let line = serde_json::to_vec(&Stamped { record, time }).or_else(|error| {
        let message = format!("cannot encode a record as JSON: {error}");
        let record = &Failure::new(Code::Other, message);
        serde_json::to_vec(&Stamped {
            record,
            time: now(),
        })
    });
    // A failure is text alone, so this does not fail.
    printable::json(line.unwrap_or_default())
}

/// A path as text of a record. Bytes that are not UTF-8, which JSON cannot hold, become `\u{fffd}`.
pub(crate) fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// The time of the system's clock as RFC 3339 in UTC, in milliseconds.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

fn dropped_text(dropped: u64) -> Vec<u8> {
    format!("dropped       {dropped} lines that standard output did not take\n").into_bytes()
}

fn dropped_json(dropped: u64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "event", rename = "output_dropped")]
    struct Dropped {
        count: u64,
    }
    let mut line = json_line(&Dropped { count: dropped });
    line.push(b'\n');
    line
}

/// Standard error as a queue that never blocks its callers.
///
/// # Errors
///
/// If the descriptor cannot be duplicated or no thread can be started.
pub(crate) fn start_errors() -> io::Result<LineWriter> {
    let notice = |dropped| {
        format!("calnet: {dropped} lines were dropped that standard error did not take\n")
            .into_bytes()
    };
    LineWriter::start(descriptor::stderr()?, notice, OnFailure::Retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_encoded_is_a_failure() {
        let line = json_line(&std::collections::BTreeMap::from([((1, 2), 3)]));
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["event"], "error");
        assert_eq!(line["code"], "other");
    }

    #[test]
    fn each_line_of_json_has_its_time() {
        let line = json_line(&serde_json::json!({"event": "stopped"}));
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["event"], "stopped");
        humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
    }
}
