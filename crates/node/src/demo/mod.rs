//! `calnet demo`: a boot node and others in one process on loopback, over real sockets. It
//! shows what happens as it happens, checks what it did, and ends with a table.

mod blob;
mod lines;
mod meeting;
mod node;
mod overlay;
mod page;
mod traffic;

use std::time::{Duration, Instant};

use calimero_network::{
    AddressError, Connection, DialError, Direction, Keypair, PeerId, SecurityKind, TransportKind,
    addr, multiaddr::Protocol,
};

use futures::future::try_join_all;
use tokio::sync::mpsc;

pub(crate) use self::page::DemoArgs;
use self::{
    lines::{Check, EdgeReport, Line, Summary},
    node::{Node, Role, Speaks},
    overlay::{Heard, LEAST_MESH},
    traffic::Traffic,
};
use crate::{error::CommandError, output::Output, signals::Signals};

/// Time for each step. The whole takes a few seconds; a step that hangs ends with its name.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the blob to be stored twice, and to be fetched: for a node that is silent a fetch waits
/// `blob.fetch.stall_timeout_ms`, 10 s.
const BLOB_TIMEOUT: Duration = Duration::from_secs(20);

/// Received messages that wait to be counted: all of the demonstration.
const HEARD_QUEUE: usize = 1024;

/// One connection of the demonstration: its dialler, its listener and its transport.
struct Edge {
    from: usize,
    to: usize,
    over: Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Quic,
}

/// The boot node is number 0. Together the edges show both transports and both securities, each
/// node dials and is dialled, and every node meets every other.
const EDGES: [Edge; 6] = [
    Edge {
        from: 1,
        to: 0,
        over: Over::Tcp,
    },
    Edge {
        from: 2,
        to: 0,
        over: Over::Quic,
    },
    Edge {
        from: 3,
        to: 0,
        over: Over::Tcp,
    },
    Edge {
        from: 1,
        to: 2,
        over: Over::Quic,
    },
    Edge {
        from: 2,
        to: 3,
        over: Over::Tcp,
    },
    Edge {
        from: 3,
        to: 1,
        over: Over::Quic,
    },
];

pub(crate) async fn execute(
    args: DemoArgs,
    output: Output,
    mut signals: Signals,
) -> Result<(), CommandError> {
    let started = Instant::now();
    let (hear, heard) = mpsc::channel(HEARD_QUEUE);
    let mut demo = Demo {
        output,
        nodes: Vec::new(),
        edges: Vec::new(),
        checks: Vec::new(),
        heard,
        hear,
    };
    let ran = tokio::select! {
        ran = demo.run() => ran,
        () = signals.stop() => return Err(CommandError::Interrupted),
    };
    let finished = ran.and_then(|()| demo.finish(started.elapsed()));
    let shown = match args.page && finished.is_ok() {
        true => demo.show_pages(&mut signals).await,
        false => Ok(()),
    };
    let stopped = demo.stop().await;
    finished.and(shown).and(stopped)
}

/// The state of a demonstration under way.
struct Demo {
    output: Output,
    nodes: Vec<Node>,
    edges: Vec<EdgeReport>,
    checks: Vec<Check>,
    /// Messages that the nodes receive on the overlay.
    heard: mpsc::Receiver<Heard>,
    hear: mpsc::Sender<Heard>,
}

impl Demo {
    async fn run(&mut self) -> Result<(), CommandError> {
        for (name, speaks, role) in [
            ("boot", Speaks::Everything, Role::Boot),
            ("alice", Speaks::Everything, Role::Guided),
            ("bob", Speaks::Everything, Role::Guided),
            ("carol", Speaks::NoiseOnTcp, Role::Guided),
        ] {
            let node = step(
                "starting a node",
                Node::start(name, speaks, role, self.hear.clone(), &self.output),
            )
            .await?;
            self.nodes.push(node);
        }
        for edge in &EDGES {
            self.connect(edge).await?;
        }
        for (nth, edge) in EDGES.iter().enumerate() {
            let traffic = step("moving frames", self.talk(edge)).await?;
            let (from, to) = (self.nodes[edge.from].name, self.nodes[edge.to].name);
            self.output.print(&Line::moved(from, to, &traffic));
            self.check_traffic(nth, traffic);
        }
        self.gossip().await?;
        self.refuse_wrong_peer().await?;
        self.count_peers().await?;
        self.introduce().await?;
        self.deliver().await
    }

    /// Two of the newcomers have a blob, the third fetches it by its id, and one of the two is
    /// killed on the way.
    async fn deliver(&mut self) -> Result<(), CommandError> {
        let Some(victim) = self.nodes.pop() else {
            return Ok(());
        };
        let [.., survivor, here] = self.nodes.as_slice() else {
            return Ok(());
        };
        let announcing = blob::announce([survivor, &victim]);
        let id = within(BLOB_TIMEOUT, "announcing a blob", announcing).await?;
        let delivering = blob::deliver(here, survivor, victim, id, &self.output);
        let delivery = within(BLOB_TIMEOUT, "fetching a blob", delivering).await?;
        self.output.print(&Line::delivered(&delivery));
        self.check(
            "a blob came by its id alone: all of it, verified".to_owned(),
            delivery.is_complete(),
        );
        self.check(
            "both providers gave a part of it".to_owned(),
            delivery.is_from_both(),
        );
        self.check(
            "one of them was killed on the way, and the other one gave the rest".to_owned(),
            delivery.is_rescued(),
        );
        Ok(())
    }

    /// Starts nodes that know the boot node alone, and waits until they have found each other.
    async fn introduce(&mut self) -> Result<(), CommandError> {
        let boot = self.nodes[0].address(false);
        let first = self.nodes.len();
        for name in meeting::NEWCOMERS {
            let role = match name == meeting::MORTAL {
                true => Role::Mortal(boot.clone()),
                false => Role::Newcomer(boot.clone()),
            };
            let (hear, output) = (self.hear.clone(), &self.output);
            let starting = Node::start(name, Speaks::Everything, role, hear, output);
            let node = step("starting a node", starting).await?;
            self.nodes.push(node);
        }
        let newcomers = &self.nodes[first..];
        let met = step("finding each other", meeting::meet(newcomers)).await?;
        self.output.print(&Line::met(&met));
        self.check(
            "nodes that know only the boot node have found each other".to_owned(),
            met.is_complete(),
        );
        Ok(())
    }

    /// All nodes subscribe to one topic and publish, and each receives all messages.
    async fn gossip(&mut self) -> Result<(), CommandError> {
        let meshes = step("making a mesh", overlay::meet(&self.nodes)).await?;
        let talking = overlay::talk(&self.nodes, meshes, &mut self.heard);
        let gossip = step("publishing", talking).await?;
        self.output.print(&Line::overlay(&gossip));
        self.check(
            "every node has two others or more in its mesh".to_owned(),
            gossip.meshes.iter().all(|size| *size >= LEAST_MESH),
        );
        self.check(
            "every message was heard by every other node, unchanged and once".to_owned(),
            gossip.is_complete(),
        );
        Ok(())
    }

    /// Dials along an edge and checks that both ends see the same connection.
    async fn connect(&mut self, edge: &Edge) -> Result<(), CommandError> {
        let (from, to) = (&self.nodes[edge.from], &self.nodes[edge.to]);
        let dialled = step("dialling", reached(from, to, edge.over)).await?;
        let peer = from.client.peer_id();
        let seen = step("accepting", accepted(to, peer, dialled.transport())).await?;
        let report = EdgeReport::new(from.name, to.name, &dialled);
        let agreed = dialled.transport() == seen.transport()
            && dialled.security() == seen.security()
            && dialled.muxer() == seen.muxer();
        let both_speak_tls = from.speaks == Speaks::Everything && to.speaks == Speaks::Everything;
        let expected = match dialled.security() {
            SecurityKind::QuicTls { .. } => edge.over == Over::Quic,
            SecurityKind::Tls { .. } => edge.over == Over::Tcp && both_speak_tls,
            SecurityKind::Noise => edge.over == Over::Tcp && !both_speak_tls,
        };
        let what = format!("{} and {} agree on {}", from.name, to.name, report.stack);
        self.check(what, agreed && expected);
        self.edges.push(report);
        Ok(())
    }

    async fn talk(&self, edge: &Edge) -> Result<Traffic, CommandError> {
        let to = self.nodes[edge.to].client.peer_id();
        let client = self.nodes[edge.from].client.clone();
        let talking = traffic::run(client.clone(), to);
        client
            .runtime()
            .spawn(talking)
            .await
            .map_err(CommandError::Task)?
    }

    fn check_traffic(&mut self, edge: usize, traffic: Traffic) {
        let report = &mut self.edges[edge];
        let name = format!("{} to {}", report.from, report.to);
        report.set_traffic(&traffic);
        let counted = report.bytes_on_the_wire() >= traffic.bytes;
        self.check(
            format!("{name}: every echoed frame came back unchanged"),
            traffic.echoes_equal,
        );
        self.check(
            format!("{name}: the receiver counted every byte sent"),
            traffic.all_counted,
        );
        self.check(format!("{name}: the link counted them too"), counted);
    }

    /// Dials a node under another's name: an error that says so, and no connection left.
    async fn refuse_wrong_peer(&mut self) -> Result<(), CommandError> {
        let stranger = Keypair::generate_ed25519().public().to_peer_id();
        let boot = addr::without_peer(&self.nodes[0].address(false));
        let address = boot.with(Protocol::P2p(stranger));
        let client = &self.nodes[1].client;
        let dial = async { Ok(client.dial(address).await) };
        let refused = match step("dialling a stranger", dial).await? {
            Err(DialError::Failed { attempts }) => attempts
                .iter()
                .any(|attempt| matches!(attempt.cause, AddressError::WrongPeer { .. })),
            _ => false,
        };
        let status = client.status().await?;
        let none_left = status.connections.iter().all(|c| c.peer != stranger);
        self.check(
            "a dial under the wrong peer id is refused".to_owned(),
            refused && none_left,
        );
        Ok(())
    }

    async fn count_peers(&mut self) -> Result<(), CommandError> {
        for nth in 0..self.nodes.len() {
            let node = &self.nodes[nth];
            let what = format!("{} is connected to the three others", node.name);
            let holds = node.client.peer_count()? == self.nodes.len() - 1;
            self.check(what, holds);
        }
        Ok(())
    }

    fn check(&mut self, what: String, passed: bool) {
        let check = Check { what, passed };
        self.output.print(&Line::Check(check.clone()));
        self.checks.push(check);
    }

    async fn stop(&mut self) -> Result<(), CommandError> {
        let stopping = self.nodes.iter().map(|node| node.client.shutdown());
        let stop = async { Ok(try_join_all(stopping).await?) };
        step("stopping the nodes", stop).await?;
        Ok(())
    }

    /// Keeps the nodes running with their pages until a signal.
    async fn show_pages(&mut self, signals: &mut Signals) -> Result<(), CommandError> {
        // Messages are shown by the pages from now on. The nodes must not wait for a reader.
        self.heard.close();
        page::serve(&self.nodes, &self.output, signals).await
    }

    fn finish(&mut self, time: Duration) -> Result<(), CommandError> {
        let checks = self.checks.len();
        let failed = self.checks.iter().filter(|check| !check.passed).count();
        self.output.print_lines(&Line::Summary(Summary {
            edges: std::mem::take(&mut self.edges),
            checks,
            failed,
            seconds: time.as_secs_f64(),
        }));
        if failed == 0 {
            return Ok(());
        }
        Err(CommandError::Checks { failed, checks })
    }
}

/// Connects over one transport. Discovery may have connected the nodes over another transport, and
/// that connection is closed first.
async fn reached(from: &Node, to: &Node, over: Over) -> Result<Connection, CommandError> {
    let address = to.address(over == Over::Quic);
    let wanted = match over {
        Over::Quic => TransportKind::Quic,
        Over::Tcp => TransportKind::Tcp,
    };
    loop {
        let connection = from.client.dial(address.clone()).await?;
        let meant = connection.transport() == wanted && connection.direction == Direction::Outbound;
        if meant {
            return Ok(connection);
        }
        from.client.disconnect(to.client.peer_id()).await?;
    }
}

/// The connection that a node has accepted from a peer over a transport.
async fn accepted(
    node: &Node,
    peer: PeerId,
    over: TransportKind,
) -> Result<Connection, CommandError> {
    loop {
        let changed = node.changed.notified();
        let status = node.client.status().await?;
        let found = status
            .connections
            .into_iter()
            .find(|c| c.peer == peer && c.direction == Direction::Inbound && c.transport() == over);
        if let Some(connection) = found {
            return Ok(connection);
        }
        changed.await;
    }
}

async fn step<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    within(STEP_TIMEOUT, what, work).await
}

async fn within<T>(
    after: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::time::timeout(after, work)
        .await
        .map_err(|_| CommandError::Deadline { what, after })?
}
