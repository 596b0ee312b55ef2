//! Specialized node invites through the manager, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use calimero_network::{
    InviteError, InviteEvent, Keypair, ListenerEvent, NetworkEvent, OutboundRequestId,
    ResponseChannel, SpecializedNodeInviteRequest as Request,
    SpecializedNodeInviteResponse as Response, Stopped,
    specialized::{InboundFailure, OutboundFailure, Refusal},
};
use common::{BOTH, Node, Over, config, pair, pair_with, within};

fn request(quote: impl Into<Bytes>) -> Request {
    Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: quote.into(),
        public_key: [9; 32],
    }
}

async fn asked(node: &mut Node) -> (Request, ResponseChannel) {
    node.wait_for(|event| match event {
        NetworkEvent::Invite(InviteEvent::Request {
            request, channel, ..
        }) => Some((request, channel)),
        _ => None,
    })
    .await
}

async fn failure(node: &mut Node, expected: OutboundRequestId) -> OutboundFailure {
    node.wait_for(|event| match event {
        NetworkEvent::Invite(InviteEvent::Failed {
            request_id,
            failure,
            ..
        }) => {
            assert_eq!(request_id, expected);
            Some(failure)
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_node_asks_and_is_invited() {
    for over in BOTH {
        let (mut node, mut host) = pair(over).await;
        let sent = request(vec![1; 500_000]);
        let asking = node
            .client
            .send_specialized_node_verification_request(host.peer(), sent.clone());
        let id = within(asking).await.unwrap();
        let (received, channel) = asked(&mut host).await;
        assert_eq!(received, sent);
        let answer = Response::invitation([7; 32], vec![2; 500_000]);
        host.client
            .send_specialized_node_invitation_response(channel, &answer)
            .unwrap();
        let response = node
            .wait_for(|event| match event {
                NetworkEvent::Invite(InviteEvent::Response {
                    peer,
                    request_id,
                    response,
                }) => {
                    assert_eq!((peer, request_id), (host.peer(), id));
                    Some(response)
                }
                _ => None,
            })
            .await;
        assert_eq!(response, answer);
        host.wait_for(|event| match event {
            NetworkEvent::Invite(InviteEvent::ResponseSent { peer, .. }) => {
                assert_eq!(peer, node.peer());
                Some(())
            }
            _ => None,
        })
        .await;
    }
}

#[tokio::test]
async fn every_failure_comes_with_its_request() {
    let mut brief = config();
    brief.specialized.request_timeout = Duration::from_secs(20);
    let (mut node, mut host) = pair_with(Over::Tcp, brief, config()).await;
    let client = node.client.clone();
    let ask = |peer, request| {
        let client = client.clone();
        async move {
            let asking = client.send_specialized_node_verification_request(peer, request);
            within(asking).await.unwrap()
        }
    };
    let stranger = Keypair::generate_ed25519().public().to_peer_id();

    let id = ask(host.peer(), request(vec![0; 2 << 20])).await;
    let to_stranger = ask(stranger, request("a quote"));
    let error = failure(&mut node, id).await;
    assert!(matches!(error, OutboundFailure::Request(_)), "{error:?}");

    let id = to_stranger.await;
    let error = failure(&mut node, id).await;
    assert!(matches!(error, OutboundFailure::Dial(_)), "{error:?}");

    let asking = node
        .client
        .send_specialized_node_verification_request(host.peer(), request("a quote"));
    let id = within(asking).await.unwrap();
    let (_, channel) = asked(&mut host).await;
    drop(channel);
    let error = failure(&mut node, id).await;
    let unanswered = OutboundFailure::Refused(Refusal::Unanswered);
    assert_eq!(error.to_string(), unanswered.to_string());
    assert!(matches!(error, OutboundFailure::Refused(_)), "{error:?}");
    let ended = host
        .wait_for(|event| match event {
            NetworkEvent::Invite(InviteEvent::ResponseFailed { failure, .. }) => Some(failure),
            _ => None,
        })
        .await;
    assert!(matches!(ended, InboundFailure::Unanswered), "{ended:?}");

    let asking = node
        .client
        .send_specialized_node_verification_request(host.peer(), request("a quote"));
    let id = within(asking).await.unwrap();
    let (_, _channel) = asked(&mut host).await;
    within(host.client.shutdown()).await.unwrap();
    let error = failure(&mut node, id).await;
    assert!(
        matches!(
            error,
            OutboundFailure::ConnectionClosed
                | OutboundFailure::Io(_)
                | OutboundFailure::Unanswered
        ),
        "{error:?}"
    );

    within(node.client.shutdown()).await.unwrap();
    let late = node
        .client
        .send_specialized_node_verification_request(host.peer(), request("late"));
    assert_eq!(within(late).await, Err(InviteError::Stopped(Stopped)));
}

#[tokio::test]
async fn refused_requests_are_counted_for_the_host() {
    let mut small = config();
    small.specialized.tuning.max_inbound_per_peer = 1;
    small.specialized.tuning.max_inbound = 1;
    let (mut node, mut host) = pair_with(Over::Tcp, config(), small).await;
    for _ in 0..4 {
        let asking = node
            .client
            .send_specialized_node_verification_request(host.peer(), request("a quote"));
        within(asking).await.unwrap();
    }
    for _ in 0..3 {
        let error = node
            .wait_for(|event| match event {
                NetworkEvent::Invite(InviteEvent::Failed { failure, .. }) => Some(failure),
                _ => None,
            })
            .await;
        assert!(
            matches!(error, OutboundFailure::Refused(Refusal::Busy)),
            "{error:?}"
        );
    }
    let (mut refused, mut channels) = (0, Vec::new());
    while refused < 3 || channels.is_empty() {
        host.wait_for(|event| match event {
            NetworkEvent::Invite(InviteEvent::Refused { peer, count, .. }) => {
                assert_eq!(peer, node.peer());
                refused += count;
                Some(())
            }
            NetworkEvent::Invite(InviteEvent::Request { channel, .. }) => {
                channels.push(channel);
                Some(())
            }
            _ => None,
        })
        .await;
    }
    assert_eq!((refused, channels.len()), (3, 1));
}

#[tokio::test]
async fn answers_that_nobody_reads_count_as_open_requests() {
    let mut small = config();
    small.specialized.tuning.max_outbound = 2;
    let (mut node, _host) = pair_with(Over::Tcp, small, config()).await;
    let stranger = Keypair::generate_ed25519().public().to_peer_id();
    let client = node.client.clone();
    let ask = || {
        let client = client.clone();
        async move {
            let asking =
                client.send_specialized_node_verification_request(stranger, request("a quote"));
            within(asking).await
        }
    };
    ask().await.unwrap();
    ask().await.unwrap();
    assert_eq!(ask().await, Err(InviteError::TooMany { limit: 2 }));
    let late = ask();
    node.wait_for(|event| {
        matches!(event, NetworkEvent::Invite(InviteEvent::Failed { .. })).then_some(())
    })
    .await;
    assert!(late.await.is_ok());
}

#[tokio::test]
async fn a_request_that_ends_unread_is_not_told() {
    let mut hasty = config();
    hasty.specialized.answer_timeout = Duration::from_millis(50);
    let (mut node, mut host) = pair_with(Over::Tcp, config(), hasty).await;
    let asking = node
        .client
        .send_specialized_node_verification_request(host.peer(), request("a quote"));
    let id = within(asking).await.unwrap();
    let error = failure(&mut node, id).await;
    assert!(
        matches!(error, OutboundFailure::Refused(Refusal::Late)),
        "{error:?}"
    );
    let last = host.listen(Over::Tcp).await;
    host.wait_for(|event| match event {
        NetworkEvent::Invite(InviteEvent::Request { .. })
        | NetworkEvent::Invite(InviteEvent::ResponseFailed { .. }) => {
            panic!("{event:?}")
        }
        NetworkEvent::Listener(ListenerEvent::Listening { address, .. }) => last
            .to_string()
            .starts_with(&address.to_string())
            .then_some(()),
        _ => None,
    })
    .await;
}
