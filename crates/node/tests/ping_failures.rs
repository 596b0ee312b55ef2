//! A peer that answers pings wrongly: the failure is the peer's, and not one of the node.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    convert::Infallible,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    task::{Context, Poll},
};

use calimero_network::{Multiaddr, PeerId};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, future::BoxFuture};
use libp2p::{
    InboundUpgrade, OutboundUpgrade, Stream, SwarmBuilder,
    core::{Endpoint, UpgradeInfo, transport::PortUse},
    noise,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, OneShotHandler,
        OneShotHandlerConfig, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
    tcp, yamux,
};
use support::{LIMIT, Process, calnet, run};

/// What a peer does with a stream of pings.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Dropped,
    Zeros,
}

impl UpgradeInfo for Fault {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/ipfs/ping/1.0.0")
    }
}

impl InboundUpgrade<Stream> for Fault {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_inbound(self, mut stream: Stream, _: &'static str) -> Self::Future {
        Box::pin(async move {
            if let Self::Zeros = self {
                stream.read_exact(&mut [0; 32]).await?;
                stream.write_all(&[0; 32]).await?;
                stream.close().await?;
            }
            Ok(())
        })
    }
}

/// It opens no stream.
impl OutboundUpgrade<Stream> for Fault {
    type Output = ();
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<()>>;

    fn upgrade_outbound(self, _: Stream, _: &'static str) -> Self::Future {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Faulty(Fault);

impl Faulty {
    fn handler(&self) -> THandler<Self> {
        let config = OneShotHandlerConfig::default();
        OneShotHandler::new(SubstreamProtocol::new(self.0, ()), config)
    }
}

impl NetworkBehaviour for Faulty {
    type ConnectionHandler = OneShotHandler<Fault, Fault, ()>;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        _: THandlerOutEvent<Self>,
    ) {
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Starts a peer that answers pings wrongly and returns its address.
async fn start(fault: Fault) -> String {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| Faulty(fault))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
        .build();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let peer = *swarm.local_peer_id();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    format!("{address}/p2p/{peer}")
}

/// The status line and body of the answer to a `POST` over the control socket.
fn post(data: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(data.join("control").join("socket")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "Host: localhost\r\nContent-Length: 0\r\nConnection: close";
    let request = format!("POST {target} HTTP/1.1\r\n{head}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_to_a_ping_is_a_failure_of_the_peer() {
    for fault in [Fault::Dropped, Fault::Zeros] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let address = start(fault).await;
        let peer = address.rsplit('/').next().unwrap();
        let node = Process::node(&["--data", data, "--local", "--dial", &address]);
        node.event("connected");
        let answer = post(folder.path(), &format!("/v1/peers/{peer}/ping"));
        assert!(answer.starts_with("HTTP/1.1 424 "), "{fault:?}: {answer}");
        assert!(answer.contains(r#""code":"not_reachable""#), "{answer}");
        let mut command = calnet();
        command.args(["ping", peer, "--json", "--count", "2", "--interval", "1"]);
        command.args(["--data", data]);
        let pinged = run(command);
        assert_eq!(pinged.code, Some(3), "{fault:?}: {}", pinged.stderr);
        let lines = pinged.json_lines();
        let failed = lines.iter().filter(|line| line["event"] == "no_pong");
        assert_eq!(failed.count(), 2, "{lines:?}");
    }
}
