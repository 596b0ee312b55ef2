//! Where received content goes: a folder next to the destination until everything is there, then the
//! destination itself.
//!
//! ```text
//! DEST.parts/lock        held by the process that receives
//! DEST.parts/blobs/ID    content that is complete, ID in hexadecimal
//! DEST.parts/blobs/ID.part  content that is not
//! DEST.parts/small/      a store with the small files of a folder
//! DEST.parts/tree/       the folder, while it is put together
//! ```
//!
//! Names come from the sender only below `tree`, and only as paths that a collection accepts.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use calimero_network::{
    BlobId,
    blob::{
        collection::{Collection, EntryPath},
        ticket::{Kind, Ticket},
    },
};

use super::parts::{Parts, sync_all};
use crate::{
    blob::files::{FileTarget, Target},
    error::CommandError,
};

/// Where content goes.
#[derive(Debug)]
pub(super) enum Place {
    Stdout,
    Disk(DiskPlace),
}

/// A file or folder that is created.
#[derive(Debug)]
pub(super) struct DiskPlace {
    destination: Destination,
    parts: Parts,
}

#[derive(Debug)]
enum Destination {
    File(FileTarget),
    Folder(PathBuf),
}

impl Place {
    /// Checks that the content of a ticket can be written, and creates the folder of parts.
    pub(super) fn prepare(
        ticket: &Ticket,
        output: Option<&Path>,
        force: bool,
    ) -> Result<Self, CommandError> {
        let path = output.map_or_else(|| own_path(ticket), Path::to_owned);
        let destination = match ticket.kind() {
            Kind::Blob => match Target::prepare(&path)? {
                Target::Stdout => return Ok(Self::Stdout),
                Target::File(file) if file.replaces() && !force => {
                    return Err(CommandError::Exists { path });
                }
                Target::File(file) => Destination::File(file),
            },
            Kind::Collection if path == Path::new("-") => return Err(CommandError::FolderToPipe),
            Kind::Collection => Destination::Folder(prepare_folder(&path, force)?),
        };
        let final_path = match &destination {
            Destination::File(file) => file.path(),
            Destination::Folder(path) => path,
        };
        let mut parts = final_path.as_os_str().to_owned();
        parts.push(".parts");
        Ok(Self::Disk(DiskPlace {
            destination,
            parts: Parts::open(parts.into())?,
        }))
    }
}

/// Checks that a folder can be created at a path, or filled if that is allowed.
fn prepare_folder(path: &Path, force: bool) -> Result<PathBuf, CommandError> {
    let failed = failed("write", path);
    let path = std::path::absolute(path).map_err(&failed)?;
    match fs::metadata(&path) {
        Ok(_) if !force => return Err(CommandError::Exists { path }),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(CommandError::FileKind {
                doing: "write",
                path,
                kind: "not a folder",
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    tempfile::tempfile_in(parent).map_err(&failed)?;
    Ok(path)
}

impl DiskPlace {
    /// The content that has arrived.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The file or folder.
    pub(super) fn path(&self) -> &Path {
        match &self.destination {
            Destination::File(file) => file.path(),
            Destination::Folder(path) => path,
        }
    }

    /// Puts the content in its place, which is complete from one moment to the next, and removes the
    /// folder of parts.
    pub(super) fn finish(
        &self,
        id: &BlobId,
        collection: Option<&Collection>,
        force: bool,
    ) -> Result<(), CommandError> {
        match &self.destination {
            Destination::File(file) if force => {
                let failed = failed("write", file.path());
                fs::rename(self.parts.file(id), file.path()).map_err(failed)?;
                file.restore_permissions()?;
            }
            Destination::File(file) => put_file(&self.parts.file(id), file.path())?,
            Destination::Folder(path) => {
                let empty = Collection::default();
                let tree = self.parts.build(collection.unwrap_or(&empty))?;
                match force && path.exists() {
                    true => merge(&tree, path, collection.unwrap_or(&empty))?,
                    // Fails if anything but an empty folder is there by now.
                    false => fs::rename(&tree, path).map_err(failed("write", path))?,
                }
            }
        }
        sync_folder_of(self.path())?;
        self.parts.remove()
    }
}

/// Gives a file its name, if no file has it.
fn put_file(from: &Path, to: &Path) -> Result<(), CommandError> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CommandError::Exists {
            path: to.to_owned(),
        }),
        // A file system without hard links.
        Err(_) if !to.exists() => fs::rename(from, to).map_err(failed("write", to)),
        Err(_) => Err(CommandError::Exists {
            path: to.to_owned(),
        }),
    }
}

/// The path of a ticket's content where none is given: the name in the ticket, in the current folder.
fn own_path(ticket: &Ticket) -> PathBuf {
    match ticket.name() {
        // The sender does not choose standard output.
        Some("-") => PathBuf::from("./-"),
        Some(name) => PathBuf::from(name),
        None => PathBuf::from(ticket.blob_id().to_string()),
    }
}

/// Moves the files of a tree into a folder that exists. Files of the same name are replaced.
/// The changed folders are durable afterwards.
fn merge(tree: &Path, into: &Path, collection: &Collection) -> Result<(), CommandError> {
    let mut folders = BTreeSet::from([into.to_owned()]);
    for entry in collection.entries() {
        let to = entry.path.below(into);
        make_folders(into, &entry.path)?;
        if fs::symlink_metadata(&to).is_ok_and(|there| there.is_dir()) {
            return Err(CommandError::FileKind {
                doing: "write",
                path: to,
                kind: "a folder",
            });
        }
        // Replaces a link rather than the file that it leads to.
        fs::rename(entry.path.below(tree), &to).map_err(failed("write", &to))?;
        let changed = to.ancestors().skip(1).take_while(|folder| *folder != into);
        folders.extend(changed.map(Path::to_owned));
    }
    sync_all(into, &folders.into_iter().collect::<Vec<_>>())
}

/// Creates the folders of a path below `into`. A link among them is refused: it leads elsewhere.
fn make_folders(into: &Path, path: &EntryPath) -> Result<(), CommandError> {
    let mut folder = into.to_owned();
    let mut components: Vec<_> = path.as_str().split('/').collect();
    components.pop();
    for component in components {
        folder.push(component);
        match fs::symlink_metadata(&folder) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                return Err(CommandError::FileKind {
                    doing: "write",
                    path: folder,
                    kind: "not a folder",
                });
            }
            Err(_) => fs::create_dir(&folder).map_err(failed("write", &folder))?,
        }
    }
    Ok(())
}

fn sync_folder_of(path: &Path) -> Result<(), CommandError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("write", folder))
}

pub(super) fn failed(
    doing: &'static str,
    path: &Path,
) -> impl Fn(io::Error) -> CommandError + use<> {
    let path = path.to_owned();
    move |source| CommandError::File {
        doing,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use calimero_network::{PeerId, blob::collection::Entry};

    use super::*;

    fn ticket(kind: Kind) -> Ticket {
        let ticket = Ticket::new(PeerId::random(), BlobId::from([7; 32]), kind);
        ticket.with_name("name").unwrap()
    }

    fn disk(place: Place) -> DiskPlace {
        match place {
            Place::Disk(place) => place,
            Place::Stdout => panic!("standard output"),
        }
    }

    fn entry(path: &str, content: u8, executable: bool) -> Entry {
        Entry {
            path: path.parse().unwrap(),
            executable,
            size_bytes: 1,
            id: BlobId::from([content; 32]),
        }
    }

    fn collection() -> Collection {
        let entries = vec![
            entry("a/b/one", 1, false),
            entry("a/run", 1, true),
            entry("same", 1, false),
            entry("two", 2, false),
        ];
        Collection::new(entries).unwrap()
    }

    fn fill(place: &DiskPlace) {
        for content in [1, 2] {
            fs::write(place.parts.file(&BlobId::from([content; 32])), [content]).unwrap();
        }
    }

    #[test]
    fn a_file_is_placed_and_none_is_replaced_unless_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (id, ticket) = (BlobId::from([7; 32]), ticket(Kind::Blob));
        let place = disk(Place::prepare(&ticket, Some(&path), false).unwrap());
        // A second process is refused while the first one receives.
        let error = Place::prepare(&ticket, Some(&path), false).unwrap_err();
        assert!(matches!(error, CommandError::Lock(_)), "{error}");
        fs::write(place.parts.file(&id), b"content").unwrap();
        // Another program created the file during the transfer.
        fs::write(&path, b"other").unwrap();
        let error = place.finish(&id, None, false).unwrap_err();
        assert!(matches!(error, CommandError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"other");
        drop(place);
        let error = Place::prepare(&ticket, Some(&path), false).unwrap_err();
        assert!(matches!(error, CommandError::Exists { .. }), "{error}");
        let place = disk(Place::prepare(&ticket, Some(&path), true).unwrap());
        place.finish(&id, None, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_appears_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        let (id, ticket) = (BlobId::from([7; 32]), ticket(Kind::Collection));
        let place = disk(Place::prepare(&ticket, Some(&path), false).unwrap());
        fill(&place);
        // What an earlier attempt left in the tree is no part of the folder.
        let tree = dir.path().join("folder.parts/tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("old"), b"").unwrap();
        place.finish(&id, Some(&collection()), false).unwrap();
        for (name, content) in [("a/b/one", 1), ("a/run", 1), ("same", 1), ("two", 2)] {
            assert_eq!(fs::read(path.join(name)).unwrap(), [content], "{name}");
            let metadata = fs::metadata(path.join(name)).unwrap();
            // A change of one file is no change of another.
            assert_eq!(metadata.nlink(), 1, "{name}");
            assert_eq!(metadata.mode() & 0o100 != 0, name == "a/run", "{name}");
        }
        assert!(!path.join("old").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = Place::prepare(&ticket, Some(&path), false).unwrap_err();
        assert!(matches!(error, CommandError::Exists { .. }), "{error}");
        let error = Place::prepare(&ticket, Some(Path::new("-")), false).unwrap_err();
        assert!(matches!(error, CommandError::FolderToPipe), "{error}");
    }

    #[test]
    fn a_folder_that_exists_is_filled_and_links_in_it_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("folder"), dir.path().join("elsewhere"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(path.join("two"), b"old").unwrap();
        fs::write(path.join("mine"), b"mine").unwrap();
        symlink(&elsewhere, path.join("a")).unwrap();
        let (id, ticket) = (BlobId::from([7; 32]), ticket(Kind::Collection));
        let place = disk(Place::prepare(&ticket, Some(&path), true).unwrap());
        fill(&place);
        let error = place.finish(&id, Some(&collection()), true).unwrap_err();
        assert!(matches!(error, CommandError::FileKind { .. }), "{error}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(path.join("a")).unwrap();
        place.finish(&id, Some(&collection()), true).unwrap();
        assert_eq!(fs::read(path.join("two")).unwrap(), [2]);
        assert_eq!(fs::read(path.join("mine")).unwrap(), b"mine");
        assert_eq!(fs::read(path.join("a/b/one")).unwrap(), [1]);
    }

    #[test]
    fn parts_are_not_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        symlink("elsewhere", dir.path().join("file.parts")).unwrap();
        let path = dir.path().join("file");
        let error = Place::prepare(&ticket(Kind::Blob), Some(&path), false).unwrap_err();
        assert!(matches!(error, CommandError::FileKind { .. }), "{error}");
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_sender_does_not_choose_standard_output() {
        let ticket = ticket(Kind::Blob).with_name("-").unwrap();
        assert_eq!(own_path(&ticket), Path::new("./-"));
    }
}
