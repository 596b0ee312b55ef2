//! What goes wrong in a network, and how long it takes until it is as before.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    at_once,
    internet::Trouble,
    site::{Kind, Site, Transport},
    table,
    world::{LIMIT, Node, World},
};

/// Faults at a time: mostly they wait.
const AT_A_TIME: usize = 10;
/// How long a link is down. Every timer of a connection has run out by then but the last ones of
/// TCP and of the watchdog.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long is watched after a link is back: what is open then has answered a ping since.
const WATCH: Duration = Duration::from_secs(45);
/// From a reservation on a relay to the registrations that contain it, which print no record: the
/// pause between two attempts to register, 2 s, and a half more.
const SETTLING: Duration = Duration::from_secs(4);
/// Age at which a connection counts as lasting: its end is not counted against the peer, which is
/// dialled again at once.
const LASTING: Duration = Duration::from_secs(31);
/// Time for which a process is stopped. Peers have closed its connections by then.
const STOP: Duration = Duration::from_secs(90);
/// A node whose own address was replaced is connected again within this time.
const OWN_ADDRESS_BOUND: Duration = Duration::from_secs(5);
/// A node whose link comes back is connected again within this time.
const LINK_BOUND: Duration = Duration::from_secs(20);
/// A node whose QUIC path was lost is connected over TCP within this time.
const FAIL_OVER_BOUND: Duration = Duration::from_secs(5);
/// A node that is started again, or continued, is connected within this time.
const RESTART_BOUND: Duration = Duration::from_secs(3);

/// From the moment two nodes can reach each other to their direct connection: a router remembers
/// what TCP tried in vain for 120 s, and may take what comes next for a part of it; the round after
/// does not find it.
const PUNCH_LIMIT: Duration = Duration::from_secs(600);

/// The faults that are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BootNodeRestarts,
    RelayDies,
    OnlyRelayReturns,
    LinkCut,
    UdpCut,
    InterfaceDown,
    RouterReboots,
    AddressChanges,
    OwnAddressReplaced,
    ProcessStopped,
    NodeRestarts,
    NodeRestartsWithoutBootNodes,
    PacketLoss,
    PunchInVain,
}

impl Fault {
    pub(crate) const ALL: [Self; 14] = [
        Self::LinkCut,
        Self::UdpCut,
        Self::InterfaceDown,
        Self::RouterReboots,
        Self::AddressChanges,
        Self::OwnAddressReplaced,
        Self::ProcessStopped,
        Self::RelayDies,
        Self::OnlyRelayReturns,
        Self::BootNodeRestarts,
        Self::NodeRestarts,
        Self::NodeRestartsWithoutBootNodes,
        Self::PacketLoss,
        Self::PunchInVain,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BootNodeRestarts => "boot node killed and restarted",
            Self::RelayDies => "relay killed, another is there",
            Self::OnlyRelayReturns => "only relay killed, back after 5 s",
            Self::LinkCut => "link dead for 60 s, no FIN",
            Self::UdpCut => "UDP dropped from now on",
            Self::InterfaceDown => "interface down for 60 s",
            Self::RouterReboots => "NAT reboots, mappings lost",
            Self::AddressChanges => "public address changes",
            Self::OwnAddressReplaced => "own address replaced",
            Self::ProcessStopped => "process stopped for 90 s",
            Self::NodeRestarts => "node killed and restarted",
            Self::NodeRestartsWithoutBootNodes => "node killed and restarted, boot nodes dead",
            Self::PacketLoss => "10 % of packets lost",
            Self::PunchInVain => "no way between two nodes for the first hole punch",
        })
    }
}

/// Something that has to be as before, and how long it took.
struct Recovery {
    what: &'static str,
    took: Option<Duration>,
    bound: Duration,
}

impl Recovery {
    fn is_in_time(&self, slack: u32) -> bool {
        self.took.is_some_and(|took| took <= self.bound * slack)
    }
}

/// Two nodes that have found each other.
struct Pair {
    world: World,
    sites: [Site; 2],
    transport: Transport,
    a: Node,
    b: Node,
}

impl Pair {
    fn new(boots: usize, kinds: [Kind; 2], transport: Transport) -> Self {
        Self::in_world(World::new(boots), kinds, transport)
    }

    fn in_world(world: World, kinds: [Kind; 2], transport: Transport) -> Self {
        let sites = kinds.map(|kind| world.site(kind));
        let a = world.node("a", &sites[0], &[transport]);
        a.wait_until_registered();
        let b = world.node("b", &sites[1], &[transport]);
        b.wait_until_registered();
        let pair = Self {
            world,
            sites,
            transport,
            a,
            b,
        };
        let found = if crate::site::permit(kinds, transport) {
            pair.b.direct(0, &pair.a.peer, LIMIT)
        } else {
            pair.b.connected(0, &pair.a.peer, LIMIT)
        };
        assert!(found.is_some(), "they do not meet:\n{}", pair.story());
        // Until both can be found again by others: their slots, and what follows from them.
        for (node, kind) in [(&pair.a, kinds[0]), (&pair.b, kinds[1])] {
            if kind != Kind::Open {
                node.wait_for_slot();
            }
        }
        thread::sleep(SETTLING);
        pair
    }

    fn story(&self) -> String {
        format!("a\n{}b\n{}", self.a.story(), self.b.story())
    }

    /// Starts the first node again, with what it has in its folder.
    fn restart_a(&mut self) {
        let peer = self.a.peer.clone();
        self.a = self.world.node("a", &self.sites[0], &[self.transport]);
        assert_eq!(self.a.peer, peer);
    }

    /// What the first node lost by a fault, watched for a time after it had a chance again.
    fn recoveries(&self, since: Instant, watch: Duration, bound: Duration) -> Vec<Recovery> {
        let boot = &self.world.boots[0].node.peer;
        thread::sleep(watch.saturating_sub(since.elapsed()));
        vec![
            Recovery {
                what: "boot node",
                took: self.a.recovered(since, boot),
                bound,
            },
            Recovery {
                what: "peer",
                took: self.a.recovered(since, &self.b.peer),
                bound,
            },
        ]
    }
}

/// The time from `since` on until `node` is connected with `peer` again.
fn until_connected(node: &Node, from: usize, since: Instant, peer: &str) -> Option<Duration> {
    let connected = node.connected(from, peer, LIMIT)?;
    Some(connected.at.saturating_duration_since(since))
}

fn boot_node_restarts(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    let down = Instant::now();
    pair.world.boots[0].node.kill();
    // A node that starts now finds the others through the second.
    let site = pair.world.site(Kind::FullCone);
    let c = pair.world.node("c", &site, &[transport]);
    let newcomer = until_connected(&c, 0, c.started, &pair.a.peer);
    let from = pair.a.now();
    pair.world.boots[0].restart();
    let up = pair.world.boots[0].node.started;
    let boot = pair.world.boots[0].node.peer.clone();
    let back = until_connected(&pair.a, from, up, &boot);
    let kept = pair.a.lost_since(down, &pair.b.peer).is_none();
    let recoveries = vec![
        Recovery {
            what: "newcomer finds a peer meanwhile",
            took: newcomer,
            bound: LINK_BOUND,
        },
        Recovery {
            what: "boot node",
            took: back,
            bound: Duration::from_secs(60),
        },
        Recovery {
            what: "peer, never lost",
            took: kept.then_some(Duration::ZERO),
            bound: Duration::ZERO,
        },
    ];
    (recoveries, pair.story())
}

fn relay_dies(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::Symmetric; 2], transport);
    let relay = pair.b.relay_to(&pair.a.peer);
    let relay = relay.or_else(|| pair.a.relay_to(&pair.b.peer)).unwrap();
    let boots = &mut pair.world.boots;
    let index = boots.iter().position(|boot| boot.node.peer == relay);
    boots[index.unwrap()].node.kill();
    let killed = Instant::now();
    let took = until_replaced(&pair, killed, killed);
    let recovery = Recovery {
        what: "peer",
        took,
        bound: Duration::from_secs(60),
    };
    (vec![recovery], pair.story())
}

/// Returns the time from `since` until the nodes are connected permanently,
/// after a connection that existed at `killed` has closed. Returns `None` if
/// the connection was not replaced.
fn until_replaced(pair: &Pair, killed: Instant, since: Instant) -> Option<Duration> {
    pair.b.closed_since(killed, &pair.a.peer, LIMIT)?;
    while since.elapsed() < LIMIT {
        let recovered = pair.b.recovered(since, &pair.a.peer);
        if recovered.is_some() {
            return recovered;
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

fn only_relay_returns(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(1, [Kind::Symmetric; 2], transport);
    pair.world.boots[0].node.kill();
    let killed = Instant::now();
    thread::sleep(Duration::from_secs(5));
    pair.world.boots[0].restart();
    let up = pair.world.boots[0].node.started;
    let took = until_replaced(&pair, killed, up);
    let recovery = Recovery {
        what: "peer",
        took,
        bound: Duration::from_secs(90),
    };
    (vec![recovery], pair.story())
}

fn link_cut(transport: Transport) -> (Vec<Recovery>, String) {
    let pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    let public = pair.sites[0].public_addresses();
    let internet = &pair.world.internet;
    internet.trouble(public, Trouble::Cut, true).unwrap();
    thread::sleep(OUTAGE);
    internet.trouble(public, Trouble::Cut, false).unwrap();
    let recoveries = pair.recoveries(Instant::now(), WATCH, LINK_BOUND);
    (recoveries, pair.story())
}

/// Two nodes with both transports, one of which loses UDP. Over TCP nothing happens.
fn udp_cut(transport: Transport) -> (Vec<Recovery>, String) {
    let world = World::new(2);
    let sites = [Kind::PortRestricted, Kind::Open].map(|kind| world.site(kind));
    let over: &[Transport] = match transport {
        Transport::Quic => &Transport::BOTH,
        Transport::Tcp => &[Transport::Tcp],
    };
    let a = world.node("a", &sites[0], over);
    a.wait_until_registered();
    let b = world.node("b", &sites[1], over);
    let story = || format!("a\n{}b\n{}", a.story(), b.story());
    assert!(a.direct(0, &b.peer, LIMIT).is_some(), "{}", story());
    thread::sleep(LASTING);
    let public = sites[0].public_addresses();
    let cut = Instant::now();
    world
        .internet
        .trouble(public, Trouble::CutUdp, true)
        .unwrap();
    let boot = &world.boots[0].node.peer;
    let recovery = |what: &'static str, peer: &str| Recovery {
        what,
        took: fail_over(&a, cut, peer, transport),
        bound: FAIL_OVER_BOUND,
    };
    let recoveries = vec![recovery("boot node", boot), recovery("peer", &b.peer)];
    (recoveries, story())
}

/// The time from the end of the connection with `peer`, which the node notices by itself, to the
/// next one.
fn fail_over(node: &Node, cut: Instant, peer: &str, transport: Transport) -> Option<Duration> {
    if transport == Transport::Tcp {
        thread::sleep(WATCH.saturating_sub(cut.elapsed()));
        return node.recovered(cut, peer);
    }
    node.closed_since(cut, peer, LIMIT)?;
    let Some(noticed) = node.lost_since(cut, peer) else {
        // Another connection was there when this one ended.
        return node.recovered(cut, peer);
    };
    while noticed.elapsed() < LIMIT {
        if let Some(after) = node.recovered(cut, peer) {
            return Some((cut + after).saturating_duration_since(noticed));
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

fn interface_down(transport: Transport) -> (Vec<Recovery>, String) {
    let pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    pair.sites[0].set_link(false).unwrap();
    thread::sleep(OUTAGE);
    pair.sites[0].set_link(true).unwrap();
    let recoveries = pair.recoveries(Instant::now(), WATCH, LINK_BOUND);
    (recoveries, pair.story())
}

fn router_reboots(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    thread::sleep(LASTING);
    pair.sites[0].reboot_router().unwrap();
    let recoveries = pair.recoveries(Instant::now(), WATCH, LINK_BOUND);
    (recoveries, pair.story())
}

fn address_changes(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    thread::sleep(LASTING);
    pair.sites[0].renumber(&pair.world.internet).unwrap();
    let recoveries = pair.recoveries(Instant::now(), WATCH, LINK_BOUND);
    (recoveries, pair.story())
}

fn own_address_replaced(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::Open, Kind::PortRestricted], transport);
    pair.sites[0].renumber(&pair.world.internet).unwrap();
    let recoveries = pair.recoveries(Instant::now(), WATCH, OWN_ADDRESS_BOUND);
    (recoveries, pair.story())
}

fn process_stopped(transport: Transport) -> (Vec<Recovery>, String) {
    let pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    pair.a.signal("-STOP");
    thread::sleep(STOP);
    pair.a.signal("-CONT");
    let recoveries = pair.recoveries(Instant::now(), WATCH, RESTART_BOUND);
    (recoveries, pair.story())
}

fn node_restarts(transport: Transport) -> (Vec<Recovery>, String) {
    let mut pair = Pair::new(2, [Kind::PortRestricted; 2], transport);
    pair.a.kill();
    pair.restart_a();
    let boot = pair.world.boots[0].node.peer.clone();
    let since = pair.a.started;
    let recoveries = vec![
        Recovery {
            what: "boot node",
            took: until_connected(&pair.a, 0, since, &boot),
            bound: RESTART_BOUND,
        },
        Recovery {
            what: "peer",
            took: until_connected(&pair.a, 0, since, &pair.b.peer),
            bound: RESTART_BOUND,
        },
    ];
    (recoveries, pair.story())
}

fn node_restarts_without_boot_nodes(transport: Transport) -> (Vec<Recovery>, String) {
    let mut world = World::new(1);
    world.configure("[discovery]\ncache_save_interval_ms = 1000\n");
    let mut pair = Pair::in_world(world, [Kind::PortRestricted, Kind::Open], transport);
    pair.world.boots[0].node.kill();
    // Long enough for a round of upkeep after they met, in which the cache is saved.
    thread::sleep(Duration::from_secs(8));
    pair.a.kill();
    pair.restart_a();
    let recovery = Recovery {
        what: "peer, from the cache",
        took: until_connected(&pair.a, 0, pair.a.started, &pair.b.peer),
        bound: RESTART_BOUND,
    };
    (vec![recovery], pair.story())
}

fn packet_loss(transport: Transport) -> (Vec<Recovery>, String) {
    let world = World::new(2);
    let sites = [Kind::PortRestricted; 2].map(|kind| world.site(kind));
    for site in &sites {
        let public = site.public_addresses();
        world
            .internet
            .trouble(public, Trouble::Lossy, true)
            .unwrap();
    }
    let a = world.node("a", &sites[0], &[transport]);
    a.wait_until_registered();
    let b = world.node("b", &sites[1], &[transport]);
    let met = until_connected(&b, 0, b.started, &a.peer);
    let direct = b.direct(0, &a.peer, LIMIT);
    let direct = direct.map(|entry| entry.at.duration_since(b.started));
    let since = Instant::now();
    thread::sleep(OUTAGE);
    let kept = b.lost_since(since, &a.peer).is_none();
    let recoveries = vec![
        Recovery {
            what: "peer found",
            took: met,
            bound: LINK_BOUND,
        },
        Recovery {
            what: "peer, directly",
            took: direct,
            bound: LIMIT,
        },
        Recovery {
            what: "peer, kept for 60 s",
            took: kept.then_some(Duration::ZERO),
            bound: Duration::ZERO,
        },
    ];
    let story = format!("a\n{}b\n{}", a.story(), b.story());
    (recoveries, story)
}

fn punch_in_vain(transport: Transport) -> (Vec<Recovery>, String) {
    let world = World::new(2);
    let sites = [Kind::PortRestricted; 2].map(|kind| world.site(kind));
    let public = [&sites[0], &sites[1]].map(Site::public_addresses);
    world.internet.part(public, true).unwrap();
    let a = world.node("a", &sites[0], &[transport]);
    a.wait_until_registered();
    let b = world.node("b", &sites[1], &[transport]);
    // The peer that was reached through the relay observes the end of the
    // attempts.
    let told = a.punched_in_vain(&b.peer, LIMIT);
    world.internet.part(public, false).unwrap();
    let since = Instant::now();
    let direct = told.and_then(|_| b.direct(0, &a.peer, PUNCH_LIMIT));
    let recovery = Recovery {
        what: "peer, directly",
        took: direct.map(|entry| entry.at.saturating_duration_since(since)),
        bound: PUNCH_LIMIT,
    };
    let story = format!("a\n{}b\n{}", a.story(), b.story());
    (vec![recovery], story)
}

fn measure(fault: Fault, transport: Transport) -> (Vec<Recovery>, String) {
    match fault {
        Fault::BootNodeRestarts => boot_node_restarts(transport),
        Fault::RelayDies => relay_dies(transport),
        Fault::OnlyRelayReturns => only_relay_returns(transport),
        Fault::LinkCut => link_cut(transport),
        Fault::UdpCut => udp_cut(transport),
        Fault::InterfaceDown => interface_down(transport),
        Fault::RouterReboots => router_reboots(transport),
        Fault::AddressChanges => address_changes(transport),
        Fault::OwnAddressReplaced => own_address_replaced(transport),
        Fault::ProcessStopped => process_stopped(transport),
        Fault::NodeRestarts => node_restarts(transport),
        Fault::NodeRestartsWithoutBootNodes => node_restarts_without_boot_nodes(transport),
        Fault::PacketLoss => packet_loss(transport),
        Fault::PunchInVain => punch_in_vain(transport),
    }
}

/// Runs faults, prints what came of them and checks it. `slack` multiplies the bounds: on a host
/// that does other work at the same time, a node that waits for the processor is not a fault.
pub(crate) fn run(faults: &[(Fault, Transport)], slack: u32) {
    let found = at_once(AT_A_TIME, faults, |(fault, transport)| {
        measure(*fault, *transport)
    });
    let mut table = table::new(["fault", "over", "again", "after", "bound"]);
    let mut failed = Vec::new();
    for ((fault, transport), (recoveries, story)) in faults.iter().zip(&found) {
        for recovery in recoveries {
            table.add_row([
                fault.to_string(),
                transport.to_string(),
                recovery.what.to_owned(),
                table::seconds(recovery.took),
                table::seconds(Some(recovery.bound)),
            ]);
        }
        if !recoveries.iter().all(|it| it.is_in_time(slack)) {
            eprintln!("{fault} over {transport}\n{story}");
            failed.push(format!("{fault} over {transport}"));
        }
    }
    println!("{table}");
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
