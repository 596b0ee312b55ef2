//! The adapter against the published primitives: a stub node in an actor system, on this crate and
//! on the published one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use calimero_network::network;
use calimero_network_primitives::{
    blob_types::{BlobAuth, BlobChunk, BlobRequest, BlobResponse},
    client::is_no_peers_subscribed_error,
    messages::{
        AnnounceBlob, Bootstrap, Dial, IdentTopic, ListenOn, MeshPeerCount, MeshPeers, MeshStats,
        MessageId, NetworkEvent as Event, NetworkMessage, NetworkStatus, OpenStream, PeerCount,
        PeerId, Publish, QueryBlob, RequestBlob, SendSpecializedNodeInvitationResponse,
        SendSpecializedNodeVerificationRequest, SetPeerScore, Subscribe, SubscribedPeers,
        TopicHash, Unsubscribe,
    },
    network_status::ReachabilityKind,
    specialized_node_invite::{SpecializedNodeInvitationResponse, VerificationRequest},
    stream::{CALIMERO_BLOB_PROTOCOL, CALIMERO_STREAM_PROTOCOL, Message, Stream},
};
use calimero_primitives::{blobs::BlobId, context::ContextId};
use calimero_store::{Store, db::InMemoryDB};
use futures::{AsyncWriteExt as _, SinkExt as _, StreamExt as _};
use support::{Implementation, Node, PANIC, QUIC, TCP, registry_text, within};
use tokio::sync::oneshot;

const ADAPTER: Implementation = Implementation::Adapter;
const PUBLISHED: Implementation = Implementation::Published;

const CONTEXT: [u8; 32] = [7; 32];

/// Sends a message to the actor and returns its outcome, which must come.
macro_rules! ask {
    ($node:expr, $variant:ident, $request:expr) => {{
        let (outcome, answer) = oneshot::channel();
        let request = $request;
        $node
            .send(NetworkMessage::$variant { request, outcome })
            .await;
        within(answer)
            .await
            .unwrap_or_else(|_| panic!("{} is not answered", stringify!($variant)))
    }};
}

fn topic(name: &str) -> (IdentTopic, TopicHash) {
    let topic = IdentTopic::new(name);
    let hash = topic.hash();
    (topic, hash)
}

fn attestation() -> VerificationRequest {
    VerificationRequest::TeeAttestation {
        nonce: [3; 32],
        quote_bytes: vec![5; 1000],
        public_key: [9; 32].into(),
    }
}

/// Two nodes that are connected over TCP.
async fn pair(one: Implementation, other: Implementation) -> (Node, Node) {
    pair_on(TCP, one, other).await
}

/// Two connected nodes that listen on this address.
async fn pair_on(listen: &str, one: Implementation, other: Implementation) -> (Node, Node) {
    let one = Node::start_on(listen, one).await;
    let other = Node::start_on(listen, other).await;
    within(one.client.dial(other.address.clone()))
        .await
        .unwrap();
    one.connected_to(1).await;
    other.connected_to(1).await;
    (one, other)
}

async fn send(stream: &mut Stream, data: Vec<u8>) {
    within(stream.send(Message::new(data))).await.unwrap();
}

async fn receive(stream: &mut Stream) -> Vec<u8> {
    let message = within(stream.next()).await.expect("the stream ended");
    message.unwrap().data.into_owned()
}

/// The next stream that a peer opened.
async fn opened(node: &mut Node) -> (PeerId, Stream) {
    node.until(|event| match event {
        Event::StreamOpened {
            peer_id,
            stream,
            protocol,
        } => {
            assert_eq!(protocol, CALIMERO_STREAM_PROTOCOL);
            Ok((peer_id, *stream))
        }
        other => Err(other),
    })
    .await
}

#[actix::test]
async fn every_message_is_answered_also_after_the_end() {
    let node = Node::start(ADAPTER).await;
    let other = PeerId::random();
    let (ident, hash) = topic("weather");
    let (blob_id, context_id) = (BlobId::from([1; 32]), ContextId::from(CONTEXT));
    // A channel whose request has ended, as the node may hold one.
    let (mut asking, mut asked) = pair(ADAPTER, ADAPTER).await;
    for stopped in [false, true] {
        if stopped {
            node.shutdown().await;
        }
        let unreachable = format!("/ip4/127.0.0.1/tcp/1/p2p/{other}").parse().unwrap();
        assert!(ask!(node, Dial, Dial(unreachable)).is_err());
        let listening = ask!(
            node,
            ListenOn,
            ListenOn("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        );
        assert_eq!(listening.is_err(), stopped);
        let subscribed = ask!(node, Subscribe, Subscribe(ident.clone()));
        assert_eq!(subscribed.is_err(), stopped);
        let publish = Publish {
            topic: hash.clone(),
            data: vec![1],
        };
        let error = ask!(node, Publish, publish).unwrap_err();
        assert_eq!(is_no_peers_subscribed_error(&error), !stopped);
        assert!(ask!(node, OpenStream, OpenStream(other)).is_err());
        assert_eq!(ask!(node, PeerCount, PeerCount), 0);
        assert!(ask!(node, MeshPeers, MeshPeers(hash.clone())).is_empty());
        assert!(ask!(node, SubscribedPeers, SubscribedPeers(hash.clone())).is_empty());
        assert_eq!(ask!(node, MeshPeerCount, MeshPeerCount(hash.clone())), 0);
        let stats = ask!(node, MeshStats, MeshStats);
        assert_eq!(stats.len(), usize::from(!stopped));
        let status = ask!(node, NetworkStatus, NetworkStatus);
        assert_eq!(status.local_peer_id, node.peer_id);
        assert_eq!(status.listen_addrs.is_empty(), stopped);
        let announce = AnnounceBlob {
            blob_id,
            context_id,
            size: 9,
        };
        assert_eq!(ask!(node, AnnounceBlob, announce).is_err(), stopped);
        let query = |context_id| QueryBlob {
            blob_id,
            context_id,
        };
        assert!(ask!(node, QueryBlob, query(None)).is_err());
        match ask!(node, QueryBlob, query(Some(context_id))) {
            Ok(providers) => assert!(providers.is_empty() && !stopped),
            Err(_) => assert!(stopped),
        }
        let request = RequestBlob {
            blob_id,
            context_id,
            peer_id: other,
            auth: None,
        };
        assert!(ask!(node, RequestBlob, request).is_err());
        let verify = SendSpecializedNodeVerificationRequest {
            peer_id: other,
            request: attestation(),
        };
        let asked_for = ask!(node, SendSpecializedNodeVerificationRequest, verify);
        assert_eq!(asked_for.is_err(), stopped);
        let score = SetPeerScore {
            peer_id: other,
            score: 10.0,
        };
        ask!(node, SetPeerScore, score);
        let unsubscribed = ask!(node, Unsubscribe, Unsubscribe(ident.clone()));
        assert_eq!(unsubscribed.is_err(), stopped);
    }
    assert!(ask!(node, Bootstrap, Bootstrap).is_err());

    within(asking.client.bootstrap()).await.unwrap();
    let to = asked.peer_id;
    let request = asking
        .client
        .send_specialized_node_verification_request(to, attestation());
    within(request).await.unwrap();
    let channel = asked
        .until(|event| match event {
            Event::SpecializedNodeVerificationRequest { channel, .. } => Ok(channel),
            other => Err(other),
        })
        .await;
    asked.shutdown().await;
    let response = SpecializedNodeInvitationResponse::error([3; 32], "too late");
    let respond = SendSpecializedNodeInvitationResponse { channel, response };
    assert!(ask!(asked, SendSpecializedNodeInvitationResponse, respond).is_err());
    asking.assert_no(|event| matches!(event, Event::SpecializedNodeInvitationResponse { .. }));
}

/// Messages of topics in both directions, and all that is asked of topics.
async fn gossip(listen: &str, one: Implementation, other: Implementation) {
    let (mut one, mut other) = pair_on(listen, one, other).await;
    let (ident, hash) =
        topic("group/4444444444444444444444444444444444444444444444444444444444444444");
    for node in [&one, &other] {
        within(node.client.subscribe(ident.clone())).await.unwrap();
    }
    let (one_id, other_id) = (one.peer_id, other.peer_id);
    for (node, peer) in [(&mut one, other_id), (&mut other, one_id)] {
        let subscribed = |event| match event {
            Event::Subscribed { peer_id, topic } => Ok((peer_id, topic)),
            other => Err(other),
        };
        assert_eq!(node.until(subscribed).await, (peer, hash.clone()));
        assert_eq!(
            within(node.client.subscribed_peers(hash.clone())).await,
            [peer]
        );
        node.client.set_peer_score(peer, 5.0);
    }
    let mut swapped = [&mut one, &mut other];
    for round in 0..4u8 {
        let [from, to] = &mut swapped;
        let data = vec![round; 30_000];
        let id = within(from.client.publish(hash.clone(), data.clone()))
            .await
            .unwrap();
        let (seen, message) = to
            .until(|event| match event {
                Event::Message { id, message } => Ok((id, message)),
                other => Err(other),
            })
            .await;
        assert_eq!((&seen, &message.data), (&id, &data));
        assert_eq!(
            (message.source, &message.topic),
            (Some(from.peer_id), &hash)
        );
        let number = message.sequence_number.unwrap();
        assert_eq!(
            id,
            MessageId::new(format!("{}{number}", from.peer_id).as_bytes())
        );
        swapped.reverse();
    }
    // The mesh is made at a heartbeat.
    within(async {
        while one.client.mesh_peer_count(hash.clone()).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(
        within(one.client.mesh_peers(hash.clone())).await,
        [other.peer_id]
    );
    assert_eq!(within(one.client.mesh_stats()).await, [(hash.clone(), 1)]);

    within(other.client.unsubscribe(ident)).await.unwrap();
    let left = one
        .until(|event| match event {
            Event::Unsubscribed { peer_id, topic } => Ok((peer_id, topic)),
            other => Err(other),
        })
        .await;
    assert_eq!(left, (other.peer_id, hash.clone()));
    let unheard = within(one.client.publish(hash, vec![1])).await.unwrap_err();
    assert!(is_no_peers_subscribed_error(&unheard), "{unheard:#}");
}

#[actix::test]
async fn two_adapters_exchange_gossip() {
    for listen in [TCP, QUIC] {
        gossip(listen, ADAPTER, ADAPTER).await;
    }
}

#[actix::test]
async fn an_adapter_and_the_published_crate_exchange_gossip() {
    for listen in [TCP, QUIC] {
        gossip(listen, ADAPTER, PUBLISHED).await;
        gossip(listen, PUBLISHED, ADAPTER).await;
    }
}

#[actix::test]
async fn a_message_above_the_limit_of_published_nodes_is_refused_as_too_large() {
    let (mut one, other) = pair(ADAPTER, ADAPTER).await;
    let (ident, hash) = topic("weather");
    within(other.client.subscribe(ident)).await.unwrap();
    one.until(|event| match event {
        Event::Subscribed { .. } => Ok(()),
        other => Err(other),
    })
    .await;
    let error = within(one.client.publish(hash, vec![1; 100_000]))
        .await
        .unwrap_err();
    assert!(!is_no_peers_subscribed_error(&error));
    assert!(
        format!("{error:#}").contains("payload of 100000 bytes"),
        "{error:#}"
    );
}

#[actix::test]
async fn a_panic_of_the_dispatcher_costs_one_event() {
    let (mut one, mut other) = pair(ADAPTER, ADAPTER).await;
    let (ident, hash) = topic("weather");
    within(other.client.subscribe(ident)).await.unwrap();
    one.until(|event| match event {
        Event::Subscribed { .. } => Ok(()),
        other => Err(other),
    })
    .await;
    for data in [PANIC, b"sun"] {
        let published = one.client.publish(hash.clone(), data.to_vec());
        within(published).await.unwrap();
    }
    let message = other
        .until(|event| match event {
            Event::Message { message, .. } => Ok(message),
            other => Err(other),
        })
        .await;
    assert_eq!(message.data, b"sun");
}

/// Streams that each side opens, in both directions, to their end.
async fn streams(listen: &str, one: Implementation, other: Implementation) {
    let (mut one, mut other) = pair_on(listen, one, other).await;
    let mut swapped = [&mut one, &mut other];
    for _ in 0..2 {
        let [from, to] = &mut swapped;
        let mut here = within(from.client.open_stream(to.peer_id)).await.unwrap();
        // The other side learns of the stream by its first bytes.
        send(&mut here, b"hello".to_vec()).await;
        let (peer, mut there) = opened(to).await;
        assert_eq!(peer, from.peer_id);
        assert_eq!(receive(&mut there).await, b"hello");
        for size in [0, 1, 70_000, 8 << 20] {
            let data = vec![size as u8; size];
            // Neither side waits for the other to read.
            let (_, received) = tokio::join!(send(&mut there, data.clone()), receive(&mut here));
            assert!(received == data, "{size} bytes back");
            let (_, received) = tokio::join!(send(&mut here, data.clone()), receive(&mut there));
            assert!(received == data, "{size} bytes forth");
        }
        // An end in one direction only.
        within(here.close()).await.unwrap();
        assert!(within(there.next()).await.is_none());
        send(&mut there, b"the last".to_vec()).await;
        assert_eq!(receive(&mut here).await, b"the last");
        // Dropping a stream delivers what was sent, and ends it.
        send(&mut there, b"the very last".to_vec()).await;
        drop(there);
        assert_eq!(receive(&mut here).await, b"the very last");
        let end = within(here.next()).await;
        assert!(end.is_none(), "{end:?}");
        swapped.reverse();
    }
}

#[actix::test]
async fn two_adapters_exchange_streams() {
    for listen in [TCP, QUIC] {
        streams(listen, ADAPTER, ADAPTER).await;
    }
}

#[actix::test]
async fn an_adapter_and_the_published_crate_exchange_streams() {
    for listen in [TCP, QUIC] {
        streams(listen, ADAPTER, PUBLISHED).await;
    }
}

#[actix::test]
async fn a_dropped_stream_ends_and_a_reset_is_an_error() {
    let mut node = Node::start(ADAPTER).await;
    let other = Node::start(ADAPTER).await;
    within(other.client.dial(node.address.clone()))
        .await
        .unwrap();
    let mut dropped = within(other.client.open_stream(node.peer_id))
        .await
        .unwrap();
    send(&mut dropped, b"hi".to_vec()).await;
    drop(dropped);
    let (_, mut stream) = opened(&mut node).await;
    assert_eq!(receive(&mut stream).await, b"hi");
    let end = within(stream.next()).await;
    assert!(end.is_none(), "{end:?}");

    let peer = node.manager_peer().await;
    let protocol = network::StreamProtocol::new("/calimero/stream/0.0.2");
    // A reset between two frames, a reset and an end inside a frame.
    for (wire, closes) in [
        (&b"\0\0\0\x02hi"[..], false),
        (b"\0\0\0\x05hel", false),
        (b"\0\0", true),
    ] {
        let mut raw = within(peer.open_raw_stream(node.manager_id(), protocol.clone()))
            .await
            .unwrap();
        raw.write_all(wire).await.unwrap();
        raw.flush().await.unwrap();
        let (_, mut stream) = opened(&mut node).await;
        if wire.ends_with(b"hi") {
            assert_eq!(receive(&mut stream).await, b"hi");
        }
        if closes {
            raw.close().await.unwrap();
        }
        drop(raw);
        let end = within(stream.next()).await;
        assert!(matches!(end, Some(Err(_))), "{wire:?}: {end:?}");
    }
    within(peer.shutdown()).await.unwrap();
}

/// Serves a blob as the node does, once. Returns what was asked.
async fn serve(node: &mut Node, content: Option<&[u8]>) -> BlobRequest {
    let mut stream = node
        .until(|event| match event {
            Event::StreamOpened {
                stream, protocol, ..
            } if protocol == CALIMERO_BLOB_PROTOCOL => Ok(*stream),
            other => Err(other),
        })
        .await;
    let request: BlobRequest = serde_json::from_slice(&receive(&mut stream).await).unwrap();
    let response = BlobResponse {
        found: content.is_some(),
        size: content.map(|content| content.len() as u64),
    };
    send(&mut stream, serde_json::to_vec(&response).unwrap()).await;
    for data in content.unwrap_or_default().chunks(1 << 20) {
        let data = data.to_vec();
        send(&mut stream, borsh::to_vec(&BlobChunk { data }).unwrap()).await;
    }
    within(stream.close()).await.unwrap();
    request
}

fn blob() -> (BlobId, Vec<u8>) {
    let content: Vec<u8> = (0..5 << 19).map(|at| (at % 251) as u8).collect();
    let mut hasher = network::blob::BlobHasher::new();
    hasher.update(&content).unwrap();
    (BlobId::from(hasher.finish().list.id().to_bytes()), content)
}

/// A blob that one node serves and the other fetches, with the proof of its context.
async fn blobs(provider: Implementation, requester: Implementation) {
    let found_by_dht = [provider, requester] == [ADAPTER; 2];
    let (mut provider, mut requester) = pair(provider, requester).await;
    let (blob_id, content) = blob();
    let context_id = ContextId::from(CONTEXT);
    if found_by_dht {
        let size = content.len() as u64;
        // Peers are asked once they are known to speak Kademlia, and the announcement is repeated.
        within(async {
            loop {
                provider
                    .client
                    .announce_blob(blob_id, context_id, size)
                    .await
                    .unwrap();
                let found = requester
                    .client
                    .query_blob(blob_id, Some(context_id))
                    .await
                    .unwrap();
                if found == [provider.peer_id] {
                    break;
                }
            }
        })
        .await;
        let providers = requester
            .until(|event| match event {
                Event::BlobProvidersFound {
                    blob_id: id,
                    context_id: Some(context),
                    providers,
                } if id == blob_id && context == context_id => Ok(providers),
                other => Err(other),
            })
            .await;
        assert_eq!(providers, [provider.peer_id]);
    }
    let auth = BlobAuth {
        public_key: [4; 32].into(),
        signature: [200; 64],
        timestamp: 1_700_000_000,
    };
    let from = provider.peer_id;
    let (asked, fetched) = tokio::join!(
        serve(&mut provider, Some(&content)),
        within(
            requester
                .client
                .request_blob(blob_id, context_id, from, Some(auth))
        )
    );
    assert!(fetched.unwrap().unwrap() == content);
    assert_eq!((asked.blob_id, asked.context_id), (blob_id, context_id));
    let proof = asked.auth.unwrap();
    assert_eq!(proof.public_key, auth.public_key);
    assert_eq!(
        (proof.signature, proof.timestamp),
        (auth.signature, auth.timestamp)
    );
    let downloaded = requester
        .until(|event| match event {
            Event::BlobDownloaded {
                blob_id: id,
                data,
                from_peer,
                ..
            } => Ok((id, data, from_peer)),
            other => Err(other),
        })
        .await;
    assert!(downloaded == (blob_id, content, from));
    if found_by_dht {
        // The published crate does not emit this event.
        let requesting = provider
            .until(|event| match event {
                Event::BlobRequested {
                    blob_id: id,
                    requesting_peer,
                    ..
                } => Ok((id, requesting_peer)),
                other => Err(other),
            })
            .await;
        assert_eq!(requesting, (blob_id, requester.peer_id));
    }

    let (_, fetched) = tokio::join!(
        serve(&mut provider, None),
        within(
            requester
                .client
                .request_blob(blob_id, context_id, from, None)
        )
    );
    assert!(fetched.unwrap().is_none());
    let failed = |event| match event {
        Event::BlobDownloadFailed { error, .. } => Ok(error),
        other => Err(other),
    };
    assert_eq!(requester.until(failed).await, "Blob not found on peer");
}

#[actix::test]
async fn two_adapters_exchange_blobs() {
    blobs(ADAPTER, ADAPTER).await;
}

#[actix::test]
async fn an_adapter_and_the_published_crate_exchange_blobs() {
    blobs(ADAPTER, PUBLISHED).await;
    blobs(PUBLISHED, ADAPTER).await;
}

#[actix::test]
async fn content_of_another_blob_is_a_failure() {
    let (mut provider, mut requester) = pair(ADAPTER, ADAPTER).await;
    let (blob_id, mut content) = blob();
    content[1_500_000] ^= 1;
    let from = provider.peer_id;
    let context_id = ContextId::from(CONTEXT);
    let (_, fetched) = tokio::join!(
        serve(&mut provider, Some(&content)),
        within(
            requester
                .client
                .request_blob(blob_id, context_id, from, None)
        )
    );
    let error = fetched.err().unwrap().to_string();
    assert!(error.contains(&format!("not {blob_id}")), "{error}");
    let failed = requester
        .until(|event| match event {
            Event::BlobDownloadFailed { error, .. } => Ok(error),
            other => Err(other),
        })
        .await;
    assert_eq!(failed, error);
}

/// An invite with its answer, and its ids.
async fn invites(one: Implementation, other: Implementation) {
    let (mut asking, mut asked) = pair(one, other).await;
    for round in 0..3 {
        let send = asking
            .client
            .send_specialized_node_verification_request(asked.peer_id, attestation());
        let sent = within(send).await.unwrap();
        let (peer_id, request, channel) = asked
            .until(|event| match event {
                Event::SpecializedNodeVerificationRequest {
                    peer_id,
                    request,
                    channel,
                    ..
                } => Ok((peer_id, request, channel)),
                other => Err(other),
            })
            .await;
        assert_eq!(peer_id, asking.peer_id);
        assert_eq!(
            borsh::to_vec(&request).unwrap(),
            borsh::to_vec(&attestation()).unwrap()
        );
        let invitation = vec![round; 2000];
        let response = match round {
            0 => SpecializedNodeInvitationResponse::error([3; 32], "not today"),
            _ => SpecializedNodeInvitationResponse::success([3; 32], invitation.clone()),
        };
        let respond = asked
            .client
            .send_specialized_node_invitation_response(channel, response);
        within(respond).await.unwrap();
        let (from, answers, response) = asking
            .until(|event| match event {
                Event::SpecializedNodeInvitationResponse {
                    peer_id,
                    request_id,
                    response,
                } => Ok((peer_id, request_id, response)),
                other => Err(other),
            })
            .await;
        assert_eq!((from, answers), (asked.peer_id, sent));
        assert_eq!(response.nonce, [3; 32]);
        match round {
            0 => assert_eq!(response.error.as_deref(), Some("not today")),
            _ => assert_eq!(response.invitation_bytes, Some(invitation)),
        }
    }
}

#[actix::test]
async fn two_adapters_exchange_invites() {
    invites(ADAPTER, ADAPTER).await;
}

#[actix::test]
async fn an_adapter_and_the_published_crate_exchange_invites() {
    invites(ADAPTER, PUBLISHED).await;
    invites(PUBLISHED, ADAPTER).await;
}

#[actix::test]
async fn status_and_metrics_are_those_of_the_network() {
    let (one, other) = pair(ADAPTER, ADAPTER).await;
    let status = within(one.client.network_status()).await;
    assert_eq!(status.local_peer_id, one.peer_id);
    let port = status.listen_addrs[0]
        .clone()
        .with_p2p(one.peer_id)
        .unwrap();
    assert_eq!(port, one.address);
    assert_eq!(status.autonat.reachability, ReachabilityKind::Unknown);
    let text = registry_text(&one);
    let opened = "calimero_network_connections_opened_total\
        {direction=\"outbound\",path=\"direct\",transport=\"tcp\"} 1\n";
    assert!(text.contains(opened), "{text}");
    drop(other);
}

#[actix::test]
async fn reserved_topics_are_no_overlays() {
    let reserved = BTreeSet::from(["invites".to_owned()]);
    let node = Node::start_with(ADAPTER, reserved, None).await;
    for name in ["invites", "weather-of-a-context"] {
        within(node.client.subscribe(topic(name).0)).await.unwrap();
    }
    let context = network::ContextId::from(CONTEXT).to_string();
    within(node.client.subscribe(topic(&context).0))
        .await
        .unwrap();
    let status = node.manager().status().await.unwrap();
    let overlays = status.overlays.iter();
    let names: Vec<_> = overlays
        .map(|(namespace, _)| namespace.to_string())
        .collect();
    assert!(
        names.contains(&format!("/calimero/ctx/{context}")),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.contains("invites")),
        "{names:?}"
    );
}

#[actix::test]
async fn a_restarted_node_meets_its_peers_of_the_store() {
    let store = Store::new(Arc::new(InMemoryDB::owned()));
    let node = Node::start_with(ADAPTER, BTreeSet::new(), Some(store.clone())).await;
    let mut other = Node::start(ADAPTER).await;
    let (ident, _) = topic(&network::ContextId::from(CONTEXT).to_string());
    for node in [&node, &other] {
        within(node.client.subscribe(ident.clone())).await.unwrap();
    }
    within(node.client.dial(other.address.clone()))
        .await
        .unwrap();
    other
        .until(|event| match event {
            Event::Subscribed { .. } => Ok(()),
            other => Err(other),
        })
        .await;
    node.shutdown().await;
    drop(node);
    let again = Node::start_with(ADAPTER, BTreeSet::new(), Some(store)).await;
    within(again.client.subscribe(ident)).await.unwrap();
    again.connected_to(1).await;
}

#[actix::test]
async fn dropping_the_actor_stops_the_network() {
    let (one, other) = pair(ADAPTER, ADAPTER).await;
    let manager = one.manager().clone();
    one.stop_actor().await;
    assert_eq!(manager.peer_count(), Err(network::Stopped));
    other.connected_to(0).await;

    // A process may end right after the drop.
    let manager = support::manager().await;
    let client = manager.client().clone();
    drop(manager);
    assert_eq!(client.peer_count(), Err(network::Stopped));
}
