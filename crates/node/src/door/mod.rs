//! The door of a running node: a socket in its data folder, through which other commands of
//! `calnet` ask it to do what only one process can, since it holds the folder.
//!
//! Whoever may open the socket (mode 0600) may do what the node may. A connection carries one
//! request, a line of JSON, then what belongs to it, lines as well; the answer is lines of JSON,
//! the last of which is `{"event":"done"}` or `{"event":"failed","error":"…"}`. Whoever goes away
//! before cancels.

mod client;
mod server;
mod topics;

use std::path::PathBuf;

use calimero_network::{BlobId, ContextId, Multiaddr, Topic};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    client::Client,
    server::{Door, Served, serve},
    topics::Readers,
};

/// Longest line of a request, in bytes: some ten thousand ids.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What a node is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The status, as `/status` has it.
    Status,
    /// Something about blobs.
    Blob(BlobRequest),
    /// Each line that follows is a message.
    Publish { topic: Topic },
    /// Messages, until the reader goes away.
    Subscribe { topics: Vec<Topic> },
}

/// What can be done with the blobs of a data folder, by the node that has it or without one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum BlobRequest {
    Add {
        files: Vec<PathBuf>,
        context: ContextId,
    },
    Get {
        id: BlobId,
        context: ContextId,
        /// A file to write instead of the folder.
        output: Option<PathBuf>,
        dial: Vec<Multiaddr>,
    },
    Ls,
    Rm {
        ids: Vec<BlobId>,
    },
    Verify {
        ids: Vec<BlobId>,
    },
}

/// The last line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum End {
    Done {},
    Failed { error: String },
}
