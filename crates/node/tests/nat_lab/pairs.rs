//! Two nodes that know only the boot nodes find each other through the NATs between them.

use std::time::Duration;

use crate::{
    at_once,
    site::{self, Kind, Transport},
    support::Entry,
    table,
    world::{LIMIT, World},
};

/// How long nodes have for a direct connection once they are connected at all: three attempts of
/// a hole punch, each with its deadline.
const DIRECT_LIMIT: Duration = Duration::from_secs(60);
/// Worlds at a time: each is two boot nodes, two nodes and the way between them.
const AT_A_TIME: usize = 4;

/// Two kinds and what they speak over. The first is there before the second starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) kinds: [Kind; 2],
    pub(crate) transport: Transport,
}

impl Case {
    /// What a node of a kind listens on and dials: where no UDP leaves, a node that is to speak
    /// QUIC has TCP besides.
    pub(crate) fn transports(self, kind: Kind) -> Vec<Transport> {
        match (kind, self.transport) {
            (Kind::TcpOnly, Transport::Quic) => Transport::BOTH.to_vec(),
            (_, transport) => vec![transport],
        }
    }

    pub(crate) fn permits_direct(self) -> bool {
        site::permit(self.kinds, self.transport)
            // Both have TCP, whatever else they have.
            || self.kinds == [Kind::TcpOnly; 2]
    }
}

/// Times since the second node was started.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    connected: Option<Duration>,
    first_byte: Option<Duration>,
    direct: Option<Duration>,
    story: String,
}

fn measure(case: Case) -> Outcome {
    let world = World::new(2);
    let sites = case.kinds.map(|kind| world.site(kind));
    let start =
        |name: &str, n: usize| world.node(name, &sites[n], &case.transports(sites[n].kind()));
    let a = start("a", 0);
    a.wait_until_registered();
    let b = start("b", 1);
    let since = |entry: &Entry| entry.at.duration_since(b.started);
    let connected = b.connected(0, &a.peer, LIMIT);
    let limit = if connected.is_none() {
        Duration::ZERO
    } else if case.permits_direct() {
        DIRECT_LIMIT
    } else {
        Duration::from_secs(5)
    };
    let first_byte = b.identified(&a.peer, limit);
    let direct = b.direct(0, &a.peer, limit);
    Outcome {
        connected: connected.as_ref().map(since),
        first_byte: first_byte.as_ref().map(since),
        direct: direct.as_ref().map(since),
        story: format!("{case:?}\nfirst\n{}second\n{}", a.story(), b.story()),
    }
}

impl Outcome {
    fn is_good(&self, case: Case) -> bool {
        let connected = self.connected.is_some() && self.first_byte.is_some();
        connected && (self.direct.is_some() || !case.permits_direct())
    }
}

/// Runs cases, prints what came of them and checks it.
pub(crate) fn run(cases: &[Case]) {
    let outcomes = at_once(AT_A_TIME, cases, |case| measure(*case));
    let mut table = table::new([
        "first",
        "second",
        "over",
        "connected",
        "first byte",
        "direct",
    ]);
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let [first, second] = case.kinds.map(|kind| kind.to_string());
        let direct = match outcome.direct {
            None if !case.permits_direct() => "relayed".to_owned(),
            direct => table::seconds(direct),
        };
        table.add_row([
            first,
            second,
            case.transport.to_string(),
            table::seconds(outcome.connected),
            table::seconds(outcome.first_byte),
            direct,
        ]);
    }
    println!("{table}");
    let mut failed = Vec::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        if !outcome.is_good(*case) {
            eprintln!("{}", outcome.story);
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
