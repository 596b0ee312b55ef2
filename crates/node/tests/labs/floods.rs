//! What attackers do, in a process of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use calimero_network::{
    Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkManager, PeerId, StreamProtocol,
    Substream,
};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    SwarmBuilder,
    multiaddr::Protocol,
    noise,
    swarm::{SwarmEvent, dummy},
    tcp, yamux,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Environment variables: address of the node, name of the attack, and its time in seconds.
pub(crate) const TARGET: &str = "CALNET_LAB_TARGET";
pub(crate) const ATTACK: &str = "CALNET_LAB_ATTACK";
pub(crate) const SECONDS: &str = "CALNET_LAB_SECONDS";

/// Prefix of the line in which the attackers report what they did.
pub(crate) const DONE: &str = "attackers did: ";

/// Connections of one address at the same time, and identities of a whole attack.
const CONNECTIONS: usize = 10_000;
const IDENTITIES: usize = 5_000;

/// Identities that are connected at the same time, and how long each stays.
const IDENTITIES_AT_ONCE: usize = 64;
const IDENTITY_TIME: Duration = Duration::from_millis(500);

/// Streams that one peer floods, or holds, at the same time.
const STREAMS: usize = 16;
const HELD_STREAMS: usize = 200;

/// Peers of an attack from many.
const PEERS: usize = 12;

/// Time that an attacker waits for a stream, and before it connects again.
const PAUSE: Duration = Duration::from_secs(1);

/// Time before a connection that was closed is made again: with 10,000 of them, 1,000 per second.
const RECONNECT_PAUSE: Duration = Duration::from_secs(10);

/// Time that an attacker waits for an answer to a message of a flood.
const ANSWER: Duration = Duration::from_millis(200);

/// Valid messages of a flood that are written to one stream at once.
const REPEATED: usize = 64;

/// The kinds of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    Connections,
    Identities,
    Unread,
    Dribbled,
    HalfSent,
    Valid,
    Malformed,
    ValidByMany,
    MalformedByMany,
}

impl Attack {
    pub(crate) const ALL: &[Self] = &[
        Self::Connections,
        Self::Identities,
        Self::Unread,
        Self::Dribbled,
        Self::HalfSent,
        Self::Valid,
        Self::Malformed,
        Self::ValidByMany,
        Self::MalformedByMany,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "10,000 connections of one address",
            Self::Identities => "5,000 identities",
            Self::Unread => "streams unread",
            Self::Dribbled => "streams dribbled",
            Self::HalfSent => "streams half-sent",
            Self::Valid => "valid messages of one peer",
            Self::Malformed => "malformed messages of one peer",
            Self::ValidByMany => "valid messages of 12 peers",
            Self::MalformedByMany => "malformed messages of 12 peers",
        }
    }
}

/// Every protocol that a node speaks, with bytes that are valid at the beginning of its stream.
/// Empty where the other side speaks first.
const PROTOCOLS: &[(&str, &[u8])] = &[
    ("/ipfs/ping/1.0.0", &[7; 32]),
    ("/ipfs/id/1.0.0", &[]),
    ("/ipfs/id/push/1.0.0", &[2, 0x2a, 0]),
    // FIND_NODE for a key of four bytes.
    ("/calimero/kad/1.0.0", &[8, 8, 4, 0x12, 4, 1, 2, 3, 4]),
    // A subscription to the topic "x".
    ("/meshsub/1.3.0", &[7, 0x0a, 5, 8, 1, 0x12, 1, b'x']),
    ("/meshsub/1.2.0", &[7, 0x0a, 5, 8, 1, 0x12, 1, b'x']),
    ("/meshsub/1.1.0", &[7, 0x0a, 5, 8, 1, 0x12, 1, b'x']),
    ("/meshsub/1.0.0", &[7, 0x0a, 5, 8, 1, 0x12, 1, b'x']),
    // A frame of three bytes.
    ("/calimero/stream/0.0.2", &[0, 0, 0, 3, 1, 2, 3]),
    ("/calimero/blob/0.0.2", &[0, 0, 0, 2, b'{', b'}']),
    ("/calimero/blob/1.0.0", &[1, 0]),
    ("/calimero/blob/1.1.0", &[1, 0]),
    // RESERVE, CONNECT and CONNECT.
    ("/libp2p/circuit/relay/0.2.0/hop", &[2, 8, 0]),
    ("/libp2p/circuit/relay/0.2.0/stop", &[2, 8, 0]),
    ("/libp2p/dcutr", &[3, 8, 100, 0x12]),
    ("/libp2p/autonat/2/dial-request", &[2, 0x0a, 0]),
    ("/libp2p/autonat/2/dial-back", &[2, 8, 1]),
    // DIAL without a peer.
    ("/libp2p/autonat/1.0.0", &[2, 8, 0]),
    // DISCOVER without a namespace.
    ("/rendezvous/1.0.0", &[4, 8, 3, 0x2a, 0]),
    ("/perf/1.0.0", &[0, 0, 0, 0, 0, 0, 0, 9]),
    (
        "/calimero/specialized-node-invite/1.0.0",
        &[0, 0, 0, 2, b'{', b'}'],
    ),
];

/// Bytes that are malformed in every protocol: random ones, an endless varint, or a varint of 256 MiB
/// before 2,000 bytes.
fn malformed(nth: u64) -> Vec<u8> {
    match nth % 3 {
        0 => {
            let mut state = nth | 1;
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            };
            (0..600).map(|_| next()).collect()
        }
        1 => vec![0xff; 12],
        _ => [&[0xfe, 0xff, 0xff, 0x7f], &[0x5a; 2000][..]].concat(),
    }
}

/// Runs the attack that the environment names.
pub(crate) fn attack() {
    let (Ok(target), Ok(name)) = (std::env::var(TARGET), std::env::var(ATTACK)) else {
        return;
    };
    let seconds = std::env::var(SECONDS).unwrap().parse().unwrap();
    let attack = Attack::ALL
        .iter()
        .find(|attack| attack.name() == name)
        .unwrap();
    let target: Multiaddr = target.parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let done = runtime.block_on(carry_out(*attack, target, until));
    println!("{DONE}{done}");
    runtime.shutdown_timeout(PAUSE);
}

async fn carry_out(attack: Attack, target: Multiaddr, until: Instant) -> String {
    match attack {
        Attack::Connections => connections(&target, until).await,
        Attack::Identities => identities(target, until).await,
        Attack::Unread | Attack::Dribbled | Attack::HalfSent => hold(attack, target, until).await,
        Attack::Valid => flood(1, true, target, until).await,
        Attack::Malformed => flood(1, false, target, until).await,
        Attack::ValidByMany => flood(PEERS, true, target, until).await,
        Attack::MalformedByMany => flood(PEERS, false, target, until).await,
    }
}

/// Connections on which nothing is sent. Those that the node closes are made again.
async fn connections(target: &Multiaddr, until: Instant) -> String {
    let mut parts = target.iter();
    let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else {
        panic!("{target} is no address of TCP");
    };
    let made = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let made = made.clone();
        all.spawn(async move {
            while Instant::now() < until {
                if let Ok(mut stream) = TcpStream::connect((ip, port)).await {
                    made.fetch_add(1, Ordering::Relaxed);
                    let mut byte = [0; 128];
                    let reading = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
                    let _ = tokio::time::timeout_at(until, reading).await;
                }
                sleep_until(until.min(Instant::now() + RECONNECT_PAUSE)).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    format!("{} connections", made.load(Ordering::Relaxed))
}

/// Identities, each of which connects once and does nothing.
async fn identities(target: Multiaddr, until: Instant) -> String {
    let (begun, connected) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..IDENTITIES_AT_ONCE {
        let (begun, connected, target) = (begun.clone(), connected.clone(), target.clone());
        all.spawn(async move {
            while Instant::now() < until
                && begun.fetch_add(1, Ordering::Relaxed) < IDENTITIES as u64
            {
                let swarm = SwarmBuilder::with_new_identity().with_tokio().with_tcp(
                    tcp::Config::default(),
                    noise::Config::new,
                    yamux::Config::default,
                );
                let mut swarm = swarm
                    .unwrap()
                    .with_behaviour(|_| dummy::Behaviour)
                    .unwrap()
                    .build();
                swarm.dial(target.clone()).unwrap();
                let staying = async {
                    while let Some(event) = swarm.next().await {
                        if matches!(event, SwarmEvent::ConnectionEstablished { .. }) {
                            connected.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                };
                let _ = timeout(IDENTITY_TIME, staying).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    let begun = begun.load(Ordering::Relaxed).min(IDENTITIES as u64);
    format!(
        "{begun} identities, {} connected",
        connected.load(Ordering::Relaxed)
    )
}

/// A peer, kept connected.
async fn peer(target: &Multiaddr) -> (NetworkClient, PeerId) {
    let config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    let key = Keypair::generate_ed25519();
    let (client, mut events) = NetworkManager::start(key, config).await.unwrap();
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let dialled = client.dial(target.clone()).await.unwrap();
    (client, dialled.peer)
}

async fn open(client: &NetworkClient, peer: PeerId, name: &'static str) -> Option<Substream> {
    let opening = client.open_raw_stream(peer, StreamProtocol::new(name));
    timeout(PAUSE, opening).await.ok()?.ok()
}

/// Streams of every protocol that are begun and never ended.
async fn hold(attack: Attack, target: Multiaddr, until: Instant) -> String {
    let (client, node) = peer(&target).await;
    let opened = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for nth in 0..HELD_STREAMS {
        let (client, opened, target) = (client.clone(), opened.clone(), target.clone());
        let (name, valid) = PROTOCOLS[nth % PROTOCOLS.len()];
        all.spawn(async move {
            while Instant::now() < until {
                let Some(mut stream) = open(&client, node, name).await else {
                    let _ = client.dial(target.clone()).await;
                    sleep(PAUSE).await;
                    continue;
                };
                opened.fetch_add(1, Ordering::Relaxed);
                let _ = tokio::time::timeout_at(until, held(attack, &mut stream, valid)).await;
            }
        });
    }
    while all.join_next().await.is_some() {}
    let count = opened.load(Ordering::Relaxed);
    format!("{count} streams of {} protocols", PROTOCOLS.len())
}

/// Holds one stream until the node ends it.
async fn held(attack: Attack, stream: &mut Substream, valid: &[u8]) {
    match attack {
        // Requests whose answers are not read.
        Attack::Unread => {
            while stream.write_all(valid).await.is_ok() && stream.flush().await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        }
        // A byte every half second, without an end.
        Attack::Dribbled => loop {
            for byte in [valid, &[1; 64]].concat() {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
        },
        // All but the last byte.
        _ => {
            let _ = stream
                .write_all(&valid[..valid.len().saturating_sub(1)])
                .await;
            let _ = stream.flush().await;
            let _ = stream.read(&mut [0; 1024]).await;
        }
    }
}

/// Messages of every protocol as fast as they go.
async fn flood(peers: usize, valid: bool, target: Multiaddr, until: Instant) -> String {
    let sent = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for nth in 0..peers {
        let (client, node) = peer(&target).await;
        for stream in 0..STREAMS {
            let (client, sent, target) = (client.clone(), sent.clone(), target.clone());
            all.spawn(async move {
                let mut at = nth + stream;
                while Instant::now() < until {
                    at += 1;
                    let (name, message) = PROTOCOLS[at % PROTOCOLS.len()];
                    let (message, count) = if valid {
                        (message.repeat(REPEATED), REPEATED)
                    } else {
                        (malformed(at as u64), 1)
                    };
                    if let Some(stream) = open(&client, node, name).await {
                        exchange(stream, &message).await;
                        sent.fetch_add(count as u64, Ordering::Relaxed);
                    } else if client.dial(target.clone()).await.is_err() {
                        sleep(PAUSE).await;
                    }
                }
            });
        }
    }
    while all.join_next().await.is_some() {}
    let count = sent.load(Ordering::Relaxed);
    format!("{count} messages of {} protocols", PROTOCOLS.len())
}

async fn exchange(mut stream: Substream, message: &[u8]) {
    let exchanging = async {
        stream.write_all(message).await?;
        stream.close().await?;
        stream.read(&mut [0; 4096]).await
    };
    let _ = timeout(ANSWER, exchanging).await;
}

/// The table of protocols in the documentation is flooded as a whole.
#[test]
fn every_protocol_is_flooded() {
    let page = include_str!("../../../../docs/protocol.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split('`').nth(1));
    let names: Vec<_> = rows.filter(|name| name.starts_with('/')).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let known = PROTOCOLS.iter().any(|(known, _)| *known == name);
        assert!(known, "{name} is not flooded");
    }
}
