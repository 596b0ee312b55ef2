//! Events of the addresses that this node listens on.

use std::{fmt, io};

use calimero_network_primitives::Multiaddr;
use calimero_network_transport::Chain;
use libp2p::swarm::derive_prelude::ListenerId;
use serde::Serialize;

use super::{Class, Key, Subject, queue::Unread};
use crate::{error::ListenError, json};

/// An event of the addresses that this node listens on.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ListenerEvent {
    /// The node listens on an address.
    Listening {
        /// The listener that the address belongs to.
        #[serde(skip)]
        listener: ListenerId,
        /// The address, without `/p2p`.
        address: Multiaddr,
    },
    /// The node cannot listen on a configured address now, or only on some of its interfaces. It tries
    /// again every minute at the latest, and emits the event once until a try succeeds.
    #[serde(rename = "listen_unavailable")]
    Unavailable {
        /// The address of the configuration.
        address: Multiaddr,
        /// The error of the last try.
        #[serde(serialize_with = "json::error")]
        error: ListenError,
    },
    /// The node no longer listens on addresses: an interface lost them, or the listener closed.
    NotListening {
        /// The listener that the addresses belonged to.
        #[serde(skip)]
        listener: ListenerId,
        /// The addresses, without `/p2p`.
        addresses: Vec<Multiaddr>,
        /// The cause, if the listener failed.
        #[serde(serialize_with = "json::maybe_error")]
        error: Option<io::Error>,
    },
}

impl ListenerEvent {
    pub(super) fn class(&mut self, unread: &mut Unread<'_>) -> Class {
        let listening = |listener: &ListenerId, address: &Multiaddr| {
            let subject = Subject::Listener(*listener, Some(address.clone()));
            Key::new("listening", subject)
        };
        match self {
            Self::Listening { listener, address } => Class::State(listening(listener, address)),
            Self::Unavailable { address, .. } => {
                let subject = Subject::Address(address.clone());
                Class::State(Key::new("listen unavailable", subject))
            }
            Self::NotListening {
                listener,
                addresses,
                error,
            } => {
                // Addresses that the reader does not know yet need not be reported as lost.
                let lost = addresses.len();
                addresses.retain(|address| unread.retract(&listening(listener, address)).is_none());
                let subject = match addresses.as_slice() {
                    [] if lost > 0 || error.is_none() => return Class::Void,
                    // A listener that never had an address. One such event is enough.
                    [] => Subject::Node,
                    [only] if error.is_none() => Subject::Listener(*listener, Some(only.clone())),
                    _ => Subject::Listener(*listener, None),
                };
                Class::State(Key::new("not listening", subject))
            }
        }
    }
}

impl fmt::Display for ListenerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { address, .. } => write!(f, "listening on {address}"),
            Self::Unavailable { error, .. } => write!(f, "{}, trying again", Chain(error)),
            Self::NotListening {
                addresses, error, ..
            } => {
                f.write_str("no longer listening")?;
                for (nth, address) in addresses.iter().enumerate() {
                    write!(f, "{} {address}", if nth == 0 { " on" } else { "," })?;
                }
                match error {
                    Some(error) => write!(f, ": {}", Chain(error)),
                    None => Ok(()),
                }
            }
        }
    }
}
