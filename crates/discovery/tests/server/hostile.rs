//! Clients that send what no client sends.

use std::{collections::BTreeMap, time::Duration};

use bytes::{BufMut, BytesMut};
use calimero_network_discovery::server::rendezvous::{
    Event, Failure,
    wire::{AnswerKind, Refusal},
};
use calimero_network_primitives::{
    Keypair, Multiaddr, PeerId,
    resources::{Limit, Limits, Resource, Resources},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::join_all};
use libp2p_core::{PeerRecord, SignedEnvelope};
use libp2p_stream as stream;
use libp2p_swarm::{Stream, StreamProtocol};

use crate::{
    common::{DEADLINE, Server, TCP, dial, swarm, within},
    forward::from_other_address,
};

const RENDEZVOUS: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");

/// Opens streams and writes what it wants.
struct Client {
    keypair: Keypair,
    server: PeerId,
    control: stream::Control,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        Self::connect_at(server, &server.address).await
    }

    async fn connect_at(server: &Server, address: &Multiaddr) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut swarm = swarm(&keypair, stream::Behaviour::new());
        let control = swarm.behaviour().new_control();
        dial(&mut swarm, address).await;
        tokio::spawn(async move {
            loop {
                swarm.next().await;
            }
        });
        Self {
            keypair,
            server: server.peer,
            control,
        }
    }

    async fn open(&self) -> Stream {
        let mut control = self.control.clone();
        within(control.open_stream(self.server, RENDEZVOUS))
            .await
            .unwrap()
    }

    /// Writes `bytes` and reads whatever comes back until the end.
    async fn ask(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = self.open().await;
        within(async {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.map(|_| answer)
        })
        .await
    }
}

fn bytes_field(to: &mut BytesMut, number: u8, value: &[u8]) {
    to.put_u8(number << 3 | 2);
    length(to, value.len());
    to.put_slice(value);
}

fn length(to: &mut BytesMut, mut len: usize) {
    while len >= 0x80 {
        to.put_u8(len as u8 | 0x80);
        len >>= 7;
    }
    to.put_u8(len as u8);
}

fn message(kind: u8, field: u8, body: &[u8]) -> Vec<u8> {
    let mut message = BytesMut::from(&[8, kind][..]);
    bytes_field(&mut message, field, body);
    let mut whole = BytesMut::new();
    length(&mut whole, message.len());
    whole.put_slice(&message);
    whole.to_vec()
}

fn register(namespace: &str, record: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    bytes_field(&mut body, 1, namespace.as_bytes());
    bytes_field(&mut body, 2, record);
    message(0, 2, &body)
}

fn discover(namespace: &str) -> Vec<u8> {
    let mut body = BytesMut::new();
    bytes_field(&mut body, 1, namespace.as_bytes());
    message(3, 5, &body)
}

fn record(keypair: &Keypair, addresses: usize) -> Vec<u8> {
    let address: Multiaddr = "/ip4/192.0.2.7/tcp/2428".parse().unwrap();
    let record = PeerRecord::new(keypair, vec![address; addresses]).unwrap();
    record.into_signed_envelope().into_protobuf_encoding()
}

/// The status in an answer to a registration.
fn status(answer: &[u8]) -> u32 {
    let [_len, 8, 1, 0x1a, _body, 8, status @ ..] = answer else {
        panic!("{answer:?}");
    };
    match *status {
        [low @ 0..=0x7f, ..] => u32::from(low),
        [low, high, ..] => u32::from(low & 0x7f) | u32::from(high) << 7,
        _ => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn records_that_are_not_the_peers_own_and_whole_are_refused() {
    let mut server = Server::start(TCP, |config| config.tuning.max_record_bytes = 1024).await;
    let client = Client::connect(&server).await;
    let own = record(&client.keypair, 1);
    assert_eq!(status(&client.ask(&register("ns", &own)).await.unwrap()), 0);
    assert!(matches!(server.event().await.0, Event::Registered { .. }));

    let foreign = record(&Keypair::generate_ed25519(), 1);
    let mut forged = own.clone();
    *forged.last_mut().unwrap() ^= 1;
    let standard = {
        let address: Multiaddr = "/ip4/192.0.2.7/tcp/2428".parse().unwrap();
        let record = PeerRecord::new_interop(&client.keypair, vec![address]).unwrap();
        record.into_signed_envelope().into_protobuf_encoding()
    };
    // Signed by the right key, for another purpose.
    let other_purpose = {
        let (domain, kind) = ("somewhere-else".to_owned(), b"/libp2p/routing-state-record");
        let envelope = SignedEnvelope::new(&client.keypair, domain, kind.to_vec(), vec![1]);
        envelope.unwrap().into_protobuf_encoding()
    };
    for (bytes, refusal) in [
        (foreign, Refusal::NotAuthorized),
        (forged, Refusal::Record),
        (standard, Refusal::Record),
        (other_purpose, Refusal::Record),
        (record(&client.keypair, 0), Refusal::Record),
        (record(&client.keypair, 100), Refusal::Record),
        (own[..own.len() / 2].to_vec(), Refusal::Record),
        (b"nonsense".to_vec(), Refusal::Record),
        (Vec::new(), Refusal::Record),
    ] {
        let answer = client.ask(&register("ns", &bytes)).await.unwrap();
        assert_eq!(i64::from(status(&answer)), i64::from(refusal.code()));
        let (event, held) = server.event().await;
        let Event::Refused {
            request: AnswerKind::Register,
            refusal: told,
            ..
        } = event
        else {
            panic!("{event:?}");
        };
        assert_eq!((told, held.registrations), (refusal, 1));
    }
}

#[tokio::test]
async fn what_is_no_request_ends_its_stream_and_nothing_else() {
    let mut server = Server::start(TCP, |_| {}).await;
    let client = Client::connect(&server).await;
    // A mebibyte, a gigabyte, and a length without end: refused by the claim.
    for claim in [
        &b"\x80\x80\x40"[..],
        b"\x80\x80\x80\x80\x04",
        &[0xff; 12],
        b"\x00",
        b"\x02\xff\xff",
        b"\x02\x08\x09",
        b"\x04\x08\x01\x1a\x00",
    ] {
        let answer = client.ask(claim).await;
        assert!(
            answer.as_ref().is_ok_and(Vec::is_empty) || answer.is_err(),
            "{answer:?}"
        );
        let (event, _) = server.event().await;
        let failure = match event {
            Event::Failed { failure, .. } => failure,
            other => panic!("{other:?}"),
        };
        let fits = matches!(failure, Failure::TooLong { .. } | Failure::Malformed);
        assert!(fits, "{failure:?}");
    }
    let own = record(&client.keypair, 1);
    assert_eq!(status(&client.ask(&register("ns", &own)).await.unwrap()), 0);
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let mut server = Server::start(TCP, |config| {
        config.tuning.request_timeout = Duration::from_millis(300);
    })
    .await;
    let client = Client::connect(&server).await;
    let mut stream = client.open().await;
    stream.write_all(b"\x20\x08").await.unwrap();
    stream.flush().await.unwrap();
    let (event, _) = server.event().await;
    let Event::Failed {
        failure: Failure::Late { .. },
        ..
    } = event
    else {
        panic!("{event:?}");
    };
    let mut rest = Vec::new();
    let end = within(stream.read_to_end(&mut rest)).await;
    assert!(end.is_err() || rest.is_empty());
}

/// Counts failures by kind until there are `wanted` events.
async fn outcomes(server: &mut Server, wanted: usize) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..wanted {
        let kind = match server.event().await.0 {
            Event::Registered { .. } => "registered",
            Event::Discovered { .. } => "discovered",
            Event::Refused { .. } => "refused",
            Event::Failed { failure, .. } => match failure {
                Failure::TooMany { .. } => "too many",
                Failure::TooFast => "too fast",
                Failure::Late { .. } => "late",
                _ => "failed",
            },
            _ => "other",
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn streams_beyond_the_limits_are_refused_and_others_are_served() {
    let mut server = Server::start(TCP, |config| {
        config.tuning.max_requests_per_peer = 4;
        config.tuning.max_requests = 6;
        config.tuning.request_timeout = DEADLINE;
    })
    .await;
    let (one, two) = (
        Client::connect(&server).await,
        Client::connect(&server).await,
    );
    // Streams that are open and say nothing hold their places.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(one.open().await);
    }
    let nothing = one.ask(&discover("ns")).await;
    assert!(nothing.is_err() || nothing.is_ok_and(|answer| answer.is_empty()));
    assert_eq!(
        outcomes(&mut server, 1).await,
        BTreeMap::from([("too many", 1)])
    );

    // Another peer still gets permits, until all are used.
    assert!(!two.ask(&discover("ns")).await.unwrap().is_empty());
    assert_eq!(
        outcomes(&mut server, 1).await,
        BTreeMap::from([("discovered", 1)])
    );
    held.push(two.open().await);
    held.push(two.open().await);
    let nothing = two.ask(&discover("ns")).await;
    assert!(nothing.is_err() || nothing.is_ok_and(|answer| answer.is_empty()));
    assert_eq!(
        outcomes(&mut server, 1).await,
        BTreeMap::from([("too many", 1)])
    );

    drop(held);
    let ended = outcomes(&mut server, 6).await;
    assert_eq!(ended, BTreeMap::from([("failed", 6)]));
    assert!(!one.ask(&discover("ns")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_of_registrations_is_held_back_and_leaves_room_for_others() {
    let mut server = Server::start(TCP, |config| {
        config.tuning.max_registrations_per_peer = 10;
        config.tuning.request_burst = 20;
        config.tuning.requests_per_second = 1;
        config.tuning.request_timeout = Duration::from_secs(2);
    })
    .await;
    let hostile = Client::connect(&server).await;
    let own = record(&hostile.keypair, 1);
    let flood = (0..60).map(|index| {
        let request = register(&format!("ns{index}"), &own);
        let hostile = &hostile;
        async move { hostile.ask(&request).await }
    });
    join_all(flood).await;
    let counts = outcomes(&mut server, 60).await;
    assert_eq!(counts["registered"], 10, "{counts:?}");
    // The burst is served, and what comes back in the time; all else is sent away.
    assert!(counts["refused"] >= 10, "{counts:?}");
    assert!(counts["too fast"] > 0, "{counts:?}");

    let honest = Client::connect(&server).await;
    let own = record(&honest.keypair, 1);
    assert_eq!(status(&honest.ask(&register("ns", &own)).await.unwrap()), 0);
}

/// An accounting in which `resource` has this limit. A loopback address gets twice `origin`.
fn resources(resource: Resource, node: u64, origin: u64, peer: u64) -> Resources {
    let mut limits = Limits::default();
    let reserve = 0;
    let limit = Limit {
        node,
        reserve,
        origin,
        peer,
    };
    limits.set(resource, limit);
    Resources::new(limits)
}

/// Many identities of one address get the share of the address. Their registrations are renewed,
/// and a peer of another address registers.
#[tokio::test]
async fn one_address_gets_its_share_of_the_registrations() {
    const SHARE: usize = 12;
    let limits = resources(Resource::Registrations, 100, SHARE as u64 / 2, 64);
    let server = Server::start_with(TCP, limits.clone()).await;
    let mut registered = Vec::new();
    for nth in 0..4 * SHARE {
        let client = Client::connect(&server).await;
        let own = record(&client.keypair, 1);
        let request = register(&format!("ns{nth}"), &own);
        match status(&client.ask(&request).await.unwrap()) {
            0 => registered.push((client, request)),
            // `E_UNAVAILABLE`
            400 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(registered.len(), SHARE);
    assert_eq!(limits.used(Resource::Registrations), SHARE as u64);
    let (client, request) = &registered[0];
    assert_eq!(status(&client.ask(request).await.unwrap()), 0);
    assert_eq!(limits.used(Resource::Registrations), SHARE as u64);

    let address = from_other_address(&server.address).await;
    let honest = Client::connect_at(&server, &address).await;
    let own = record(&honest.keypair, 1);
    assert_eq!(status(&honest.ask(&register("ns", &own)).await.unwrap()), 0);
}

/// Many identities of one address that open streams and send nothing get the share of the address. A
/// peer of another address is served.
#[tokio::test]
async fn one_address_gets_its_share_of_the_requests() {
    const SHARE: usize = 8;
    let limits = resources(Resource::RendezvousRequests, 64, SHARE as u64 / 2, 4);
    let mut server = Server::start_with(TCP, limits.clone()).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(&server).await;
        for _ in 0..4 {
            held.push(client.open().await);
        }
    }
    let refused = outcomes(&mut server, held.len() - SHARE).await;
    assert_eq!(refused, BTreeMap::from([("too many", held.len() - SHARE)]));
    assert_eq!(limits.used(Resource::RendezvousRequests), SHARE as u64);

    let address = from_other_address(&server.address).await;
    let honest = Client::connect_at(&server, &address).await;
    assert!(!honest.ask(&discover("ns")).await.unwrap().is_empty());
}
