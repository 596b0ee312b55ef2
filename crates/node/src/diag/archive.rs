//! A gzipped tar archive of texts.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    error::CommandError,
    new_file::{self, MODE},
};

/// The folder in the archive.
const FOLDER: &str = "calnet-diag";

/// A file of the archive.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Writes a new archive and returns its size in bytes. Nothing is left of an archive that could not be
/// written, and an existing file is not changed.
pub(super) fn write(path: &Path, parts: &[Part]) -> Result<u64, CommandError> {
    let written = new_file::create(path, |file| fill(file, parts));
    written.map_err(|source| CommandError::of_new_file(path, source))
}

fn fill(file: &mut fs::File, parts: &[Part]) -> io::Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = now.map_or(0, |since| since.as_secs());
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for Part { name, content } in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(time);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
    }
    let file = archive.into_inner()?.finish()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_holds_its_parts_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        let parts = [
            Part {
                name: "one.txt".to_owned(),
                content: b"1".to_vec(),
            },
            Part {
                name: "host/two.txt".to_owned(),
                content: vec![2; 100_000],
            },
        ];
        let size = write(&path, &parts).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(size, before.len() as u64);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(before.as_slice()));
        let mut read = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            read.push((entry.path().unwrap().display().to_string(), content));
        }
        for (part, (name, content)) in parts.iter().zip(&read) {
            assert_eq!(*name, format!("{FOLDER}/{}", part.name));
            assert!(*content == part.content);
        }
        assert_eq!(read.len(), parts.len());
        let refused = write(&path, &[]);
        assert!(matches!(refused, Err(CommandError::Exists { .. })));
        assert!(fs::read(&path).unwrap() == before);
    }
}
