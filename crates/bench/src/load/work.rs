//! What is done to the network: messages, streams, blobs, and nodes that leave and come back.

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
use rand::{Rng as _, RngCore as _};
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

/// Pieces of one kind under way at one time; more wait.
const UNDER_WAY: usize = 64;

/// How long a stream or a fetch may take: long where the process waits for its processor, short
/// for what never ends.
const LIMIT: Duration = Duration::from_secs(120);

/// Frames on each stream, and most bytes of each.
const FRAMES: usize = 8;
const MAX_FRAME_BYTES: usize = 16 << 10;

const CONTEXT: ContextId = ContextId::new([1; 32]);

/// Becomes true when the load should end.
pub(crate) type Stopped = watch::Receiver<bool>;

/// Begins a piece of work `per_second` times a second, at random times, until told to stop, and
/// waits for all of them.
pub(crate) async fn repeat<F>(per_second: f64, mut stopped: Stopped, begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if per_second <= 0.0 {
        return;
    }
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let mut running = JoinSet::new();
    loop {
        // Exponentially distributed waits: as of many who do not know of each other.
        let wait = -rand::rng().random_range(f64::EPSILON..1.0).ln() / per_second;
        tokio::select! {
            () = sleep(Duration::from_secs_f64(wait)) => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        let Ok(place) = places.clone().acquire_owned().await else {
            break;
        };
        let piece = begin();
        running.spawn(async move {
            piece.await;
            drop(place);
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Measures how late turns come, until told to stop.
pub(crate) async fn watch_turns(net: &Network, stopped: Stopped) {
    const EVERY: Duration = Duration::from_millis(50);
    while !*stopped.borrow() {
        let began = Instant::now();
        sleep(EVERY).await;
        net.late(began.elapsed().saturating_sub(EVERY));
    }
}

/// Somebody publishes a message in some overlay.
pub(crate) async fn publish(net: Arc<Network>) {
    let Some(speaker) = net.anybody() else {
        return;
    };
    let overlay = rand::rng().random_range(0..net.topics.len());
    let number = (net.ledger()).publish(speaker.incarnation, Instant::now());
    let message = member::message(number, overlay, net.args.message_bytes);
    let topic = &net.topics[overlay];
    if let Err(error) = speaker.client.publish(topic, message).await {
        net.ledger().withdraw(number);
        net.tally.refused.fetch_add(1, Ordering::Relaxed);
        if net.both_stayed(&speaker, &speaker) {
            net.fault(format!("a message was refused: {error}"));
        }
    }
}

/// Somebody opens a stream to somebody, who gives back what he is sent.
pub(crate) async fn converse(net: Arc<Network>) {
    let Some((one, other)) = net.two_connected().await else {
        return;
    };
    let began = Instant::now();
    let talk = talk(&one, &other);
    let result = match timeout(LIMIT, talk).await {
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

async fn talk(one: &Member, other: &Member) -> Result<u64, Failure> {
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

/// Somebody puts a blob into his store, and somebody fetches it.
pub(crate) async fn fetch(net: Arc<Network>) {
    let Some((provider, fetcher)) = net.two_connected().await else {
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
    keep(net, provider, id).await?;
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
    keep(net, fetcher, id).await?;
    Ok(len)
}

/// Remembers that a blob is there, and lets the oldest go.
async fn keep(net: &Network, member: &Member, id: calimero_network::BlobId) -> Result<(), Failure> {
    if let Some(old) = net.acknowledged(member.place, id) {
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

/// Nodes leave, one at a time, in turn told to and dropped, and come back, in turn as the same and
/// as another. Gives those that run at the end.
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
        // Most of them stay.
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
    as_another: bool,
) -> Result<Running, Failure> {
    let place = running.member.place;
    net.leave(&running.member);
    if let Some(took) = member::end(running, how).await? {
        net.times().shutdowns.push(took);
        // Of the process, each of a few turns may come as late as the latest.
        let limit = net.config.handle.shutdown_timeout + 4 * net.latest_turn();
        if took > limit {
            net.fault(format!("a shutdown took {took:?}"));
        }
    }
    let away = rand::rng().random_range(1.0..8.0);
    sleep(Duration::from_secs_f64(away)).await;
    let joining = member::start(&net, place, as_another).await?;
    net.tally.restarts.fetch_add(1, Ordering::Relaxed);
    let checked = net.place(place).acknowledged.len() as u64;
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

/// Waits until a node knows a member of each overlay, and some more until everything is expected
/// of it.
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
        _ => net.fault(format!("{} found nobody", running.member.incarnation)),
    }
    sleep(net.args.settle).await;
    net.settle(&running.member);
    Ok(running)
}

/// The boot node: it is not loaded, and stays.
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
