//! Measures the loopback throughput of one stream between two processes,
//! compared with plain TCP and with the TCP, TLS and Yamux of libp2p.
//!
//! ```text
//! cargo run --release -p calimero-network-transport --example throughput [-- [RUNS [MIB]] [NAME..]]
//! ```
//!
//! Runs every transport `RUNS` times (5), alternately. Each run sends `MIB`
//! (512) up and the same amount down in writes of 1 MiB. The output has medians
//! of MB/s, of CPU seconds of both processes per GiB, and the ratio to libp2p.
//! Each process has a current-thread runtime. `NAME`s select transports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measuring program ends at the first failure"
)]

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use calimero_network_primitives::{
    addr::DialPolicy,
    config::{Security, TransportConfig},
};
use calimero_network_transport::build;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, future::poll_fn};
use libp2p_core::{
    Endpoint, Transport as _,
    muxing::{StreamMuxerBox, StreamMuxerExt},
    transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    upgrade::Version,
};
use libp2p_identity::{Keypair, PeerId};
use multiaddr::Multiaddr;

const NAMES: [&str; 6] = ["plain", "stock", "tls", "noise", "stock-noise", "quic"];
const MIB: usize = 1024 * 1024;

type Net = Boxed<(PeerId, StreamMuxerBox)>;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", name, mib] => run(serve(name, mib.parse().unwrap())),
        ["client", name, mib, address] => run(dial(name, mib.parse().unwrap(), address)),
        _ => measure(&args),
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future);
}

// ---- the measurement -----------------------------------------------------------------------

/// MB/s and CPU seconds per GiB, up and down.
#[derive(Clone, Copy)]
struct Sample([f64; 4]);

fn measure(args: &[&str]) {
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    let runs = numbers.next().unwrap_or(5);
    let mib = numbers.next().unwrap_or(512);
    let mut names: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| args.contains(name))
        .collect();
    if names.is_empty() {
        names = vec!["plain", "stock", "tls", "noise"];
    }
    let mut samples = vec![Vec::new(); names.len()];
    for _ in 0..runs {
        for (name, samples) in names.iter().zip(&mut samples) {
            samples.push(sample(name, mib));
        }
    }
    let medians: Vec<Sample> = samples.iter().map(|samples| median(samples)).collect();
    let base = names
        .iter()
        .position(|name| *name == "stock")
        .map(|at| medians[at]);
    println!("{runs} runs of {mib} MiB, medians; ratio to libp2p's own TCP, TLS and Yamux");
    println!(
        "transport      up MB/s    down MB/s   up CPU s/GiB   down CPU s/GiB   ratio up  down"
    );
    for (name, Sample([up, down, up_cpu, down_cpu])) in names.iter().zip(&medians) {
        let ratio = |at: usize, value: f64| base.map_or(0.0, |Sample(base)| value / base[at]);
        println!(
            "{name:<12} {up:>9.0} {down:>12.0} {up_cpu:>14.2} {down_cpu:>16.2} {:>10.2} {:>5.2}",
            ratio(0, *up),
            ratio(1, *down),
        );
    }
}

fn median(samples: &[Sample]) -> Sample {
    let mut columns = [0.0; 4];
    for (at, column) in columns.iter_mut().enumerate() {
        let mut values: Vec<f64> = samples.iter().map(|Sample(values)| values[at]).collect();
        values.sort_by(f64::total_cmp);
        *column = values[values.len() / 2];
    }
    Sample(columns)
}

/// A child process that is killed on drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(args: &[&str]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sample(name: &str, mib: usize) -> Sample {
    let mib = mib.to_string();
    let mut server = Process(start(&["server", name, &mib]));
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let address = lines.next().unwrap().unwrap();
    let client = start(&["client", name, &mib, &address]);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: the client failed");
    let near: Vec<f64> = numbers(&String::from_utf8(output.stdout).unwrap());
    let far: Vec<f64> = numbers(&lines.next().unwrap().unwrap());
    drop(server.0.stdin.take());
    server.0.wait().unwrap();
    Sample([near[0], near[1], near[2] + far[0], near[3] + far[1]])
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect()
}

// ---- the two processes ---------------------------------------------------------------------

async fn serve(name: &str, mib: usize) {
    if name == "plain" {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&listener.local_addr().unwrap().to_string());
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        say(&far_side(&mut Plain(socket), mib).await);
        return wait_for_parent().await;
    }
    let mut net = net(name);
    let address = match name {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    net.listen_on(ListenerId::next(), address.parse().unwrap())
        .unwrap();
    let upgrade = loop {
        match net.next().await.unwrap() {
            TransportEvent::NewAddress { listen_addr, .. } => say(&listen_addr.to_string()),
            TransportEvent::Incoming { upgrade, .. } => break upgrade,
            other => panic!("{other:?}"),
        }
    };
    keep_polling(net);
    let (_, mut muxer) = upgrade.await.unwrap();
    let mut stream = poll_fn(|cx| {
        let inbound = muxer.poll_inbound_unpin(cx);
        if inbound.is_pending() {
            let _ = muxer.poll_unpin(cx);
        }
        inbound
    })
    .await
    .unwrap();
    keep_alive(muxer);
    say(&far_side(&mut stream, mib).await);
    wait_for_parent().await;
}

async fn dial(name: &str, mib: usize, address: &str) {
    if name == "plain" {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        return say(&near_side(&mut Plain(socket), mib).await);
    }
    let mut net = net(name);
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let address: Multiaddr = address.parse().unwrap();
    let dial = net.dial(address, opts).unwrap();
    keep_polling(net);
    let (_, mut muxer) = dial.await.unwrap();
    let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.unwrap();
    keep_alive(muxer);
    say(&near_side(&mut stream, mib).await);
}

fn net(name: &str) -> Net {
    let keypair = Keypair::generate_ed25519();
    let tcp = || libp2p_tcp::tokio::Transport::new(libp2p_tcp::Config::default());
    match name {
        "stock" => tcp()
            .upgrade(Version::V1Lazy)
            .authenticate(libp2p_tls::Config::new(&keypair).unwrap())
            .multiplex(libp2p_yamux::Config::default())
            .boxed(),
        "stock-noise" => tcp()
            .upgrade(Version::V1Lazy)
            .authenticate(libp2p_noise::Config::new(&keypair).unwrap())
            .multiplex(libp2p_yamux::Config::default())
            .boxed(),
        _ => {
            let mut config = TransportConfig::default();
            if name == "noise" {
                config.tcp.prefer = Security::Noise;
            }
            build(&keypair, &config, DialPolicy::Local.into())
                .unwrap()
                .boxed
        }
    }
}

/// Polls the transport until the process exits, as a swarm does.
fn keep_polling(mut net: Net) {
    tokio::spawn(async move { while net.next().await.is_some() {} });
}

/// Polls the connection until the process exits, as a swarm does.
fn keep_alive(mut muxer: StreamMuxerBox) {
    tokio::spawn(async move {
        if let Err(error) = poll_fn(|cx| muxer.poll_unpin(cx)).await {
            eprintln!("the connection ended: {error}");
        }
    });
}

/// Sends, then receives. Returns the throughput and the CPU time.
async fn near_side(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), mib: usize) -> String {
    send(stream, 1).await;
    receive(stream, 1).await;
    let (cpu, start) = (cpu_time(), Instant::now());
    send(stream, mib).await;
    receive_byte(stream).await;
    let (up, up_cpu) = (start.elapsed(), cpu_time() - cpu);
    let (cpu, start) = (cpu_time(), Instant::now());
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    receive(stream, mib).await;
    let (down, down_cpu) = (start.elapsed(), cpu_time() - cpu);
    let rate = |time: Duration| (mib * MIB) as f64 / 1e6 / time.as_secs_f64();
    let a_gib = 1024.0 / mib as f64;
    format!(
        "{} {} {} {}",
        rate(up),
        rate(down),
        up_cpu * a_gib,
        down_cpu * a_gib
    )
}

/// Receives, then sends. Returns the CPU time.
async fn far_side(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), mib: usize) -> String {
    receive(stream, 1).await;
    send(stream, 1).await;
    let cpu = cpu_time();
    receive(stream, mib).await;
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    let up_cpu = cpu_time() - cpu;
    receive_byte(stream).await;
    let cpu = cpu_time();
    send(stream, mib).await;
    let down_cpu = cpu_time() - cpu;
    let a_gib = 1024.0 / mib as f64;
    format!("{} {}", up_cpu * a_gib, down_cpu * a_gib)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), mib: usize) {
    let chunk = vec![7; MIB];
    for _ in 0..mib {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.flush().await.unwrap();
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), mib: usize) {
    let mut chunk = vec![0; MIB];
    let mut left = mib * MIB;
    while left > 0 {
        let most = left.min(MIB);
        let count = stream.read(&mut chunk[..most]).await.unwrap();
        assert!(count > 0, "the stream ended early");
        left -= count;
    }
}

async fn receive_byte(stream: &mut (impl AsyncRead + Unpin)) {
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
}

/// Returns the CPU seconds of this process so far, in kernel ticks of 10 ms.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Keeps the connection open until the measuring process has read the result.
async fn wait_for_parent() {
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = waiting.await;
}

/// A tokio socket with the traits of `futures`.
struct Plain(tokio::net::TcpStream);

impl AsyncRead for Plain {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        out: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let mut out = tokio::io::ReadBuf::new(out);
        let socket = std::pin::Pin::new(&mut self.0);
        futures::ready!(tokio::io::AsyncRead::poll_read(socket, cx, &mut out))?;
        std::task::Poll::Ready(Ok(out.filled().len()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(std::pin::Pin::new(&mut self.0), cx, data)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(std::pin::Pin::new(&mut self.0), cx)
    }

    fn poll_close(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut self.0), cx)
    }
}
