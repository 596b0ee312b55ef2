//! Work that may block.

use tokio::runtime::Handle;

use super::{StoreError, StoreFuture};

/// Runs blocking work once the future is polled. Dropping the future does not stop work that has
/// begun; its result is dropped.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> StoreFuture<T> {
    Box::pin(async move {
        let runtime = Handle::try_current().map_err(|_| StoreError::Stopped)?;
        let done = runtime.spawn_blocking(work).await;
        done.unwrap_or(Err(StoreError::Stopped))
    })
}
