//! Records of `calnet send` and `calnet receive`.

use std::fmt;

use serde::Serialize;

use super::path::Route;
use crate::text::bytes;

/// One record of sending or receiving.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    /// Everything is stored. The node serves it until the command is stopped.
    Ticket {
        ticket: String,
        /// The id of the blob.
        id: String,
        /// `blob` for a file, `collection` for a folder.
        kind: &'static str,
        /// The content of all files.
        size_bytes: u64,
        files: usize,
        /// The peer id of this node.
        peer: String,
        /// The addresses in the ticket.
        addresses: Vec<String>,
    },
    /// A peer asked for what the ticket names.
    Requested {
        peer: String,
        /// Whether it was granted.
        given: bool,
    },
    /// The path to the peer that serves it changed.
    Path {
        peer: String,
        /// `none`, `waiting` for a direct path, `relayed` or `direct`.
        path: &'static str,
        /// The transport of a direct path.
        #[serde(skip_serializing_if = "Option::is_none")]
        transport: Option<String>,
    },
    /// What has arrived so far.
    Receiving {
        /// Bytes that are verified and kept.
        verified_bytes: u64,
        /// Bytes in all, once that is known.
        size_bytes: Option<u64>,
        /// Bytes that came over the network.
        received_bytes: u64,
        rate_bytes_per_s: u64,
        /// Seconds until everything is there, at this rate.
        left_s: Option<u64>,
        /// `none`, `waiting` for a direct path, `relayed` or `direct`.
        #[serde(serialize_with = "route_name")]
        path: Route,
    },
    /// Everything arrived and is verified.
    Received {
        /// The id of the blob.
        id: String,
        /// `blob` for a file, `collection` for a folder.
        kind: &'static str,
        /// The content of all files.
        size_bytes: u64,
        files: usize,
        /// Bytes that were there from an earlier attempt.
        resumed_bytes: u64,
        /// Bytes that came over the network.
        received_bytes: u64,
        /// The file or folder.
        output: String,
    },
    /// The node has ended.
    Stopped {},
}

fn route_name<S: serde::Serializer>(route: &Route, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(route.name())
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket {
                ticket,
                size_bytes,
                files,
                ..
            } => write!(
                f,
                "{} in {files} {}. Receive it with:\n\ncalnet receive {ticket}\n",
                bytes(*size_bytes),
                if *files == 1 { "file" } else { "files" },
            ),
            Self::Requested { peer, given: true } => write!(f, "{peer} receives it"),
            Self::Requested { peer, .. } => write!(f, "{peer} asked for it without the ticket"),
            Self::Path {
                path, transport, ..
            } => match transport {
                Some(transport) => write!(f, "path: {path}, {transport}"),
                None => write!(f, "path: {path}"),
            },
            Self::Receiving {
                verified_bytes,
                size_bytes,
                rate_bytes_per_s,
                left_s,
                path,
                ..
            } => {
                write!(f, "received {}", bytes(*verified_bytes))?;
                if let Some(size_bytes) = size_bytes {
                    write!(f, " of {}", bytes(*size_bytes))?;
                }
                if *rate_bytes_per_s > 0 {
                    write!(f, ", {}/s", bytes(*rate_bytes_per_s))?;
                }
                if let Some(left_s) = left_s {
                    write!(f, ", {left_s} s left")?;
                }
                write!(f, ", {path}")
            }
            Self::Received {
                size_bytes,
                files,
                resumed_bytes,
                output,
                ..
            } => {
                write!(f, "{output}: {}", bytes(*size_bytes))?;
                if *files != 1 {
                    write!(f, " in {files} files")?;
                }
                if *resumed_bytes > 0 {
                    let resumed = bytes(*resumed_bytes);
                    write!(f, ", {resumed} of them from an earlier attempt")?;
                }
                Ok(())
            }
            Self::Stopped {} => f.write_str("stopped"),
        }
    }
}
