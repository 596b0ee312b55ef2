//! The async face.

use std::sync::Arc;

use bytes::Bytes;
use calimero_network_blob::{
    blob_id,
    store::{BlobStore, StoreError},
};
use calimero_network_primitives::limits::BLOB_CHUNK_BYTES;
use tempfile::TempDir;

use crate::{content, list, open};

#[tokio::test]
async fn the_async_face_does_the_same() {
    let dir = TempDir::new().unwrap();
    let store: Arc<dyn BlobStore> = Arc::new(open(&dir));
    let blob = Bytes::from(content(21, 2 * BLOB_CHUNK_BYTES + 1));
    let id = blob_id(&blob);
    assert_eq!(store.size(id).await.unwrap(), None);
    assert!(store.reader(id).await.unwrap().is_none());

    let mut writer = store.writer().await.unwrap();
    writer.write(blob.slice(..100)).await.unwrap();
    writer.write(blob.slice(100..)).await.unwrap();
    let stored = writer.finish(Some(id)).await.unwrap();
    assert_eq!(stored.size_bytes, blob.len() as u64);
    let reader = store.reader(id).await.unwrap().unwrap();
    assert_eq!((reader.id(), reader.size_bytes()), (id, blob.len() as u64));
    assert_eq!(reader.read(5..1_048_600).await.unwrap(), blob[5..1_048_600]);
    assert_eq!(reader.list().await.unwrap(), list(&blob));

    let other = Bytes::from(content(22, BLOB_CHUNK_BYTES + 9));
    let partial = store.partial(list(&other)).await.unwrap();
    let second = partial.write(1, other.slice(BLOB_CHUNK_BYTES..));
    drop(partial.write(0, other.slice(..BLOB_CHUNK_BYTES)));
    second.await.unwrap();
    assert!(
        !partial.has(0),
        "a future that is never polled does nothing"
    );
    assert!(partial.finish().await.is_err());
    partial
        .write(0, other.slice(..BLOB_CHUNK_BYTES))
        .await
        .unwrap();
    assert_eq!((partial.missing(), partial.list().len()), (0, 2));
    partial.finish().await.unwrap();
    assert_eq!(
        store.size(blob_id(&other)).await.unwrap(),
        Some(other.len() as u64)
    );

    let small = Bytes::from_static(b"small");
    let batch = vec![
        (Some(blob_id(b"small")), small.clone()),
        (None, Bytes::new()),
    ];
    let stored = store.put_batch(batch).await.unwrap();
    assert_eq!(stored.ids, [blob_id(b"small"), blob_id(b"")]);
    let refused = store.put_batch(vec![
        (None, Bytes::from_static(b"kept?")),
        (Some(id), small),
    ]);
    assert!(matches!(refused.await, Err(StoreError::Mismatch { .. })));
    assert_eq!(store.size(blob_id(b"kept?")).await.unwrap(), None);
}

#[test]
fn without_a_runtime_the_async_face_refuses() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let future = BlobStore::writer(&store);
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(result) = future.as_mut().poll(&mut context) else {
        panic!("it has nothing to wait for");
    };
    assert!(matches!(result, Err(StoreError::Stopped)));
}
