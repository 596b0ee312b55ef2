//! Tables as documents have them.

use comfy_table::{Table, presets::ASCII_MARKDOWN};

pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    table
}
