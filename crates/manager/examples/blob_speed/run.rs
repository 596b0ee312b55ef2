//! The measurements.

use std::{
    fmt,
    hint::black_box,
    io::{BufRead, BufReader},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::{
    BlobId, FrameStream, Keypair, Multiaddr, NetworkClient, NetworkManager, PeerId, ProtocolId,
    StreamProtocol,
    blob::{
        BlobHasher, ChunkHash,
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
    multiaddr::Protocol,
};
use futures::StreamExt;

use crate::{
    CONTEXT, Failure, MIB, config, content,
    process::{Provider, Usage, Used, another},
};

async fn requester() -> Result<NetworkClient, Failure> {
    let (client, mut events) = NetworkManager::start(Keypair::generate_ed25519(), config()).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(client)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resources that one transfer used, here and at the provider.
#[derive(Clone, Copy, Default)]
struct Took {
    mb_per_s: f64,
    here: Used,
    there: Used,
}

/// Medians of some transfers of one size.
pub(crate) struct Throughput {
    over: String,
    mib: usize,
    bare: Vec<Took>,
    blob: Vec<Took>,
}

impl Throughput {
    pub(crate) const HEAD: &str = "\
| Over | Size | Bare stream, MB/s | Blob, MB/s | Ratio | CPU s a GiB, bare stream | \
CPU s a GiB, blob: requester + provider | Ratio of CPU | Peak over idle, MiB: requester, provider |
|---|---|---|---|---|---|---|---|---|";

    fn per_gib(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1024.0 / self.mib as f64
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |took: &[Took]| median(took.iter().map(|took| took.mb_per_s));
        let both = self.bare.iter().zip(&self.blob);
        let ratio = median(both.map(|(bare, blob)| blob.mb_per_s / bare.mb_per_s));
        let cpu = |took: &[Took], of: fn(&Took) -> Duration| {
            median(took.iter().map(|took| self.per_gib(of(took))))
        };
        let bare_cpu = cpu(&self.bare, |took| took.here.cpu + took.there.cpu);
        let here = cpu(&self.blob, |took| took.here.cpu);
        let there = cpu(&self.blob, |took| took.there.cpu);
        let most = |of: fn(&Took) -> u64| self.blob.iter().map(of).max().unwrap_or(0) / 1024;
        write!(
            f,
            "| {} | {} MiB | {:.0} | {:.0} | {ratio:.2} | {bare_cpu:.2} | {here:.2} + {there:.2} | {:.2} | {}, {} |",
            self.over,
            self.mib,
            rate(&self.bare),
            rate(&self.blob),
            bare_cpu / (here + there),
            most(|took| took.here.peak_kib),
            most(|took| took.there.peak_kib),
        )
    }
}

pub(crate) async fn large(over: &str, mib: usize, runs: usize) -> Result<Throughput, Failure> {
    let folder = tempfile::tempdir_in(".")?;
    let mut provider = Provider::start(over, folder.path())?;
    let client = requester().await?;
    client.dial(provider.address.clone()).await?;
    // Memory is counted from here: two nodes that are connected and have moved nothing.
    let idle_kib = Usage::now()?.resident_kib;
    let id: BlobId = provider.ask(&format!("put 1 {mib}"))?.parse()?;
    bare(&client, provider.peer, mib.min(256)).await?; // Opens windows.
    let (mut bares, mut blobs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        provider.ask("begin")?;
        let begun = Usage::begin()?;
        let mb_per_s = bare(&client, provider.peer, mib).await?;
        bares.push(Took {
            mb_per_s,
            here: Usage::since(&begun, idle_kib)?,
            there: provider.used()?,
        });

        let here = tempfile::tempdir_in(".")?;
        let store = FsBlobStore::open(here.path(), &FsConfig::default())?;
        provider.ask("begin")?;
        let begun = Usage::begin()?;
        let started = Instant::now();
        let to = Destination::Store(Arc::new(store));
        client
            .request_blob(CONTEXT, id, vec![provider.peer], to)
            .await?;
        blobs.push(Took {
            mb_per_s: (mib * MIB) as f64 / started.elapsed().as_secs_f64() / 1e6,
            here: Usage::since(&begun, idle_kib)?,
            there: provider.used()?,
        });
    }
    Ok(Throughput {
        over: over.to_owned(),
        mib,
        bare: bares,
        blob: blobs,
    })
}

/// Megabytes a second of frames of 1 MiB on a bare stream, received and dropped.
async fn bare(client: &NetworkClient, peer: PeerId, mib: usize) -> Result<f64, Failure> {
    let (opener, protocol) = (client.clone(), ProtocolId::Stream.as_str());
    let receive = client.runtime().spawn(async move {
        let stream = opener
            .open_raw_stream(peer, StreamProtocol::new(protocol))
            .await?;
        let mut stream = FrameStream::new(stream);
        let begun = Instant::now();
        // As many bytes as chunks are wanted.
        stream.send(Bytes::from(vec![1; mib])).await?;
        let mut received = 0;
        while let Some(frame) = stream.next().await {
            received += frame?.len();
        }
        if received != mib * MIB {
            return Err("the bare stream ended early".into());
        }
        Ok::<_, Failure>(received as f64 / begun.elapsed().as_secs_f64() / 1e6)
    });
    receive.await?
}

pub(crate) async fn small(count: usize, runs: usize) -> Result<(), Failure> {
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
        if batch.fetched.len() != count {
            return Err(format!("{:?}", batch.failed).into());
        }
        // The first opens windows.
        if run > 0 {
            rates.push(count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let rate = median(rates);
    println!("{count} blobs of 4 KiB in one batch: {rate:.0} a second (median of {runs}).");
    Ok(())
}

/// Fetches and prints the verified bytes, until the process is killed.
pub(crate) async fn fetch_to_be_killed(
    address: Multiaddr,
    id: BlobId,
    folder: &str,
) -> Result<(), Failure> {
    let Some(Protocol::P2p(peer)) = address.iter().last() else {
        return Err("an address without a peer".into());
    };
    let client = requester().await?;
    client.dial(address).await?;
    let store = Arc::new(FsBlobStore::open(folder, &FsConfig::default())?);
    let to = Destination::Store(store);
    let mut transfer = client.request_blob(CONTEXT, id, vec![peer], to);
    let progress = transfer.progress();
    while let Some(progress) = progress.next().await {
        println!("{}", progress.verified_bytes);
    }
    Ok(())
}

pub(crate) async fn kill(mib: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(".")?;
    let mut provider = Provider::start("tcp", folder.path())?;
    let id: BlobId = provider.ask(&format!("put 2 {mib}"))?.parse()?;
    let here = tempfile::tempdir_in(".")?;
    let size_bytes = (mib * MIB) as u64;

    let path = here.path().to_str().ok_or("a path that is no text")?;
    let (address, text) = (provider.address.to_string(), id.to_string());
    let mut child = another(&["fetch", &address, &text, path])?;
    let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut verified = 0;
    for line in said.lines() {
        verified = line?.parse()?;
        if verified >= size_bytes / 2 {
            break;
        }
    }
    child.kill()?;
    child.wait()?;

    let client = requester().await?;
    client.dial(provider.address.clone()).await?;
    let store = Arc::new(FsBlobStore::open(here.path(), &FsConfig::default())?);
    let to = Destination::Store(store);
    let fetched = client
        .request_blob(CONTEXT, id, vec![provider.peer], to)
        .await?;
    let percent = |bytes: u64| bytes as f64 * 100.0 / size_bytes as f64;
    println!(
        "A fetch of {mib} MiB was killed when it had said that {:.1} % were verified: {:.1} % were \
         kept, and the next try received {:.1} %.",
        percent(verified),
        percent(fetched.resumed_bytes),
        percent(fetched.received_bytes)
    );
    Ok(())
}

/// Measures hashing on one core, and a durable store that two threads fill.
pub(crate) fn alone(mib: usize) -> Result<(), Failure> {
    let chunk = content(3, MIB);
    let begun = Instant::now();
    for _ in 0..256 {
        black_box(ChunkHash::of(black_box(&chunk)));
    }
    let hashed = (256 * MIB) as f64 / begun.elapsed().as_secs_f64() / 1e6;

    let mut hasher = BlobHasher::new();
    (0..mib).try_for_each(|_| hasher.update(&chunk))?;
    let here = tempfile::tempdir_in(".")?;
    let store = FsBlobStore::open(here.path(), &FsConfig::default())?;
    let partial = store.partial(hasher.finish().list)?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let (partial, chunk) = (&partial, &chunk);
        let write = move |first| {
            (first..mib)
                .step_by(2)
                .try_for_each(|at| partial.write(at, chunk))
        };
        let threads = [0, 1].map(|first| scope.spawn(move || write(first)));
        for thread in threads {
            thread.join().map_err(|_| "a thread failed")??;
        }
        Ok::<_, Failure>(())
    })?;
    drop(partial.finish()?);
    let stored = (mib * MIB) as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!(
        "Without a network: SHA-256 {hashed:.0} MB/s on one core; {mib} MiB hashed and stored \
         durably by two threads at {stored:.0} MB/s."
    );
    Ok(())
}
