//! What the demonstration prints.

use std::fmt;

use calimero_network::{Connection, Direction, Multiaddr, NetworkClient, PeerId};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{
    blob::Delivery,
    meeting::{Meeting, NEWCOMERS},
    overlay::Gossip,
    traffic::Traffic,
};
use crate::text::{Stack, bytes, megabytes_per_second, millis, short};

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    Started {
        node: &'static str,
        peer: String,
        addresses: Vec<String>,
    },
    Connected {
        node: &'static str,
        peer: String,
        inbound: bool,
        address: String,
        #[serde(flatten)]
        stack: Stack,
    },
    StreamOpened {
        node: &'static str,
        peer: String,
    },
    Moved {
        from: &'static str,
        to: &'static str,
        streams: u64,
        frames: u64,
        bytes: u64,
        megabytes_per_second: f64,
    },
    Overlay {
        meshes: Vec<usize>,
        published: usize,
        delivered: usize,
        median_ms: f64,
        longest_ms: f64,
    },
    Met {
        nodes: Vec<&'static str>,
        milliseconds: f64,
    },
    Delivered {
        size_bytes: u64,
        killed: &'static str,
        killed_at_bytes: u64,
        from_killed_bytes: u64,
        survivor: &'static str,
        from_survivor_bytes: u64,
        milliseconds: f64,
        megabytes_per_second: f64,
    },
    Check(Check),
    Summary(Summary),
    /// The page of a node, with the token of this run.
    Page {
        node: &'static str,
        url: String,
    },
}

/// Something that must hold, and whether it did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) passed: bool,
}

/// The summary at the end.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) edges: Vec<EdgeReport>,
    pub(super) checks: usize,
    pub(super) failed: usize,
    pub(super) seconds: f64,
}

/// One connection and what went over it.
#[derive(Debug, Serialize)]
pub(super) struct EdgeReport {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    #[serde(flatten)]
    pub(super) stack: Stack,
    streams: u64,
    frames: u64,
    bytes: u64,
    megabytes_per_second: f64,
    #[serde(skip)]
    connection: Connection,
}

impl EdgeReport {
    pub(super) fn new(from: &'static str, to: &'static str, connection: &Connection) -> Self {
        Self {
            from,
            to,
            stack: Stack::of(connection),
            streams: 0,
            frames: 0,
            bytes: 0,
            megabytes_per_second: 0.0,
            connection: connection.clone(),
        }
    }

    pub(super) fn set_traffic(&mut self, traffic: &Traffic) {
        self.streams = traffic.streams;
        self.frames = traffic.frames;
        self.bytes = traffic.bytes;
        self.megabytes_per_second = megabytes_per_second(traffic.bulk_bytes, traffic.bulk_time);
    }

    /// What the connection's own counters say, both ways together.
    pub(super) fn bytes_on_the_wire(&self) -> u64 {
        self.connection.link.bytes_in() + self.connection.link.bytes_out()
    }
}

impl Line {
    pub(super) fn started(
        node: &'static str,
        client: &NetworkClient,
        addresses: [&Multiaddr; 2],
    ) -> Self {
        Self::Started {
            node,
            peer: client.peer_id().to_base58(),
            addresses: addresses.map(ToString::to_string).to_vec(),
        }
    }

    pub(super) fn connected(node: &'static str, connection: &Connection) -> Self {
        Self::Connected {
            node,
            peer: short(&connection.peer),
            inbound: connection.direction == Direction::Inbound,
            address: connection.address.to_string(),
            stack: Stack::of(connection),
        }
    }

    pub(super) fn stream(node: &'static str, peer: &PeerId) -> Self {
        let peer = short(peer);
        Self::StreamOpened { node, peer }
    }

    pub(super) fn overlay(gossip: &Gossip) -> Self {
        Self::Overlay {
            meshes: gossip.meshes.clone(),
            published: gossip.published,
            delivered: gossip.delivered,
            median_ms: millis(gossip.median()),
            longest_ms: millis(gossip.longest()),
        }
    }

    pub(super) fn met(meeting: &Meeting) -> Self {
        Self::Met {
            nodes: NEWCOMERS.to_vec(),
            milliseconds: millis(meeting.took),
        }
    }

    pub(super) fn delivered(delivery: &Delivery) -> Self {
        Self::Delivered {
            size_bytes: delivery.size_bytes,
            killed: delivery.killed,
            killed_at_bytes: delivery.at_bytes,
            from_killed_bytes: delivery.from_killed_bytes,
            survivor: delivery.survivor,
            from_survivor_bytes: delivery.from_survivor_bytes,
            milliseconds: millis(delivery.took),
            megabytes_per_second: megabytes_per_second(delivery.size_bytes, delivery.took),
        }
    }

    pub(super) fn moved(from: &'static str, to: &'static str, traffic: &Traffic) -> Self {
        Self::Moved {
            from,
            to,
            streams: traffic.streams,
            frames: traffic.frames,
            bytes: traffic.bytes,
            megabytes_per_second: megabytes_per_second(traffic.bulk_bytes, traffic.bulk_time),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started {
                node,
                peer,
                addresses,
            } => write!(
                f,
                "{node:<6} started as {peer} on {}",
                addresses.join(" and ")
            ),
            Self::Connected {
                node,
                peer,
                inbound,
                stack,
                ..
            } => {
                let way = if *inbound { "accepted" } else { "dialled" };
                write!(f, "{node:<6} {way} ..{peer} ({stack})")
            }
            Self::StreamOpened { node, peer } => write!(f, "{node:<6} serves a stream of ..{peer}"),
            Self::Moved {
                from,
                to,
                streams,
                frames,
                bytes: count,
                megabytes_per_second,
            } => write!(
                f,
                "{from:<6} sent {to} {frames} frames, {} on {streams} streams, bulk at {megabytes_per_second:.0} MB/s",
                bytes(*count)
            ),
            Self::Overlay {
                meshes,
                published,
                delivered,
                median_ms,
                longest_ms,
            } => write!(
                f,
                "overlay meshes of {meshes:?} peers, {published} messages, {delivered} deliveries, median {median_ms:.2} ms, longest {longest_ms:.2} ms"
            ),
            Self::Met {
                nodes,
                milliseconds,
            } => write!(
                f,
                "met     {}, who knew the boot node alone, in {milliseconds:.0} ms",
                nodes.join(", ")
            ),
            Self::Delivered {
                size_bytes,
                killed,
                killed_at_bytes,
                from_killed_bytes,
                survivor,
                from_survivor_bytes,
                milliseconds,
                megabytes_per_second,
            } => write!(
                f,
                "blob    {} in {milliseconds:.0} ms ({megabytes_per_second:.0} MB/s): {} from {survivor}, \
                 {} from {killed}, who was killed at {}",
                bytes(*size_bytes),
                bytes(*from_survivor_bytes),
                bytes(*from_killed_bytes),
                bytes(*killed_at_bytes)
            ),
            Self::Check(Check { what, passed }) => {
                write!(f, "{}  {what}", if *passed { "ok    " } else { "FAILED" })
            }
            Self::Summary(summary) => summary.fmt(f),
            Self::Page { node, url } => write!(f, "{node:<6} page {url}"),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header([
            "from",
            "to",
            "transport",
            "security",
            "muxer",
            "streams",
            "frames",
            "moved",
            "MB/s",
        ]);
        for edge in &self.edges {
            table.add_row([
                edge.from.to_owned(),
                edge.to.to_owned(),
                edge.stack.transport.clone(),
                edge.stack.security.clone(),
                edge.stack.muxer.clone(),
                edge.streams.to_string(),
                edge.frames.to_string(),
                bytes(edge.bytes),
                format!("{:.0}", edge.megabytes_per_second),
            ]);
        }
        for column in table.column_iter_mut().skip(5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let passed = self.checks - self.failed;
        let (failed, seconds) = (self.failed, self.seconds);
        write!(
            f,
            "{passed} checks passed, {failed} failed, in {seconds:.1} s"
        )
    }
}
