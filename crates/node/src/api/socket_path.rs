//! Paths of Unix sockets that are longer than the address of a socket permits.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Longest path in the address of a Unix socket, in bytes: `sun_path` has 108 on Linux and 104 on
/// other systems, with the zero at its end.
const MAX_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A path by which a socket can be bound and connected, while this exists.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    /// The folder that `path` leads through.
    _folder: Option<std::fs::File>,
}

impl SocketPath {
    /// Returns `path`, or if it is too long, a path through a descriptor of its folder.
    ///
    /// # Errors
    ///
    /// If the folder cannot be opened, and [`io::ErrorKind::InvalidFilename`] with the limit on
    /// systems without such paths.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        match path.as_os_str().len() <= MAX_BYTES {
            true => Ok(Self {
                path: path.to_owned(),
                _folder: None,
            }),
            false => Self::through_folder(path),
        }
    }

    #[cfg(target_os = "linux")]
    fn through_folder(path: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = std::fs::File::open(folder)?;
        let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
        Ok(Self {
            path: Path::new(&link).join(name),
            _folder: Some(folder),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn through_folder(path: &Path) -> io::Result<Self> {
        let len = path.as_os_str().len();
        Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            format!("the path of the socket has {len} bytes, at most {MAX_BYTES} are allowed"),
        ))
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
