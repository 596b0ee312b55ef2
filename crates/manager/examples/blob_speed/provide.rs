//! The process that serves a folder, and sends bytes on bare streams.

use std::{io::BufRead, sync::Arc};

use bytes::Bytes;
use calimero_network::{
    FrameStream, Keypair, NetworkEvent, NetworkManager, StreamEvent,
    blob::store::{FsBlobStore, FsConfig},
    multiaddr::Protocol,
};

use crate::{Failure, MIB, config, content, process::Usage};

pub(crate) async fn provide(over: &str, folder: &str) -> Result<(), Failure> {
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
            if let NetworkEvent::Stream(StreamEvent::Opened { stream, .. }) = event {
                tokio::spawn(send(stream));
            }
        }
    });
    tokio::task::spawn_blocking(move || commands(&store)).await?
}

/// Sends as many frames of 1 MiB as the first frame of the other side has bytes.
async fn send<S>(mut stream: FrameStream<S>)
where
    S: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let Some(Ok(ask)) = stream.next().await else {
        return;
    };
    let chunk = Bytes::from(content(1, MIB));
    for _ in 0..ask.len() {
        if stream.feed(chunk.clone()).await.is_err() {
            return;
        }
    }
    let _ = stream.close().await;
}

/// Answers what the first process writes to this one.
fn commands(store: &FsBlobStore) -> Result<(), Failure> {
    let idle_kib = Usage::now()?.resident_kib;
    let mut begun = Usage::begin()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["put", seed, mib] => {
                let mut writer = store.writer()?;
                let (seed, mib): (u64, u64) = (seed.parse()?, mib.parse()?);
                for at in 0..mib {
                    writer.write(&content(seed + at, MIB))?;
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
            ["begin"] => {
                begun = Usage::begin()?;
                println!("ok");
            }
            ["used"] => {
                let used = Usage::since(&begun, idle_kib)?;
                println!("{} {}", used.peak_kib, used.cpu.as_millis());
            }
            _ => return Err(format!("unknown command {line}").into()),
        }
    }
    Ok(())
}
