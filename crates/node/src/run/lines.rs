//! What a running node prints.

use std::fmt;

use calimero_network::{
    CloseReason, Direction, NetworkEvent,
    discovery::machine::{Phase, Reachability, ReachableBecause},
};
use serde::{Deserialize, Serialize};

use crate::text::Stack;

/// One line of output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    Started {
        peer: String,
    },
    Metrics {
        url: String,
    },
    Listening {
        address: String,
    },
    NotListening {
        addresses: Vec<String>,
        error: Option<String>,
    },
    Connected {
        peer: String,
        address: String,
        inbound: bool,
        #[serde(flatten)]
        stack: Stack,
    },
    Disconnected {
        peer: String,
        reason: String,
        remaining: u32,
    },
    PathChanged {
        peer: String,
        address: String,
        #[serde(flatten)]
        stack: Stack,
    },
    HolePunched {
        peer: String,
        direct: bool,
    },
    Phase {
        phase: String,
    },
    Reachability {
        reachable: Option<bool>,
        reason: String,
    },
    External {
        address: String,
        confirmed: bool,
    },
    Relay {
        peer: String,
        reserved: bool,
    },
    Identified {
        peer: String,
        agent_version: String,
        protocol_version: String,
    },
    StreamReset {
        peer: String,
        protocol: String,
    },
    StreamsRefused {
        peer: String,
        protocol: String,
        reason: String,
        count: u64,
    },
    OtherStreamsRefused {
        count: u64,
    },
    DialFailed {
        address: String,
        error: String,
    },
    Subscribed {
        peer: String,
        topic: String,
    },
    Unsubscribed {
        peer: String,
        topic: String,
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
    /// Others have been told that this node has a blob.
    BlobAnnounced {
        id: String,
        context: String,
    },
    BlobWithdrawn {
        id: String,
        context: String,
    },
    BlobsNotAnnounced {
        count: usize,
        error: String,
    },
    BlobRequested {
        peer: String,
        id: String,
        given: bool,
        count: u64,
    },
    BlobDownloaded {
        id: String,
        size_bytes: u64,
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

impl Line {
    pub(crate) fn of(event: NetworkEvent) -> Option<Self> {
        Some(match event {
            NetworkEvent::Listening { address, .. } => Self::Listening {
                address: address.to_string(),
            },
            NetworkEvent::NotListening {
                addresses, error, ..
            } => Self::NotListening {
                addresses: addresses.iter().map(ToString::to_string).collect(),
                error: error.map(|error| error.to_string()),
            },
            NetworkEvent::Connected(connection) => Self::Connected {
                peer: connection.peer.to_base58(),
                address: connection.address.to_string(),
                inbound: connection.direction == Direction::Inbound,
                stack: Stack::of(&connection),
            },
            NetworkEvent::Disconnected {
                peer,
                reason,
                remaining,
                ..
            } => Self::Disconnected {
                peer: peer.to_base58(),
                reason: reason_text(&reason),
                remaining,
            },
            NetworkEvent::PathChanged(connection) => Self::PathChanged {
                peer: connection.peer.to_base58(),
                address: connection.address.to_string(),
                stack: Stack::of(&connection),
            },
            NetworkEvent::HolePunched { peer, direct } => Self::HolePunched {
                peer: peer.to_base58(),
                direct,
            },
            NetworkEvent::PhaseChanged { phase } => Self::Phase {
                phase: phase_text(phase).to_owned(),
            },
            NetworkEvent::ReachabilityChanged { reachability } => Self::reachability(&reachability),
            NetworkEvent::ExternalAddressConfirmed { address } => Self::External {
                address: address.to_string(),
                confirmed: true,
            },
            NetworkEvent::ExternalAddressExpired { address } => Self::External {
                address: address.to_string(),
                confirmed: false,
            },
            NetworkEvent::RelayReserved { relay } => Self::Relay {
                peer: relay.to_base58(),
                reserved: true,
            },
            NetworkEvent::RelayLost { relay } => Self::Relay {
                peer: relay.to_base58(),
                reserved: false,
            },
            NetworkEvent::Identified { peer, info } => Self::Identified {
                peer: peer.to_base58(),
                agent_version: info.agent_version.clone(),
                protocol_version: info.protocol_version.clone(),
            },
            // This node has no application that would talk; dropping the stream resets it.
            NetworkEvent::StreamOpened { peer, protocol, .. } => Self::StreamReset {
                peer: peer.to_base58(),
                protocol: protocol.to_string(),
            },
            NetworkEvent::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            } => Self::StreamsRefused {
                peer: peer.to_base58(),
                protocol: protocol.to_string(),
                reason: reason.to_string(),
                count,
            },
            NetworkEvent::OtherStreamsRefused { count } => Self::OtherStreamsRefused { count },
            NetworkEvent::Subscribed { peer, topic } => Self::Subscribed {
                peer: peer.to_base58(),
                topic: topic.to_string(),
            },
            NetworkEvent::Unsubscribed { peer, topic } => Self::Unsubscribed {
                peer: peer.to_base58(),
                topic: topic.to_string(),
            },
            NetworkEvent::Message(message) => super::topics::line(&message),
            NetworkEvent::BlobAnnounced {
                context_id,
                blob_id,
            } => Self::BlobAnnounced {
                id: blob_id.to_string(),
                context: context_id.to_string(),
            },
            NetworkEvent::BlobRequested {
                peer,
                blob_id,
                given,
                count,
                ..
            } => Self::BlobRequested {
                peer: peer.to_base58(),
                id: blob_id.to_string(),
                given,
                count,
            },
            NetworkEvent::BlobDownloaded {
                blob_id,
                size_bytes,
                ..
            } => Self::BlobDownloaded {
                id: blob_id.to_string(),
                size_bytes,
            },
            NetworkEvent::Lagged { missed } => Self::Lagged { missed },
            _ => return None,
        })
    }
}

impl Line {
    fn reachability(reachability: &Reachability) -> Self {
        let (reachable, reason) = match reachability {
            Reachability::Unknown => (None, "not known yet".to_owned()),
            Reachability::Reachable { why } => {
                let reason = match why {
                    ReachableBecause::Configured => "a public address is configured".to_owned(),
                    ReachableBecause::LocalNetwork => "the network is local".to_owned(),
                    ReachableBecause::Probed { address, server } => {
                        format!("{server} reached {address}")
                    }
                };
                (Some(true), reason)
            }
            Reachability::Unreachable => (Some(false), "no address of ours was reached".to_owned()),
        };
        Self::Reachability { reachable, reason }
    }
}

fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Boot => "boot",
        Phase::Register => "register",
        Phase::Discover => "discover",
        Phase::Connect => "connect",
        Phase::Joined => "joined",
        Phase::Stopped => "stopped",
    }
}

fn reason_text(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Local => "closed here".to_owned(),
        CloseReason::Idle => "idle".to_owned(),
        CloseReason::Unresponsive => "unresponsive".to_owned(),
        CloseReason::Remote { error } => error.to_string(),
        other => format!("{other:?}"),
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { peer } => write!(f, "started       {peer}"),
            Self::Metrics { url } => write!(f, "metrics       {url}"),
            Self::Listening { address } => write!(f, "listening     {address}"),
            Self::NotListening { addresses, error } => {
                write!(f, "not listening {}", addresses.join(", "))?;
                error.iter().try_for_each(|error| write!(f, ": {error}"))
            }
            Self::Connected {
                peer,
                address,
                inbound,
                stack,
            } => {
                let way = if *inbound { "from" } else { "to" };
                write!(f, "connected     {peer} ({way} {address}; {stack})")
            }
            Self::Disconnected {
                peer,
                reason,
                remaining,
            } => write!(f, "disconnected  {peer} ({reason}; {remaining} left)"),
            Self::PathChanged {
                peer,
                address,
                stack,
            } => write!(f, "path changed  {peer} ({address}; {stack})"),
            Self::HolePunched { peer, direct } => {
                let end = if *direct { "direct" } else { "still relayed" };
                write!(f, "hole punched  {peer} ({end})")
            }
            Self::Phase { phase } => write!(f, "phase         {phase}"),
            Self::Reachability { reachable, reason } => {
                let word = match reachable {
                    Some(true) => "reachable    ",
                    Some(false) => "unreachable  ",
                    None => "reachability ",
                };
                write!(f, "{word} {reason}")
            }
            Self::External { address, confirmed } => {
                let end = if *confirmed {
                    "others are told"
                } else {
                    "no more"
                };
                write!(f, "external      {address} ({end})")
            }
            Self::Relay { peer, reserved } => {
                let end = if *reserved { "slot held" } else { "slot lost" };
                write!(f, "relay         {peer} ({end})")
            }
            Self::Identified {
                peer,
                agent_version,
                protocol_version,
            } => write!(
                f,
                "identified    {peer} ({agent_version}, {protocol_version})"
            ),
            Self::StreamReset { peer, protocol } => {
                write!(
                    f,
                    "stream reset  {peer} ({protocol}: nothing here serves it)"
                )
            }
            Self::StreamsRefused {
                peer,
                protocol,
                reason,
                count,
            } => write!(
                f,
                "refused       {count} streams of {peer} ({protocol}: {reason})"
            ),
            Self::OtherStreamsRefused { count } => {
                write!(f, "refused       {count} streams of other peers")
            }
            Self::DialFailed { address, error } => write!(f, "dial failed   {address}: {error}"),
            Self::Subscribed { peer, topic } => write!(f, "subscribed    {peer} to {topic}"),
            Self::Unsubscribed { peer, topic } => write!(f, "unsubscribed  {peer} from {topic}"),
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
            Self::BlobAnnounced { id, context } => write!(f, "announced     {id} in {context}"),
            Self::BlobWithdrawn { id, context } => write!(f, "withdrawn     {id} in {context}"),
            Self::BlobsNotAnnounced { count, error } => {
                write!(f, "not announced {count} blobs: {error}")
            }
            Self::BlobRequested {
                peer,
                id,
                given,
                count,
            } => {
                let end = if *given { "given" } else { "not given" };
                write!(f, "asked         {id} by {peer} ({end}; {count} requests)")
            }
            Self::BlobDownloaded { id, size_bytes } => {
                write!(f, "fetched       {id} ({size_bytes} bytes)")
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
