//! A file that fills up chunk by chunk, in any order.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

use super::{DiskFile, WriteBack};
use crate::id::{CHUNK_BYTES, DISK_ALIGN_BYTES as ALIGN_BYTES};

/// Buffers that are kept to be filled again, of one chunk each: 4, as many as are verified at one
/// time by default.
const KEPT_BUFFERS: usize = 4;

/// Disk space that is allocated at the first chunk, in bytes: 8 MiB, a guess.
#[cfg(target_os = "linux")]
const FIRST_RESERVED_BYTES: u64 = 8 * CHUNK_BYTES;

/// Writes whole chunks past the system's cache where it can: they are about to be made durable,
/// and copying them into the cache costs more processor time than hashing them (measured: 0.5 s
/// a GiB against 0.1 s). Whatever cannot go that way goes through the cache.
#[derive(Debug)]
pub(crate) struct ChunkFile {
    file: File,
    /// The same file past the cache.
    direct: Option<File>,
    /// Whether the disk refused to be written that way.
    refused: AtomicBool,
    buffers: Mutex<Vec<Aligned>>,
    write_back: WriteBack,
    written_bytes: AtomicU64,
    /// Most that is allocated ahead, in bytes.
    limit_bytes: u64,
    reserved_bytes: AtomicU64,
}

impl ChunkFile {
    /// Writes to `file`, which is open for reading and writing and has that path. At most
    /// `limit_bytes` are allocated ahead of what is written: no more than the offset of the last
    /// chunk, whose length is where the file ends.
    pub(crate) fn new(file: File, path: &Path, limit_bytes: u64) -> Self {
        Self {
            file,
            direct: open_direct(path),
            refused: AtomicBool::new(false),
            buffers: Mutex::default(),
            write_back: WriteBack::default(),
            written_bytes: AtomicU64::new(0),
            limit_bytes,
            reserved_bytes: AtomicU64::new(0),
        }
    }

    /// Allocates disk space ahead of the chunks, in steps that double with what was written: a file
    /// that does not grow with each chunk takes several at the same time. A list of chunk hashes
    /// alone allocates nothing.
    fn reserve(&self, written_bytes: u64) {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let ahead_bytes = (written_bytes * 2).max(FIRST_RESERVED_BYTES);
            let wanted_bytes = ahead_bytes.min(self.limit_bytes);
            let before = self.reserved_bytes.load(Ordering::Relaxed);
            if wanted_bytes > before && written_bytes >= before {
                self.reserved_bytes
                    .fetch_max(wanted_bytes, Ordering::Relaxed);
                // A failure leaves the space to be taken as chunks arrive.
                let _ = fallocate(&self.file, FallocateFlags::empty(), 0, wanted_bytes);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = written_bytes;
    }

    fn write_at(&self, chunk: &[u8], start: u64) -> io::Result<()> {
        let len_bytes = chunk.len() as u64;
        let before = self.written_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        self.reserve(before);
        if let Some(direct) = self.direct_for(chunk) {
            match self.write_direct(direct, chunk, start) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                written => return written,
            }
        }
        self.file.write_all_at(chunk, start)?;
        self.write_back.wrote(&self.file, chunk.len() as u64)
    }

    fn direct_for(&self, chunk: &[u8]) -> Option<&File> {
        let fits = chunk.len() == BLOB_CHUNK_BYTES && !self.refused.load(Ordering::Relaxed);
        self.direct.as_ref().filter(|_| fits)
    }

    fn write_direct(&self, direct: &File, chunk: &[u8], start: u64) -> io::Result<()> {
        if chunk.as_ptr().align_offset(ALIGN_BYTES) == 0 {
            return direct.write_all_at(chunk, start);
        }
        let lock = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let free = lock().pop();
        let mut buffer = free.unwrap_or_else(Aligned::new);
        let aligned = buffer.chunk();
        // Hashed just before, it is still in the processor's cache.
        aligned.copy_from_slice(chunk);
        let written = direct.write_all_at(aligned, start);
        let mut kept = lock();
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
        written
    }
}

impl DiskFile for ChunkFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.file)
    }

    fn modified(&self) -> io::Result<Duration> {
        DiskFile::modified(&self.file)
    }

    fn read(&self, to: &mut Vec<u8>, len: usize, at: u64) -> io::Result<()> {
        DiskFile::read(&self.file, to, len, at)
    }

    fn write(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.write_at(from, at)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.file.set_len(len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Room for a chunk that begins where the disk wants it to.
#[derive(Debug)]
struct Aligned {
    bytes: Box<[u8]>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; BLOB_CHUNK_BYTES + ALIGN_BYTES].into_boxed_slice();
        // Where it cannot be aligned, the disk refuses it.
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        Self { bytes, start }
    }

    fn chunk(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BLOB_CHUNK_BYTES]
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    opened.ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Read};

    use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;

    use super::{super::DiskFile as _, ALIGN_BYTES, Aligned, CHUNK_BYTES, ChunkFile};

    #[test]
    fn buffers_are_aligned() {
        for _ in 0..3 {
            let mut buffer = Aligned::new();
            assert_eq!(buffer.chunk().len(), BLOB_CHUNK_BYTES);
            assert_eq!(buffer.chunk().as_ptr().align_offset(ALIGN_BYTES), 0);
        }
    }

    /// Whole chunks are written past the cache, the last one through it. A reader sees both.
    #[test]
    fn chunks_lie_in_their_places_by_either_way() {
        for (past_the_cache, aligned) in [(true, true), (true, false), (false, false)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("content");
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(true);
            let mut file = ChunkFile::new(options.open(&path).unwrap(), &path, 3 << 20);
            if !past_the_cache {
                file.direct = None;
            }
            let chunk = |index: u8, len| vec![index + 1; len];
            file.write(&chunk(3, 77), 3 * CHUNK_BYTES).unwrap();
            for index in [2, 0, 1] {
                let mut buffer = Aligned::new();
                buffer.chunk().fill(index + 1);
                let unaligned = chunk(index, BLOB_CHUNK_BYTES);
                let content = if aligned {
                    &*buffer.chunk()
                } else {
                    &unaligned[..]
                };
                file.write(content, u64::from(index) * CHUNK_BYTES).unwrap();
            }
            let mut content = Vec::new();
            let mut written = OpenOptions::new().read(true).open(&path).unwrap();
            written.read_to_end(&mut content).unwrap();
            assert_eq!(content.len(), 3 * BLOB_CHUNK_BYTES + 77);
            for (index, found) in content.chunks(BLOB_CHUNK_BYTES).enumerate() {
                let expected = u8::try_from(index + 1).unwrap();
                assert!(found.iter().all(|byte| *byte == expected), "chunk {index}");
            }
        }
    }
}
