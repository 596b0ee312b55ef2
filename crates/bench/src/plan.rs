//! The pieces of work and the table rows that measure them.

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::stack::{Stack, Transport};

/// The runtime on which the network of a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runtime {
    /// Network and program on one single-threaded tokio runtime.
    Current,
    /// Network and program on one tokio runtime with a thread per core.
    Multi,
    /// The network on a dedicated thread, the program on a runtime with a
    /// thread per core.
    Dedicated,
    /// Network and stream IO on a dedicated thread, the rest on a runtime with
    /// a thread per core.
    Beside,
}

const ALL_RUNTIMES: [Runtime; 4] = [
    Runtime::Multi,
    Runtime::Current,
    Runtime::Dedicated,
    Runtime::Beside,
];

/// One piece of work of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Transfer bytes in one direction on one stream, in writes or frames of a
    /// fixed size.
    Transfer {
        /// Total number of bytes.
        #[arg(long)]
        bytes: u64,
        /// Size of one write, or of the payload of one frame, in bytes.
        #[arg(long)]
        size_bytes: usize,
        /// Use frames instead of plain writes.
        #[arg(long)]
        framed: bool,
        /// Transfer from the server to the client.
        #[arg(long)]
        down: bool,
        /// Flush after each frame.
        #[arg(long)]
        flush_each: bool,
    },
    /// Echo frames of 64 bytes on one open stream.
    RoundTrips {
        #[arg(long)]
        count: u32,
    },
    /// Open streams in sequence, echo a frame of 64 bytes on each, and close
    /// it.
    Streams {
        #[arg(long)]
        count: u32,
    },
    /// Measure from the dial to the first echoed frame, with a new node and
    /// connection each time.
    Connect {
        #[arg(long)]
        count: u32,
    },
    /// Do nothing, to measure the memory of an idle pair.
    Idle,
}

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Current => "runtime of one thread",
            Self::Multi => "runtime of all cores",
            Self::Dedicated => "own thread",
            Self::Beside => "own thread, streams there too",
        }
    }
}

/// A group of table rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Framed streams compared with raw streams and with unmodified libp2p.
    Throughput,
    /// Raw streams in both directions, compared with unmodified libp2p.
    Directions,
    /// Latency of round trips, streams and connections.
    Latency,
    /// Peak memory while 1 GiB is transferred in frames of 8 MiB.
    Memory,
    /// The same transfers on each runtime.
    Runtimes,
}

impl Part {
    pub(crate) const ALL: [Self; 5] = [
        Self::Throughput,
        Self::Directions,
        Self::Latency,
        Self::Memory,
        Self::Runtimes,
    ];
}

/// A table row: a piece of work on one implementation, and the rows that it is
/// compared with.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) stack: Stack,
    pub(crate) transport: Transport,
    pub(crate) runtime: Runtime,
    pub(crate) work: Work,
    /// Indices of the rows that divide the figure of this row.
    pub(crate) against: Vec<usize>,
}

/// Returns the rows of a part.
pub(crate) fn rows(part: Part, bytes: u64) -> Vec<Row> {
    let mut rows = Rows::default();
    for transport in [Transport::Tcp, Transport::Quic] {
        match part {
            Part::Throughput => throughput(&mut rows, transport, bytes),
            Part::Directions => directions(&mut rows, transport, bytes),
            Part::Latency => latency(&mut rows, transport),
            Part::Memory => memory(&mut rows, transport),
            Part::Runtimes => runtimes(&mut rows, transport, bytes),
        }
    }
    rows.0
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn push(&mut self, row: Row) -> usize {
        self.0.push(row);
        self.0.len() - 1
    }
}

fn row(stack: Stack, transport: Transport, runtime: Runtime, work: Work) -> Row {
    Row {
        name: format!("{transport} {stack}"),
        stack,
        transport,
        runtime,
        work,
        against: Vec::new(),
    }
}

fn transfer(bytes: u64, size_bytes: usize, framed: bool) -> Work {
    Work::Transfer {
        bytes,
        size_bytes,
        framed,
        down: false,
        flush_each: false,
    }
}

fn throughput(rows: &mut Rows, transport: Transport, bytes: u64) {
    const MIB: usize = 1 << 20;
    let stock = rows.push(Row {
        name: format!("{transport} stock libp2p, raw stream, 1 MiB writes"),
        ..row(
            Stack::Stock,
            transport,
            Runtime::Current,
            transfer(bytes, MIB, false),
        )
    });
    let raw = rows.push(Row {
        name: format!("{transport} ours, raw stream, 1 MiB writes"),
        against: vec![stock],
        ..row(
            Stack::Ours,
            transport,
            Runtime::Beside,
            transfer(bytes, MIB, false),
        )
    });
    for (size, name) in [
        (1 << 10, "1 KiB"),
        (64 << 10, "64 KiB"),
        (MIB, "1 MiB"),
        (8 * MIB, "8 MiB"),
    ] {
        rows.push(Row {
            name: format!("{transport} ours, frames of {name}"),
            against: vec![raw, stock],
            ..row(
                Stack::Ours,
                transport,
                Runtime::Beside,
                transfer(bytes, size, true),
            )
        });
    }
    let flushed = Work::Transfer {
        bytes: bytes / 4,
        size_bytes: 1 << 10,
        framed: true,
        down: false,
        flush_each: true,
    };
    rows.push(Row {
        name: format!("{transport} ours, frames of 1 KiB, each flushed"),
        against: vec![raw],
        ..row(Stack::Ours, transport, Runtime::Beside, flushed)
    });
}

fn directions(rows: &mut Rows, transport: Transport, bytes: u64) {
    for down in [false, true] {
        let work = Work::Transfer {
            bytes,
            size_bytes: 1 << 20,
            framed: false,
            down,
            flush_each: false,
        };
        let way = if down { "down" } else { "up" };
        let stock = rows.push(Row {
            name: format!("{transport} stock libp2p, {way}"),
            ..row(Stack::Stock, transport, Runtime::Current, work)
        });
        rows.push(Row {
            name: format!("{transport} ours, {way}"),
            against: vec![stock],
            ..row(Stack::Ours, transport, Runtime::Beside, work)
        });
    }
}

fn latency(rows: &mut Rows, transport: Transport) {
    for (what, work) in [
        (
            "round trips of 64 bytes",
            Work::RoundTrips { count: 10_000 },
        ),
        (
            "streams opened, echoed, closed",
            Work::Streams { count: 2_000 },
        ),
        ("connect to first frame", Work::Connect { count: 20 }),
    ] {
        let stock = rows.push(Row {
            name: format!("{transport} stock libp2p, {what}"),
            ..row(Stack::Stock, transport, Runtime::Current, work)
        });
        for runtime in ALL_RUNTIMES {
            rows.push(Row {
                name: format!("{transport} ours, {}, {what}", runtime.name()),
                against: vec![stock],
                ..row(Stack::Ours, transport, runtime, work)
            });
        }
    }
}

fn memory(rows: &mut Rows, transport: Transport) {
    let idle = rows.push(Row {
        name: format!("{transport} ours, idle"),
        ..row(Stack::Ours, transport, Runtime::Beside, Work::Idle)
    });
    rows.push(Row {
        name: format!("{transport} ours, 1 GiB in frames of 8 MiB"),
        against: vec![idle],
        ..row(
            Stack::Ours,
            transport,
            Runtime::Beside,
            transfer(1 << 30, 8 << 20, true),
        )
    });
}

fn runtimes(rows: &mut Rows, transport: Transport, bytes: u64) {
    let work = transfer(bytes, 1 << 20, false);
    for stack in [Stack::Stock, Stack::Ours] {
        let mut first = None;
        for runtime in ALL_RUNTIMES {
            let ours_only = matches!(runtime, Runtime::Dedicated | Runtime::Beside);
            if stack == Stack::Stock && ours_only {
                continue;
            }
            let nth = rows.push(Row {
                name: format!("{transport} {stack}, {}", runtime.name()),
                against: first.into_iter().collect(),
                ..row(stack, transport, runtime, work)
            });
            first.get_or_insert(nth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_with_earlier_rows() {
        for part in Part::ALL {
            for (nth, row) in rows(part, 1 << 20).iter().enumerate() {
                assert!(row.against.iter().all(|other| *other < nth), "{}", row.name);
            }
        }
    }
}
