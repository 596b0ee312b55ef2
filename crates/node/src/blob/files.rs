//! Files that blobs are read from and written to, checked before anything is transferred.

use std::{
    fs::{self, File, FileType, Metadata, OpenOptions, Permissions},
    io::{self, Read, Stdin},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::error::CommandError;

/// The name of standard input and standard output.
const STANDARD: &str = "-";

/// Symbolic links that are followed, as Linux does.
const MAX_LINKS: usize = 40;

/// The content of a blob to be.
#[derive(Debug)]
pub(crate) enum Source {
    /// A regular file, whose size was read before its content.
    File {
        file: File,
        path: PathBuf,
        size_bytes: u64,
    },
    /// Standard input, to its end.
    Stdin(Stdin),
}

impl Source {
    /// Opens a regular file, or standard input for `-`. Does not block.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        if path == Path::new(STANDARD) {
            return Ok(Self::Stdin(io::stdin()));
        }
        let failed = |doing: &'static str| {
            move |source| CommandError::File {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        // Opening a device can have effects, so its kind is looked at first; and again once it is
        // open, since the name can mean another file by then.
        let metadata = fs::metadata(path).map_err(failed("open"))?;
        regular(path, "add", &metadata)?;
        let mut options = OpenOptions::new();
        let non_blocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = options.read(true).custom_flags(non_blocking).open(path);
        let file = file.map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("open"))?;
        regular(path, "add", &metadata)?;
        Ok(Self::File {
            file,
            path: path.to_owned(),
            size_bytes: metadata.len(),
        })
    }

    /// The size in bytes, where it is known before the end.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::File { size_bytes, .. } => Some(*size_bytes),
            Self::Stdin(_) => None,
        }
    }

    /// The error of an operation on this source.
    pub(crate) fn failed(&self, doing: &'static str, source: io::Error) -> CommandError {
        let path = match self {
            Self::File { path, .. } => path.clone(),
            Self::Stdin(_) => PathBuf::from("standard input"),
        };
        CommandError::File {
            doing,
            path,
            source,
        }
    }

    /// Refuses content of another size than the file had. A file that keeps growing is
    /// noticed after one piece more.
    pub(crate) fn check_size(&self, read_bytes: u64) -> Result<(), CommandError> {
        match self.size_bytes() {
            Some(size_bytes) if size_bytes != read_bytes => {
                let error = io::Error::other(format!(
                    "its size changed while it was read, from {size_bytes} bytes to {read_bytes} or more"
                ));
                Err(self.failed("add", error))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Source {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File {
                file, size_bytes, ..
            } => {
                use std::io::Seek as _;
                // Ends after the first piece beyond the size.
                match file.stream_position()? > *size_bytes {
                    true => Ok(0),
                    false => file.read(piece),
                }
            }
            Self::Stdin(stdin) => stdin.read(piece),
        }
    }
}

/// Refuses what is not a regular file.
fn regular(path: &Path, doing: &'static str, metadata: &Metadata) -> Result<(), CommandError> {
    match kind(metadata.file_type()) {
        None => Ok(()),
        Some(kind) => Err(CommandError::FileKind {
            doing,
            path: path.to_owned(),
            kind,
        }),
    }
}

/// What a file is instead of a regular one.
fn kind(file_type: FileType) -> Option<&'static str> {
    if file_type.is_file() {
        None
    } else if file_type.is_dir() {
        Some("a folder")
    } else if file_type.is_fifo() {
        Some("a named pipe (use - and redirect it)")
    } else if file_type.is_socket() {
        Some("a socket")
    } else {
        Some("a device (use - and redirect it)")
    }
}

/// Where a fetched blob goes.
#[derive(Debug)]
pub(crate) enum Target {
    Stdout,
    File(FileTarget),
}

/// A file that is created or replaced once a blob is complete.
#[derive(Debug)]
pub(crate) struct FileTarget {
    /// The file itself, symbolic links followed.
    path: PathBuf,
    /// The permissions of the file that is replaced.
    permissions: Option<Permissions>,
}

impl Target {
    /// Checks that a blob can be written to `path`, without writing to it.
    pub(crate) fn prepare(path: &Path) -> Result<Self, CommandError> {
        if path == Path::new(STANDARD) {
            return Ok(Self::Stdout);
        }
        FileTarget::prepare(path).map(Self::File)
    }
}

impl FileTarget {
    pub(crate) fn prepare(path: &Path) -> Result<Self, CommandError> {
        let failed = |source| CommandError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        };
        let path = std::path::absolute(follow(path).map_err(failed)?).map_err(failed)?;
        let permissions = match fs::metadata(&path) {
            Ok(metadata) => {
                regular(&path, "write", &metadata)?;
                let mut options = OpenOptions::new();
                options.write(true).open(&path).map_err(failed)?;
                Some(metadata.permissions())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        // The new file is written next to the old one and renamed, so the folder is written to.
        let folder = path.parent().unwrap_or(Path::new("/"));
        tempfile::tempfile_in(folder)
            .and_then(|_| tempfile::NamedTempFile::new_in(folder))
            .map_err(failed)?;
        Ok(Self { path, permissions })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file is replaced.
    pub(crate) fn replaces(&self) -> bool {
        self.permissions.is_some()
    }

    /// A temporary file in the folder of the target.
    pub(crate) fn temporary(&self) -> Result<tempfile::NamedTempFile, CommandError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut builder = tempfile::Builder::new();
        // As any new file: the umask takes rights away.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder
            .tempfile_in(folder)
            .map_err(|source| self.failed(source))
    }

    /// Gives the file the permissions of the one that it replaced.
    pub(crate) fn restore_permissions(&self) -> Result<(), CommandError> {
        match &self.permissions {
            Some(permissions) => fs::set_permissions(&self.path, permissions.clone())
                .map_err(|source| self.failed(source)),
            None => Ok(()),
        }
    }

    pub(crate) fn failed(&self, source: io::Error) -> CommandError {
        CommandError::File {
            doing: "write",
            path: self.path.clone(),
            source,
        }
    }
}

/// Follows symbolic links at the end of a path, also to a file that does not exist yet.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                path = folder.join(target);
            }
            // Not a link, or nothing is there.
            Err(_) => return Ok(path),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{CWD, Mode, mknodat};

    use super::*;

    fn fifo(path: &Path) {
        let kind = rustix::fs::FileType::Fifo;
        mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn only_regular_files_are_sources() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        fifo(&pipe);
        let cases = [
            (folder.path(), "a folder"),
            (pipe.as_path(), "a named pipe"),
            (Path::new("/dev/zero"), "a device"),
        ];
        for (path, kind) in cases {
            let error = Source::open(path).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
            let error = Target::prepare(path).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
        assert!(matches!(
            Source::open(Path::new("-")).unwrap(),
            Source::Stdin(_)
        ));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"12345").unwrap();
        let mut source = Source::open(&path).unwrap();
        fs::write(&path, b"1234567").unwrap();
        let mut read = Vec::new();
        source.read_to_end(&mut read).unwrap();
        assert!(source.check_size(read.len() as u64).is_err());
        assert!(source.check_size(5).is_ok());
    }

    #[test]
    fn a_target_is_checked_before_and_links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"old").unwrap();
        fs::set_permissions(at("file"), Permissions::from_mode(0o640)).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("missing", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let prepared = |name: &str| FileTarget::prepare(&at(name));
        for (name, target) in [("link", "file"), ("dangling", "missing")] {
            assert_eq!(prepared(name).unwrap().path(), at(target));
        }
        assert!(prepared("loop").is_err());
        assert!(prepared("no folder/file").is_err());
        let target = prepared("link").unwrap();
        target.temporary().unwrap().persist(target.path()).unwrap();
        target.restore_permissions().unwrap();
        let mode = fs::metadata(at("file")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        // Nothing of the checks is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
