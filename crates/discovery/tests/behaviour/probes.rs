//! Probes of our own addresses: believed, repeated, and not believed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use calimero_network_discovery::{
    Behaviour, Event,
    machine::{ProbeOutcome, Reachability},
};
use calimero_network_primitives::{
    Multiaddr, PeerId, addr::peer_of, config::DiscoveryConfig, multiaddr::Protocol,
};
use futures::AsyncWriteExt;
use libp2p_stream as stream;
use libp2p_swarm::{Stream, StreamProtocol, Swarm, SwarmEvent};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    common::{MEMORY, TCP, config, free_address, listen, node, told, until, vouched, within},
    servers::{Setup, boot, read, script, write},
};

const REQUEST: &str = "/libp2p/autonat/2/dial-request";
const BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");
const OK: i32 = 200;
const E_DIAL_ERROR: i32 = 100;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(message, optional, tag = "1")]
    request: Option<Request>,
    #[prost(message, optional, tag = "2")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(bytes = "vec", repeated, tag = "1")]
    addresses: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
    #[prost(uint32, tag = "2")]
    address: u32,
    #[prost(int32, tag = "3")]
    pub(crate) dial_status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBack {
    #[prost(fixed64, tag = "1")]
    nonce: u64,
}

async fn say(stream: &mut Stream, dial_status: i32) {
    let response = Response {
        status: OK,
        address: 0,
        dial_status,
    };
    let message = Message {
        response: Some(response),
        ..Message::default()
    };
    write(stream, &message).await;
}

/// Brings the nonce to a peer and waits for the thanks. Returns `None` if there are none.
async fn bring(mut control: stream::Control, peer: PeerId, nonce: u64) -> Option<()> {
    let mut stream = control.open_stream(peer, BACK).await.ok()?;
    let bytes = prost::Message::encode_length_delimited_to_vec(&DialBack { nonce });
    stream.write_all(&bytes).await.ok()?;
    stream.flush().await.ok()?;
    read::<DialBack>(&mut stream).await.map(drop)
}

/// How a server brings a nonce back.
#[derive(Clone)]
enum Back {
    Not,
    /// On the connection on which it was asked.
    SameConnection,
    /// On a new connection to this address, under another identity, as some implementations do.
    NewConnection(Multiaddr),
}

impl Back {
    async fn bring(self, control: stream::Control, peer: PeerId, nonce: u64) -> Option<()> {
        match self {
            Self::Not => None,
            Self::SameConnection => bring(control, peer, nonce).await,
            Self::NewConnection(to) => {
                let mut dialler = script(MEMORY, false).await;
                dialler.swarm.dial(to.with_p2p(peer).unwrap()).unwrap();
                let control = dialler.control.clone();
                until(&mut [&mut dialler.swarm], |_, event| match event {
                    SwarmEvent::ConnectionEstablished { .. } => Some(()),
                    _ => None,
                })
                .await;
                dialler.run();
                bring(control, peer, nonce).await
            }
        }
    }
}

/// A server that dials back in its way, and says that it reached us, or not.
async fn server(back: Back, reaches: Arc<AtomicBool>) -> Multiaddr {
    let mut script = script(MEMORY, true).await;
    let control = script.control.clone();
    script.answer(REQUEST, move |_, peer, mut stream| {
        let (control, reaches) = (control.clone(), Arc::clone(&reaches));
        let back = back.clone();
        async move {
            let Some(Message {
                request: Some(request),
                ..
            }) = read(&mut stream).await
            else {
                return;
            };
            if !reaches.load(Ordering::Relaxed) {
                return say(&mut stream, E_DIAL_ERROR).await;
            }
            // What it says does not depend on whether the node acknowledges the nonce.
            let _ = back.bring(control, peer, request.nonce).await;
            say(&mut stream, OK).await;
        }
    });
    script.run()
}

/// A router that passes on what comes in at a port of its own, until it is dropped.
struct Mapping {
    at: Multiaddr,
    task: JoinHandle<()>,
}

impl Mapping {
    async fn to(inside: &Multiaddr) -> Self {
        let port = |address: &Multiaddr| {
            address.iter().find_map(|part| match part {
                Protocol::Tcp(port) => Some(port),
                _ => None,
            })
        };
        let inside = port(inside).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outside = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            // What runs through it ends with it.
            let mut running = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                running.spawn(async move {
                    let mut to = TcpStream::connect(("127.0.0.1", inside)).await.unwrap();
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self {
            at: format!("/ip4/127.0.0.1/tcp/{outside}").parse().unwrap(),
            task,
        }
    }
}

#[tokio::test]
async fn an_address_that_libp2p_reaches_is_ours_until_its_mapping_is_gone() {
    let (boot, _task) = boot(TCP, Setup::default()).await;
    let prober = peer_of(&boot).unwrap();
    let mut config = config(&[boot]);
    config.reachability.retest = Duration::from_millis(300);
    let mut node = node(TCP, &config);
    let inside = listen(&mut node, TCP).await;
    let mapping = Mapping::to(&inside).await;
    let at = mapping.at.clone();
    // What an application knows of, a mapping on its router for instance, is a candidate.
    node.add_external_address(at.clone());
    told(&mut [&mut node], |_, event| match event {
        Event::Probed {
            address,
            server,
            outcome: ProbeOutcome::Reached,
        } if *address == at => {
            assert_eq!(*server, prober);
            Some(())
        }
        _ => None,
    })
    .await;
    mapping.task.abort();
    told(&mut [&mut node], |_, event| match event {
        Event::ExternalAddressExpired { address } if *address == at => Some(()),
        _ => None,
    })
    .await;
    assert!(!node.external_addresses().any(|address| *address == at));
}

/// A node outside of local networks that listens at `memory` and may be at an address of its site.
fn candidate(config: &mut DiscoveryConfig, memory: Multiaddr) -> (Swarm<Behaviour>, Multiaddr) {
    config.local_network = false;
    let mut node = node(MEMORY, config);
    node.listen_on(memory).unwrap();
    let at: Multiaddr = "/ip4/10.1.2.3/tcp/2428".parse().unwrap();
    node.add_external_address(at.clone());
    (node, at)
}

#[tokio::test]
async fn a_reachable_node_serves_the_probes_of_others() {
    let mut open = vouched(TCP, config(&[])).await;
    let prober = *open.local_peer_id();
    let at = open.listeners().next().unwrap().clone();
    let boot = at.with_p2p(prober).unwrap();
    let mut node = node(TCP, &config(&[boot]));
    let mapping = Mapping::to(&listen(&mut node, TCP).await).await;
    node.add_external_address(mapping.at);
    told(&mut [&mut node, &mut open], |_, event| match event {
        Event::Probed {
            server,
            outcome: ProbeOutcome::Reached,
            ..
        } => {
            assert_eq!(*server, prober);
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn an_address_is_probed_again_and_again_lost_and_found() {
    let reaches = Arc::new(AtomicBool::new(true));
    let memory = free_address(MEMORY);
    let back = Back::NewConnection(memory.clone());
    let boot = server(back, Arc::clone(&reaches)).await;
    let mut config = config(&[boot]);
    config.reachability.retest = Duration::from_millis(300);
    let (mut node, at) = candidate(&mut config, memory);
    for _ in 0..2 {
        told(&mut [&mut node], |_, event| match event {
            Event::ExternalAddressConfirmed { address } if *address == at => Some(()),
            _ => None,
        })
        .await;
        reaches.store(false, Ordering::Relaxed);
        told(&mut [&mut node], |_, event| match event {
            Event::ExternalAddressExpired { address } if *address == at => Some(()),
            _ => None,
        })
        .await;
        reaches.store(true, Ordering::Relaxed);
    }
}

/// A server that says it reached a node, and dials back in a way that does not show it.
async fn is_not_believed(back: Back) {
    let boot = server(back, Arc::new(AtomicBool::new(true))).await;
    let mut config = config(&[boot]);
    config.relays = 0;
    let (mut node, at) = candidate(&mut config, free_address(MEMORY));
    let mut probes = 0;
    told(&mut [&mut node], |_, event| {
        match event {
            Event::Probed { outcome, .. } => {
                assert_eq!(*outcome, ProbeOutcome::NotTried);
                probes += 1;
            }
            Event::ReachabilityChanged { reachability } => panic!("{reachability:?}"),
            _ => {}
        }
        (probes == 3).then_some(())
    })
    .await;
    let status = node.behaviour_mut().status().discovery;
    assert!(status.external_addresses.is_empty(), "{at} is not ours");
}

#[tokio::test]
async fn a_server_that_does_not_dial_back_is_not_believed() {
    is_not_believed(Back::Not).await;
}

/// It could do so through any NAT.
#[tokio::test]
async fn a_server_that_answers_on_the_connection_of_the_question_is_not_believed() {
    is_not_believed(Back::SameConnection).await;
}

#[tokio::test]
async fn an_address_that_nobody_reaches_makes_a_node_unreachable() {
    let boot = server(Back::Not, Arc::new(AtomicBool::new(false))).await;
    let (mut node, _) = candidate(&mut config(&[boot]), free_address(MEMORY));
    told(&mut [&mut node], |_, event| match event {
        Event::ReachabilityChanged {
            reachability: Reachability::Unreachable,
        } => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn an_interface_that_is_gone_takes_its_address_with_it() {
    let memory = free_address(MEMORY);
    let back = Back::NewConnection(memory.clone());
    let boot = server(back, Arc::new(AtomicBool::new(true))).await;
    let mut node = node(MEMORY, &config(&[boot]));
    let listener = node.listen_on(memory).unwrap();
    let at = until(&mut [&mut node], |_, event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await;
    told(&mut [&mut node], |_, event| match event {
        Event::ExternalAddressConfirmed { address } if *address == at => Some(()),
        _ => None,
    })
    .await;
    assert!(node.remove_listener(listener));
    told(&mut [&mut node], |_, event| match event {
        Event::ExternalAddressExpired { address } if *address == at => Some(()),
        _ => None,
    })
    .await;
}

/// What a server answers to a peer that names `addresses`.
pub(crate) async fn answer_to(
    control: &mut stream::Control,
    server: PeerId,
    addresses: &[&str],
) -> Response {
    let addresses = addresses.iter();
    let request = Request {
        addresses: addresses
            .map(|address| address.parse::<Multiaddr>().unwrap().to_vec())
            .collect(),
        nonce: 7,
    };
    let message = Message {
        request: Some(request),
        ..Message::default()
    };
    let mut stream = within(async {
        loop {
            let protocol = StreamProtocol::new(REQUEST);
            if let Ok(stream) = control.open_stream(server, protocol).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let bytes = prost::Message::encode_length_delimited_to_vec(&message);
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    let answer = within(read::<Message>(&mut stream)).await.unwrap();
    answer.response.unwrap()
}

#[tokio::test]
async fn a_stranger_has_nothing_on_this_host_dialled() {
    /// Status `E_DIAL_REFUSED` of the specification.
    const REFUSED: i32 = 101;
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let mut open = config(&[]);
    open.local_network = false;
    let server = vouched(TCP, open).await;
    let at = server.listeners().next().unwrap().clone();
    let at = at.with_p2p(*server.local_peer_id()).unwrap();
    crate::common::spawn(server);
    let loopback = format!("/ip4/127.0.0.1/tcp/{port}");
    let two_hosts = format!("/ip4/8.8.8.8/tcp/1{loopback}");
    let name = format!("/dns4/localhost/tcp/{port}");
    let private = "/ip4/10.0.0.1/tcp/22".to_owned();
    let mut script = script(TCP, true).await;
    script.swarm.dial(at.clone()).unwrap();
    let mut control = script.control.clone();
    script.run();
    let server = peer_of(&at).unwrap();
    for address in [&loopback, &two_hosts, &name, &private] {
        let answer = answer_to(&mut control, server, &[address]).await;
        assert_eq!(answer.status, REFUSED, "{address}: {answer:?}");
    }
    let trap = trap.into_std().unwrap();
    trap.set_nonblocking(true).unwrap();
    assert!(trap.accept().is_err(), "somebody has connected");
}
