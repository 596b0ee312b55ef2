//! The identity file: the key pair in libp2p's protobuf form, readable by its owner only.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use calimero_network::Keypair;

use crate::new_file;

/// Largest identity file read, in bytes: an RSA key of 4096 bits has about 2.4 KB.
const MAX_IDENTITY_BYTES: u64 = 16 * 1024;

/// Why an identity file was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("identity file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "identity file {} can be read by others (mode {mode:o}); make it 600",
        path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("identity file {} holds no key pair: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
}

/// Reads the identity at `path`, or makes one there if nothing is.
pub(crate) fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(io_error(path, source)),
    }
}

fn load(path: &Path, file: File) -> Result<Keypair, IdentityError> {
    refuse_wider_than_owner(path, &file)?;
    let mut bytes = Vec::new();
    file.take(MAX_IDENTITY_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    Keypair::from_protobuf_encoding(&bytes).map_err(|error| broken(path, &error))
}

/// Creates an identity at `path`. No process reads a part of one, and two processes that start at once
/// agree on one.
pub(crate) fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair
        .to_protobuf_encoding()
        .map_err(|error| broken(path, &error))?;
    match new_file::create(path, |file| file.write_all(&bytes)) {
        Ok(()) => Ok(keypair),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => {
            let file = File::open(path).map_err(|source| io_error(path, source))?;
            load(path, file)
        }
        Err(source) => Err(io_error(path, source)),
    }
}

#[cfg(unix)]
fn refuse_wider_than_owner(path: &Path, file: &File) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.to_owned();
    Err(IdentityError::TooOpen { path, mode })
}

#[cfg(not(unix))]
fn refuse_wider_than_owner(_: &Path, _: &File) -> Result<(), IdentityError> {
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> IdentityError {
    let path = path.to_owned();
    IdentityError::Io { path, source }
}

fn broken(path: &Path, error: &dyn std::error::Error) -> IdentityError {
    IdentityError::Broken {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_for_owner(path: &Path, bytes: &[u8]) -> io::Result<()> {
        new_file::create(path, |file| file.write_all(bytes))
    }

    #[test]
    fn an_identity_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let made = load_or_create(&path).unwrap();
        let read = load_or_create(&path).unwrap();
        assert_eq!(made.public(), read.public());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn an_identity_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(
            matches!(error, IdentityError::TooOpen { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        write_for_owner(&path, b"not a key").unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Broken { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_a_key_or_an_error(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("identity");
            write_for_owner(&path, &bytes).unwrap();
            let _ = load_or_create(&path);
            proptest::prop_assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
