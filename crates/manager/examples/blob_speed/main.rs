//! Measures blobs between two processes on loopback, and the same bytes on a bare stream.
//!
//! ```text
//! blob_speed                          all measurements of docs/performance.md
//! blob_speed tcp|quic MIB RUNS        throughput, memory and processor time, against a bare stream
//! blob_speed small COUNT RUNS         blobs of 4 KiB in one batch
//! blob_speed kill MIB                 bytes that a fetch receives again after a kill halfway
//! blob_speed alone MIB                speed of hashing and of the store without a network
//! ```
//!
//! Each run fetches into a new store on the disk of the current folder, verified and durable.

#![allow(clippy::print_stdout, reason = "it is a command")]

mod process;
mod provide;
mod run;

use std::{env, error::Error};

use calimero_network::{ContextId, NetworkConfig};

use self::run::Throughput;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

pub(crate) const CONTEXT: ContextId = ContextId::new([7; 32]);
pub(crate) const MIB: usize = 1 << 20;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args[..] {
            [] => everything().await,
            ["provide", over, folder] => provide::provide(over, folder).await,
            ["fetch", address, id, folder] => {
                run::fetch_to_be_killed(address.parse()?, id.parse()?, folder).await
            }
            ["small", count, runs] => run::small(count.parse()?, runs.parse()?).await,
            ["kill", mib] => run::kill(mib.parse()?).await,
            ["alone", mib] => run::alone(mib.parse()?),
            [over, mib, runs] => {
                println!("{}", Throughput::HEAD);
                let (mib, runs) = (mib.parse()?, runs.parse()?);
                println!("{}", run::large(over, mib, runs).await?);
                Ok(())
            }
            _ => Err("see the head of examples/blob_speed/main.rs".into()),
        }
    })
}

async fn everything() -> Result<(), Failure> {
    println!("{}", Throughput::HEAD);
    for over in ["tcp", "quic"] {
        for mib in [256, 4096] {
            println!("{}", run::large(over, mib, 5).await?);
        }
    }
    println!();
    run::small(10_000, 5).await?;
    run::kill(256).await?;
    run::alone(1024)
}

pub(crate) fn config() -> NetworkConfig {
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.discovery.local_network = true;
    config
}

/// Content that does not compress and costs little to make.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
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
