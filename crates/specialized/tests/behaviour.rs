//! The behaviour between in-memory swarms: responses, limits, and every kind of
//! failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::{collections::HashSet, time::Duration};

use calimero_network_specialized::{
    Behaviour, DialCause, EncodeError, Event, InboundFailure, OutboundFailure, Refusal,
    RespondError, ResponseChannel, Scope, SpecializedConfig,
    SpecializedNodeInviteRequest as Request, SpecializedNodeInviteResponse as Response,
    SpecializedTuning,
};
use futures::StreamExt;
use libp2p_core::{Multiaddr, multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::{Swarm, SwarmEvent, dummy};
use libp2p_swarm_test::SwarmExt;
use support::{DEADLINE, SHORT, event, event_while_running, failure_of, node, pair, request};

fn config() -> SpecializedConfig {
    SpecializedConfig::default()
}

/// Returns the next request that `responder` receives, while `requester` runs.
async fn asked(
    responder: &mut Swarm<Behaviour>,
    requester: &mut Swarm<Behaviour>,
) -> (Request, ResponseChannel) {
    match event_while_running(responder, requester).await {
        Event::Request {
            request, channel, ..
        } => (request, channel),
        other => panic!("{other:?}"),
    }
}

fn answer_to(request: &Request) -> Response {
    Response::invitation(*request.nonce(), vec![1; 3000])
}

#[tokio::test]
async fn a_request_is_answered() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    assert_eq!(requester.behaviour().outbound_requests(), 1);

    let (asked, channel) = asked(&mut responder, &mut requester).await;
    assert_eq!(asked, request(7));
    assert_eq!(responder.behaviour().inbound_requests(), 1);
    assert!(channel.is_open());
    channel.send(&answer_to(&asked)).unwrap();

    let (answered, sent) = tokio::join!(event(&mut requester), event(&mut responder));
    let Event::Response {
        peer,
        request_id,
        response,
    } = answered
    else {
        panic!("{answered:?}");
    };
    assert_eq!((peer, request_id), (to, id));
    assert_eq!(response, answer_to(&asked));
    assert!(matches!(sent, Event::ResponseSent { .. }), "{sent:?}");
    assert_eq!(requester.behaviour().outbound_requests(), 0);
    assert_eq!(responder.behaviour().inbound_requests(), 0);
}

#[tokio::test]
async fn a_request_to_an_unconnected_peer_dials_it() {
    let (mut requester, mut responder) = (node(&config()), node(&config()));
    let (address, _) = responder.listen().await;
    let to = *responder.local_peer_id();
    let sent: Vec<_> = (0..3)
        .map(|nonce| {
            requester.behaviour_mut().send_request_with_addresses(
                to,
                &request(nonce),
                vec![address.clone()],
            )
        })
        .collect();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let (asked, channel) = asked(&mut responder, &mut requester).await;
        channel.send(&answer_to(&asked)).unwrap();
        seen.insert(asked);
    }
    assert_eq!(seen, (0..3).map(request).collect());
    let mut answered = HashSet::new();
    while answered.len() < sent.len() {
        match event_while_running(&mut requester, &mut responder).await {
            Event::Response { request_id, .. } => assert!(answered.insert(request_id)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, sent.into_iter().collect());
}

#[tokio::test]
async fn an_error_of_the_application_is_an_answer() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    requester.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut responder, &mut requester).await;
    let bad_quote = Response::error(*asked.nonce(), "bad quote");
    channel.send(&bad_quote).unwrap();
    match event_while_running(&mut requester, &mut responder).await {
        Event::Response { response, .. } => assert_eq!(response, bad_quote),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dropped_channel_refuses_the_request() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let (_, channel) = asked(&mut responder, &mut requester).await;
    drop(channel);
    let (received, reported) = tokio::join!(event(&mut requester), event(&mut responder));
    let received = failure_of(id, received);
    assert!(
        matches!(received, OutboundFailure::Refused(Refusal::Unanswered)),
        "{received:?}"
    );
    let Event::InboundFailure { failure, .. } = reported else {
        panic!("{reported:?}");
    };
    assert!(matches!(failure, InboundFailure::Unanswered), "{failure:?}");
}

#[tokio::test]
async fn an_answer_that_is_late_refuses_the_request() {
    let late = SpecializedConfig {
        answer_timeout: SHORT,
        ..config()
    };
    let (mut requester, mut responder) = pair(&config(), &late).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut responder, &mut requester).await;
    let (received, reported) = tokio::join!(event(&mut requester), event(&mut responder));
    let received = failure_of(id, received);
    assert!(
        matches!(received, OutboundFailure::Refused(Refusal::Late)),
        "{received:?}"
    );
    let Event::InboundFailure { failure, .. } = reported else {
        panic!("{reported:?}");
    };
    assert!(
        matches!(failure, InboundFailure::Late { after: SHORT }),
        "{failure:?}"
    );
    assert!(!channel.is_open());
    assert_eq!(channel.send(&answer_to(&asked)), Err(RespondError::Closed));
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_on_both_sides() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut responder, &mut requester).await;
    let limit = config().tuning.max_message_bytes;
    let oversize = Response::invitation(*asked.nonce(), vec![0; limit]);
    let claimed = limit + 32 + 1 + 4 + 1;
    assert_eq!(
        channel.send(&oversize),
        Err(EncodeError::TooLarge { limit, claimed }.into())
    );
    let received = failure_of(
        id,
        event_while_running(&mut requester, &mut responder).await,
    );
    assert!(
        matches!(received, OutboundFailure::Refused(Refusal::Unanswered)),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let (mut requester, responder) = pair(&config(), &config()).await;
    let limit = config().tuning.max_message_bytes;
    let oversize = Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: vec![0; limit].into(),
        public_key: [9; 32],
    };
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &oversize);
    let claimed = limit + 1 + 32 + 4 + 32;
    match failure_of(id, event(&mut requester).await) {
        OutboundFailure::Request(error) => {
            assert_eq!(error, EncodeError::TooLarge { limit, claimed });
        }
        other => panic!("{other:?}"),
    }
}

/// A request of the largest size to peers with a smaller limit. The refusal
/// arrives while the request is still being written.
#[tokio::test]
async fn a_request_that_the_peer_finds_too_large_is_refused() {
    let narrow = SpecializedConfig {
        tuning: SpecializedTuning {
            max_message_bytes: 4096,
            ..config().tuning
        },
        ..config()
    };
    let (mut requester, mut responder) = pair(&config(), &narrow).await;
    let to = *responder.local_peer_id();
    let largest = Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: vec![0; config().tuning.max_message_bytes - 69].into(),
        public_key: [9; 32],
    };
    let id = requester.behaviour_mut().send_request(to, &largest);
    let (received, reported) = tokio::join!(event(&mut requester), event(&mut responder));
    let received = failure_of(id, received);
    assert!(
        matches!(received, OutboundFailure::Refused(Refusal::TooLarge)),
        "{received:?}"
    );
    let Event::InboundFailure { failure, .. } = reported else {
        panic!("{reported:?}");
    };
    assert!(matches!(failure, InboundFailure::Request(_)), "{failure:?}");
}

#[tokio::test]
async fn a_peer_without_the_protocol_is_reported() {
    let mut requester = node(&config());
    let mut stranger = Swarm::new_ephemeral_tokio(|_| dummy::Behaviour);
    support::connect(&mut requester, &mut stranger).await;
    let to = *stranger.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let received = failure_of(id, event_while_running(&mut requester, &mut stranger).await);
    assert!(
        matches!(received, OutboundFailure::Unsupported),
        "{received:?}"
    );
}

#[tokio::test]
async fn dial_failures_report_their_cause() {
    let mut requester = node(&config());
    let id = requester
        .behaviour_mut()
        .send_request(PeerId::random(), &request(7));
    let failed = failure_of(id, event(&mut requester).await);
    assert!(
        matches!(&failed, OutboundFailure::Dial(cause) if matches!(**cause, DialCause::NoAddresses)),
        "{failed:?}"
    );

    // No node listens there: memory addresses are assigned from the top of
    // their range.
    let nowhere: Multiaddr = multiaddr::Protocol::Memory(1).into();
    let ids = [0, 1].map(|nonce| {
        requester.behaviour_mut().send_request_with_addresses(
            PeerId::random(),
            &request(nonce),
            vec![Clone::clone(&nowhere)],
        )
    });
    for id in ids {
        let failed = failure_of(id, event(&mut requester).await);
        assert!(
            matches!(&failed, OutboundFailure::Dial(cause)
                if matches!(&**cause, DialCause::Transport(errors) if errors[0].address.iter().next() == nowhere.iter().next())),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn a_dial_answered_by_another_peer_reports_its_id() {
    let (mut requester, mut responder) = (node(&config()), node(&config()));
    let (address, _) = responder.listen().await;
    let id = requester.behaviour_mut().send_request_with_addresses(
        PeerId::random(),
        &request(7),
        vec![address],
    );
    match failure_of(
        id,
        event_while_running(&mut requester, &mut responder).await,
    ) {
        OutboundFailure::Dial(cause) => match &*cause {
            DialCause::WrongPeerId { obtained, .. } => {
                assert_eq!(obtained, responder.local_peer_id());
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_disconnecting_peer_fails_the_request_on_both_sides() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let (_, channel) = asked(&mut responder, &mut requester).await;
    responder
        .disconnect_peer_id(*requester.local_peer_id())
        .expect("connected");
    let (received, reported) = tokio::join!(event(&mut requester), event(&mut responder));
    let received = failure_of(id, received);
    assert!(
        matches!(received, OutboundFailure::ConnectionClosed),
        "{received:?}"
    );
    let Event::InboundFailure { failure, .. } = reported else {
        panic!("{reported:?}");
    };
    assert!(
        matches!(failure, InboundFailure::ConnectionClosed),
        "{failure:?}"
    );
    assert!(!channel.is_open());
}

#[tokio::test]
async fn no_answer_by_the_deadline_fails_the_request() {
    let short_timeouts = SpecializedConfig {
        request_timeout: SHORT,
        ..config()
    };
    let (mut requester, mut responder) = pair(&short_timeouts, &config()).await;
    let to = *responder.local_peer_id();
    let id = requester.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut responder, &mut requester).await;
    let received = failure_of(
        id,
        event_while_running(&mut requester, &mut responder).await,
    );
    assert!(
        matches!(received, OutboundFailure::Deadline { after: SHORT }),
        "{received:?}"
    );
    // A later response is ignored, and the next request is served.
    channel.send(&answer_to(&asked)).unwrap();
    let id = requester.behaviour_mut().send_request(to, &request(8));
    let (asked, channel) = loop {
        match event_while_running(&mut responder, &mut requester).await {
            Event::Request {
                request, channel, ..
            } => break (request, channel),
            Event::ResponseSent { .. } | Event::InboundFailure { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    channel.send(&answer_to(&asked)).unwrap();
    match event_while_running(&mut requester, &mut responder).await {
        Event::Response { request_id, .. } => assert_eq!(request_id, id),
        other => panic!("{other:?}"),
    }
}

/// The deadline includes dialling: the peer accepts the connection and sends
/// nothing.
#[tokio::test]
async fn the_deadline_holds_while_dialling() {
    let short_timeouts = SpecializedConfig {
        request_timeout: SHORT,
        ..config()
    };
    let mut requester = node(&short_timeouts);
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let id = requester.behaviour_mut().send_request_with_addresses(
        PeerId::random(),
        &request(7),
        vec![address],
    );
    let received = failure_of(id, event(&mut requester).await);
    assert!(
        matches!(received, OutboundFailure::Deadline { after: SHORT }),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_cancelled_request_ends_without_an_event() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    let cancelled = requester.behaviour_mut().send_request(to, &request(1));
    let (first, channel) = asked(&mut responder, &mut requester).await;
    assert!(requester.behaviour_mut().cancel_request(cancelled));
    assert!(!requester.behaviour_mut().cancel_request(cancelled));
    let kept = requester.behaviour_mut().send_request(to, &request(2));
    channel.send(&answer_to(&first)).unwrap();
    loop {
        match event_while_running(&mut responder, &mut requester).await {
            Event::Request {
                request, channel, ..
            } => break channel.send(&answer_to(&request)).unwrap(),
            Event::ResponseSent { .. } | Event::InboundFailure { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    match event_while_running(&mut requester, &mut responder).await {
        Event::Response { request_id, .. } => assert_eq!(request_id, kept),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_above_the_limit_fail_at_once() {
    let one = SpecializedConfig {
        tuning: SpecializedTuning {
            max_outbound: 1,
            ..config().tuning
        },
        ..config()
    };
    let (mut requester, responder) = pair(&one, &config()).await;
    let to = *responder.local_peer_id();
    requester.behaviour_mut().send_request(to, &request(1));
    let id = requester.behaviour_mut().send_request(to, &request(2));
    let failed = failure_of(id, event(&mut requester).await);
    assert!(
        matches!(failed, OutboundFailure::TooMany { limit: 1 }),
        "{failed:?}"
    );
}

/// A configuration without limits below the number of concurrent requests of
/// these tests.
fn unlimited_outbound() -> SpecializedConfig {
    SpecializedConfig {
        tuning: SpecializedTuning {
            max_outbound_per_connection: 64,
            ..config().tuning
        },
        ..config()
    }
}

/// Sends `requests` at once to a node that delays its responses. Returns how
/// many requests it received, how many were refused, and the limit that refused
/// them.
async fn send_many(
    requester: &mut Swarm<Behaviour>,
    responder: &mut Swarm<Behaviour>,
    requests: u8,
) -> (Vec<(Request, ResponseChannel)>, Vec<(Scope, usize)>) {
    let to = *responder.local_peer_id();
    for nonce in 0..requests {
        requester.behaviour_mut().send_request(to, &request(nonce));
    }
    let (mut given, mut refused, mut received) = (Vec::new(), Vec::new(), 0);
    let all = async {
        while given.len() + refused.len() < usize::from(requests) || received < refused.len() {
            tokio::select! {
                event = responder.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Request { request, channel, .. }) => {
                        given.push((request, channel));
                    }
                    SwarmEvent::Behaviour(Event::InboundFailure {
                        failure: InboundFailure::TooMany { limit, scope }, ..
                    }) => refused.push((scope, limit)),
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
                event = requester.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::OutboundFailure {
                        failure: OutboundFailure::Refused(Refusal::Busy), ..
                    }) => received += 1,
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
            }
        }
    };
    // Much earlier than every configured deadline: the refusals were sent at
    // once.
    tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .unwrap();
    (given, refused)
}

#[tokio::test]
async fn eight_of_a_connection_are_served_and_the_others_are_refused_as_busy() {
    let (mut requester, mut responder) = pair(&unlimited_outbound(), &config()).await;
    let (given, refused) = send_many(&mut requester, &mut responder, 12).await;
    assert_eq!(given.len(), 8);
    assert_eq!(refused, [(Scope::Peer(*requester.local_peer_id()), 8); 4]);
    assert_eq!(responder.behaviour().inbound_requests(), 8);

    for (request, channel) in given {
        channel.send(&answer_to(&request)).unwrap();
    }
    for _ in 0..8 {
        let event = event_while_running(&mut requester, &mut responder).await;
        assert!(matches!(event, Event::Response { .. }), "{event:?}");
    }
    assert_eq!(responder.behaviour().inbound_requests(), 0);
}

#[tokio::test]
async fn the_total_holds_over_all_connections() {
    let few = SpecializedConfig {
        tuning: SpecializedTuning {
            max_inbound: 10,
            ..config().tuning
        },
        ..config()
    };
    let (mut first, mut responder) = pair(&unlimited_outbound(), &few).await;
    let mut second = node(&unlimited_outbound());
    second.connect(&mut responder).await;
    let (_held, refused) = send_many(&mut first, &mut responder, 8).await;
    assert_eq!(refused, []);
    tokio::spawn(first.loop_on_next());
    let (given, refused) = send_many(&mut second, &mut responder, 5).await;
    assert_eq!(given.len(), 2);
    assert_eq!(refused, [(Scope::Node, 10); 3]);
}

/// With the default limits, one requester stays below the limits of the other
/// side.
#[tokio::test]
async fn a_hundred_requests_at_once_are_all_answered() {
    let (mut requester, mut responder) = pair(&config(), &config()).await;
    let to = *responder.local_peer_id();
    for nonce in 0..100 {
        requester.behaviour_mut().send_request(to, &request(nonce));
    }
    let mut answered = 0;
    let all = async {
        while answered < 100 {
            tokio::select! {
                event = responder.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Request { request, channel, .. }) => {
                        channel.send(&answer_to(&request)).unwrap();
                    }
                    SwarmEvent::Behaviour(Event::ResponseSent { .. }) => {}
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
                event = requester.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Response { .. }) => answered += 1,
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
            }
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
}

#[test]
fn contradictions_are_refused_when_it_is_built() {
    let none = SpecializedConfig {
        tuning: SpecializedTuning {
            max_outbound: 0,
            ..config().tuning
        },
        ..config()
    };
    let error = Behaviour::new(&none).unwrap_err();
    assert_eq!(error.to_string(), "tuning.max_outbound: must be above 0");
}
