//! The last lines of the log, kept in memory for `calnet diag` and `/v1/log`.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept: a node without a fault writes a few an hour.
const MAX_LINES: usize = 1000;

/// Their bytes, at most.
const MAX_BYTES: usize = 256 << 10;

/// The lines of this process, which has one log.
static LINES: Mutex<Lines> = Mutex::new(Lines::new());

/// The last lines as text, the oldest first.
pub(crate) fn text() -> String {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.text()
}

#[derive(Debug)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Lines {
    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(MAX_BYTES)]).into_owned();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES && self.lines.len() > 1 {
            let dropped = self.lines.pop_front();
            self.bytes -= dropped.map_or(0, |line| line.len());
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect()
    }
}

/// Makes writers that keep each line.
pub(super) struct Recent;

impl MakeWriter<'_> for Recent {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Recent {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_dropped() {
        let mut lines = Lines::new();
        for number in 0..2 * MAX_LINES {
            lines.push(format!("{number}\n").as_bytes());
        }
        assert_eq!(lines.text().lines().count(), MAX_LINES);
        assert!(lines.text().starts_with(&format!("{MAX_LINES}\n")));
        let long = vec![b'x'; MAX_BYTES - 1];
        lines.push(&long);
        lines.push(b"\xffend\n");
        assert!(lines.bytes <= MAX_BYTES, "{}", lines.bytes);
        assert!(lines.text().ends_with("\u{fffd}end\n"));
        lines.push(&vec![b'x'; 2 * MAX_BYTES]);
        assert_eq!(lines.lines.len(), 1);
        assert_eq!(lines.bytes, MAX_BYTES);
    }
}
