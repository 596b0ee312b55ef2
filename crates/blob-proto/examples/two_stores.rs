//! Blobs in a Swarm that has only the stream behaviour: one node serves a store,
//! another fetches a blob of it over TCP on this machine. Ends by itself.
//!
//! `cargo run -p calimero-network-blob --example two_stores`

use std::{error::Error, sync::Arc, time::Duration};

use calimero_network_blob::{
    fetch::{BlobFetchConfig, Destination, FetchRequest, Fetcher},
    serve::{BlobServeConfig, Server},
    store::{FsBlobStore, FsConfig},
    transfer::{Identity, PROTOCOLS, StreamOpener},
};
use calimero_network_primitives::{ContextId, Keypair, Multiaddr};
use calimero_network_stream::{
    Behaviour, Control, StreamProtocol,
    config::{StreamsConfig, max_negotiating_inbound_streams},
};
use futures::{StreamExt, stream};
use libp2p_core::{Transport, upgrade};
use libp2p_swarm::{Swarm, SwarmEvent};

/// Within which it is all done, or has failed.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (there, here) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let theirs = FsBlobStore::open(there.path(), &FsConfig::default())?;
    let ours = FsBlobStore::open(here.path(), &FsConfig::default())?;
    // Three chunks, the last one short.
    let content: Vec<u8> = (0..2_500_000_u32).map(|at| at.to_be_bytes()[3]).collect();
    let blob_id = theirs.put(&content)?.id;

    let (mut provider, provider_control) = swarm()?;
    let provider_id = *provider.local_peer_id();
    provider.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = listening(&mut provider).await;
    let server = Server::new(provider_id, Arc::new(theirs), &BlobServeConfig::default())
        .with_authorizer(|_access| true); // every peer may have every blob
    serve(&provider_control, &server)?;
    tokio::spawn(drive(provider));

    let (mut requester, control) = swarm()?;
    let requester_id = *requester.local_peer_id();
    requester.dial(address)?;
    connected(&mut requester).await?;
    tokio::spawn(drive(requester));
    let fetcher = Fetcher::new(
        StreamOpener::new(control),
        Identity::unsigned(requester_id),
        &BlobFetchConfig::default(),
    );
    let request = FetchRequest::new(ContextId::new([7; 32]), blob_id);
    let to = Destination::Store(Arc::new(ours.clone()));
    let transfer = fetcher.fetch(request, stream::iter([provider_id]), to);
    let mut progress = transfer.progress();
    tokio::spawn(async move {
        while let Some(progress) = progress.next().await {
            println!("{} bytes verified", progress.verified_bytes);
        }
    });
    let fetched = transfer.await?;
    println!("{} bytes of {}, durable", fetched.size_bytes, fetched.id);
    assert_eq!(fetched.size_bytes, 2_500_000);
    assert_eq!(fetched.providers, [(provider_id, 2_500_000)]);
    assert!(ours.has(&blob_id));
    Ok(())
}

/// Answers the streams of both versions of the protocol.
fn serve(control: &Control, server: &Server) -> Result<(), Box<dyn Error>> {
    for version in PROTOCOLS {
        let mut incoming = control.accept(StreamProtocol::new(version.name()))?;
        let server = server.clone();
        tokio::spawn(async move {
            while let Some(inbound) = incoming.next().await {
                tokio::spawn(server.serve(inbound.peer, version, inbound.stream));
            }
        });
    }
    Ok(())
}

fn swarm() -> Result<(Swarm<Behaviour>, Control), Box<dyn Error>> {
    let identity = Keypair::generate_ed25519();
    let transport = libp2p_tcp::tokio::Transport::default()
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(libp2p_noise::Config::new(&identity)?)
        .multiplex(libp2p_yamux::Config::default())
        .boxed();
    let config = StreamsConfig::default();
    let swarm_config = libp2p_swarm::Config::with_tokio_executor()
        .with_max_negotiating_inbound_streams(max_negotiating_inbound_streams(&config));
    let behaviour = Behaviour::new(config);
    let control = behaviour.control();
    let peer = identity.public().to_peer_id();
    Ok((
        Swarm::new(transport, behaviour, peer, swarm_config),
        control,
    ))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

async fn connected(swarm: &mut Swarm<Behaviour>) -> Result<(), Box<dyn Error>> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

/// Keeps a swarm going until the program ends.
async fn drive(mut swarm: Swarm<Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}
