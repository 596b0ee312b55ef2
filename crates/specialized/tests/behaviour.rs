//! The behaviour between in-memory swarms: answers, limits, and every kind of failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod support;

use std::{collections::HashSet, time::Duration};

use calimero_network_specialized::{
    Behaviour, DialFailure, EncodeError, Event, InboundFailure, OutboundFailure, Refusal,
    RespondError, ResponseChannel, Scope, SpecializedConfig,
    SpecializedNodeInviteRequest as Request, SpecializedNodeInviteResponse as Response,
    SpecializedTuning,
};
use futures::StreamExt;
use libp2p_core::multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::{Swarm, SwarmEvent, dummy};
use libp2p_swarm_test::SwarmExt;
use support::{PATIENCE, SHORT, event, event_beside, failure_of, node, pair, request};

fn config() -> SpecializedConfig {
    SpecializedConfig::default()
}

/// The next request that `answerer` gets, while `asker` runs.
async fn asked(
    answerer: &mut Swarm<Behaviour>,
    asker: &mut Swarm<Behaviour>,
) -> (Request, ResponseChannel) {
    match event_beside(answerer, asker).await {
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
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    assert_eq!(asker.behaviour().outbound_requests(), 1);

    let (asked, channel) = asked(&mut answerer, &mut asker).await;
    assert_eq!(asked, request(7));
    assert_eq!(answerer.behaviour().inbound_requests(), 1);
    assert!(channel.is_open());
    channel.send(&answer_to(&asked)).unwrap();

    let (answered, sent) = tokio::join!(event(&mut asker), event(&mut answerer));
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
    assert_eq!(asker.behaviour().outbound_requests(), 0);
    assert_eq!(answerer.behaviour().inbound_requests(), 0);
}

#[tokio::test]
async fn a_request_to_a_stranger_dials_it() {
    let (mut asker, mut answerer) = (node(&config()), node(&config()));
    let (address, _) = answerer.listen().await;
    let to = *answerer.local_peer_id();
    let sent: Vec<_> = (0..3)
        .map(|nonce| {
            asker.behaviour_mut().send_request_with_addresses(
                to,
                &request(nonce),
                vec![address.clone()],
            )
        })
        .collect();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let (asked, channel) = asked(&mut answerer, &mut asker).await;
        channel.send(&answer_to(&asked)).unwrap();
        seen.insert(asked);
    }
    assert_eq!(seen, (0..3).map(request).collect());
    let mut answered = HashSet::new();
    while answered.len() < sent.len() {
        match event_beside(&mut asker, &mut answerer).await {
            Event::Response { request_id, .. } => assert!(answered.insert(request_id)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, sent.into_iter().collect());
}

#[tokio::test]
async fn an_error_of_the_application_is_an_answer() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    asker.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut answerer, &mut asker).await;
    let bad_quote = Response::error(*asked.nonce(), "bad quote");
    channel.send(&bad_quote).unwrap();
    match event_beside(&mut asker, &mut answerer).await {
        Event::Response { response, .. } => assert_eq!(response, bad_quote),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dropped_channel_tells_the_requester() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let (_, channel) = asked(&mut answerer, &mut asker).await;
    drop(channel);
    let (heard, told) = tokio::join!(event(&mut asker), event(&mut answerer));
    let heard = failure_of(id, heard);
    assert!(
        matches!(heard, OutboundFailure::Refused(Refusal::Unanswered)),
        "{heard:?}"
    );
    let Event::InboundFailure { failure, .. } = told else {
        panic!("{told:?}");
    };
    assert!(matches!(failure, InboundFailure::Unanswered), "{failure:?}");
}

#[tokio::test]
async fn an_answer_that_is_late_tells_the_requester() {
    let late = SpecializedConfig {
        answer_timeout: SHORT,
        ..config()
    };
    let (mut asker, mut answerer) = pair(&config(), &late).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut answerer, &mut asker).await;
    let (heard, told) = tokio::join!(event(&mut asker), event(&mut answerer));
    let heard = failure_of(id, heard);
    assert!(
        matches!(heard, OutboundFailure::Refused(Refusal::Late)),
        "{heard:?}"
    );
    let Event::InboundFailure { failure, .. } = told else {
        panic!("{told:?}");
    };
    assert!(
        matches!(failure, InboundFailure::Late { after: SHORT }),
        "{failure:?}"
    );
    assert!(!channel.is_open());
    assert_eq!(channel.send(&answer_to(&asked)), Err(RespondError::Gone));
}

#[tokio::test]
async fn an_answer_that_is_too_large_tells_both() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut answerer, &mut asker).await;
    let limit = config().tuning.max_message_bytes;
    let oversize = Response::invitation(*asked.nonce(), vec![0; limit]);
    let claimed = limit + 32 + 1 + 4 + 1;
    assert_eq!(
        channel.send(&oversize),
        Err(EncodeError::TooLarge { limit, claimed }.into())
    );
    let heard = failure_of(id, event_beside(&mut asker, &mut answerer).await);
    assert!(
        matches!(heard, OutboundFailure::Refused(Refusal::Unanswered)),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let (mut asker, answerer) = pair(&config(), &config()).await;
    let limit = config().tuning.max_message_bytes;
    let oversize = Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: vec![0; limit].into(),
        public_key: [9; 32],
    };
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &oversize);
    let claimed = limit + 1 + 32 + 4 + 32;
    match failure_of(id, event(&mut asker).await) {
        OutboundFailure::Request(error) => {
            assert_eq!(error, EncodeError::TooLarge { limit, claimed });
        }
        other => panic!("{other:?}"),
    }
}

/// The largest request there is, to peers that take fewer bytes: the refusal comes while the
/// request is still being written.
#[tokio::test]
async fn a_request_that_the_peer_finds_too_large_is_refused() {
    let narrow = SpecializedConfig {
        tuning: SpecializedTuning {
            max_message_bytes: 4096,
            ..config().tuning
        },
        ..config()
    };
    let (mut asker, mut answerer) = pair(&config(), &narrow).await;
    let to = *answerer.local_peer_id();
    let largest = Request::TeeAttestation {
        nonce: [7; 32],
        quote_bytes: vec![0; config().tuning.max_message_bytes - 69].into(),
        public_key: [9; 32],
    };
    let id = asker.behaviour_mut().send_request(to, &largest);
    let (heard, told) = tokio::join!(event(&mut asker), event(&mut answerer));
    let heard = failure_of(id, heard);
    assert!(
        matches!(heard, OutboundFailure::Refused(Refusal::TooLarge)),
        "{heard:?}"
    );
    let Event::InboundFailure { failure, .. } = told else {
        panic!("{told:?}");
    };
    assert!(matches!(failure, InboundFailure::Request(_)), "{failure:?}");
}

#[tokio::test]
async fn a_peer_without_the_protocol_says_so() {
    let mut asker = node(&config());
    let mut stranger = Swarm::new_ephemeral_tokio(|_| dummy::Behaviour);
    support::connect(&mut asker, &mut stranger).await;
    let to = *stranger.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let heard = failure_of(id, event_beside(&mut asker, &mut stranger).await);
    assert!(matches!(heard, OutboundFailure::Unsupported), "{heard:?}");
}

#[tokio::test]
async fn dials_that_fail_say_how() {
    let mut asker = node(&config());
    let id = asker
        .behaviour_mut()
        .send_request(PeerId::random(), &request(7));
    let failed = failure_of(id, event(&mut asker).await);
    assert!(
        matches!(failed, OutboundFailure::Dial(DialFailure::NoAddresses)),
        "{failed:?}"
    );

    // Nobody listens there: memory addresses are handed out from the top of their range.
    let nowhere = multiaddr::Protocol::Memory(1).into();
    let ids = [0, 1].map(|nonce| {
        asker.behaviour_mut().send_request_with_addresses(
            PeerId::random(),
            &request(nonce),
            vec![Clone::clone(&nowhere)],
        )
    });
    for id in ids {
        let failed = failure_of(id, event(&mut asker).await);
        assert!(
            matches!(failed, OutboundFailure::Dial(DialFailure::Unreachable)),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn a_dial_that_meets_somebody_else_says_whom() {
    let (mut asker, mut answerer) = (node(&config()), node(&config()));
    let (address, _) = answerer.listen().await;
    let id = asker.behaviour_mut().send_request_with_addresses(
        PeerId::random(),
        &request(7),
        vec![address],
    );
    match failure_of(id, event_beside(&mut asker, &mut answerer).await) {
        OutboundFailure::Dial(DialFailure::WrongPeer { obtained }) => {
            assert_eq!(obtained, *answerer.local_peer_id());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_goes_fails_the_request_on_both_sides() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let (_, channel) = asked(&mut answerer, &mut asker).await;
    answerer
        .disconnect_peer_id(*asker.local_peer_id())
        .expect("connected");
    let (heard, told) = tokio::join!(event(&mut asker), event(&mut answerer));
    let heard = failure_of(id, heard);
    assert!(
        matches!(heard, OutboundFailure::ConnectionClosed),
        "{heard:?}"
    );
    let Event::InboundFailure { failure, .. } = told else {
        panic!("{told:?}");
    };
    assert!(
        matches!(failure, InboundFailure::ConnectionClosed),
        "{failure:?}"
    );
    assert!(!channel.is_open());
}

#[tokio::test]
async fn no_answer_by_the_deadline_fails_the_request() {
    let hasty = SpecializedConfig {
        request_timeout: SHORT,
        ..config()
    };
    let (mut asker, mut answerer) = pair(&hasty, &config()).await;
    let to = *answerer.local_peer_id();
    let id = asker.behaviour_mut().send_request(to, &request(7));
    let (asked, channel) = asked(&mut answerer, &mut asker).await;
    let heard = failure_of(id, event_beside(&mut asker, &mut answerer).await);
    assert!(
        matches!(heard, OutboundFailure::Deadline { after: SHORT }),
        "{heard:?}"
    );
    // An answer after that is nobody's; the next request is served.
    channel.send(&answer_to(&asked)).unwrap();
    let id = asker.behaviour_mut().send_request(to, &request(8));
    let (asked, channel) = loop {
        match event_beside(&mut answerer, &mut asker).await {
            Event::Request {
                request, channel, ..
            } => break (request, channel),
            Event::ResponseSent { .. } | Event::InboundFailure { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    channel.send(&answer_to(&asked)).unwrap();
    match event_beside(&mut asker, &mut answerer).await {
        Event::Response { request_id, .. } => assert_eq!(request_id, id),
        other => panic!("{other:?}"),
    }
}

/// The deadline holds while dialling too: the peer accepts the connection and says nothing.
#[tokio::test]
async fn the_deadline_holds_while_dialling() {
    let hasty = SpecializedConfig {
        request_timeout: SHORT,
        ..config()
    };
    let mut asker = node(&hasty);
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let id = asker.behaviour_mut().send_request_with_addresses(
        PeerId::random(),
        &request(7),
        vec![address],
    );
    let heard = failure_of(id, event(&mut asker).await);
    assert!(
        matches!(heard, OutboundFailure::Deadline { after: SHORT }),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_cancelled_request_ends_without_an_event() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    let cancelled = asker.behaviour_mut().send_request(to, &request(1));
    let (first, channel) = asked(&mut answerer, &mut asker).await;
    assert!(asker.behaviour_mut().cancel_request(cancelled));
    assert!(!asker.behaviour_mut().cancel_request(cancelled));
    let kept = asker.behaviour_mut().send_request(to, &request(2));
    channel.send(&answer_to(&first)).unwrap();
    loop {
        match event_beside(&mut answerer, &mut asker).await {
            Event::Request {
                request, channel, ..
            } => break channel.send(&answer_to(&request)).unwrap(),
            Event::ResponseSent { .. } | Event::InboundFailure { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    match event_beside(&mut asker, &mut answerer).await {
        Event::Response { request_id, .. } => assert_eq!(request_id, kept),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_than_may_wait_fail_at_once() {
    let one = SpecializedConfig {
        tuning: SpecializedTuning {
            max_outbound: 1,
            ..config().tuning
        },
        ..config()
    };
    let (mut asker, answerer) = pair(&one, &config()).await;
    let to = *answerer.local_peer_id();
    asker.behaviour_mut().send_request(to, &request(1));
    let id = asker.behaviour_mut().send_request(to, &request(2));
    let failed = failure_of(id, event(&mut asker).await);
    assert!(
        matches!(failed, OutboundFailure::TooMany { limit: 1 }),
        "{failed:?}"
    );
}

/// An asker that sends as many requests at once as it is told to.
fn eager() -> SpecializedConfig {
    SpecializedConfig {
        tuning: SpecializedTuning {
            max_outbound_per_connection: 64,
            ..config().tuning
        },
        ..config()
    }
}

/// Sends `requests` at once to an answerer that holds its answers back; how many it was given
/// and how many were refused, and by which limit.
async fn crowd(
    asker: &mut Swarm<Behaviour>,
    answerer: &mut Swarm<Behaviour>,
    requests: u8,
) -> (Vec<(Request, ResponseChannel)>, Vec<(Scope, usize)>) {
    let to = *answerer.local_peer_id();
    for nonce in 0..requests {
        asker.behaviour_mut().send_request(to, &request(nonce));
    }
    let (mut given, mut refused, mut heard) = (Vec::new(), Vec::new(), 0);
    let all = async {
        while given.len() + refused.len() < usize::from(requests) || heard < refused.len() {
            tokio::select! {
                event = answerer.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Request { request, channel, .. }) => {
                        given.push((request, channel));
                    }
                    SwarmEvent::Behaviour(Event::InboundFailure {
                        failure: InboundFailure::TooMany { limit, scope }, ..
                    }) => refused.push((scope, limit)),
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
                event = asker.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::OutboundFailure {
                        failure: OutboundFailure::Refused(Refusal::Busy), ..
                    }) => heard += 1,
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
            }
        }
    };
    // Far below every deadline of the configuration: the refusals came at once.
    tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .unwrap();
    (given, refused)
}

#[tokio::test]
async fn eight_of_a_connection_are_served_and_the_others_hear_that_it_is_busy() {
    let (mut asker, mut answerer) = pair(&eager(), &config()).await;
    let (given, refused) = crowd(&mut asker, &mut answerer, 12).await;
    assert_eq!(given.len(), 8);
    assert_eq!(refused, [(Scope::Peer(*asker.local_peer_id()), 8); 4]);
    assert_eq!(answerer.behaviour().inbound_requests(), 8);

    for (request, channel) in given {
        channel.send(&answer_to(&request)).unwrap();
    }
    for _ in 0..8 {
        let event = event_beside(&mut asker, &mut answerer).await;
        assert!(matches!(event, Event::Response { .. }), "{event:?}");
    }
    assert_eq!(answerer.behaviour().inbound_requests(), 0);
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
    let (mut first, mut answerer) = pair(&eager(), &few).await;
    let mut second = node(&eager());
    second.connect(&mut answerer).await;
    let (_held, refused) = crowd(&mut first, &mut answerer, 8).await;
    assert_eq!(refused, []);
    tokio::spawn(first.loop_on_next());
    let (given, refused) = crowd(&mut second, &mut answerer, 5).await;
    assert_eq!(given.len(), 2);
    assert_eq!(refused, [(Scope::Node, 10); 3]);
}

/// By default an asker keeps within what the answerer serves, so nothing is refused.
#[tokio::test]
async fn a_hundred_requests_at_once_are_all_answered() {
    let (mut asker, mut answerer) = pair(&config(), &config()).await;
    let to = *answerer.local_peer_id();
    for nonce in 0..100 {
        asker.behaviour_mut().send_request(to, &request(nonce));
    }
    let mut answered = 0;
    let all = async {
        while answered < 100 {
            tokio::select! {
                event = answerer.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Request { request, channel, .. }) => {
                        channel.send(&answer_to(&request)).unwrap();
                    }
                    SwarmEvent::Behaviour(Event::ResponseSent { .. }) => {}
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
                event = asker.select_next_some() => match event {
                    SwarmEvent::Behaviour(Event::Response { .. }) => answered += 1,
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
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
