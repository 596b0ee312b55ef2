//! What destinations of a single blob have in common: they show no blobs, and check what arrived.

use std::{
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    BlobId,
    store::{BlobReader, StoreError, StoreFuture},
};

/// The answer to [`BlobStore::size`](crate::store::BlobStore::size).
pub(super) fn no_size() -> StoreFuture<Option<u64>> {
    ready(Ok(None))
}

/// The answer to [`BlobStore::reader`](crate::store::BlobStore::reader).
pub(super) fn no_reader() -> StoreFuture<Option<Arc<dyn BlobReader>>> {
    ready(Ok(None))
}

/// An answer that is known at once.
pub(super) fn ready<T: Send + 'static>(answer: Result<T, StoreError>) -> StoreFuture<T> {
    Box::pin(future::ready(answer))
}

/// Checks the id of content that has arrived.
pub(super) fn check_id(expected: Option<BlobId>, actual: BlobId) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != actual => Err(StoreError::Mismatch { expected, actual }),
        _ => Ok(()),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
