//! The load: messages, streams, blobs, and nodes that leave and return.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use calimero_network::{
    ContextId, Keypair,
    blob::{blob_id, fetch::Destination},
};
use rand::{Rng as _, RngExt as _};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    member::{self, End, Member, Running},
    network::Network,
};
use crate::Failure;

/// Limit of concurrent operations of one kind. Further ones wait.
const MAX_RUNNING: usize = 64;

/// Time limit of a stream or a fetch. It is long because the process may wait
/// for CPU time.
const LIMIT: Duration = Duration::from_secs(120);

/// Number of frames per stream and largest size of each.
const FRAMES: usize = 8;
const MAX_FRAME_BYTES: usize = 16 << 10;

const CONTEXT: ContextId = ContextId::new([1; 32]);

/// Becomes `true` when the load ends.
pub(crate) type Stopped = watch::Receiver<bool>;

/// Starts an operation `per_second` times a second at random times until
/// `stopped`, and waits for all operations to end.
pub(crate) async fn repeat<F>(per_second: f64, mut stopped: Stopped, begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if per_second <= 0.0 {
        return;
    }
    let permits = Arc::new(Semaphore::new(MAX_RUNNING));
    let mut running = JoinSet::new();
    loop {
        // Exponentially distributed intervals, as of many independent sources.
        let wait = -rand::rng().random_range(f64::EPSILON..1.0).ln() / per_second;
        tokio::select! {
            () = sleep(Duration::from_secs_f64(wait)) => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let piece = begin();
        running.spawn(async move {
            piece.await;
            drop(permit);
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Measures the scheduling delay of tasks until `stopped`.
pub(crate) async fn watch_delays(net: &Network, stopped: Stopped) {
    const EVERY: Duration = Duration::from_millis(50);
    while !*stopped.borrow() {
        let began = Instant::now();
        sleep(EVERY).await;
        net.late(began.elapsed().saturating_sub(EVERY));
    }
}

/// Publishes a message of a random member in a random overlay.
pub(crate) async fn publish(net: Arc<Network>) {
    let Some(publisher) = net.random_member() else {
        return;
    };
    let overlay = rand::rng().random_range(0..net.topics.len());
    let number = (net.ledger()).publish(publisher.incarnation, Instant::now());
    let message = member::message(number, overlay, net.args.message_bytes);
    let topic = &net.topics[overlay];
    if let Err(error) = publisher.client.publish(topic, message).await {
        net.ledger().withdraw(number);
        net.tally.refused.fetch_add(1, Ordering::Relaxed);
        if net.both_stayed(&publisher, &publisher) {
            net.fault(format!("a message was refused: {error}"));
        }
    }
}

/// Opens a stream between two random members, one of which echoes all frames.
pub(crate) async fn exchange_frames(net: Arc<Network>) {
    let Some((one, other)) = net.random_connected_pair().await else {
        return;
    };
    let began = Instant::now();
    let echo_frames = echo_frames(&one, &other);
    let result = match timeout(LIMIT, echo_frames).await {
        Ok(result) => result,
        Err(_) => Err(format!("no end within {LIMIT:?}").into()),
    };
    match result {
        Ok(bytes) => {
            net.tally.streams.fetch_add(1, Ordering::Relaxed);
            net.tally.echoed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Err(error) => failed(&net, &one, &other, "stream", began, &error),
    }
}

async fn echo_frames(one: &Member, other: &Member) -> Result<u64, Failure> {
    let mut stream = one.client.open_stream(other.peer()).await?;
    let mut bytes = 0;
    for _ in 0..FRAMES {
        let frame = random_bytes(MAX_FRAME_BYTES);
        stream.send(frame.clone()).await?;
        let back = stream.next().await.ok_or("ended")??;
        if back != frame {
            return Err("another frame came back".into());
        }
        bytes += frame.len() as u64;
    }
    stream.close().await?;
    match stream.next().await {
        None => Ok(bytes),
        Some(Ok(_)) => Err("a frame too many came back".into()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Stores a blob at a random member and fetches it from another.
pub(crate) async fn fetch(net: Arc<Network>) {
    let Some((provider, fetcher)) = net.random_connected_pair().await else {
        return;
    };
    let began = Instant::now();
    let fetched = match timeout(LIMIT, carry(&net, &provider, &fetcher)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no end within {LIMIT:?}").into()),
    };
    match fetched {
        Ok(bytes) => {
            net.tally.fetches.fetch_add(1, Ordering::Relaxed);
            net.tally.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Err(error) => failed(&net, &provider, &fetcher, "fetch", began, &error),
    }
}

async fn carry(net: &Network, provider: &Member, fetcher: &Member) -> Result<u64, Failure> {
    let content = random_bytes(net.args.blob_bytes);
    let store = provider.store.clone();
    let put = content.clone();
    let stored = tokio::task::spawn_blocking(move || store.put(&put)).await??;
    let id = stored.id;
    retain_blob(net, provider, id).await?;
    let to = Destination::Store(Arc::new(fetcher.store.clone()));
    let transfer = (fetcher.client).request_blob(CONTEXT, id, vec![provider.peer()], to);
    let fetched = transfer.await.map_err(|error| error.to_string())?;
    let store = fetcher.store.clone();
    let len = content.len() as u64;
    let read = move || match store.reader(&id)? {
        Some(reader) => Ok::<_, Failure>(reader.read(0..len)?),
        None => Err("a fetched blob is not in the store".into()),
    };
    let read = tokio::task::spawn_blocking(read).await??;
    if read != content || blob_id(&read) != id || fetched.size_bytes != len {
        return Err("a fetched blob is another".into());
    }
    retain_blob(net, fetcher, id).await?;
    Ok(len)
}

/// Records a stored blob and removes the oldest one if there are too many.
async fn retain_blob(
    net: &Network,
    member: &Member,
    id: calimero_network::BlobId,
) -> Result<(), Failure> {
    if let Some(old) = net.acknowledged(member.position, id) {
        let store = member.store.clone();
        tokio::task::spawn_blocking(move || store.remove(&old)).await??;
    }
    Ok(())
}

fn failed(
    net: &Network,
    one: &Member,
    other: &Member,
    what: &str,
    began: Instant,
    error: &Failure,
) {
    if net.both_stayed(one, other) {
        let (one, other) = (one.incarnation, other.incarnation);
        let after = began.elapsed();
        net.fault(format!(
            "a {what} between {one} and {other} failed after {after:?}: {error}"
        ));
    } else {
        net.tally.cut.fetch_add(1, Ordering::Relaxed);
    }
}

fn random_bytes(most: usize) -> Bytes {
    let mut rng = rand::rng();
    let mut bytes = vec![0; rng.random_range(1..=most)];
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

/// Nodes leave one at a time, alternately by shutdown and by drop, and return,
/// alternately with the same and with a new identity. Returns the nodes that
/// run at the end.
pub(crate) async fn churn(
    net: Arc<Network>,
    mut running: Vec<Running>,
    mut stopped: Stopped,
) -> Result<Vec<Running>, Failure> {
    let Some(every) = net.args.churn_every else {
        let _ = stopped.wait_for(|stopped| *stopped).await;
        return Ok(running);
    };
    let mut returning = JoinSet::new();
    for nth in 0_usize.. {
        tokio::select! {
            () = sleep(every) => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        while let Some(returned) = returning.try_join_next() {
            running.push(returned??);
        }
        // At most a tenth of the nodes is away at one time.
        if returning.len() >= net.args.nodes.div_ceil(10) {
            continue;
        }
        let leaving = running.swap_remove(rand::rng().random_range(0..running.len()));
        let how = if nth % 2 == 0 {
            End::Shutdown
        } else {
            End::Dropped
        };
        returning.spawn(leave_and_return(net.clone(), leaving, how, nth % 4 >= 2));
    }
    while let Some(returned) = returning.join_next().await {
        running.push(returned??);
    }
    Ok(running)
}

async fn leave_and_return(
    net: Arc<Network>,
    running: Running,
    how: End,
    new_identity: bool,
) -> Result<Running, Failure> {
    let position = running.member.position;
    net.leave(&running.member);
    if let Some(took) = member::end(running, how).await? {
        net.times().shutdowns.push(took);
        // Each of a few wake-ups of the process may have the largest scheduling
        // delay.
        let limit = net.config.handle.shutdown_timeout + 4 * net.largest_delay();
        if took > limit {
            net.fault(format!("a shutdown took {took:?}"));
        }
    }
    let away = rand::rng().random_range(1.0..8.0);
    sleep(Duration::from_secs_f64(away)).await;
    let joining = member::start(&net, position, new_identity).await?;
    net.tally.restarts.fetch_add(1, Ordering::Relaxed);
    let checked = net.position(position).acknowledged.len() as u64;
    net.tally
        .blobs_checked
        .fetch_add(checked, Ordering::Relaxed);
    if joining.blobs_lost > 0 {
        net.fault(format!(
            "{} acknowledged blobs are lost",
            joining.blobs_lost
        ));
    }
    join(&net, joining, true).await
}

/// Waits until a node knows a member of each overlay, and for the settling time
/// after that.
pub(crate) async fn join(
    net: &Arc<Network>,
    joining: member::Joining,
    again: bool,
) -> Result<Running, Failure> {
    let member::Joining {
        running, joined, ..
    } = joining;
    net.appear(&running.member);
    match timeout(LIMIT, joined).await {
        Ok(Ok(took)) if again => net.times().rejoins.push(took),
        Ok(Ok(took)) => net.times().joins.push(took),
        _ => net.fault(format!("{} found no peer", running.member.incarnation)),
    }
    sleep(net.args.settle).await;
    net.settle(&running.member);
    Ok(running)
}

/// Starts the boot node, which carries no load and stays running.
pub(crate) async fn boot(
    over: super::Over,
) -> Result<
    (
        calimero_network::NetworkClient,
        Vec<calimero_network::Multiaddr>,
    ),
    Failure,
> {
    let args = super::LoadArgs {
        over,
        ..super::LoadArgs::default()
    };
    let mut config = member::config(&args, &[]);
    config.server.rendezvous.enabled = true;
    let builder = calimero_network::NetworkManager::builder(Keypair::generate_ed25519(), config);
    let builder = if over == super::Over::Memory {
        builder.in_memory()
    } else {
        builder
    };
    let (client, _) = builder.start().await?;
    let addresses = member::listen(&client, over).await?;
    Ok((client, addresses))
}
