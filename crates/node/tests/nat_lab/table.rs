//! Tables as documents have them.

use std::time::Duration;

use comfy_table::{Table, presets::ASCII_MARKDOWN};

pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    table
}

/// Seconds, or that it did not happen.
pub(crate) fn seconds(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
        None => "never".to_owned(),
    }
}
