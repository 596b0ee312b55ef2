//! Records of the blob commands.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::progress;

/// One record of a blob command.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = BlobRecord)]
pub(crate) enum Line {
    /// A blob was stored.
    Added {
        id: String,
        size_bytes: u64,
        /// The file that it was read from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// A blob of the store.
    Blob { id: String, size_bytes: u64 },
    /// A download that is not complete.
    Partial { id: String },
    /// What the store holds.
    Usage(Usage),
    /// A blob was removed, or was not there.
    Removed { id: String, was_there: bool },
    /// A blob was read and has the content of its id.
    Verified { id: String },
    /// A blob was read and does not have the content of its id, or could not be read.
    Damaged {
        id: String,
        error: String,
        /// It was withdrawn: it is no longer listed, and the next fetch or put stores it again.
        #[serde(default)]
        withdrawn: bool,
    },
    /// Progress of a fetch.
    Progress(progress::Line),
    /// A blob was fetched.
    Fetched {
        id: String,
        size_bytes: u64,
        resumed_bytes: u64,
        received_bytes: u64,
        providers: Vec<String>,
        /// The name in the ticket by which it was fetched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Usage {
    /// Number of complete blobs.
    pub(crate) blobs: usize,
    /// Their content, in bytes.
    pub(crate) used_bytes: u64,
    /// Number of partial downloads.
    pub(crate) partials: usize,
    /// Bytes reserved for partial downloads and for blobs that are being written.
    pub(crate) reserved_bytes: u64,
    /// The most that the store may hold, in bytes.
    pub(crate) limit_bytes: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            blobs,
            used_bytes,
            partials,
            reserved_bytes,
            limit_bytes,
        } = self;
        write!(
            f,
            "{blobs} blobs of {used_bytes} bytes, {partials} partial downloads, \
             {reserved_bytes} bytes reserved, limit {limit_bytes} bytes"
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added {
                id,
                size_bytes,
                file,
            } => {
                let file = file.as_deref().unwrap_or("-");
                write!(f, "{id}  {size_bytes:>12}  {file}")
            }
            Self::Blob { id, size_bytes } => write!(f, "{id}  {size_bytes:>12}"),
            Self::Partial { id } => write!(f, "{id}       partial"),
            Self::Usage(usage) => usage.fmt(f),
            Self::Removed {
                id,
                was_there: true,
            } => write!(f, "{id}  removed"),
            Self::Removed { id, .. } => write!(f, "{id}  not here"),
            Self::Verified { id } => write!(f, "{id}  good"),
            Self::Damaged {
                id,
                error,
                withdrawn,
            } => {
                write!(f, "{id}  {error}")?;
                match withdrawn {
                    true => f.write_str(", withdrawn"),
                    false => Ok(()),
                }
            }
            Self::Progress(progress) => progress.fmt(f),
            Self::Fetched {
                id,
                size_bytes,
                received_bytes,
                providers,
                ..
            } if providers.is_empty() && *received_bytes == 0 => {
                write!(f, "{id}  {size_bytes} bytes, complete already")
            }
            Self::Fetched {
                id,
                size_bytes,
                resumed_bytes,
                received_bytes,
                providers,
                ..
            } => write!(
                f,
                "{id}  {size_bytes} bytes, {resumed_bytes} of them from earlier attempts, \
                 {received_bytes} received from {}",
                providers.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests;
