//! What the commands print.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::progress;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A blob is in the folder.
    Added {
        id: String,
        size_bytes: u64,
        file: String,
    },
    /// A blob of the folder.
    Blob { id: String, size_bytes: u64 },
    /// A download that is not whole.
    Partial { id: String },
    /// What the folder holds.
    Usage {
        blobs: usize,
        used_bytes: u64,
        limit_bytes: u64,
    },
    /// A blob is gone, or was not there.
    Removed { id: String, was_there: bool },
    /// A blob was read and compared with its id.
    Verified {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// How far a fetch is.
    Progress(progress::Line),
    /// A blob is fetched.
    Fetched {
        id: String,
        size_bytes: u64,
        resumed_bytes: u64,
        received_bytes: u64,
        providers: Vec<String>,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added {
                id,
                size_bytes,
                file,
            } => write!(f, "{id}  {size_bytes:>12}  {file}"),
            Self::Blob { id, size_bytes } => write!(f, "{id}  {size_bytes:>12}"),
            Self::Partial { id } => write!(f, "{id}       partial"),
            Self::Usage {
                blobs,
                used_bytes,
                limit_bytes,
            } => write!(f, "{blobs} blobs, {used_bytes} of {limit_bytes} bytes"),
            Self::Removed {
                id,
                was_there: true,
            } => write!(f, "{id}  removed"),
            Self::Removed { id, .. } => write!(f, "{id}  not here"),
            Self::Verified { id, error: None } => write!(f, "{id}  good"),
            Self::Verified {
                id,
                error: Some(error),
            } => write!(f, "{id}  {error}"),
            Self::Progress(progress) => progress.fmt(f),
            Self::Fetched {
                id,
                size_bytes,
                resumed_bytes,
                received_bytes,
                providers,
            } => write!(
                f,
                "{id}  {size_bytes} bytes, {resumed_bytes} of them kept from before, \
                 {received_bytes} received from {}",
                providers.join(", ")
            ),
        }
    }
}
