//! Rendezvous servers that forget, are full, or want to do harm.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use calimero_network_discovery::{
    Event,
    machine::{Namespace, Registration, RendezvousFailure},
};
use calimero_network_primitives::{Keypair, Multiaddr, PeerId, addr::peer_of};
use libp2p_core::PeerRecord;
use libp2p_rendezvous as rendezvous;
use libp2p_swarm::SwarmEvent;

use crate::{
    common::{MEMORY, TCP, config, node, told, until, vouched},
    servers::{Setup, boot, kill, read, script, write},
};

const PROTOCOL: &str = "/rendezvous/1.0.0";
const GLOBAL: &str = "/calimero/devnet/global";

const DISCOVER: i32 = 3;
const DISCOVER_RESPONSE: i32 = 4;
const E_INVALID_COOKIE: i32 = 103;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    register: Option<Register>,
    #[prost(message, optional, tag = "5")]
    discover: Option<Discover>,
    #[prost(message, optional, tag = "6")]
    discovered: Option<Discovered>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Register {
    #[prost(string, optional, tag = "1")]
    namespace: Option<String>,
    #[prost(bytes = "vec", optional, tag = "2")]
    record: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    ttl: Option<u64>,
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
struct Discovered {
    #[prost(message, repeated, tag = "1")]
    registrations: Vec<Register>,
    #[prost(bytes = "vec", optional, tag = "2")]
    cookie: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "3")]
    status: Option<i32>,
}

fn discovered(registrations: Vec<Register>, status: i32) -> Message {
    Message {
        kind: Some(DISCOVER_RESPONSE),
        discovered: Some(Discovered {
            registrations,
            cookie: Some(b"where it ended".to_vec()),
            status: Some(status),
        }),
        ..Message::default()
    }
}

fn registration(keypair: &Keypair, addresses: &[&str]) -> Register {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let record = PeerRecord::new(keypair, addresses).unwrap();
    Register {
        namespace: Some(GLOBAL.to_owned()),
        record: Some(record.into_signed_envelope().into_protobuf_encoding()),
        ttl: Some(u64::MAX),
    }
}

/// A server that answers each discovery as `answer` says, given its number and cookie.
async fn discovery_server(
    answer: impl Fn(usize, Option<Vec<u8>>) -> Message + Send + Sync + 'static,
) -> Multiaddr {
    let mut script = script(MEMORY, true).await;
    let state = Arc::new((Mutex::new(0), answer));
    script.answer(PROTOCOL, move |_, _, mut stream| {
        let state = Arc::clone(&state);
        async move {
            let Some(Message {
                kind: Some(DISCOVER),
                discover: Some(question),
                ..
            }) = read(&mut stream).await
            else {
                return;
            };
            let number = {
                let mut number = state.0.lock().unwrap();
                *number += 1;
                *number - 1
            };
            write(&mut stream, &(state.1)(number, question.cookie)).await;
        }
    });
    script.run()
}

#[tokio::test]
async fn an_invalid_cookie_is_forgotten_and_the_question_repeated() {
    let cookies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&cookies);
    let friend = registration(&Keypair::generate_ed25519(), &["/memory/1"]);
    let boot = discovery_server(move |_, cookie| {
        let status = if cookie.is_some() {
            E_INVALID_COOKIE
        } else {
            0
        };
        seen.lock().unwrap().push(cookie.is_some());
        discovered(vec![friend.clone()], status)
    })
    .await;
    let mut node = node(MEMORY, &config(&[boot]));
    let mut answers = 0;
    told(&mut [&mut node], |_, event| {
        if let Event::Discovered { members, .. } = event {
            assert_eq!(*members, 1);
            answers += 1;
        }
        (answers == 3).then_some(())
    })
    .await;
    let asked = cookies.lock().unwrap().clone();
    assert_eq!(asked[..5], [false, true, false, true, false]);
}

#[tokio::test]
async fn a_server_that_has_restarted_is_asked_anew() {
    let setup = Setup::default();
    let keypair = setup.keypair.clone();
    let (address, task) = boot(TCP, setup).await;
    let mut node = vouched(TCP, config(std::slice::from_ref(&address))).await;
    let mut answers = 0;
    told(&mut [&mut node], |_, event| {
        answers += usize::from(matches!(event, Event::Discovered { .. }));
        (answers == 2).then_some(())
    })
    .await;
    kill(task).await;
    until(&mut [&mut node], |_, event| {
        matches!(event, SwarmEvent::ConnectionClosed { .. }).then_some(())
    })
    .await;
    let again = Setup {
        keypair,
        ..Setup::default()
    };
    let at = calimero_network_primitives::addr::without_peer(&address);
    let (_, _task) = boot(&at.to_string(), again).await;
    let (mut registered, mut asked) = (false, false);
    told(&mut [&mut node], |_, event| {
        registered |= matches!(event, Event::Registered { .. });
        // This node itself, which the new server knows again.
        asked |= matches!(event, Event::Discovered { members: 1, .. });
        (registered && asked).then_some(())
    })
    .await;
}

#[tokio::test]
async fn overlays_take_turns_at_a_server_that_is_full() {
    let setup = Setup {
        rendezvous: rendezvous::server::Config::default().with_max_registration_per_peer(4),
        ..Setup::default()
    };
    let (boot, _task) = boot(MEMORY, setup).await;
    let mut config = config(&[boot]);
    config.rendezvous.rotation = Duration::from_millis(300);
    let mut node = vouched(MEMORY, config).await;
    for number in 0..6 {
        let overlay = Namespace::new(&format!("/calimero/ctx/{number}")).unwrap();
        node.behaviour_mut().follow(overlay);
    }
    let (mut ever, mut refused) = (BTreeSet::new(), 0);
    told(&mut [&mut node], |_, event| {
        match event {
            Event::Registered { namespace, .. } => {
                ever.insert(namespace.clone());
            }
            Event::RegisterFailed { why, .. } => {
                assert_eq!(*why, RendezvousFailure::Unavailable);
                refused += 1;
            }
            _ => {}
        }
        (ever.len() == 7).then_some(())
    })
    .await;
    assert!(refused > 0, "it was full");
    let status = node.behaviour_mut().status().discovery;
    let held = status.registrations.iter();
    let held = held.filter(|one| matches!(one.state, Registration::Registered { .. }));
    assert!(held.count() <= 4);
}

#[tokio::test]
async fn ten_thousand_registrations_are_too_long_an_answer() {
    let registration = registration(&Keypair::generate_ed25519(), &["/memory/1"]);
    let boot = discovery_server(move |number, _| {
        let many = if number < 2 { 10_000 } else { 1 };
        discovered(vec![registration.clone(); many], 0)
    })
    .await;
    let mut node = node(MEMORY, &config(&[boot]));
    // Two answers are thrown away, the third is taken from the same server.
    let members = told(&mut [&mut node], |_, event| match event {
        Event::Discovered { members, .. } => Some(*members),
        _ => None,
    })
    .await;
    assert_eq!(members, 1);
}

#[tokio::test]
async fn what_a_server_tells_is_filtered_and_looked_at_as_far_as_was_asked_for() {
    let victim = Keypair::generate_ed25519();
    let honest = PeerId::from(victim.public());
    let local = Arc::new(Mutex::new(None::<Keypair>));
    let ours = Arc::clone(&local);
    let forged = {
        let mut forged = registration(&victim, &["/ip4/203.0.113.9/tcp/1"]);
        *forged.record.as_mut().unwrap().last_mut().unwrap() ^= 1;
        forged
    };
    let boot = discovery_server(move |_, _| {
        let mut all = vec![forged.clone()];
        if let Some(ours) = &*ours.lock().unwrap() {
            all.push(registration(ours, &["/ip4/203.0.113.1/tcp/1"]));
        }
        all.push(registration(
            &victim,
            &[
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/0.0.0.0/tcp/1",
                "/ip6/::1/udp/1/quic-v1",
                "/memory/1",
            ],
        ));
        // A thousand addresses are more than is verified.
        all.push(registration(
            &Keypair::generate_ed25519(),
            &["/ip4/203.0.113.2/tcp/1"; 1_000],
        ));
        let strangers = (0..1_000).map(|_| Keypair::generate_ed25519());
        all.extend(strangers.map(|s| registration(&s, &["/ip4/127.0.0.1/tcp/9"])));
        discovered(all, 0)
    })
    .await;
    let mut config = config(std::slice::from_ref(&boot));
    config.local_network = false;
    let keypair = Keypair::generate_ed25519();
    *local.lock().unwrap() = Some(keypair.clone());
    let mut node = crate::common::node_of(&keypair, MEMORY, &config);
    let mut answers = 0;
    let members = until(&mut [&mut node], |_, event| match event {
        SwarmEvent::Behaviour(Event::Discovered { members, .. }) => {
            answers += 1;
            (answers == 2).then_some(*members)
        }
        SwarmEvent::Dialing { peer_id, .. } => {
            assert_eq!(*peer_id, peer_of(&boot), "only the server can be dialled");
            None
        }
        _ => None,
    })
    .await;
    // The members of the first answer cannot be dialled, so the second request asks for as many
    // again. Of the 48, one is forged and one too long.
    assert_eq!(members, 46);
    let status = node.behaviour_mut().status().discovery;
    assert_eq!(status.known_peers, 1, "the server");
    assert!(node.behaviour().cache().iter().all(|e| e.peer != honest));
    assert_eq!(status.queued_dials + status.dials_in_flight, 0);
}

#[tokio::test]
async fn answers_of_another_kind_end_nothing_but_the_question() {
    let good = registration(&Keypair::generate_ed25519(), &["/memory/1"]);
    let boot = discovery_server(move |number, _| match number {
        // What only a client says; libp2p-rendezvous 0.18 panics on it.
        0 => Message {
            kind: Some(0),
            register: Some(good.clone()),
            ..Message::default()
        },
        1 => Message::default(),
        _ => discovered(vec![good.clone()], 0),
    })
    .await;
    let mut node = node(MEMORY, &config(&[boot]));
    told(&mut [&mut node], |_, event| {
        matches!(event, Event::Discovered { members: 1, .. }).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replayed_record_displaces_no_address_that_works() {
    let (keypair, config) = (Keypair::generate_ed25519(), config(&[]));
    let mut friend = crate::common::node_of(&keypair, MEMORY, &config);
    let at = crate::common::listen(&mut friend, MEMORY).await;
    let good = calimero_network_primitives::addr::without_peer(&at).to_string();
    // Genuine, and of a time when its owner was somewhere else.
    let old: Vec<_> = (1..20).map(|n| format!("/memory/{n}")).collect();
    let records: Vec<_> = old
        .iter()
        .map(|address| registration(&keypair, &[address]))
        .collect();
    let now = registration(&keypair, &[good.as_str()]);
    let boot = discovery_server(move |number, _| {
        let told = match number {
            0 => now.clone(),
            _ => records[number % records.len()].clone(),
        };
        discovered(vec![told], 0)
    })
    .await;
    let mut node = node(MEMORY, &crate::common::config(&[boot]));
    let mut answers = HashMap::new();
    told(&mut [&mut node, &mut friend], |who, event| {
        if let Event::Discovered { .. } = event {
            *answers.entry(who).or_insert(0) += 1;
        }
        answers.values().any(|n| *n >= 8).then_some(())
    })
    .await;
    let cache = node.behaviour().cache();
    let entry = cache
        .iter()
        .find(|entry| entry.peer == PeerId::from(keypair.public()));
    assert_eq!(entry.unwrap().addresses[0].to_string(), good);
}
