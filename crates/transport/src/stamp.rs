//! Detection of changes of files.

use std::{path::Path, time::SystemTime};

/// Modification time and length of a file; `None` if the file is missing.
pub(crate) type Stamp = Option<(SystemTime, u64)>;

/// Returns a value that changes when the file at `path` is replaced or written.
pub(crate) fn stamp_of(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
