use std::sync::Arc;

#[cfg(feature = "blobs")]
use calimero_network_primitives::{BlobId, ContextId};
use calimero_network_primitives::{
    Multiaddr, PeerId, Topic, UnreachableCause, config::HandleConfig,
};
use calimero_network_pubsub::{Message, MessageId};
use calimero_network_stream::RefuseReason;
use libp2p::{StreamProtocol, swarm::ConnectionId};
use serde_json::{Value, json};

#[cfg(feature = "blobs")]
use super::{BlobEvent, queue::MAX_TRANSFERS};
use super::{
    CloseReason, ConnectionEvent, DiscoveryEvent, EventSender, Events, GossipEvent, ListenerEvent,
    NetworkEvent, StreamEvent, queue::MAX_REPORTS,
};
#[cfg(feature = "blobs")]
use crate::error::{FetchBlobError, Stopped};
use crate::status::Shared;

fn queue() -> (EventSender, Events) {
    EventSender::new(&HandleConfig::default(), Arc::new(Shared::default()))
}

/// The JSON of all unread events.
async fn unread(sender: EventSender, mut events: Events) -> Vec<Value> {
    drop(sender);
    let mut read = Vec::new();
    while let Some(event) = events.next().await {
        read.push(serde_json::to_value(&event).unwrap());
    }
    read
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

fn message(source: PeerId, data: &'static [u8]) -> Message {
    Message {
        topic: "weather".parse().unwrap(),
        source,
        propagated_by: source,
        sequence_number: 7,
        id: MessageId::new(&source, 7),
        data: data.into(),
    }
}

#[tokio::test]
async fn an_event_is_one_flat_json_object_with_its_name() {
    let (mut sender, events) = queue();
    let peer = PeerId::random();
    let refused = std::io::Error::from_raw_os_error(98);
    let refused_text = refused.to_string();
    sender.send(ListenerEvent::NotListening {
        listener: libp2p::core::transport::ListenerId::next(),
        addresses: vec![address(1)],
        error: Some(refused),
    });
    sender.send(ConnectionEvent::Disconnected {
        peer,
        connection: ConnectionId::new_unchecked(3),
        reason: CloseReason::Unresponsive,
        remaining: 1,
    });
    sender.send(DiscoveryEvent::BootNodeUnreachable {
        peer,
        cause: UnreachableCause::TimedOut,
    });
    sender.send(DiscoveryEvent::RelayReservation {
        relay: peer,
        reserved: true,
    });
    sender.send(StreamEvent::Refused {
        peer,
        protocol: StreamProtocol::new("/a/1"),
        reason: RefuseReason::NotAccepted,
        count: 2,
    });
    sender.send(GossipEvent::Message(message(peer, b"sun")));
    sender.send(GossipEvent::Message(message(peer, &[0xff, 0])));
    let (peer, id) = (peer.to_base58(), MessageId::new(&peer, 7));
    let id = String::from_utf8(id.as_bytes().to_vec()).unwrap();
    assert_eq!(
        unread(sender, events).await,
        [
            json!({"event": "not_listening", "addresses": [address(1)], "error": refused_text}),
            json!({"event": "disconnected", "peer": peer, "connection": "3",
                "reason": "unresponsive", "remaining": 1}),
            json!({"event": "boot_node_unreachable", "peer": peer, "cause": "timed_out",
                "reason": "no answer in time"}),
            json!({"event": "relay", "peer": peer, "reserved": true}),
            json!({"event": "streams_refused", "peer": peer, "protocol": "/a/1",
                "reason": RefuseReason::NotAccepted.to_string(), "count": 2}),
            json!({"event": "message", "peer": peer, "topic": "weather", "propagated_by": peer,
                "id": id, "text": "sun"}),
            json!({"event": "message", "peer": peer, "topic": "weather", "propagated_by": peer,
                "id": id, "hex": "ff00"}),
        ]
    );
}

#[cfg(feature = "blobs")]
#[tokio::test]
async fn the_event_of_a_blob_names_context_and_blob() {
    let (mut sender, events) = queue();
    let (context_id, blob_id) = (ContextId::from([1; 32]), BlobId::from([2; 32]));
    sender.send(BlobEvent::DownloadFailed {
        context_id,
        blob_id,
        error: Arc::new(FetchBlobError::Stopped(Stopped)),
    });
    assert_eq!(
        unread(sender, events).await,
        [
            json!({"event": "blob_download_failed", "context": context_id.to_string(),
                "id": blob_id.to_string(), "error": Stopped.to_string()}),
        ]
    );
}

#[tokio::test]
async fn changes_that_undo_each_other_unread_leave_the_last_one_that_the_reader_must_know() {
    let (mut sender, mut events) = queue();
    let (peer, topic) = (PeerId::random(), "weather".parse::<Topic>().unwrap());
    let external = |confirmed| DiscoveryEvent::ExternalAddress {
        address: address(1),
        confirmed,
    };
    let subscribed = || GossipEvent::Subscribed {
        peer,
        topic: topic.clone(),
    };
    let unsubscribed = || GossipEvent::Unsubscribed {
        peer,
        topic: topic.clone(),
    };
    sender.send(external(true));
    sender.send(subscribed());
    for _ in 0..2 {
        assert!(events.next().await.is_some());
    }
    // The reader knows both. Of an odd number of changes the last one remains.
    for confirmed in [false, true, false] {
        sender.send(external(confirmed));
    }
    sender.send(unsubscribed());
    sender.send(subscribed());
    sender.send(unsubscribed());
    let read = unread(sender, events).await;
    assert_eq!(read.len(), 2, "{read:?}");
    assert_eq!(
        (&read[0]["event"], &read[0]["confirmed"]),
        (&json!("external"), &json!(false))
    );
    assert_eq!(read[1]["event"], "unsubscribed");
}

#[tokio::test]
async fn an_address_that_came_and_went_unread_is_not_reported() {
    let (mut sender, events) = queue();
    let listener = libp2p::core::transport::ListenerId::next();
    let came = |port| ListenerEvent::Listening {
        listener,
        address: address(port),
    };
    sender.send(came(1));
    sender.send(came(2));
    sender.send(ListenerEvent::NotListening {
        listener,
        addresses: vec![address(1), address(3)],
        error: None,
    });
    let read = unread(sender, events).await;
    assert_eq!(
        read,
        [
            json!({"event": "listening", "address": address(2)}),
            json!({"event": "not_listening", "addresses": [address(3)], "error": null}),
        ]
    );
}

#[tokio::test]
async fn the_last_connection_of_a_peer_takes_its_unread_state_along() {
    let (mut sender, events) = queue();
    let peer = PeerId::random();
    sender.send(GossipEvent::Subscribed {
        peer,
        topic: "weather".parse().unwrap(),
    });
    sender.send(ConnectionEvent::HolePunched { peer, direct: true });
    for remaining in [1, 0] {
        sender.send(ConnectionEvent::Disconnected {
            peer,
            connection: ConnectionId::new_unchecked(remaining as usize),
            reason: CloseReason::Local,
            remaining,
        });
        if remaining == 1 {
            assert_eq!(sender.unread_events(), 3);
        }
    }
    let read = unread(sender, events).await;
    assert_eq!(read.len(), 2);
    assert!(
        read.iter().all(|event| event["event"] == "disconnected"),
        "{read:?}"
    );
}

#[tokio::test]
async fn reports_are_bounded_however_long_they_stay_unread() {
    let (mut sender, events) = queue();
    let peers: Vec<_> = (0..MAX_REPORTS + 10).map(|_| PeerId::random()).collect();
    for _ in 0..2 {
        for peer in &peers {
            sender.send(StreamEvent::Refused {
                peer: *peer,
                protocol: StreamProtocol::new("/a/1"),
                reason: RefuseReason::NotAccepted,
                count: 1,
            });
        }
    }
    let read = unread(sender, events).await;
    let named = |name: &'static str| read.iter().filter(move |event| event["event"] == name);
    assert!(named("streams_refused").all(|event| event["count"] == 2));
    assert_eq!(named("streams_refused").count(), MAX_REPORTS);
    let others: Vec<_> = named("other_streams_refused").collect();
    assert_eq!(others.len(), 1);
    assert_eq!(others[0]["count"], 20);
}

#[cfg(feature = "blobs")]
#[tokio::test]
async fn transfers_are_bounded_however_long_they_stay_unread() {
    let (mut sender, events) = queue();
    for nth in 0..MAX_TRANSFERS + 10 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&nth.to_le_bytes());
        for size_bytes in [1, 2] {
            sender.send(BlobEvent::Downloaded {
                context_id: ContextId::from([0; 32]),
                blob_id: BlobId::from(id),
                size_bytes,
            });
        }
    }
    let read = unread(sender, events).await;
    assert_eq!(read.len(), MAX_TRANSFERS);
    for event in read {
        assert_eq!(event["event"], "blob_downloaded");
        assert_eq!(event["size_bytes"], 2);
    }
}

#[test]
fn text_names_the_event_and_its_subject() {
    let peer = PeerId::random();
    let event = NetworkEvent::from(GossipEvent::Message(message(peer, b"sun")));
    assert_eq!(
        event.to_string(),
        format!("message of {peer} on weather: sun")
    );
    let event = NetworkEvent::from(GossipEvent::Lagged { missed: 3 });
    assert_eq!(event.to_string(), "lagged: 3 messages were dropped");
}

/// Numbers of messages among `events`, by their sequence.
fn numbers(events: &[NetworkEvent]) -> Vec<u64> {
    let messages = events.iter().filter_map(|event| match event {
        NetworkEvent::Gossip(GossipEvent::Message(message)) => Some(message.sequence_number),
        _ => None,
    });
    messages.collect()
}

fn numbered(sequence_number: u64) -> GossipEvent {
    let message = message(PeerId::random(), b"x");
    GossipEvent::Message(Message {
        sequence_number,
        ..message
    })
}

#[tokio::test]
async fn many_events_are_received_at_once_in_order() {
    let (mut sender, mut events) = queue();
    let mut buffer = Vec::new();
    for number in 0..10 {
        sender.send(numbered(number));
    }
    assert_eq!(events.recv_many(&mut buffer, 0).await, 0);
    assert_eq!(events.recv_many(&mut buffer, 4).await, 4);
    buffer.extend(events.next().await);
    assert_eq!(events.recv_many(&mut buffer, 100).await, 5, "appended");
    assert_eq!(numbers(&buffer), (0..10).collect::<Vec<_>>());
    sender.send(numbered(10));
    drop(sender);
    assert_eq!(events.recv_many(&mut buffer, 100).await, 1);
    assert_eq!(events.recv_many(&mut buffer, 100).await, 0, "the end");
    assert_eq!(buffer.len(), 11);
}

#[tokio::test]
async fn a_dropped_recv_many_loses_no_event() {
    let (mut sender, mut events) = queue();
    let mut buffer = Vec::new();
    {
        let mut receiving = Box::pin(events.recv_many(&mut buffer, 9));
        assert!(futures::poll!(&mut receiving).is_pending());
        sender.send(numbered(1));
    }
    assert!(buffer.is_empty());
    assert_eq!(events.recv_many(&mut buffer, 9).await, 1);
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl futures::task::ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn the_reader_is_woken_once_for_many_events() {
    let (mut sender, mut events) = queue();
    let woken = Arc::new(Woken::default());
    let waker = futures::task::waker(woken.clone());
    let mut context = std::task::Context::from_waker(&waker);
    let count = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
    let mut buffer = Vec::new();
    let mut receiving = Box::pin(events.recv_many(&mut buffer, 100));
    assert!(receiving.as_mut().poll(&mut context).is_pending());
    sender.delay_wake();
    for number in 0..10 {
        sender.send(numbered(number));
    }
    assert_eq!(count(), 0);
    sender.wake();
    assert_eq!(count(), 1);
    let received = receiving.as_mut().poll(&mut context);
    assert_eq!(received, std::task::Poll::Ready(10));
    // Later events wake the reader as they come.
    drop(receiving);
    let mut receiving = Box::pin(events.recv_many(&mut buffer, 100));
    assert!(receiving.as_mut().poll(&mut context).is_pending());
    sender.send(numbered(10));
    assert_eq!(count(), 2);
}
