//! Measures the loopback throughput of one QUIC stream between two processes,
//! with the transport of this crate and with `libp2p-quic`, alternately.
//!
//! ```text
//! cargo run --release -p calimero-network-transport --example quic_throughput -- [MiB] [rounds]
//! ```
//!
//! Each measurement starts two processes: one listens, the other dials and
//! sends the bytes up (dialler to listener) or down in writes of 1 MiB. Figures
//! are medians. CPU seconds are the sum of both processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring program ends at the first surprise"
)]

use std::{
    future::poll_fn,
    io::{BufRead, BufReader, Write},
    pin::Pin,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use calimero_network_primitives::config::QuicConfig;
use calimero_network_transport::quic;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p_core::{
    Endpoint, Multiaddr, Transport as _,
    muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox},
    transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
};
use libp2p_identity::{Keypair, PeerId};

type Transport = Boxed<(PeerId, StreamMuxerBox)>;

const MIB: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["listen", kind, runtime] => block_on(runtime, listen(kind)),
        ["dial", kind, runtime, direction, mib, address] => {
            let address = address.parse().expect("an address");
            let bytes = mib.parse::<usize>().expect("a number") * MIB;
            block_on(runtime, dial(kind, direction == "up", bytes, address));
        }
        ref rest => {
            let number = |at: usize, default| {
                rest.get(at)
                    .map_or(default, |n: &&str| n.parse().expect("a number"))
            };
            compare(number(0, 512), number(1, 5));
        }
    }
}

fn block_on(runtime: &str, work: impl Future<Output = ()>) {
    let mut builder = match runtime {
        "current" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work);
}

/// Runs every combination `rounds` times, alternately, and prints a line for
/// each.
fn compare(mib: usize, rounds: usize) {
    println!("{mib} MiB on one stream, medians of {rounds}; CPU s/GiB of both processes");
    println!(
        "{:<10} {:<5} {:>14} {:>14} {:>7} {:>10} {:>10}",
        "runtime", "way", "stock MB/s", "ours MB/s", "ratio", "stock CPU", "ours CPU"
    );
    for runtime in ["current", "multi"] {
        for direction in ["up", "down"] {
            let (mut stock, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                stock.push(measure("stock", runtime, direction, mib));
                ours.push(measure("ours", runtime, direction, mib));
            }
            let (stock, ours) = (median(stock), median(ours));
            println!(
                "{runtime:<10} {direction:<5} {:>14.0} {:>14.0} {:>7.2} {:>10.2} {:>10.2}",
                stock.0,
                ours.0,
                ours.0 / stock.0,
                stock.1,
                ours.1
            );
        }
    }
}

/// Returns the medians of MB/s and of CPU seconds per GiB, computed separately.
fn median(figures: Vec<(f64, f64)>) -> (f64, f64) {
    let (mut speed, mut cpu): (Vec<_>, Vec<_>) = figures.into_iter().unzip();
    speed.sort_by(f64::total_cmp);
    cpu.sort_by(f64::total_cmp);
    (speed[speed.len() / 2], cpu[cpu.len() / 2])
}

fn measure(kind: &str, runtime: &str, direction: &str, mib: usize) -> (f64, f64) {
    let own = std::env::current_exe().expect("this program");
    let mut listener = Command::new(&own)
        .args(["listen", kind, runtime])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = BufReader::new(listener.stdout.take().expect("piped")).lines();
    let address = said.next().expect("an address").expect("text");
    let dialer = Command::new(&own)
        .args(["dial", kind, runtime, direction, &mib.to_string(), &address])
        .output()
        .expect("runs");
    let said_by_dialer = String::from_utf8(dialer.stdout).expect("text");
    let (seconds, dialer_cpu) = said_by_dialer.trim().split_once(' ').expect("two figures");
    let listener_cpu: f64 = said
        .next()
        .expect("a figure")
        .expect("text")
        .parse()
        .expect("a figure");
    assert!(listener.wait().expect("ends").success());
    let bytes = (mib * MIB) as f64;
    let cpu = dialer_cpu.parse::<f64>().expect("a figure") + listener_cpu;
    let gib = bytes / (1 << 30) as f64;
    (
        bytes / 1e6 / seconds.parse::<f64>().expect("a figure"),
        cpu / gib,
    )
}

/// Returns the CPU seconds of this process, user and system, from the kernel.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 (counted from 1) in units of 1/100 s on all supported
    // architectures. The second field may contain spaces.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn transport(kind: &str) -> Transport {
    let keypair = Keypair::generate_ed25519();
    match kind {
        "ours" => quic::Transport::new(&keypair, &QuicConfig::default(), TIMEOUT)
            .expect("builds")
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed(),
        _ => libp2p_quic::tokio::Transport::new(libp2p_quic::Config::new(&keypair))
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed(),
    }
}

async fn listen(kind: &str) {
    let mut transport = transport(kind);
    let any = "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address");
    transport
        .listen_on(ListenerId::next(), any)
        .expect("listens");
    let upgrade = loop {
        match poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
            TransportEvent::NewAddress { listen_addr, .. } => {
                println!("{listen_addr}");
                std::io::stdout().flush().expect("flushes");
            }
            TransportEvent::Incoming { upgrade, .. } => break upgrade,
            other => panic!("{other:?}"),
        }
    };
    let (_, mut muxer) = upgrade.await.expect("connects");
    let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx))
        .await
        .expect("a stream");
    let before = cpu_seconds();
    let mut request = [0; 9];
    stream.read_exact(&mut request).await.expect("a request");
    let [direction, length @ ..] = request;
    let bytes = u64::from_be_bytes(length) as usize;
    if direction == 0 {
        receive(&mut stream, bytes).await;
        stream.write_all(&[1]).await.expect("answers");
    } else {
        send(&mut stream, bytes).await;
        stream.read_exact(&mut [0]).await.expect("an answer");
    }
    println!("{}", cpu_seconds() - before);
    stream.close().await.expect("closes");
    // The dialler closes the connection after it has received this end.
    let end = poll_fn(|cx| Pin::new(&mut muxer).poll_inbound(cx));
    let _ = tokio::time::timeout(TIMEOUT, end).await;
}

async fn dial(kind: &str, up: bool, bytes: usize, address: Multiaddr) {
    let mut transport = transport(kind);
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = transport.dial(address, options).expect("begins");
    let (_, mut muxer) = dial.await.expect("connects");
    let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx))
        .await
        .expect("a stream");
    let (begin, before) = (Instant::now(), cpu_seconds());
    let mut request = vec![u8::from(!up)];
    request.extend((bytes as u64).to_be_bytes());
    stream.write_all(&request).await.expect("asks");
    if up {
        send(&mut stream, bytes).await;
        stream.read_exact(&mut [0]).await.expect("an answer");
    } else {
        receive(&mut stream, bytes).await;
        stream.write_all(&[1]).await.expect("answers");
    }
    println!(
        "{} {}",
        begin.elapsed().as_secs_f64(),
        cpu_seconds() - before
    );
    stream.close().await.expect("closes");
    assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0);
    poll_fn(|cx| Pin::new(&mut muxer).poll_close(cx))
        .await
        .expect("closes");
    // Another task sends the final packet, so wait before the process exits.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn send(stream: &mut SubstreamBox, bytes: usize) {
    let block = vec![0x5a; MIB];
    for _ in 0..bytes / MIB {
        stream.write_all(&block).await.expect("writes");
    }
    stream.flush().await.expect("flushes");
}

async fn receive(stream: &mut SubstreamBox, bytes: usize) {
    let mut buffer = vec![0; MIB];
    let mut left = bytes;
    while left > 0 {
        let length = stream.read(&mut buffer).await.expect("reads");
        assert!(length > 0, "ends early");
        left -= length;
    }
}
