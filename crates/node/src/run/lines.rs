//! Lines that a running node prints besides the events of the network.

use std::fmt;

use calimero_network::{BlobEvent, NetworkEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line of output.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = NodeRecord)]
pub(crate) enum Line {
    Started {
        peer: String,
    },
    /// A public address of a boot node with its peer id, for `--boot` of other nodes.
    BootAddress {
        address: String,
    },
    Metrics {
        url: String,
    },
    /// The API is served over TCP.
    Api {
        url: String,
    },
    DialFailed {
        address: String,
        error: String,
    },
    /// `text` where the payload is UTF-8, else `hex`.
    Message {
        peer: String,
        topic: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    Published {
        topic: String,
        bytes: usize,
    },
    /// Topics are followed from now on.
    Following {
        topics: Vec<String>,
    },
    BlobWithdrawn {
        id: String,
        context: String,
    },
    BlobsNotAnnounced {
        count: usize,
        error: String,
    },
    PublishFailed {
        topic: String,
        error: String,
    },
    Lagged {
        missed: u64,
    },
    Stopped {},
}

/// Returns `true` for events that a running node prints. Progress of transfers is shown where the
/// transfer was asked for.
pub(crate) fn is_printed(event: &NetworkEvent) -> bool {
    !matches!(
        event,
        NetworkEvent::Blob(BlobEvent::Progress { .. } | BlobEvent::ProvidersFound { .. })
    )
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { peer } => write!(f, "started       {peer}"),
            Self::BootAddress { address } => write!(f, "boot address  {address}"),
            Self::Metrics { url } => write!(f, "metrics       {url}"),
            Self::Api { url } => write!(f, "api           {url}"),
            Self::DialFailed { address, error } => write!(f, "dial failed   {address}: {error}"),
            Self::Message {
                peer,
                topic,
                text,
                hex,
            } => {
                let payload = text.as_ref().or(hex.as_ref());
                let payload = payload.map_or("", String::as_str);
                write!(f, "message       {peer} on {topic}: {payload}")
            }
            Self::Published { topic, bytes } => write!(f, "published     {bytes} bytes on {topic}"),
            Self::Following { topics } => write!(f, "following     {}", topics.join(", ")),
            Self::BlobWithdrawn { id, context } => write!(f, "withdrawn     {id} in {context}"),
            Self::BlobsNotAnnounced { count, error } => {
                write!(f, "not announced {count} blobs: {error}")
            }
            Self::PublishFailed { topic, error } => write!(f, "not published {topic}: {error}"),
            Self::Lagged { missed } => write!(f, "lagged        {missed} messages were dropped"),
            Self::Stopped {} => write!(f, "stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tagged_json() {
        let line = Line::Lagged { missed: 3 };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(json, r#"{"event":"lagged","missed":3}"#);
    }
}
