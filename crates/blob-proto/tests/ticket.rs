//! Tickets against their vectors and their rules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::LazyLock;

use calimero_network_blob::{
    BlobId,
    primitives::{
        Multiaddr, PeerId,
        identity::{PublicKey, ed25519},
    },
    ticket::{
        Kind, MAX_ADDRESSES, MAX_ADDRESSES_BYTES, MAX_TICKET_CHARS, PREFIX, Secret, Ticket,
        TicketError,
    },
};
use proptest::prelude::*;
use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let vectors = include_str!("../../../testdata/ticket.json");
    serde_json::from_str(vectors).expect("vectors are JSON")
});

fn secret(seed: [u8; 32]) -> Secret {
    let mut seed = seed;
    Secret::new(
        ed25519::SecretKey::try_from_bytes(&mut seed)
            .unwrap()
            .into(),
    )
}

fn peer_of(seed: [u8; 32]) -> PeerId {
    PublicKey::from(secret(seed).key().public()).to_peer_id()
}

fn ticket_of(vector: &Value) -> Ticket {
    let kind = match vector["kind"].as_str().unwrap() {
        "blob" => Kind::Blob,
        "collection" => Kind::Collection,
        other => panic!("{other}"),
    };
    let peer = vector["peer"].as_str().unwrap().parse().unwrap();
    let blob_id = BlobId::from_hex(vector["blob_id"].as_str().unwrap()).unwrap();
    let addresses = vector["addresses"].as_array().unwrap().iter();
    let addresses = addresses.map(|address| address.as_str().unwrap().parse().unwrap());
    let mut ticket = Ticket::new(peer, blob_id, kind)
        .with_addresses(addresses)
        .unwrap();
    if let Some(size_bytes) = vector["size_bytes"].as_u64() {
        ticket = ticket.with_size_bytes(size_bytes);
    }
    if let Some(name) = vector["name"].as_str() {
        ticket = ticket.with_name(name).unwrap();
    }
    if let Some(seed) = vector["secret_hex"].as_str() {
        let seed = hex::decode(seed).unwrap().try_into().unwrap();
        ticket = ticket.with_secret(secret(seed));
    }
    ticket
}

#[test]
fn valid_tickets_are_read_and_written_to_the_character() {
    for (name, vector) in VECTORS["valid"].as_object().unwrap() {
        let text = vector["text"].as_str().unwrap();
        let made = ticket_of(vector);
        assert_eq!(made.to_string(), text, "{name}");
        assert_eq!(hex::encode(made.to_bytes()), vector["hex"], "{name}");
        let read: Ticket = text.parse().unwrap();
        assert_eq!(read, made, "{name}");
        let public_key = read.secret().map(|secret| hex::encode(secret.public_key()));
        assert_eq!(public_key.as_deref(), vector["public_key_hex"].as_str());
        // QR codes are smaller in upper case, and terminals add white space.
        let upper = format!(" {}\n", text.to_ascii_uppercase());
        assert_eq!(upper.parse::<Ticket>().unwrap(), made, "{name}");
    }
}

#[test]
fn invalid_tickets_are_refused_with_the_reason() {
    for (name, vector) in VECTORS["invalid"].as_object().unwrap() {
        let error = vector["text"].as_str().unwrap().parse::<Ticket>();
        let error = error.unwrap_err().to_string();
        let reason = vector["error"].as_str().unwrap();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

fn some_ticket() -> Ticket {
    ticket_of(&VECTORS["valid"]["a folder with everything"])
}

#[test]
fn a_ticket_holds_no_more_than_its_limits() {
    let peer = some_ticket().peer();
    let ticket = Ticket::new(peer, BlobId::from([1; 32]), Kind::Blob);
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let many = vec![address.clone(); MAX_ADDRESSES + 1];
    assert_eq!(
        ticket.clone().with_addresses(many).unwrap_err(),
        TicketError::TooManyAddresses {
            count: 17,
            max: MAX_ADDRESSES
        }
    );
    let named = |len: usize| -> Multiaddr {
        let name = "a".repeat(len);
        format!("/dns4/{name}/tcp/1").parse().unwrap()
    };
    let error = ticket.clone().with_addresses([named(600)]).unwrap_err();
    assert!(matches!(
        error,
        TicketError::AddressesTooLong { max_bytes: 512, .. }
    ));
    let error = ticket.clone().with_addresses(vec![named(200); 11]);
    assert!(matches!(
        error,
        Err(TicketError::AddressesTooLong {
            max_bytes: MAX_ADDRESSES_BYTES,
            ..
        })
    ));
    // The peer at the end of an address is that of the ticket, and written once.
    let other = peer_of([9; 32]);
    let ending = |peer: PeerId| address.clone().with_p2p(peer).unwrap();
    let error = ticket.clone().with_addresses([ending(other)]).unwrap_err();
    assert!(matches!(error, TicketError::Address { .. }), "{error}");
    let with = ticket.clone().with_addresses([ending(peer)]).unwrap();
    assert_eq!(with.addresses(), std::slice::from_ref(&address));
    // The longest ticket that can be made can be read.
    let longest = ticket
        .with_addresses(vec![named(123); MAX_ADDRESSES])
        .unwrap()
        .with_size_bytes(u64::MAX)
        .with_secret(secret([3; 32]))
        .with_name(&"n".repeat(255))
        .unwrap();
    let text = longest.to_string();
    assert!(text.len() > MAX_TICKET_CHARS - 300, "{}", text.len());
    assert_eq!(text.parse::<Ticket>().unwrap(), longest);
}

#[test]
fn the_secret_is_not_shown() {
    let ticket = some_ticket();
    let shown = format!("{ticket:?}");
    assert!(shown.contains("Secret"), "{shown}");
    // The seed is 00 01 02 up to 1f.
    assert!(!shown.contains("4, 5, 6"), "{shown}");
    assert!(!shown.contains("0405"), "{shown}");
}

/// Every other character in place of each character, which the checksum finds without exception.
#[test]
fn one_changed_character_is_always_found() {
    for (name, vector) in VECTORS["valid"].as_object().unwrap() {
        let text = vector["text"].as_str().unwrap();
        for at in 0..text.len() {
            for other in "abcdefghijklmnopqrstuvwxyz0123456789-= ".chars() {
                if text[at..].starts_with(other) || (other == ' ' && at + 1 == text.len()) {
                    continue;
                }
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
                assert!(changed.parse::<Ticket>().is_err(), "{name} {at} {other}");
            }
        }
    }
}

fn address() -> impl Strategy<Value = Multiaddr> {
    let relay = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    let host = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| format!("/ip4/{ip}")),
        any::<std::net::Ipv6Addr>().prop_map(|ip| format!("/ip6/{ip}")),
        "[a-z]{1,20}".prop_map(|name| format!("/dns4/{name}")),
    ];
    (host, any::<u16>(), 0..3).prop_map(move |(host, port, form)| {
        let text = match form {
            0 => format!("{host}/tcp/{port}"),
            1 => format!("{host}/udp/{port}/quic-v1"),
            _ => format!("{host}/tcp/{port}/p2p/{relay}/p2p-circuit"),
        };
        text.parse().unwrap()
    })
}

prop_compose! {
    fn ticket()(
        peer in any::<[u8; 32]>(),
        blob_id in any::<[u8; 32]>(),
        is_folder in any::<bool>(),
        size_bytes in proptest::option::of(any::<u64>()),
        seed in proptest::option::of(any::<[u8; 32]>()),
        name in proptest::option::of("[a-zA-Z0-9äß-][a-zA-Z0-9äß .-]{0,40}"),
        addresses in prop::collection::vec(address(), 0..=MAX_ADDRESSES),
    ) -> Ticket {
        let kind = if is_folder { Kind::Collection } else { Kind::Blob };
        let mut ticket = Ticket::new(peer_of(peer), blob_id.into(), kind)
            .with_addresses(addresses)
            .unwrap();
        if let Some(size_bytes) = size_bytes {
            ticket = ticket.with_size_bytes(size_bytes);
        }
        if let Some(seed) = seed {
            ticket = ticket.with_secret(secret(seed));
        }
        if let Some(name) = name {
            ticket = ticket.with_name(&name).unwrap();
        }
        ticket
    }
}

proptest! {
    #[test]
    fn a_ticket_that_is_written_is_read_again(ticket in ticket()) {
        let text = ticket.to_string();
        prop_assert!(text.len() <= MAX_TICKET_CHARS);
        prop_assert!(text.starts_with(PREFIX));
        prop_assert_eq!(text.parse::<Ticket>().unwrap(), ticket.clone());
        prop_assert_eq!(Ticket::from_bytes(&ticket.to_bytes()).unwrap(), ticket);
    }

    #[test]
    fn a_changed_character_is_found(ticket in ticket(), at in any::<prop::sample::Index>(), to in "[a-z0-9]") {
        let text = ticket.to_string();
        let at = at.index(text.len());
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(changed.parse::<Ticket>().is_ok(), changed == text);
    }

    #[test]
    fn any_text_is_a_ticket_or_an_error(text in "(calnet)?[a-z2-7]{0,200}.{0,3}") {
        let _ = text.parse::<Ticket>();
    }

    #[test]
    fn any_bytes_are_a_ticket_or_an_error(ticket in ticket(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = ticket.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(read) = Ticket::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}
