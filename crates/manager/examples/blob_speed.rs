//! Measures blobs between two processes on loopback, beside the same bytes on a bare stream.
//!
//! ```text
//! blob_speed tcp|quic MIB RUNS        throughput, memory and processor time, against a bare stream
//! blob_speed small COUNT RUNS         blobs of 4 KiB in one batch
//! blob_speed resume MIB               what a fetch that was stopped halfway moves again
//! ```
//!
//! Each run fetches into a new store on the disk of the current folder, verified and durable.

#![allow(clippy::print_stdout, reason = "it is a command")]

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::{
    BlobId, ContextId, Keypair, Multiaddr, NetworkClient, NetworkConfig, NetworkEvent,
    NetworkManager, PeerId, ProtocolId, StreamProtocol,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
    multiaddr::Protocol,
};
use futures::StreamExt;

type Failure = Box<dyn Error + Send + Sync>;

const CONTEXT: ContextId = ContextId::new([7; 32]);
const MIB: usize = 1 << 20;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args[..] {
            ["provide", over, folder] => provide(over, folder).await,
            ["small", count, runs] => small(count.parse()?, runs.parse()?).await,
            ["resume", mib] => resume(mib.parse()?).await,
            [over, mib, runs] => large(over, mib.parse()?, runs.parse()?).await,
            _ => Err("blob_speed tcp|quic MIB RUNS, or small COUNT RUNS, or resume MIB".into()),
        }
    })
}

fn config() -> NetworkConfig {
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.local_network = true;
    config
}

/// Content that does not compress and costs little to make.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(len + 8);
    while content.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(len);
    content
}

/// The other process: serves a folder, and sends bytes on bare streams.
async fn provide(over: &str, folder: &str) -> Result<(), Failure> {
    let store = FsBlobStore::open(folder, &FsConfig::default())?;
    let builder = NetworkManager::builder(Keypair::generate_ed25519(), config());
    let (client, mut events) = builder.blobs(Arc::new(store.clone())).start().await?;
    let listen = match over {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    let (_, address) = client.listen_on(listen.parse()?).await?;
    println!("{}", address.with(Protocol::P2p(client.peer_id())));
    client.runtime().spawn(async move {
        while let Some(event) = events.next().await {
            if let NetworkEvent::StreamOpened { mut stream, .. } = event {
                tokio::spawn(async move {
                    let Some(Ok(ask)) = stream.next().await else {
                        return;
                    };
                    let count = ask.first().map_or(0, |_| ask.len());
                    let chunk = Bytes::from(content(1, MIB));
                    for _ in 0..count {
                        if stream.feed(chunk.clone()).await.is_err() {
                            return;
                        }
                    }
                    let _ = stream.close().await;
                });
            }
        }
    });
    tokio::task::spawn_blocking(move || commands(&store)).await?
}

/// Answers what the first process writes to this one.
fn commands(store: &FsBlobStore) -> Result<(), Failure> {
    let mut idle = usage()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["put", seed, len] => {
                let mut writer = store.writer()?;
                let (seed, mut left): (u64, usize) = (seed.parse()?, len.parse()?);
                let mut at = seed;
                while left > 0 {
                    let piece = content(at, left.min(MIB));
                    writer.write(&piece)?;
                    left -= piece.len();
                    at += 1;
                }
                println!("{}", writer.finish(None)?.id);
            }
            ["small", count] => {
                let mut batch = store.batch();
                for seed in 0..count.parse()? {
                    batch.add(None, &content(seed, 4096))?;
                }
                let ids = batch.commit()?.ids;
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                println!("{}", ids.join(" "));
            }
            ["idle"] => {
                reset_peak()?;
                idle = usage()?;
                println!("ok");
            }
            ["usage"] => {
                let now = usage()?;
                println!(
                    "{} {}",
                    now.peak_kib.saturating_sub(idle.resident_kib),
                    (now.cpu - idle.cpu).as_millis()
                );
            }
            _ => return Err(format!("unknown command {line}").into()),
        }
    }
    Ok(())
}

struct Usage {
    resident_kib: u64,
    peak_kib: u64,
    cpu: Duration,
}

fn usage() -> Result<Usage, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| -> u64 {
        let field = after.split_whitespace().nth(at);
        field.and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    Ok(Usage {
        resident_kib: field("VmRSS:"),
        peak_kib: field("VmHWM:"),
        // In hundredths of a second, on every Linux.
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
    })
}

/// Lets the peak of resident memory begin anew.
fn reset_peak() -> Result<(), Failure> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

struct Provider {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    address: Multiaddr,
    peer: PeerId,
}

impl Provider {
    fn start(over: &str, folder: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?)
            .args(["provide", over])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let mut from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        from.read_line(&mut address)?;
        let address: Multiaddr = address.trim().parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else {
            return Err("the provider did not start".into());
        };
        Ok(Self {
            child,
            to,
            from,
            address,
            peer,
        })
    }

    fn ask(&mut self, command: &str) -> Result<String, Failure> {
        writeln!(self.to, "{command}")?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn requester() -> Result<NetworkClient, Failure> {
    let (client, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config()).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(client)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn large(over: &str, mib: usize, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(".")?;
    let mut provider = Provider::start(over, folder.path())?;
    let id: BlobId = provider.ask(&format!("put 1 {}", mib * MIB))?.parse()?;
    let client = requester().await?;
    client.dial(provider.address.clone()).await?;
    let (mut raw, mut ours, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    let mut figures = Vec::new();
    for run in 0..=runs {
        let bare = bare(&client, provider.peer, mib).await?;
        let here = tempfile::tempdir_in(".")?;
        let store = FsBlobStore::open(here.path(), &FsConfig::default())?;
        provider.ask("idle")?;
        reset_peak()?;
        let idle = usage()?;
        let begun = Instant::now();
        let to = Destination::Store(Arc::new(store));
        client
            .request_blob(CONTEXT, id, vec![provider.peer], to)
            .await?;
        let took = begun.elapsed();
        let now = usage()?;
        let theirs = provider.ask("usage")?;
        if run == 0 {
            continue; // The first warms caches and windows.
        }
        let rate = (mib * MIB) as f64 / took.as_secs_f64() / 1e6;
        raw.push(bare);
        ours.push(rate);
        ratio.push(rate / bare);
        figures.push((
            now.peak_kib.saturating_sub(idle.resident_kib) / 1024,
            (now.cpu - idle.cpu).as_millis() as u64,
            theirs,
        ));
    }
    println!(
        "{over} {mib} MiB: bare stream {:.0} MB/s, blob {:.0} MB/s, ratio {:.2} (medians of {runs})",
        median(raw),
        median(ours),
        median(ratio)
    );
    for (peak_mib, cpu_ms, theirs) in figures {
        let mut theirs = theirs.split(' ').map(|n| n.parse::<u64>().unwrap_or(0));
        let (their_kib, their_ms) = (theirs.next().unwrap_or(0), theirs.next().unwrap_or(0));
        let per_gib = |ms: u64| ms as f64 / 1000.0 * 1024.0 / mib as f64;
        println!(
            "  requester {peak_mib} MiB over idle, {:.2} CPU s a GiB; provider {} MiB, {:.2}",
            per_gib(cpu_ms),
            their_kib / 1024,
            per_gib(their_ms)
        );
    }
    Ok(())
}

/// Megabytes a second of frames of 1 MiB on a bare stream, received and dropped.
async fn bare(client: &NetworkClient, peer: PeerId, mib: usize) -> Result<f64, Failure> {
    let (opener, protocol) = (client.clone(), ProtocolId::Stream.as_str());
    let receive = client.runtime().spawn(async move {
        let stream = opener
            .open_raw_stream(peer, StreamProtocol::new(protocol))
            .await?;
        let mut stream = calimero_network::FrameStream::new(stream);
        let begun = Instant::now();
        // As many bytes as chunks are wanted.
        stream.send(Bytes::from(vec![1; mib])).await?;
        let mut received = 0;
        while let Some(frame) = stream.next().await {
            received += frame?.len();
        }
        Ok::<_, Failure>(received as f64 / begun.elapsed().as_secs_f64() / 1e6)
    });
    receive.await?
}

async fn small(count: usize, runs: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(".")?;
    let mut provider = Provider::start("tcp", folder.path())?;
    let ids = provider.ask(&format!("small {count}"))?;
    let ids: Vec<BlobId> = ids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let client = requester().await?;
    client.dial(provider.address.clone()).await?;
    let mut rates = Vec::new();
    for run in 0..=runs {
        let here = tempfile::tempdir_in(".")?;
        let store = Arc::new(FsBlobStore::open(here.path(), &FsConfig::default())?);
        let begun = Instant::now();
        let batch = client
            .request_blobs(CONTEXT, ids.clone(), vec![provider.peer], store)
            .await?;
        assert_eq!(batch.fetched.len(), count, "{:?}", batch.failed);
        if run > 0 {
            rates.push(count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let rate = median(rates);
    println!("{count} blobs of 4 KiB: {rate:.0} a second (median of {runs})");
    Ok(())
}

async fn resume(mib: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(".")?;
    let mut provider = Provider::start("tcp", folder.path())?;
    let id: BlobId = provider.ask(&format!("put 2 {}", mib * MIB))?.parse()?;
    let client = requester().await?;
    client.dial(provider.address.clone()).await?;
    let here = tempfile::tempdir_in(".")?;
    let store = Arc::new(FsBlobStore::open(here.path(), &FsConfig::default())?);
    let to = || Destination::Store(store.clone());
    let half = (mib * MIB / 2) as u64;
    let mut transfer = client.request_blob(CONTEXT, id, vec![provider.peer], to());
    while let Some(progress) = transfer.progress().next().await {
        if progress.verified_bytes >= half {
            break;
        }
    }
    drop(transfer);
    let fetched = client
        .request_blob(CONTEXT, id, vec![provider.peer], to())
        .await?;
    println!(
        "{mib} MiB stopped at {:.1} %: the next try received {:.1} %",
        fetched.resumed_bytes as f64 * 100.0 / (mib * MIB) as f64,
        fetched.received_bytes as f64 * 100.0 / (mib * MIB) as f64
    );
    Ok(())
}
