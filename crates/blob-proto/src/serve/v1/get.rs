//! Requests for lists and small blobs.

use crate::{
    BlobId, CHUNK_HASH_BYTES, blob_id, chunk_count,
    id::CHUNK_BYTES,
    serve::{Requester, Source},
    store::StoreError,
    v1::{ListPage, MAX_PAGE_HASHES, Refusal, Response},
};

/// A request for a list, or for a small blob.
#[derive(Clone, Copy)]
pub(super) struct Get {
    pub(super) blob_id: BlobId,
    pub(super) inline_max_bytes: u64,
    pub(super) from: u64,
}

/// A request whose blob is open, if it is here and the requester may have it.
pub(super) struct Opened {
    get: Get,
    source: Result<Option<Source>, StoreError>,
}

/// The answer to a request, in memory.
pub(super) struct Answer {
    pub(super) blob_id: BlobId,
    pub(super) source: Option<Source>,
    pub(super) response: Result<Response, StoreError>,
}

impl Opened {
    pub(super) fn new(get: Get, source: Result<Option<Source>, StoreError>) -> Self {
        Self { get, source }
    }

    /// Content and hashes that are read to answer, in bytes. All hashes are, for each of their
    /// pages.
    fn read_bytes(&self) -> u64 {
        match &self.source {
            Ok(Some(Source::Whole(reader))) => match reader.size_bytes() {
                small if small <= self.get.inline_max_bytes => small,
                large => chunk_count(large).saturating_mul(CHUNK_HASH_BYTES as u64),
            },
            // The transfer has them in memory.
            Ok(Some(Source::Part(_)) | None) | Err(_) => 0,
        }
    }

    pub(super) async fn answer(self, requester: &Requester) -> Answer {
        let blob_id = self.get.blob_id;
        let (source, response) = match self.source {
            Ok(Some(source)) => {
                let response = respond(&source, &self.get).await;
                (Some(source), response)
            }
            Ok(None) => (None, Ok(Response::Refused(Refusal::NotFound))),
            Err(error) => (None, Err(error)),
        };
        if let Err(error) = &response {
            requester.on_store_error(blob_id, error).await;
        }
        Answer {
            blob_id,
            source,
            response,
        }
    }
}

impl Answer {
    /// Content and hashes that are sent, in bytes.
    pub(super) fn content_bytes(&self) -> u64 {
        match &self.response {
            Ok(Response::Inline { content }) => content.len() as u64,
            Ok(Response::List(page)) => page.digests.len() as u64,
            _ => 0,
        }
    }
}

/// Takes the first of some requests, and those behind it whose answers fit into one permit with it.
pub(super) fn take_fitting(opened: &mut Vec<Opened>) -> Vec<Opened> {
    let mut bytes = 0_u64;
    let fits = |opened: &Opened| {
        bytes = bytes.saturating_add(opened.read_bytes());
        bytes <= CHUNK_BYTES
    };
    let fitting = opened.iter().map(fits).take_while(|fits| *fits).count();
    opened.drain(..fitting.clamp(1, opened.len())).collect()
}

async fn respond(source: &Source, get: &Get) -> Result<Response, StoreError> {
    let (list, size_bytes) = match source {
        Source::Part(part) => (part.list.clone(), part.size_bytes),
        Source::Whole(reader) => {
            let size_bytes = reader.size_bytes();
            if size_bytes <= get.inline_max_bytes {
                let content = reader.read(0..size_bytes).await?;
                let id = reader.id();
                // At most 64 KiB, hashed in less time than handing it to another thread takes.
                if blob_id(&content) != id {
                    return Err(StoreError::Damaged { id });
                }
                return Ok(Response::Inline { content });
            }
            (reader.list().await?, size_bytes)
        }
    };
    let hashes = list.len();
    let Some(from) = usize::try_from(get.from)
        .ok()
        .filter(|from| *from <= hashes)
    else {
        return Ok(Response::Refused(Refusal::NotFound));
    };
    let end = from.saturating_add(MAX_PAGE_HASHES).min(hashes);
    let digests = (list.digests()).slice(from * CHUNK_HASH_BYTES..end * CHUNK_HASH_BYTES);
    Ok(Response::List(ListPage {
        size_bytes,
        from: get.from,
        digests,
    }))
}
