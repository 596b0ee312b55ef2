//! Events of blobs.

use std::{fmt, sync::Arc};

use calimero_network_blob::fetch::Progress;
use calimero_network_primitives::{BlobId, ContextId, PeerId};
use calimero_network_transport::Chain;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{Class, Key, NetworkEvent, Subject, queue::Unread};
use crate::{error::FetchBlobError, json};

/// An event of the announcement, the service or the transfer of a blob. In JSON `id` is the blob and
/// `context` its context.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlobEvent {
    /// A peer holds the provider record of a blob that this node announced.
    #[serde(rename = "blob_announced")]
    Announced {
        /// The context in which the blob is announced.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The id of the blob.
        #[serde(rename = "id")]
        blob_id: BlobId,
    },
    /// A peer requested blobs of this node.
    #[serde(rename = "blob_requested")]
    Requested {
        /// The peer that sent the request.
        #[serde(serialize_with = "json::text")]
        peer: PeerId,
        /// The context of the first request.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The blob of the first request.
        #[serde(rename = "id")]
        blob_id: BlobId,
        /// Whether the first request was granted.
        given: bool,
        /// Number of requests since the last such event.
        count: u64,
    },
    /// Peers requested blobs in addition to those reported by [`Requested`](Self::Requested), more
    /// peers than are reported one by one.
    #[serde(rename = "other_blobs_requested")]
    OthersRequested {
        /// Number of requests since the last such event.
        count: u64,
    },
    /// The DHT named providers of a blob that this node fetches.
    #[serde(rename = "blob_providers_found")]
    ProvidersFound {
        /// The context in which the blob is fetched.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The id of the blob.
        #[serde(rename = "id")]
        blob_id: BlobId,
        /// All providers found so far.
        #[serde(serialize_with = "json::texts")]
        providers: Vec<PeerId>,
    },
    /// A transfer made progress.
    #[serde(rename = "blob_progress")]
    Progress {
        /// The context in which the blob is fetched.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The id of the blob.
        #[serde(rename = "id")]
        blob_id: BlobId,
        /// The progress of the transfer.
        #[serde(flatten, serialize_with = "progress_fields")]
        progress: Progress,
    },
    /// A blob was fetched: it is verified, durable and at its destination. The last event of its
    /// transfer.
    #[serde(rename = "blob_downloaded")]
    Downloaded {
        /// The context in which the blob was fetched.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The id of the blob.
        #[serde(rename = "id")]
        blob_id: BlobId,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The download of a blob failed. Verified chunks are kept and reused by the next attempt. The
    /// last event of its transfer.
    #[serde(rename = "blob_download_failed")]
    DownloadFailed {
        /// The context in which the blob was fetched.
        #[serde(rename = "context")]
        context_id: ContextId,
        /// The id of the blob.
        #[serde(rename = "id")]
        blob_id: BlobId,
        /// The cause; it names the providers that were asked.
        #[serde(serialize_with = "json::error")]
        error: Arc<FetchBlobError>,
    },
}

impl BlobEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let transfer = |kind, context_id: &ContextId, blob_id: &BlobId| {
            Class::Transfer(Key::new(kind, Subject::Blob(*context_id, *blob_id)))
        };
        match self {
            Self::Announced {
                context_id,
                blob_id,
            } => transfer("announced", context_id, blob_id),
            Self::ProvidersFound {
                context_id,
                blob_id,
                ..
            } => transfer("providers", context_id, blob_id),
            Self::Progress {
                context_id,
                blob_id,
                ..
            }
            | Self::Downloaded {
                context_id,
                blob_id,
                ..
            }
            | Self::DownloadFailed {
                context_id,
                blob_id,
                ..
            } => transfer("transfer", context_id, blob_id),
            Self::Requested { peer, count, .. } => {
                let key = Key::new("blobs requested", Subject::Peer(*peer));
                match unread.report(key, *count, count_of) {
                    Some(class) => class,
                    None => {
                        *self = Self::OthersRequested { count: *count };
                        self.class(unread)
                    }
                }
            }
            Self::OthersRequested { count } => unread.sum(
                Key::new("other blobs requested", Subject::Node),
                *count,
                count_of,
            ),
        }
    }
}

fn count_of(event: &mut NetworkEvent) -> Option<&mut u64> {
    match event {
        NetworkEvent::Blob(
            BlobEvent::Requested { count, .. } | BlobEvent::OthersRequested { count },
        ) => Some(count),
        _ => None,
    }
}

impl fmt::Display for BlobEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announced {
                context_id,
                blob_id,
            } => write!(f, "blob {blob_id} announced in context {context_id}"),
            Self::Requested {
                peer,
                blob_id,
                given,
                count,
                ..
            } => {
                let end = if *given { "granted" } else { "refused" };
                write!(
                    f,
                    "blob {blob_id} requested by {peer}: {end}, {count} requests"
                )
            }
            Self::OthersRequested { count } => write!(f, "{count} blobs requested by other peers"),
            Self::ProvidersFound {
                blob_id, providers, ..
            } => write!(f, "blob {blob_id}: {} providers found", providers.len()),
            Self::Progress {
                blob_id, progress, ..
            } => write!(
                f,
                "blob {blob_id}: {} bytes verified",
                progress.verified_bytes
            ),
            Self::Downloaded {
                blob_id,
                size_bytes,
                ..
            } => write!(f, "blob {blob_id} downloaded: {size_bytes} bytes"),
            Self::DownloadFailed { blob_id, error, .. } => {
                write!(f, "blob {blob_id} not downloaded: {}", Chain(error))
            }
        }
    }
}

fn progress_fields<S: Serializer>(progress: &Progress, to: S) -> Result<S::Ok, S::Error> {
    let mut fields = to.serialize_struct("Progress", 4)?;
    fields.serialize_field("size_bytes", &progress.size_bytes)?;
    fields.serialize_field("verified_bytes", &progress.verified_bytes)?;
    fields.serialize_field("received_bytes", &progress.received_bytes)?;
    fields.serialize_field("rate_bytes_per_s", &progress.rate_bytes_per_s)?;
    fields.end()
}
