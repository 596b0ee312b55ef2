//! New files that only their owner can read.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// Mode of the files: only their owner reads and writes them.
pub(crate) const MODE: u32 = 0o600;

/// Creates a file with the content that `fill` writes, and returns the result of `fill`.
///
/// The content is written to a temporary file in the same folder, which gets the name `path` when
/// everything is on disk. A call that fails leaves no file, so that it can be repeated.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if `path` exists, which is not changed. Any error of `fill` or of
/// the disk.
pub(crate) fn create<T>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".calnet-new-")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(folder)?;
    let filled = fill(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary
        .persist_noclobber(path)
        .map_err(|error| error.error)?;
    // Without this, a power cut can remove the name of a file that was reported as created.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        Ok(()) => Ok(filled),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
