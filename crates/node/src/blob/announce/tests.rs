use calimero_network::config::BlobStoreConfig;

use super::*;
use crate::blob::{
    DEFAULT_CONTEXT,
    local::{finish, private_tag, remove, tag},
};

#[test]
fn a_blob_of_a_secret_ticket_is_not_announced() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsBlobStore::open(folder.path(), &BlobStoreConfig::default()).unwrap();
    let write = |content: &[u8]| {
        let mut writer = store.writer().unwrap();
        writer.write(content).unwrap();
        writer
    };
    let open_tag = |id: &BlobId| tag(DEFAULT_CONTEXT, id);
    let open = finish(&store, write(b"open"), open_tag).unwrap().id;
    let private = finish(&store, write(b"private"), private_tag).unwrap().id;
    // The process ended before the blob was tagged.
    write(b"untagged").finish(None).unwrap();
    assert_eq!(held(&store), [(DEFAULT_CONTEXT, open)]);
    // The user adds the same file, which announces it.
    finish(&store, write(b"private"), open_tag).unwrap();
    assert_eq!(held(&store).len(), 2);
    remove(&store, &private).unwrap();
    assert_eq!(store.tags().len(), 1);
}
