//! Flushes reach the host. Files and folders of the kernel are used, which refuse to be flushed: a
//! flush that does nothing returns no error.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{ChunkFile, Disk as _, DiskFile, Mode, RealDisk, WriteBack};

/// A file that takes whatever is written, and has no disk to be flushed to.
const NO_DISK: &str = "/dev/null";

fn is_refused(flushed: io::Result<()>) -> bool {
    flushed.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
}

#[test]
fn a_flush_of_a_file_asks_the_host() {
    for mode in [Mode::Read, Mode::Write, Mode::Chunks { limit_bytes: 0 }] {
        let file = RealDisk::DEFAULT.open(Path::new(NO_DISK), mode).unwrap();
        assert!(is_refused(file.sync()), "{mode:?}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let file = RealDisk::DEFAULT.open(&path, mode).unwrap();
        file.sync().unwrap();
    }
}

#[test]
fn a_flush_of_a_folder_asks_the_host() {
    assert!(is_refused(RealDisk::DEFAULT.sync_dir(Path::new("/proc"))));
    let dir = tempfile::tempdir().unwrap();
    RealDisk::DEFAULT.sync_dir(dir.path()).unwrap();
    let missing = RealDisk::DEFAULT.sync_dir(&dir.path().join("missing"));
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Chunks that go through the cache are flushed as they arrive, which the host refuses here.
#[test]
fn chunks_in_the_cache_are_flushed_as_they_arrive() {
    let file = OpenOptions::new().read(true).write(true).open(NO_DISK);
    let file = ChunkFile::new(file.unwrap(), Path::new("/missing/file"), 0);
    let chunk = vec![1; 1 << 20];
    let written: Vec<_> = (0..64)
        .map(|index| file.write(&chunk, index << 20).is_ok())
        .collect();
    let expected: Vec<_> = (1..=64).map(|index| index % 32 != 0).collect();
    assert_eq!(written, expected);
}

/// Counts flushes, and refuses every one but the first.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl DiskFile for Counting {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn modified(&self) -> io::Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn read(&self, _: &mut Vec<u8>, _: usize, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[test]
fn a_growing_file_is_flushed_each_32_mib_and_its_failure_is_returned() {
    let (file, write_back) = (Counting::default(), WriteBack::default());
    let flushes = || file.0.load(Ordering::Relaxed);
    write_back.wrote(&file, (32 << 20) - 1).unwrap();
    assert_eq!(flushes(), 0);
    write_back.wrote(&file, 1).unwrap();
    write_back.wrote(&file, (32 << 20) - 1).unwrap();
    assert_eq!(flushes(), 1);
    let failed = write_back.wrote(&file, 1).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    // The next one is tried again.
    write_back.wrote(&file, 32 << 20).unwrap_err();
    assert_eq!(flushes(), 3);
}
