//! What is fetched, from which providers, and how they are found.

use std::{fmt, sync::Arc};

use calimero_network_primitives::{ContextId, PeerId};
use futures::{Stream, StreamExt, stream::BoxStream};

use crate::{BlobId, MAX_BLOB_BYTES, transfer::Signer};

/// A blob to fetch, and on whose behalf.
#[derive(Clone)]
pub struct FetchRequest {
    /// The id of the blob.
    pub blob_id: BlobId,
    /// The context on whose behalf it is asked for.
    pub context_id: ContextId,
    /// Largest blob that is accepted, in bytes. Default [`MAX_BLOB_BYTES`], 1 TiB.
    pub max_bytes: u64,
    /// Signs the requests, in place of the signer of the fetcher's
    /// [`Identity`](crate::transfer::Identity).
    pub signer: Option<Arc<dyn Signer>>,
    /// Whether further providers are searched for while the listed ones do not have the blob. Default
    /// `true`. It has no effect on [`Providers`] without a search.
    pub search: bool,
}

impl FetchRequest {
    /// Returns a request for a blob of any size, with the signer of the fetcher.
    #[must_use]
    pub fn new(context_id: ContextId, blob_id: BlobId) -> Self {
        Self {
            blob_id,
            context_id,
            max_bytes: MAX_BLOB_BYTES,
            signer: None,
            search: true,
        }
    }

    /// Accepts no blob above a size in bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Asks only the listed providers. The transfer fails as soon as none of them can be asked any
    /// more, without waiting for [`search_timeout`](super::BlobFetchTuning::search_timeout).
    #[must_use]
    pub fn without_search(mut self) -> Self {
        self.search = false;
        self
    }

    /// Signs the requests of this transfer by `signer`.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }
}

impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchRequest")
            .field("blob_id", &self.blob_id)
            .field("context_id", &self.context_id)
            .field("max_bytes", &self.max_bytes)
            .field("search", &self.search)
            .finish_non_exhaustive()
    }
}

type Search = Box<dyn FnMut() -> BoxStream<'static, PeerId> + Send>;

/// The providers of a transfer: those that are listed, and a search that can be repeated.
pub struct Providers {
    pub(super) listed: BoxStream<'static, PeerId>,
    pub(super) search: Option<Search>,
}

impl Providers {
    /// Returns the providers that a stream yields. When it has ended and none of them can be asked
    /// any more, the transfer fails at once.
    pub fn listed(providers: impl Stream<Item = PeerId> + Send + 'static) -> Self {
        Self {
            listed: providers.boxed(),
            search: None,
        }
    }

    /// Adds a search. It is repeated while bytes are missing, and providers that failed are asked
    /// again after a pause. The transfer fails when no content came at the minimum rate for
    /// [`search_timeout`](super::BlobFetchTuning::search_timeout). A provider that is reached for
    /// the first time, and each of the first 64 that are found, begin that time again.
    #[must_use]
    pub fn with_search<S: Stream<Item = PeerId> + Send + 'static>(
        mut self,
        mut search: impl FnMut() -> S + Send + 'static,
    ) -> Self {
        self.search = Some(Box::new(move || search().boxed()));
        self
    }
}

impl<S: Stream<Item = PeerId> + Send + 'static> From<S> for Providers {
    fn from(providers: S) -> Self {
        Self::listed(providers)
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers")
            .field("search", &self.search.is_some())
            .finish_non_exhaustive()
    }
}
