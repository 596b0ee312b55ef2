//! The answering side.

use std::{io, sync::Arc, time::Duration};

use calimero_network::Incoming;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{BLOCK_BYTES, WANTED_BYTES_LEN};

/// Requests answered at one time; each holds a block of 1 MiB.
const MAX_REQUESTS: usize = 64;

/// Bytes sent in answer to one request, at most: a second of the fastest links, many times over,
/// and not for ever.
const MAX_DOWNLOAD_BYTES: u64 = 64 << 30;

/// Silence after which a request is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers requests until the protocol is no longer accepted.
pub(crate) async fn serve(mut requests: Incoming) {
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request else { break };
                // Without a place the stream is dropped, and so reset.
                if let Ok(place) = places.clone().try_acquire_owned() {
                    running.spawn(async move {
                        let _place = place;
                        let _ = answer(request.stream).await;
                    });
                }
            }
            Some(_) = running.join_next() => {}
        }
    }
}

/// Answers one request.
pub(super) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut wanted = [0; WANTED_BYTES_LEN];
    moving(stream.read_exact(&mut wanted)).await?;
    let mut left = u64::from_be_bytes(wanted);
    if left > MAX_DOWNLOAD_BYTES {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    let mut block = vec![0; BLOCK_BYTES];
    while moving(stream.read(&mut block)).await? > 0 {}
    block.fill(0);
    while left > 0 {
        let size = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        moving(stream.write_all(&block[..size])).await?;
        left -= size as u64;
    }
    moving(stream.close()).await
}

/// What `io` gives, as long as it does not stall.
async fn moving<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL_TIMEOUT, io).await?
}
