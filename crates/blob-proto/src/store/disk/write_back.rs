//! Disks that are kept busy while more content arrives.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::DiskFile;

/// Content after which a file is flushed while more of it arrives, in bytes: 32 MiB. What a
/// flush at the end has left to do.
const WRITE_BACK_BYTES: u64 = 32 * 1024 * 1024;

/// Flushes a growing file now and then, so that its last flush does not begin at its first byte.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    written_bytes: AtomicU64,
    flushing: AtomicBool,
}

impl WriteBack {
    /// Counts what was written, and flushes where it is due and no other thread does.
    pub(crate) fn wrote(&self, file: &dyn DiskFile, bytes: u64) -> io::Result<()> {
        let before = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let due = before / WRITE_BACK_BYTES != (before + bytes) / WRITE_BACK_BYTES;
        if !due || self.flushing.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        let flushed = file.sync();
        self.flushing.store(false, Ordering::Release);
        flushed
    }
}
