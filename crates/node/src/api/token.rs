//! The token that requests over TCP present.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;

use crate::new_file;

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;

/// Shortest token that is accepted, in characters: 128 bits in hexadecimal.
const MIN_CHARACTERS: usize = 32;

/// Longest token that is accepted, in characters.
const MAX_CHARACTERS: usize = 512;

/// Why a token file was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("token file {} can be read by others (mode {mode:o}); make it 600", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "token file {} must hold one line of {MIN_CHARACTERS} to {MAX_CHARACTERS} visible ASCII characters",
        path.display()
    )]
    Malformed { path: PathBuf },
}

/// A secret that allows requests. Has no `Debug`, so that no log contains it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Reads the token at `path`, or creates one there that its owner alone can read.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Io {
            path: path.to_owned(),
            source,
        };
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn load(path: &Path, file: File) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Io {
            path: path.to_owned(),
            source,
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(TokenError::TooOpen { path, mode });
        }
        let malformed = || TokenError::Malformed {
            path: path.to_owned(),
        };
        let mut text = String::new();
        let longest = MAX_CHARACTERS as u64 + 2;
        let read = file.take(longest).read_to_string(&mut text);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => malformed(),
            _ => failed(error),
        })?;
        let text = text.trim();
        let is_token = (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        match is_token {
            true => Ok(Self(text.to_owned())),
            false => Err(malformed()),
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let bytes: [u8; TOKEN_BYTES] = rand::random();
        let text = hex::encode(bytes);
        new_file::create(path, |file| writeln!(file, "{text}"))?;
        Ok(Self(text))
    }

    /// Compares in a time that depends on the lengths alone.
    pub(super) fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_created_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control").join("token");
        let created = Token::load_or_create(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let text = fs::read_to_string(&path).unwrap();
        let loaded = Token::load_or_create(&path).unwrap();
        for token in [&created, &loaded] {
            assert!(token.matches(text.trim()));
            assert!(!token.matches(&text));
            assert!(!token.matches(&text[..63]));
            assert!(!token.matches(""));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Token::load_or_create(&path).err().unwrap();
        assert!(matches!(refused, TokenError::TooOpen { mode: 0o640, .. }));
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let long = "x".repeat(MAX_CHARACTERS + 1);
        let spaced = format!("{0} {0}", "x".repeat(MIN_CHARACTERS));
        let accents = "\u{e9}".repeat(MIN_CHARACTERS);
        let cases: [&[u8]; 6] = [
            b"",
            b"short",
            long.as_bytes(),
            spaced.as_bytes(),
            &[0xff; 64],
            accents.as_bytes(),
        ];
        for content in cases {
            let _ = fs::remove_file(&path);
            new_file::create(&path, |file| file.write_all(content)).unwrap();
            let refused = Token::load_or_create(&path).err().unwrap();
            assert!(matches!(refused, TokenError::Malformed { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
