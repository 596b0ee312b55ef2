//! Measures calls of the handle: the rate and the latency with one caller and
//! with 64 concurrent callers, on an idle and on a busy node.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::{
    ContextId, Events, Keypair, NetworkClient, NetworkConfig, NetworkEvent, NetworkManager,
    Stopped, StreamEvent, Topic, multiaddr::Protocol,
};
use clap::Args;
use tokio::task::JoinSet;

use crate::Failure;

/// Number of callers in the concurrent rows.
const CALLERS: usize = 64;

/// Load of the busy node: received messages of 1 KiB per second, and streams on
/// which a frame of 1 KiB is echoed every millisecond.
const MESSAGES_PER_SECOND: u32 = 1_000;
const STREAMS: usize = 8;
const PAYLOAD_BYTES: usize = 1024;

/// Number of peers of the node.
const PEERS: usize = 4;

/// Options of the measurement of calls.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CallsArgs {
    /// Duration of each row, in milliseconds.
    #[arg(long, default_value_t = 2_000, value_name = "MS")]
    each_ms: u64,
}

pub(crate) fn execute(args: CallsArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(Duration::from_millis(args.each_ms)))
}

async fn run(each: Duration) -> Result<(), Failure> {
    let topic = Topic::context(ContextId::new([7; 32]));
    let (node, events) = start(&topic).await?;
    let (_, address) = node.listen_on("/ip4/127.0.0.1/tcp/0".parse()?).await?;
    let address = address.with(Protocol::P2p(node.peer_id()));
    tokio::spawn(answer(events));
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let (peer, events) = start(&topic).await?;
        tokio::spawn(answer(events));
        peer.dial(address.clone()).await?;
        peers.push(peer);
    }
    while node.mesh_peer_count(&topic).await? < PEERS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("| call | callers | node | calls a second | p50 | p99 | p99.9 |");
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: |");
    rows(&node, &topic, each, "idle").await?;
    let mut load = JoinSet::new();
    for peer in peers {
        for _ in 0..STREAMS / PEERS {
            load.spawn(exchange_frames(peer.clone(), node.peer_id()));
        }
        load.spawn(publish_messages(peer, topic.clone()));
    }
    rows(&node, &topic, each, "busy").await?;
    measure_with_pauses(&node, &topic, each).await?;
    load.shutdown().await;
    Ok(node.shutdown().await?)
}

async fn start(topic: &Topic) -> Result<(NetworkClient, Events), Failure> {
    let config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    let started = NetworkManager::start(Keypair::generate_ed25519(), config).await?;
    started.0.subscribe(topic).await?;
    Ok(started)
}

/// Sends back all frames of all streams.
async fn answer(mut events: Events) {
    while let Some(event) = events.next().await {
        if let NetworkEvent::Stream(StreamEvent::Opened { mut stream, .. }) = event {
            tokio::spawn(async move {
                while let Some(Ok(frame)) = stream.next().await {
                    if stream.send(frame).await.is_err() {
                        break;
                    }
                }
            });
        }
    }
}

async fn exchange_frames(from: NetworkClient, to: calimero_network::PeerId) -> Result<(), Failure> {
    let mut stream = from.open_stream(to).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let payload = Bytes::from(vec![5; PAYLOAD_BYTES]);
    loop {
        ticks.tick().await;
        stream.send(payload.clone()).await?;
        stream.next().await.ok_or("ended")??;
    }
}

async fn publish_messages(from: NetworkClient, topic: Topic) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(Duration::from_secs(PEERS as u64) / MESSAGES_PER_SECOND);
    loop {
        ticks.tick().await;
        from.publish(&topic, vec![5; PAYLOAD_BYTES]).await?;
    }
}

/// A call that does not change the node.
#[derive(Clone, Copy, Debug)]
enum Call {
    PeerCount,
    MeshPeerCount,
    MeshPeers,
    SubscribedPeers,
    Status,
    MeshStats,
}

impl Call {
    const ALL: [Self; 6] = [
        Self::PeerCount,
        Self::MeshPeerCount,
        Self::MeshPeers,
        Self::SubscribedPeers,
        Self::Status,
        Self::MeshStats,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::PeerCount => "`peer_count`",
            Self::MeshPeerCount => "`mesh_peer_count`",
            Self::MeshPeers => "`mesh_peers`",
            Self::SubscribedPeers => "`subscribed_peers`",
            Self::Status => "`status`",
            Self::MeshStats => "`mesh_stats`, of the manager each time",
        }
    }

    async fn make(self, node: &NetworkClient, topic: &Topic) -> Result<(), Stopped> {
        match self {
            Self::PeerCount => drop(black_box(node.peer_count()?)),
            Self::MeshPeerCount => drop(black_box(node.mesh_peer_count(topic).await?)),
            Self::MeshPeers => drop(black_box(node.mesh_peers(topic).await?)),
            Self::SubscribedPeers => drop(black_box(node.subscribed_peers(topic).await?)),
            Self::Status => drop(black_box(node.status().await?)),
            Self::MeshStats => drop(black_box(node.mesh_stats().await?)),
        }
        Ok(())
    }
}

async fn rows(
    node: &NetworkClient,
    topic: &Topic,
    each: Duration,
    state: &str,
) -> Result<(), Failure> {
    for callers in [1, CALLERS] {
        for call in Call::ALL {
            let mut calling = JoinSet::new();
            let began = Instant::now();
            for _ in 0..callers {
                calling.spawn(call_until(call, node.clone(), topic.clone(), began + each));
            }
            let mut times = Times::default();
            while let Some(called) = calling.join_next().await {
                times.add(&called??);
            }
            times.print(call.name(), &callers.to_string(), state, began.elapsed());
        }
    }
    Ok(())
}

async fn call_until(
    call: Call,
    node: NetworkClient,
    topic: Topic,
    until: Instant,
) -> Result<Times, Stopped> {
    let mut times = Times::default();
    let mut now = Instant::now();
    while now < until {
        call.make(&node, &topic).await?;
        let then = Instant::now();
        times.count(then - now);
        now = then;
    }
    Ok(times)
}

/// Measures a single caller that calls every 20 ms, so that no cached answer is
/// still valid.
async fn measure_with_pauses(
    node: &NetworkClient,
    topic: &Topic,
    each: Duration,
) -> Result<(), Failure> {
    for call in Call::ALL {
        let mut times = Times::default();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let began = Instant::now();
        while began.elapsed() < each {
            ticks.tick().await;
            let called = Instant::now();
            call.make(node, topic).await?;
            times.count(called.elapsed());
        }
        times.print(call.name(), "1, every 20 ms", "busy", began.elapsed());
    }
    Ok(())
}

/// Number of histogram classes per octave. Each class is 9 % wide.
const CLASSES_PER_OCTAVE: f64 = 8.0;

/// Number of classes for 40 octaves of nanoseconds, which is 18 min. Longer
/// times count in the last class.
const CLASSES: usize = 8 * 40;

/// Histogram of the duration of calls.
#[derive(Debug)]
struct Times([u64; CLASSES]);

impl Default for Times {
    fn default() -> Self {
        Self([0; CLASSES])
    }
}

impl Times {
    fn count(&mut self, took: Duration) {
        let nanos = took.as_nanos().max(1) as f64;
        let class = (nanos.log2() * CLASSES_PER_OCTAVE) as usize;
        self.0[class.min(CLASSES - 1)] += 1;
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// Returns the upper end of the class that contains the given quantile.
    fn within(&self, share: f64) -> Duration {
        let wanted = share * self.0.iter().sum::<u64>() as f64;
        let mut sum = 0;
        for (class, count) in self.0.iter().enumerate() {
            sum += count;
            if sum as f64 >= wanted {
                let nanos = ((class + 1) as f64 / CLASSES_PER_OCTAVE).exp2();
                return Duration::from_nanos(nanos as u64);
            }
        }
        Duration::MAX
    }

    fn print(&self, call: &str, callers: &str, state: &str, took: Duration) {
        let rate = self.0.iter().sum::<u64>() as f64 / took.as_secs_f64();
        let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|share| micros(self.within(share)));
        println!("| {call} | {callers} | {state} | {rate:.0} | {half} | {most} | {nearly_all} |");
    }
}

fn micros(time: Duration) -> String {
    format!("{:.2} µs", time.as_nanos() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_in_the_class_that_contains_it(nanos in 1_u64..1 << 40) {
            let mut times = Times::default();
            let took = Duration::from_nanos(nanos);
            times.count(took);
            let end = times.within(0.5).as_nanos() as f64;
            prop_assert!(end + 1.0 >= nanos as f64 && end <= nanos as f64 * 1.1 + 1.0);
        }
    }
}
