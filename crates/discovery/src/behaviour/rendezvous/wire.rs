//! The messages of `/rendezvous/1.0.0`, by the [specification].
//!
//! [specification]: https://github.com/libp2p/specs/blob/master/rendezvous/README.md

use calimero_network_primitives::{Multiaddr, PeerId};
use libp2p_core::{PeerRecord, SignedEnvelope};

use crate::machine::{Cookie, MAX_COOKIE_BYTES, Namespace, RendezvousFailure};

/// Longest message that is read, in bytes: 1 MiB, what libp2p-rendezvous 0.18 sends at most.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Longest signed record that is verified, in bytes: a hundred addresses.
const MAX_RECORD_BYTES: usize = 8 * 1024;

const REGISTER: i32 = 0;
const REGISTER_RESPONSE: i32 = 1;
const UNREGISTER: i32 = 2;
const DISCOVER: i32 = 3;
const DISCOVER_RESPONSE: i32 = 4;

const OK: i32 = 0;
const E_INVALID_COOKIE: i32 = 103;
const E_UNAVAILABLE: i32 = 400;

/// What the specification has servers assume where no life is told, in seconds.
const DEFAULT_TTL_SECS: u64 = 2 * 3600;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    register: Option<Register>,
    #[prost(message, optional, tag = "3")]
    register_response: Option<RegisterResponse>,
    #[prost(message, optional, tag = "4")]
    unregister: Option<Unregister>,
    #[prost(message, optional, tag = "5")]
    discover: Option<Discover>,
    #[prost(message, optional, tag = "6")]
    discover_response: Option<DiscoverResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Register {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
    #[prost(bytes = "vec", optional, tag = "2")]
    signed_peer_record: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    ttl: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RegisterResponse {
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(string, optional, tag = "2")]
    status_text: Option<String>,
    #[prost(uint64, optional, tag = "3")]
    ttl: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Unregister {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Discover {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    limit: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    cookie: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DiscoverResponse {
    #[prost(message, repeated, tag = "1")]
    registrations: Vec<Register>,
    #[prost(bytes = "vec", optional, tag = "2")]
    cookie: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "3")]
    status: Option<i32>,
    #[prost(string, optional, tag = "4")]
    status_text: Option<String>,
}

pub(super) fn register(namespace: &Namespace, record: PeerRecord, ttl_secs: u64) -> Message {
    let envelope = record.into_signed_envelope();
    Message {
        kind: Some(REGISTER),
        register: Some(Register {
            namespace: Some(namespace.as_str().to_owned()),
            signed_peer_record: Some(envelope.into_protobuf_encoding()),
            ttl: Some(ttl_secs),
        }),
        ..Message::default()
    }
}

pub(super) fn unregister(namespace: &Namespace) -> Message {
    Message {
        kind: Some(UNREGISTER),
        unregister: Some(Unregister {
            namespace: Some(namespace.as_str().to_owned()),
        }),
        ..Message::default()
    }
}

pub(super) fn discover(namespace: &Namespace, cookie: Option<&Cookie>, limit: u32) -> Message {
    Message {
        kind: Some(DISCOVER),
        discover: Some(Discover {
            namespace: Some(namespace.as_str().to_owned()),
            limit: Some(limit.into()),
            cookie: cookie.map(|cookie| cookie.as_bytes().to_vec()),
        }),
        ..Message::default()
    }
}

/// The life of the registration that a server has granted, in seconds.
pub(super) fn registered(message: Message) -> Result<u64, RendezvousFailure> {
    match message {
        Message {
            kind: Some(REGISTER_RESPONSE),
            register_response: Some(response),
            ..
        } => {
            check(response.status)?;
            Ok(response.ttl.unwrap_or(DEFAULT_TTL_SECS))
        }
        _ => Err(RendezvousFailure::Refused),
    }
}

/// Members of an overlay and where their list ends.
#[derive(Debug)]
pub struct Members {
    pub(super) members: Vec<(PeerId, Vec<Multiaddr>)>,
    pub(super) cookie: Option<Cookie>,
}

/// The members of `namespace` that a server has told, `limit` at most. Each record is verified on
/// its own: what is forged, too long or of another overlay is left out, and the others stay.
pub(super) fn discovered(
    message: Message,
    namespace: &Namespace,
    limit: u32,
) -> Result<Members, RendezvousFailure> {
    let Message {
        kind: Some(DISCOVER_RESPONSE),
        discover_response: Some(response),
        ..
    } = message
    else {
        return Err(RendezvousFailure::Refused);
    };
    check(response.status)?;
    let told = response.registrations.into_iter().take(limit as usize);
    let members = told
        .filter(|one| one.namespace.as_deref() == Some(namespace.as_str()))
        .filter_map(|one| verify(&one.signed_peer_record?))
        .collect();
    let cookie = response.cookie.filter(|c| c.len() <= MAX_COOKIE_BYTES);
    Ok(Members {
        members,
        cookie: cookie.and_then(|cookie| Cookie::new(&cookie)),
    })
}

fn check(status: Option<i32>) -> Result<(), RendezvousFailure> {
    match status.unwrap_or(OK) {
        OK => Ok(()),
        E_INVALID_COOKIE => Err(RendezvousFailure::InvalidCookie),
        E_UNAVAILABLE => Err(RendezvousFailure::Unavailable),
        _ => Err(RendezvousFailure::Refused),
    }
}

/// A record signed by the peer it is about, in the form of Rust or that of all others.
fn verify(record: &[u8]) -> Option<(PeerId, Vec<Multiaddr>)> {
    if record.len() > MAX_RECORD_BYTES {
        return None;
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(record).ok()?;
    let record = PeerRecord::from_signed_envelope(envelope.clone())
        .or_else(|_| PeerRecord::from_signed_envelope_interop(envelope))
        .ok()?;
    Some((record.peer_id(), record.addresses().to_vec()))
}

#[cfg(test)]
mod tests {
    use calimero_network_primitives::Keypair;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    const OVERLAY: &str = "/calimero/ctx/example";

    fn overlay() -> Namespace {
        Namespace::new(OVERLAY).unwrap()
    }

    fn signed(keypair: &Keypair, addresses: usize) -> Vec<u8> {
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/2428".parse().unwrap();
        let record = PeerRecord::new(keypair, vec![address; addresses]).unwrap();
        record.into_signed_envelope().into_protobuf_encoding()
    }

    fn registration(namespace: &str, record: Vec<u8>) -> Register {
        Register {
            namespace: Some(namespace.to_owned()),
            signed_peer_record: Some(record),
            ttl: Some(u64::MAX),
        }
    }

    fn answer(registrations: Vec<Register>, cookie: Vec<u8>) -> Message {
        Message {
            kind: Some(DISCOVER_RESPONSE),
            discover_response: Some(DiscoverResponse {
                registrations,
                cookie: Some(cookie),
                status: Some(OK),
                status_text: None,
            }),
            ..Message::default()
        }
    }

    #[test]
    fn forged_long_and_foreign_records_hide_nobody() {
        let (good, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let mut forged = signed(&other, 1);
        *forged.last_mut().unwrap() ^= 1;
        let interop = PeerRecord::new_interop(&other, Vec::new()).unwrap();
        let told = vec![
            registration(OVERLAY, forged),
            registration(OVERLAY, b"nonsense".to_vec()),
            registration(OVERLAY, signed(&other, 1_000)),
            registration("/calimero/ctx/other", signed(&other, 1)),
            registration(OVERLAY, signed(&good, 1)),
            registration(
                OVERLAY,
                interop.into_signed_envelope().into_protobuf_encoding(),
            ),
        ];
        let members = discovered(answer(told, vec![7; 16]), &overlay(), 64).unwrap();
        let peers: Vec<_> = members.members.iter().map(|(peer, _)| *peer).collect();
        let expected = [good, other].map(|keypair| keypair.public().to_peer_id());
        assert_eq!(peers, expected);
        assert_eq!(members.cookie.unwrap().as_bytes(), [7; 16]);
    }

    #[test]
    fn an_answer_is_looked_at_as_far_as_was_asked_for() {
        let record = signed(&Keypair::generate_ed25519(), 1);
        let told = vec![registration(OVERLAY, record); 1_000];
        let members = discovered(answer(told, vec![0; 2_000]), &overlay(), 3).unwrap();
        assert_eq!(members.members.len(), 3);
        assert_eq!(members.cookie, None);
    }

    #[test]
    fn refusals_say_what_can_be_done() {
        for (status, why) in [
            (E_INVALID_COOKIE, RendezvousFailure::InvalidCookie),
            (E_UNAVAILABLE, RendezvousFailure::Unavailable),
            (200, RendezvousFailure::Refused),
        ] {
            let mut message = answer(Vec::new(), Vec::new());
            message.discover_response.as_mut().unwrap().status = Some(status);
            assert_eq!(discovered(message, &overlay(), 1).unwrap_err(), why);
        }
    }

    #[test]
    fn an_answer_to_something_else_is_a_refusal() {
        let refused = Err(RendezvousFailure::Refused);
        let question = discover(&overlay(), None, 1);
        assert_eq!(registered(question), refused);
        assert_eq!(registered(answer(Vec::new(), Vec::new())), refused);
        assert!(discovered(unregister(&overlay()), &overlay(), 1).is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(message) = Message::decode(bytes.as_slice()) {
                let _ = registered(message.clone());
                let _ = discovered(message, &overlay(), 64);
            }
        }
    }
}
