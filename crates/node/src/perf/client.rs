//! The client of the perf protocol.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use calimero_network::{NetworkClient, PeerId, Substream};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, future::try_join_all};
use serde::Serialize;

use super::{BLOCK_BYTES, PROTOCOL, ping::Pinger};
use crate::{
    cli::PerfArgs,
    error::CommandError,
    output::Output,
    probe::connectable,
    text::{self, Stack, megabytes_per_second, millis},
};

pub(crate) async fn execute(args: PerfArgs, output: Output) -> Result<(), CommandError> {
    let client = connectable().await?;
    let measuring = {
        let client = client.clone();
        async move { measure(&client, &args, &output).await }
    };
    let measured = client.runtime().spawn(measuring).await;
    client.shutdown().await?;
    measured.map_err(CommandError::Task)?
}

async fn measure(
    client: &NetworkClient,
    args: &PerfArgs,
    output: &Output,
) -> Result<(), CommandError> {
    let connection = client.dial(args.address.clone()).await?;
    let peer = connection.peer;
    output.print(&Line::Connected {
        peer: peer.to_base58(),
        stack: Stack::of(&connection),
    });
    let limit = args.timeout_ms;
    // What was sent has the other half of the time to arrive.
    let time = args.test_ms.min(limit / 2);
    let trips = within(
        "round trips",
        limit,
        round_trips(client, peer, args.round_trips, time),
    )
    .await?;
    output.print(&trips);
    let mut counts = vec![1, args.streams];
    counts.dedup();
    for streams in counts {
        let upload = Test::new("upload", streams, args.upload_bytes, 0);
        let download = Test::new("download", streams, 0, args.download_bytes);
        for test in [upload, download] {
            let running = test.run(client, peer, time);
            output.print(&within(test.name, limit, running).await?);
        }
    }
    Ok(())
}

async fn within<T>(
    what: &'static str,
    after: Duration,
    test: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::time::timeout(after, test)
        .await
        .map_err(|_| CommandError::Deadline { what, after })?
}

/// Measures round trips until there are as many as wanted, or the time of a test is over; one in
/// any case.
async fn round_trips(
    client: &NetworkClient,
    peer: PeerId,
    count: u32,
    time: Duration,
) -> Result<Line, CommandError> {
    let mut pinger = Pinger::open(client, peer).await?;
    let started = Instant::now();
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(pinger.ping().await?);
        if started.elapsed() >= time {
            break;
        }
    }
    let total = started.elapsed();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    Ok(Line::RoundTrips {
        count: times.len(),
        per_second: times.len() as f64 / total.as_secs_f64().max(1e-9),
        p50_ms: at(0.50).map_or(0.0, millis),
        p99_ms: at(0.99).map_or(0.0, millis),
    })
}

/// One throughput test: bytes one way, over one or several streams.
#[derive(Clone, Copy, Debug)]
struct Test {
    name: &'static str,
    streams: u16,
    upload_bytes: u64,
    download_bytes: u64,
}

impl Test {
    fn new(name: &'static str, streams: u16, upload_bytes: u64, download_bytes: u64) -> Self {
        Self {
            name,
            streams,
            upload_bytes,
            download_bytes,
        }
    }

    /// Moves the bytes, or as many as can be moved in `time`.
    async fn run(
        self,
        client: &NetworkClient,
        peer: PeerId,
        time: Duration,
    ) -> Result<Line, CommandError> {
        let started = Instant::now();
        let requests = (0..self.streams).map(|nth| async move {
            let up = share(self.upload_bytes, self.streams, nth);
            let down = share(self.download_bytes, self.streams, nth);
            let stream = client.open_raw_stream(peer, PROTOCOL).await?;
            request(stream, peer, up, down, started + time).await
        });
        let bytes = try_join_all(requests).await?.into_iter().sum();
        let time = started.elapsed();
        Ok(Line::Throughput {
            test: self.name,
            streams: self.streams,
            bytes,
            seconds: time.as_secs_f64(),
            megabytes_per_second: megabytes_per_second(bytes, time),
        })
    }
}

/// The part of `total` that stream `nth` of `streams` carries. The first streams carry the remainder.
fn share(total: u64, streams: u16, nth: u16) -> u64 {
    let streams = u64::from(streams);
    total / streams + u64::from(u64::from(nth) < total % streams)
}

/// One exchange of the perf protocol. Returns the bytes that were moved: all, or those until `end`.
/// Without a download, the server has read all of them.
async fn request(
    mut stream: Substream,
    peer: PeerId,
    up: u64,
    down: u64,
    end: Instant,
) -> Result<u64, CommandError> {
    let failed = |source: io::Error| CommandError::Io {
        what: "perf",
        source,
    };
    let mut block = vec![0; BLOCK_BYTES];
    stream
        .write_all(&down.to_be_bytes())
        .await
        .map_err(failed)?;
    let mut sent = 0;
    while sent < up && (sent == 0 || Instant::now() < end) {
        let size = usize::try_from(up - sent).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        match stream.write(&block[..size]).await.map_err(failed)? {
            0 => return Err(failed(io::ErrorKind::WriteZero.into())),
            count => sent += count as u64,
        }
    }
    stream.close().await.map_err(failed)?;
    let mut received = 0;
    loop {
        match stream.read(&mut block).await.map_err(failed)? {
            0 if received == down => return Ok(sent + received),
            0 => {
                return Err(CommandError::Short {
                    peer,
                    received,
                    expected: down,
                });
            }
            count => received += count as u64,
        }
        if received < down && Instant::now() >= end {
            // Dropped, which resets the stream: no more is wanted.
            return Ok(sent + received);
        }
    }
}

/// One record of the output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Connected {
        peer: String,
        #[serde(flatten)]
        stack: Stack,
    },
    RoundTrips {
        count: usize,
        per_second: f64,
        p50_ms: f64,
        p99_ms: f64,
    },
    Throughput {
        test: &'static str,
        streams: u16,
        bytes: u64,
        seconds: f64,
        megabytes_per_second: f64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { peer, stack } => write!(f, "connected    {peer} ({stack})"),
            Self::RoundTrips {
                count,
                per_second,
                p50_ms,
                p99_ms,
            } => write!(
                f,
                "round trips  {per_second:.0}/s ({count} of 32 bytes; p50 {p50_ms:.3} ms, p99 {p99_ms:.3} ms)"
            ),
            Self::Throughput {
                test,
                streams,
                bytes,
                seconds,
                megabytes_per_second,
            } => write!(
                f,
                "{test:<12} {megabytes_per_second:.0} MB/s ({} in {seconds:.2} s, {streams} stream{})",
                text::bytes(*bytes),
                if *streams == 1 { "" } else { "s" }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_are_even(total in 0..u64::MAX / 2, streams in 1..=64u16) {
            let shares: Vec<_> = (0..streams).map(|nth| share(total, streams, nth)).collect();
            prop_assert_eq!(shares.iter().sum::<u64>(), total);
            let (min, max) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(max - min <= 1);
        }
    }
}
