//! Peers that open streams of the protocol and violate it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use calimero_network_primitives::resources::{Limit, Limits, Resource, Resources};
use calimero_network_specialized::{
    Behaviour, DecodeError, Event, InboundFailure, Message, OutboundFailure, Part, Refusal, Scope,
    SpecializedConfig, SpecializedNodeInviteResponse as Response, SpecializedTuning,
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, future::BoxFuture};
use libp2p_identity::PeerId;
use libp2p_stream::{self as stream, Control};
use libp2p_swarm::{Stream, StreamProtocol, Swarm, SwarmEvent};
use libp2p_swarm_test::SwarmExt;
use support::{DEADLINE, SHORT, event, failure_of, node, request};

const INVITE: StreamProtocol = StreamProtocol::new("/calimero/specialized-node-invite/1.0.0");

/// Delay between two bytes of a slow peer.
const TRICKLE: Duration = Duration::from_millis(10);

fn config() -> SpecializedConfig {
    SpecializedConfig::default()
}

fn short_timeouts() -> SpecializedConfig {
    SpecializedConfig {
        request_timeout: SHORT,
        answer_timeout: SHORT,
        tuning: SpecializedTuning {
            receive_timeout: SHORT,
            ..config().tuning
        },
    }
}

/// Starts a node, and a connected peer with streams that the test controls.
async fn node_and_raw_peer(config: &SpecializedConfig) -> (Swarm<Behaviour>, Control, PeerId) {
    let mut swarm = node(config);
    let mut raw = Swarm::new_ephemeral_tokio(|_| stream::Behaviour::new());
    support::connect(&mut swarm, &mut raw).await;
    let (control, raw_id) = (raw.behaviour().new_control(), *raw.local_peer_id());
    tokio::spawn(raw.loop_on_next());
    (swarm, control, raw_id)
}

/// Opens a stream, writes `bytes`, closes the stream if `close` is set, and
/// reads to its end.
async fn talk(mut control: Control, to: PeerId, bytes: Vec<u8>, close: bool) -> Vec<u8> {
    let mut stream = control.open_stream(to, INVITE).await.unwrap();
    // The node may close the stream while the peer still writes.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    if close {
        let _ = stream.close().await;
    }
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    received
}

/// Returns the failure that the node reports for `bytes`, and what their sender
/// receives.
async fn reported(
    config: &SpecializedConfig,
    bytes: &[u8],
    close: bool,
) -> (InboundFailure, Vec<u8>) {
    let (mut swarm, control, _) = node_and_raw_peer(config).await;
    let to = *swarm.local_peer_id();
    let received = tokio::spawn(talk(control, to, bytes.to_vec(), close));
    let failure = match event(&mut swarm).await {
        Event::InboundFailure { failure, .. } => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(swarm.behaviour().inbound_requests(), 0);
    let received = async {
        tokio::select! {
            received = received => received.unwrap(),
            event = event(&mut swarm) => panic!("{event:?}"),
        }
    };
    let received = tokio::time::timeout(DEADLINE, received).await.unwrap();
    (failure, received)
}

fn refusal_in(received: Vec<u8>) -> Option<Refusal> {
    Response::decode(Bytes::from(received), usize::MAX)
        .unwrap()
        .as_refusal()
}

#[tokio::test]
async fn a_claim_of_4_gib_is_refused() {
    let claim = [0xff; 4];
    let nonce = [&[0][..], &[7; 32]].concat();
    let (failure, received) = reported(&config(), &[&claim[..], &nonce].concat(), false).await;
    let limit = config().tuning.max_message_bytes;
    let claimed = 0xffff_ffff;
    match failure {
        InboundFailure::Request(error) => {
            assert_eq!(error, DecodeError::TooLarge { limit, claimed });
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(refusal_in(received), Some(Refusal::TooLarge));
}

#[tokio::test]
async fn a_claim_without_a_nonce_only_ends_the_stream() {
    let (failure, received) = reported(&config(), &[0xff; 4], true).await;
    assert!(
        matches!(
            failure,
            InboundFailure::Request(DecodeError::TooLarge { .. })
        ),
        "{failure:?}"
    );
    assert!(received.is_empty());
}

#[tokio::test]
async fn a_request_that_is_truncated_is_reported_with_the_missing_bytes() {
    let wire = request(7).encode(usize::MAX).unwrap();
    let (failure, received) = reported(&config(), &wire[..1000], true).await;
    let (part, missing) = (Part::Body, wire.len() - 1000);
    match failure {
        InboundFailure::Request(error) => assert_eq!(error, DecodeError::Cut { part, missing }),
        other => panic!("{other:?}"),
    }
    assert!(received.is_empty());
}

#[tokio::test]
async fn a_malformed_request_is_refused_by_its_nonce() {
    let body = [&[0][..], &[7; 32], &[0xff; 4], &[9; 32]].concat();
    let prefix = u32::try_from(body.len()).unwrap().to_be_bytes();
    let (failure, received) = reported(&config(), &[&prefix[..], &body].concat(), false).await;
    let (part, missing) = (Part::QuoteBytes, 0xffff_ffff - 32);
    match failure {
        InboundFailure::Request(error) => assert_eq!(error, DecodeError::Cut { part, missing }),
        other => panic!("{other:?}"),
    }
    assert_eq!(refusal_in(received), Some(Refusal::Malformed));
}

#[tokio::test]
async fn a_request_of_another_kind_only_ends_the_stream() {
    let (failure, received) = reported(&config(), &[0, 0, 0, 1, 9], false).await;
    let variant = 9;
    match failure {
        InboundFailure::Request(error) => {
            assert_eq!(error, DecodeError::UnknownVariant { variant })
        }
        other => panic!("{other:?}"),
    }
    assert!(received.is_empty());
}

#[tokio::test]
async fn a_request_sent_slowly_is_dropped() {
    let (mut swarm, mut control, _) = node_and_raw_peer(&short_timeouts()).await;
    let to = *swarm.local_peer_id();
    let slow = tokio::spawn(async move {
        let mut stream = control.open_stream(to, INVITE).await.unwrap();
        let wire = request(7).encode(usize::MAX).unwrap();
        let mut written = 0;
        for byte in wire.chunks(1) {
            if stream.write_all(byte).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            written += 1;
            tokio::time::sleep(TRICKLE).await;
        }
        written < wire.len()
    });
    let failure = match event(&mut swarm).await {
        Event::InboundFailure { failure, .. } => failure,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(failure, InboundFailure::Slow { after: SHORT }),
        "{failure:?}"
    );
    assert_eq!(swarm.behaviour().inbound_requests(), 0);
    let stopped = async {
        tokio::select! {
            stopped = slow => stopped.unwrap(),
            event = event(&mut swarm) => panic!("{event:?}"),
        }
    };
    assert!(stopped.await, "the stream has ended under the writer");
}

#[tokio::test]
async fn an_unread_answer_releases_its_permit() {
    let (mut swarm, mut control, _) = node_and_raw_peer(&short_timeouts()).await;
    let to = *swarm.local_peer_id();
    let held = tokio::spawn(async move {
        let mut stream = control.open_stream(to, INVITE).await.unwrap();
        let wire = request(7).encode(usize::MAX).unwrap();
        stream.write_all(&wire).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    let channel = match event(&mut swarm).await {
        Event::Request { channel, .. } => channel,
        other => panic!("{other:?}"),
    };
    // Larger than the stream window, so that the rest waits for the reader.
    let answer = Response::invitation([7; 32], vec![0; 1_000_000]);
    channel.send(&answer).unwrap();
    let failure = match event(&mut swarm).await {
        Event::InboundFailure { failure, .. } => failure,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(failure, InboundFailure::NotTaken { after: SHORT }),
        "{failure:?}"
    );
    assert_eq!(swarm.behaviour().inbound_requests(), 0);
    drop(held.await.unwrap());
}

/// A peer that opens streams and sends nothing uses only the permits of its own
/// connection, and requests of other peers are served.
#[tokio::test]
async fn silent_streams_use_eight_permits_and_no_more() {
    const STREAMS: usize = 100;
    let (mut swarm, control, _) = node_and_raw_peer(&config()).await;
    let to = *swarm.local_peer_id();
    let silent = tokio::spawn(async move {
        let opened = (0..STREAMS).map(|_| {
            let mut control = control.clone();
            async move {
                let mut stream = control.open_stream(to, INVITE).await.unwrap();
                // Negotiation is lazy: nothing is sent before the first byte is
                // written.
                let _ = stream.write_all(&[0]).await;
                let _ = stream.flush().await;
                stream
            }
        });
        futures::future::join_all(opened).await
    });
    for _ in 0..STREAMS - 8 {
        match event(&mut swarm).await {
            Event::InboundFailure {
                peer,
                failure: InboundFailure::TooMany { limit: 8, scope },
                ..
            } => assert_eq!(scope, Scope::Peer(peer)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(swarm.behaviour().inbound_requests(), 8);

    let mut honest = node(&config());
    swarm.listen().with_memory_addr_external().await;
    honest.connect(&mut swarm).await;
    honest.behaviour_mut().send_request(to, &request(7));
    let served = tokio::spawn(async move { event(&mut honest).await });
    loop {
        match event(&mut swarm).await {
            Event::Request { channel, .. } => {
                break channel.send(&Response::error([7; 32], "no")).unwrap();
            }
            Event::InboundFailure { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    tokio::spawn(swarm.loop_on_next());
    let served = served.await.unwrap();
    assert!(matches!(served, Event::Response { .. }), "{served:?}");
    drop(silent.await.unwrap());
}

/// Returns the result of a request to a peer that runs `act` on its stream.
async fn asked(
    config: &SpecializedConfig,
    act: fn(Stream) -> BoxFuture<'static, ()>,
) -> OutboundFailure {
    let (mut swarm, mut control, raw) = node_and_raw_peer(config).await;
    let mut incoming = control.accept(INVITE).unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            act(stream).await;
        }
    });
    let id = swarm.behaviour_mut().send_request(raw, &request(7));
    failure_of(id, event(&mut swarm).await)
}

#[tokio::test]
async fn an_answer_of_4_gib_is_refused() {
    let failure = asked(&config(), |mut stream| {
        Box::pin(async move {
            let _ = stream.write_all(&[0xff; 64]).await;
            let _ = stream.flush().await;
            futures::future::pending().await
        })
    })
    .await;
    let (limit, claimed) = (config().tuning.max_message_bytes, 0xffff_ffff);
    match failure {
        OutboundFailure::Answer(error) => {
            assert_eq!(error, DecodeError::TooLarge { limit, claimed });
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_sent_slowly_meets_the_deadline() {
    let failure = asked(&short_timeouts(), |mut stream| {
        Box::pin(async move {
            let wire = Response::invitation([7; 32], vec![0; 5000]);
            for byte in wire.encode(usize::MAX).unwrap().chunks(1) {
                let _ = stream.write_all(byte).await;
                let _ = stream.flush().await;
                tokio::time::sleep(TRICKLE).await;
            }
        })
    })
    .await;
    assert!(
        matches!(failure, OutboundFailure::Deadline { after: SHORT }),
        "{failure:?}"
    );
}

#[tokio::test]
async fn silence_meets_the_deadline() {
    let failure = asked(&short_timeouts(), |stream| {
        Box::pin(async move {
            let _kept = stream;
            futures::future::pending().await
        })
    })
    .await;
    assert!(
        matches!(failure, OutboundFailure::Deadline { after: SHORT }),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_truncated_is_reported_with_the_missing_bytes() {
    let failure = asked(&config(), |mut stream| {
        Box::pin(async move {
            let _ = stream.write_all(&[0, 0, 1, 0, 7, 7]).await;
            let _ = stream.close().await;
        })
    })
    .await;
    let (part, missing) = (Part::Body, 254);
    match failure {
        OutboundFailure::Answer(error) => assert_eq!(error, DecodeError::Cut { part, missing }),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_closed_without_an_answer_is_unanswered() {
    let failure = asked(&config(), |mut stream| {
        Box::pin(async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = stream.close().await;
        })
    })
    .await;
    assert!(
        matches!(failure, OutboundFailure::Unanswered),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_answer_with_trailing_bytes_is_refused() {
    let failure = asked(&config(), |mut stream| {
        Box::pin(async move {
            let body = [&[7; 32][..], &[0, 0, 1]].concat();
            let wire = [&[0, 0, 0, 35][..], &body].concat();
            let _ = stream.write_all(&wire).await;
            let _ = stream.close().await;
        })
    })
    .await;
    match failure {
        OutboundFailure::Answer(error) => assert_eq!(error, DecodeError::Trailing { bytes: 1 }),
        other => panic!("{other:?}"),
    }
}

/// Many identities of one address that open streams and send a byte get the share of the address. A
/// peer that does not connect from it is served.
#[tokio::test]
async fn one_address_gets_its_share_of_the_requests() {
    const SHARE: usize = 8;
    const PER_PEER: usize = 4;
    let mut limits = Limits::default();
    // A loopback address gets twice the limit of an origin.
    limits.update(Resource::InviteRequests, |limit| Limit {
        origin: SHARE as u64 / 2,
        peer: PER_PEER as u64,
        ..limit
    });
    let resources = Resources::new(limits);
    let mut swarm = Swarm::new_ephemeral_tokio(|_| {
        Behaviour::with_resources(&config(), resources.clone()).unwrap()
    });
    let to = *swarm.local_peer_id();
    let (in_memory, _tcp) = swarm.listen().with_tcp_addr_external().await;
    let mut controls = Vec::new();
    for _ in 0..4 {
        let mut raw = Swarm::new_ephemeral_tokio(|_| stream::Behaviour::new());
        raw.connect(&mut swarm).await;
        controls.push(raw.behaviour().new_control());
        tokio::spawn(raw.loop_on_next());
    }
    let refused = controls.len() * PER_PEER - SHARE;
    for mut control in controls {
        tokio::spawn(async move {
            let mut streams = Vec::new();
            for _ in 0..PER_PEER {
                let mut stream = control.open_stream(to, INVITE).await.unwrap();
                // A stream that is refused can end before.
                let _ = stream.write_all(&[0]).await;
                let _ = stream.flush().await;
                streams.push(stream);
            }
            std::future::pending::<()>().await;
        });
    }
    for _ in 0..refused {
        match event(&mut swarm).await {
            Event::InboundFailure {
                failure: InboundFailure::TooMany { limit, scope },
                ..
            } => {
                assert_eq!(limit, SHARE);
                assert!(matches!(scope, Scope::Origin(_)), "{scope}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resources.used(Resource::InviteRequests), SHARE as u64);

    let mut honest = node(&config());
    honest.dial(in_memory).unwrap();
    let served = tokio::spawn(async move {
        let connected = |event| matches!(event, SwarmEvent::ConnectionEstablished { .. });
        while !connected(honest.select_next_some().await) {}
        honest.behaviour_mut().send_request(to, &request(7));
        event(&mut honest).await
    });
    loop {
        match event(&mut swarm).await {
            Event::Request { channel, .. } => {
                break channel.send(&Response::error([7; 32], "no")).unwrap();
            }
            // Silent streams whose time is over.
            Event::InboundFailure {
                failure: InboundFailure::Slow { .. },
                ..
            } => {}
            other => panic!("{other:?}"),
        }
    }
    tokio::spawn(swarm.loop_on_next());
    let served = served.await.unwrap();
    assert!(matches!(served, Event::Response { .. }), "{served:?}");
}
