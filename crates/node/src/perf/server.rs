//! The server of the perf protocol.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use calimero_network::{Incoming, PeerId, resources::Resource};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};

use super::{BLOCK_BYTES, WANTED_BYTES_LEN};

/// Bytes sent to one peer and received from it within [`BUDGET_TIME`]: a second of the fastest
/// links many times over.
const BUDGET_BYTES: u64 = 64 << 30;

/// Time after which a peer has its whole budget again.
const BUDGET_TIME: Duration = Duration::from_secs(600);

/// Peers whose budgets are kept. More than can be served in [`BUDGET_TIME`] are refused.
const MAX_BUDGETS: usize = 1024;

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Time for one request.
    request: Duration,
    /// Time in which a request moves `window_bytes`, or is given up.
    window: Duration,
    window_bytes: u64,
}

/// The least speed is that of a link of 70 kbit/s.
const LIMITS: Limits = Limits {
    request: BUDGET_TIME,
    window: Duration::from_secs(30),
    window_bytes: 256 << 10,
};

/// What may still move from and to each peer. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Budgets {
    /// Bytes granted, and since when.
    granted: HashMap<PeerId, (u64, Instant)>,
}

impl Budgets {
    /// Grants bytes to a peer, or returns `false` if they exceed its budget.
    fn grant(&mut self, peer: PeerId, bytes: u64, now: Instant) -> bool {
        self.granted
            .retain(|_, (_, since)| now.saturating_duration_since(*since) < BUDGET_TIME);
        if self.granted.len() >= MAX_BUDGETS && !self.granted.contains_key(&peer) {
            return false;
        }
        let (granted, _) = self.granted.entry(peer).or_insert((0, now));
        match granted.checked_add(bytes) {
            Some(total) if total <= BUDGET_BYTES => {
                *granted = total;
                true
            }
            _ => false,
        }
    }
}

/// Answers requests until the protocol is no longer accepted.
///
/// The limits of [`Resource::PerfRequests`] bound the requests that are answered at one time, each
/// of which holds a block of 1 MiB. A request above a limit is reset.
pub(crate) async fn serve(mut requests: Incoming) {
    let budgets = Arc::new(Mutex::new(Budgets::default()));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request else { break };
                let holder = request.stream.frame_budget().holder();
                // Without a permit the stream is dropped, which resets it.
                if let Ok(permit) = holder.take(Resource::PerfRequests, 1) {
                    let (budgets, peer) = (budgets.clone(), request.peer);
                    running.spawn(async move {
                        let _permit = permit;
                        let grant = |bytes| {
                            let mut budgets =
                                budgets.lock().unwrap_or_else(PoisonError::into_inner);
                            budgets.grant(peer, bytes, Instant::now())
                        };
                        let _ = answer(request.stream, grant, LIMITS).await;
                    });
                }
            }
            Some(_) = running.join_next() => {}
        }
    }
}

/// Answers one request within its limits.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    grant: impl FnMut(u64) -> bool,
    limits: Limits,
) -> io::Result<()> {
    timeout(limits.request, exchange(stream, grant, limits)).await?
}

/// Reads the request to its end and sends what it asks for, as far as the bytes of both directions
/// are granted.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut grant: impl FnMut(u64) -> bool,
    limits: Limits,
) -> io::Result<()> {
    let mut granted = |bytes| match grant(bytes) {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::QuotaExceeded)),
    };
    let mut pace = Pace::start(limits);
    let mut wanted = [0; WANTED_BYTES_LEN];
    let mut read = 0;
    while read < WANTED_BYTES_LEN {
        match pace.moved(stream.read(&mut wanted[read..])).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read += count,
        }
    }
    let mut left = u64::from_be_bytes(wanted);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match pace.moved(stream.read(&mut block)).await? {
            0 => break,
            count => granted(count as u64)?,
        }
    }
    block.fill(0);
    while left > 0 {
        let size = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        match pace.moved(stream.write(&block[..size])).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                // What the peer does not read to its end uses up no more than it took.
                granted(count as u64)?;
                left -= count as u64;
            }
        }
    }
    timeout(limits.window, stream.close()).await?
}

/// The bytes of a request in windows of time, each of which has a least number.
#[derive(Debug)]
struct Pace {
    limits: Limits,
    /// Bytes that moved in the current window.
    bytes: u64,
    end: tokio::time::Instant,
}

impl Pace {
    fn start(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            end: tokio::time::Instant::now() + limits.window,
        }
    }

    /// Waits for bytes to move and counts them.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] if too few bytes moved in a window.
    async fn moved(&mut self, io: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
        let mut io = pin!(io);
        loop {
            match timeout_at(self.end, &mut io).await {
                Ok(count) => {
                    let count = count?;
                    self.bytes += count as u64;
                    return Ok(count);
                }
                Err(_) if self.bytes < self.limits.window_bytes => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(_) => {
                    self.bytes = 0;
                    self.end += self.limits.window;
                }
            }
        }
    }
}

#[cfg(test)]
mod pace_tests;

#[cfg(test)]
mod tests {
    use calimero_network::{Keypair, NetworkClient, NetworkConfig, NetworkManager, Substream};

    use super::*;
    use crate::perf::PROTOCOL;

    #[test]
    fn a_peer_has_a_budget_that_comes_back() {
        let mut budgets = Budgets::default();
        let (one, other) = (PeerId::random(), PeerId::random());
        let start = Instant::now();
        assert!(budgets.grant(one, BUDGET_BYTES - 1, start));
        assert!(!budgets.grant(one, 2, start));
        assert!(!budgets.grant(one, u64::MAX, start));
        assert!(budgets.grant(one, 1, start));
        assert!(budgets.grant(other, BUDGET_BYTES, start));
        assert!(!budgets.grant(one, 1, start + BUDGET_TIME / 2));
        assert!(budgets.grant(one, 1, start + BUDGET_TIME));
    }

    #[test]
    fn the_table_of_budgets_is_bounded() {
        let mut budgets = Budgets::default();
        let start = Instant::now();
        for _ in 0..MAX_BUDGETS {
            assert!(budgets.grant(PeerId::random(), 1, start));
        }
        assert!(!budgets.grant(PeerId::random(), 1, start));
        assert!(budgets.grant(PeerId::random(), 1, start + BUDGET_TIME));
    }

    /// Asks for a byte on a new stream, which stays open.
    async fn ask(client: &NetworkClient, server: PeerId) -> io::Result<Substream> {
        let mut stream = client.open_raw_stream(server, PROTOCOL).await.unwrap();
        stream.write_all(&1_u64.to_be_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    }

    #[tokio::test]
    async fn a_peer_that_ends_no_request_gets_its_share_and_others_are_served() {
        const SHARE: usize = 64;
        let start = async || {
            let config = NetworkConfig {
                listen: Vec::new(),
                ..NetworkConfig::default()
            };
            let identity = Keypair::generate_ed25519();
            NetworkManager::start(identity, config).await.unwrap()
        };
        let (server, _server_events) = start().await;
        let peer = server.peer_id();
        let listening = server.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap());
        let (_, address) = listening.await.unwrap();
        tokio::spawn(serve(server.accept(PROTOCOL).unwrap()));

        let (hostile, _hostile_events) = start().await;
        hostile.dial(address.clone()).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..SHARE {
            held.push(ask(&hostile, peer).await.unwrap());
        }
        let refused = async {
            let mut stream = ask(&hostile, peer).await?;
            stream.read(&mut [0]).await
        };
        let read = refused.await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

        let (other, _other_events) = start().await;
        other.dial(address).await.unwrap();
        let mut served = ask(&other, peer).await.unwrap();
        served.close().await.unwrap();
        let mut answer = Vec::new();
        served.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0]);
    }
}
