//! Boot nodes of libp2p's own parts, and servers that say what a test wants.

use std::{future::Future, time::Duration};

use calimero_network_primitives::{Keypair, Multiaddr, PeerId};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p_autonat::v2 as autonat;
use libp2p_identify as identify;
use libp2p_relay as relay;
use libp2p_rendezvous as rendezvous;
use libp2p_stream as stream;
use libp2p_swarm::{NetworkBehaviour, Stream, StreamProtocol, Swarm, SwarmEvent};
use prost::Message;
use tokio::task::JoinHandle;

use crate::common::{listen, spawn, swarm_of};

/// What libp2p has for a boot node.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub(crate) struct Boot {
    identify: identify::Behaviour,
    rendezvous: rendezvous::server::Behaviour,
    relay: relay::Behaviour,
    autonat: autonat::server::Behaviour,
}

/// How a boot node is set up.
pub(crate) struct Setup {
    pub(crate) keypair: Keypair,
    pub(crate) rendezvous: rendezvous::server::Config,
    pub(crate) relay: relay::Config,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keypair: Keypair::generate_ed25519(),
            rendezvous: rendezvous::server::Config::default(),
            relay: relay::Config::default(),
        }
    }
}

fn identify_of(keypair: &Keypair) -> identify::Behaviour {
    let config = identify::Config::new("/test/1".to_owned(), keypair.public());
    identify::Behaviour::new(config)
}

/// A boot node that runs until its task is aborted.
pub(crate) async fn boot(at: &str, setup: Setup) -> (Multiaddr, JoinHandle<()>) {
    let peer = setup.keypair.public().to_peer_id();
    let behaviour = Boot {
        identify: identify_of(&setup.keypair),
        rendezvous: rendezvous::server::Behaviour::new(setup.rendezvous),
        relay: relay::Behaviour::new(peer, setup.relay),
        autonat: autonat::server::Behaviour::default(),
    };
    let mut swarm = swarm_of(&setup.keypair, at, behaviour);
    let address = listen(&mut swarm, at).await;
    // A relay returns the addresses that it knows as its own.
    let external = calimero_network_primitives::addr::without_peer(&address);
    swarm.add_external_address(external);
    (address, spawn(swarm))
}

/// Ends a server, and frees its address.
pub(crate) async fn kill(task: JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

/// A server whose streams a test answers.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub(crate) struct Scripted {
    identify: libp2p_swarm::behaviour::toggle::Toggle<identify::Behaviour>,
    pub(crate) streams: stream::Behaviour,
}

pub(crate) struct Script {
    pub(crate) keypair: Keypair,
    pub(crate) swarm: Swarm<Scripted>,
    pub(crate) control: stream::Control,
    /// Address that the server listens on.
    pub(crate) address: Multiaddr,
}

/// A server that listens at `at` and speaks identify, unless the script does.
pub(crate) async fn script(at: &str, identify: bool) -> Script {
    let keypair = Keypair::generate_ed25519();
    let streams = stream::Behaviour::new();
    let control = streams.new_control();
    let behaviour = Scripted {
        identify: identify.then(|| identify_of(&keypair)).into(),
        streams,
    };
    let mut swarm = swarm_of(&keypair, at, behaviour);
    let address = listen(&mut swarm, at).await;
    Script {
        keypair,
        swarm,
        control,
        address,
    }
}

impl Script {
    /// Answers each stream of `protocol` by `answer`, which is given the stream's number.
    pub(crate) fn answer<F, A>(&mut self, protocol: &'static str, mut answer: F)
    where
        F: FnMut(usize, PeerId, Stream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let protocol = StreamProtocol::new(protocol);
        let mut streams = self.control.accept(protocol).unwrap();
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((peer, stream)) = streams.next().await {
                tokio::spawn(answer(number, peer, stream));
                number += 1;
            }
        });
    }

    /// Runs until the test ends.
    pub(crate) fn run(self) -> Multiaddr {
        spawn(self.swarm);
        self.address
    }

    /// Runs, and closes each connection as soon as it is used for `protocol`.
    pub(crate) fn run_dropping(mut self, protocol: &'static str) -> Multiaddr {
        let protocol = StreamProtocol::new(protocol);
        let mut streams = self.control.accept(protocol).unwrap();
        let mut swarm = self.swarm;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => drop::<SwarmEvent<_>>(event),
                    Some((peer, _)) = streams.next() => {
                        let _ = swarm.disconnect_peer_id(peer);
                    }
                }
            }
        });
        self.address
    }
}

/// Reads one length-prefixed message, whatever its length.
pub(crate) async fn read<M: Message + Default>(stream: &mut Stream) -> Option<M> {
    let (mut length, mut place) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << place;
        place += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.ok()?;
    M::decode(bytes.as_slice()).ok()
}

pub(crate) async fn write<M: Message>(stream: &mut Stream, message: &M) {
    say(stream, message).await;
    let _ = stream.close().await;
}

/// As [`write`], for a stream that stays open.
pub(crate) async fn say<M: Message>(stream: &mut Stream, message: &M) {
    let bytes = message.encode_length_delimited_to_vec();
    // The other end may have had enough before the end.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
}

/// A time that is longer than any test.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);
