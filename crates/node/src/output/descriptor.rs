//! Descriptors of standard output and standard error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FileType, OFlags, fstat},
    io::Errno,
};
use tokio::{io::Interest, net::unix::pipe};

/// Pause before a write is tried again to a descriptor that another process has made non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Standard output, without the buffer and the lock of the standard library: both block a process
/// that ends while another thread writes.
pub(super) fn stdout() -> io::Result<Descriptor> {
    Descriptor::of(&io::stdout())
}

/// Standard error, without the lock of the standard library.
pub(super) fn stderr() -> io::Result<Descriptor> {
    Descriptor::of(&io::stderr())
}

/// A descriptor that is written in full even where another process has made it non-blocking.
pub(super) struct Descriptor(File);

impl Descriptor {
    fn of(stream: &impl AsFd) -> io::Result<Self> {
        let owned = stream.as_fd().try_clone_to_owned()?;
        Ok(Self(File::from(owned)))
    }
}

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(RETRY_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the reader of standard output, a pipe, has closed its end. A command would notice
/// that only when it prints its next record. Never returns for other kinds of descriptors. Cancel
/// safe.
pub(super) async fn reader_closed() {
    if wait_for_close().await.is_err() {
        // What cannot be watched is noticed by the next write.
        std::future::pending().await
    }
}

async fn wait_for_close() -> io::Result<()> {
    let kind = FileType::from_raw_mode(fstat(io::stdout())?.st_mode);
    if kind != FileType::Fifo {
        return std::future::pending().await;
    }
    // Opened again, because non-blocking mode belongs to the open file, which other processes share.
    let mut options = OpenOptions::new();
    let non_blocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = options
        .write(true)
        .custom_flags(non_blocking)
        .open("/proc/self/fd/1");
    let pipe = match opened {
        Ok(file) => pipe::Sender::from_file(file)?,
        // Without a reader a pipe cannot be opened.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Ok(()),
        Err(error) => return Err(error),
    };
    pipe.ready(Interest::ERROR).await.map(|_| ())
}
