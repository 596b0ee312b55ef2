//! `calnet receive`: fetches what a ticket names.

use std::{fs, path::PathBuf, time::Duration};

use calimero_network::{
    BlobId, Events, Keypair, Multiaddr, NetworkClient, NetworkEvent, NetworkManager, PeerId,
    blob::{
        collection::{Collection, Entry, MAX_COLLECTION_BYTES},
        fetch::{Destination, FetchRequest, Fetched, Progress},
        ticket::{Kind, Ticket},
    },
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::mpsc,
    time::{interval, sleep, timeout},
};

use super::{
    addresses,
    lines::Line,
    parts::Parts,
    path::{RELAYED_MAX_BYTES, Route},
    place::{DiskPlace, Place},
    progress::{Shown, Tally},
    send::kind_name,
    small::{self, Batch},
};
use crate::{
    blob::{DEFAULT_CONTEXT, blocking},
    cli::ReceiveArgs,
    error::CommandError,
    one_shot,
    output::{Output, StdoutWriter},
};

/// Files of a folder that are fetched at the same time.
const AT_ONE_TIME: usize = 8;

/// Reports of transfers that wait to be shown.
const UPDATES: usize = 64;

/// Time between two looks at what is shown while nothing arrives: the rate falls and the path is
/// sought.
const REFRESH: Duration = Duration::from_millis(500);

/// Time for a first relay of the ticket to be connected. Then the addresses that do not lead through
/// one are tried.
const RELAY_TIME: Duration = Duration::from_secs(10);

/// Attempts to connect to the peer, and the pause between two of them. A circuit fails where its
/// connection with the relay is replaced by another one at the same time.
const CONNECT_ATTEMPTS: u32 = 3;
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// A report of a transfer.
enum Update {
    Size(u64),
    Progress(BlobId, Progress),
    End(BlobId, u64, u64),
    Batch(Batch),
}

/// What has arrived.
#[derive(Debug, Default)]
struct Arrived {
    size_bytes: u64,
    files: usize,
    resumed_bytes: u64,
    received_bytes: u64,
}

impl Arrived {
    fn add(&mut self, fetched: &Fetched) {
        self.resumed_bytes += fetched.resumed_bytes;
        self.received_bytes += fetched.received_bytes;
    }

    fn add_batch(&mut self, batch: &Batch) {
        self.resumed_bytes += batch.verified_bytes.saturating_sub(batch.received_bytes);
        self.received_bytes += batch.received_bytes;
    }
}

pub(crate) async fn execute(args: ReceiveArgs, output: Output) -> Result<(), CommandError> {
    let ticket = args.ticket;
    let dialled = addresses::to_dial(ticket.addresses(), ticket.peer(), args.local);
    if dialled.is_empty() && args.boot.is_empty() {
        let with_local = addresses::to_dial(ticket.addresses(), ticket.peer(), true);
        return Err(match with_local.is_empty() {
            true => CommandError::NoAddress,
            false => CommandError::OnlyLocalAddresses,
        });
    }
    // Before anything is transferred.
    let (force, path) = (args.force, args.output);
    let (place, ticket) = blocking(move || {
        Place::prepare(&ticket, path.as_deref(), force).map(|place| (place, ticket))
    })
    .await?;
    let mut boot = args.boot;
    for relay in addresses::relays(&dialled) {
        if !boot.contains(&relay) {
            boot.push(relay);
        }
    }
    let mut config = one_shot::config(boot, args.local);
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.blob.max_download_bytes_per_s = args.max_download_bytes_per_s;
    let mut builder = NetworkManager::builder(Keypair::generate_ed25519(), config);
    if let Some(secret) = ticket.secret() {
        builder = builder.sign_blob_requests(secret.key().clone());
    }
    let (client, events) = builder.start().await?;
    let quiet = matches!(place, Place::Stdout);
    let mut shown = Shown::new(&output, quiet);
    let (updates, reports) = mpsc::channel(UPDATES);
    let fetcher = Fetcher {
        client: client.clone(),
        ticket: ticket.clone(),
        updates,
    };
    let receiving = async {
        connect(&client, ticket.peer(), &dialled).await?;
        fetcher.receive(place, force, &output).await
    };
    let received = tokio::select! {
        received = receiving => received,
        () = show(&client, ticket.peer(), events, reports, &mut shown) => {
            Err(calimero_network::Stopped.into())
        }
    };
    // The end of the node has no bearing on what has arrived.
    let _ = client.shutdown().await;
    match received {
        Ok((arrived, path)) => {
            shown.end(&Line::Received {
                id: ticket.blob_id().to_string(),
                kind: kind_name(ticket.kind()),
                size_bytes: arrived.size_bytes,
                files: arrived.files,
                resumed_bytes: arrived.resumed_bytes,
                received_bytes: arrived.received_bytes,
                output: path.display().to_string(),
            });
            Ok(())
        }
        Err(error) => {
            shown.clear();
            Err(error)
        }
    }
}

/// Connects to the peer of the ticket.
async fn connect(
    client: &NetworkClient,
    peer: PeerId,
    dialled: &[Multiaddr],
) -> Result<(), CommandError> {
    if !client.config().discovery.boot.is_empty() {
        let _ = timeout(RELAY_TIME, client.bootstrap()).await;
    }
    let mut attempt = 1;
    loop {
        match client.dial_peer(peer, dialled.to_vec()).await {
            Ok(_) => return Ok(()),
            Err(error) if attempt == CONNECT_ATTEMPTS => return Err(error.into()),
            Err(error) => tracing::debug!(%peer, %error, attempt, "cannot connect yet"),
        }
        attempt += 1;
        sleep(CONNECT_PAUSE).await;
    }
}

/// Shows progress and the path until the node ends.
async fn show(
    client: &NetworkClient,
    peer: PeerId,
    mut events: Events,
    mut reports: mpsc::Receiver<Update>,
    shown: &mut Shown<'_>,
) {
    let mut tally = Tally::default();
    let mut route = Route::None;
    let mut refresh = interval(REFRESH);
    let mut size_bytes = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                // Any of them can be a change of the path.
                Some(NetworkEvent::Connection(_)) => {}
                Some(_) => continue,
                None => return,
            },
            Some(update) = reports.recv() => match update {
                Update::Size(bytes) => {
                    size_bytes = Some(bytes);
                    tally.on_size(bytes);
                }
                Update::Progress(id, progress) => tally.on_progress(id, &progress),
                Update::End(id, verified, received) => tally.on_end(&id, verified, received),
                Update::Batch(batch) => tally.on_batch(&batch),
            },
            _ = refresh.tick() => {}
        }
        let Ok(status) = client.status().await else {
            return;
        };
        let is_small = size_bytes.is_some_and(|bytes| bytes <= RELAYED_MAX_BYTES);
        let now = Route::of(&status, peer, is_small);
        if now != route {
            shown.line(&now.line(peer));
            route = now;
        }
        shown.receiving(tally.now(route.clone()));
    }
}

/// Fetches the blobs of a ticket.
struct Fetcher {
    client: NetworkClient,
    ticket: Ticket,
    updates: mpsc::Sender<Update>,
}

impl Fetcher {
    /// Receives everything, and returns where it is.
    async fn receive(
        &self,
        place: Place,
        force: bool,
        output: &Output,
    ) -> Result<(Arrived, PathBuf), CommandError> {
        let id = self.ticket.blob_id();
        let size_bytes = self.ticket.size_bytes();
        if let Some(size_bytes) = size_bytes {
            self.report(Update::Size(size_bytes)).await;
        }
        let place = match place {
            Place::Stdout => {
                let to = Destination::Writer(Box::new(StdoutWriter(output.clone())));
                let fetched = self.fetch(id, size_bytes, to).await?;
                let arrived = arrived_file(&fetched);
                return Ok((arrived, PathBuf::from("-")));
            }
            Place::Disk(place) => place,
        };
        let (arrived, collection) = match self.ticket.kind() {
            Kind::Blob => {
                let to = Destination::File(place.parts().file(&id));
                let fetched = self.fetch(id, size_bytes, to).await?;
                let arrived = arrived_file(&fetched);
                (arrived, None)
            }
            Kind::Collection => {
                let (arrived, collection) = self.folder(&place).await?;
                (arrived, Some(collection))
            }
        };
        let path = place.path().to_owned();
        blocking(move || place.finish(&id, collection.as_ref(), force)).await?;
        Ok((arrived, path))
    }

    /// Fetches the list of a folder, then its files.
    async fn folder(&self, place: &DiskPlace) -> Result<(Arrived, Collection), CommandError> {
        let id = self.ticket.blob_id();
        let part = place.parts().file(&id);
        let request = self.request(id, Some(MAX_COLLECTION_BYTES));
        let list = self
            .client
            .request_blob_with(
                request,
                vec![self.ticket.peer()],
                Destination::File(part.clone()),
            )
            .await
            .map_err(CommandError::Fetch)?;
        let collection = blocking(move || {
            let content = fs::read(&part).map_err(|source| CommandError::File {
                doing: "read",
                path: part,
                source,
            })?;
            Ok(Collection::decode(&content)?)
        })
        .await?;
        let mut arrived = Arrived {
            size_bytes: collection.size_bytes(),
            files: collection.entries().len(),
            ..Arrived::default()
        };
        arrived.received_bytes += list.received_bytes;
        // Files with one content are fetched once.
        let mut blobs: Vec<_> = collection.entries().iter().collect();
        blobs.sort_unstable_by_key(|entry| entry.id);
        blobs.dedup_by_key(|entry| entry.id);
        let total = blobs.iter().map(|entry| entry.size_bytes);
        let total = total.fold(0, u64::saturating_add);
        self.report(Update::Size(total)).await;
        let (small, large): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|entry| small::is_small(entry));
        self.small(place, &small, &mut arrived).await?;
        let fetched: Vec<Fetched> = stream::iter(large)
            .map(|entry| {
                let to = Destination::File(place.parts().file(&entry.id));
                self.fetch(entry.id, Some(entry.size_bytes), to)
            })
            .buffer_unordered(AT_ONE_TIME)
            .try_collect()
            .await?;
        for fetched in &fetched {
            arrived.add(fetched);
        }
        Ok((arrived, collection))
    }

    /// Fetches small files in batches.
    async fn small(
        &self,
        place: &DiskPlace,
        entries: &[&Entry],
        arrived: &mut Arrived,
    ) -> Result<(), CommandError> {
        if entries.is_empty() {
            return Ok(());
        }
        let blobs = entries.iter().map(|entry| (entry.id, entry.size_bytes));
        let (path, blobs) = (place.parts().small_path(), blobs.collect::<Vec<_>>());
        let store = blocking(move || Parts::open_small(&path, &blobs)).await?;
        for batch in small::batches(entries) {
            let batch = small::fetch(&self.client, self.ticket.peer(), &store, batch).await?;
            arrived.add_batch(&batch);
            self.report(Update::Batch(batch)).await;
        }
        place.parts().set_small(store);
        Ok(())
    }

    fn request(&self, id: BlobId, max_bytes: Option<u64>) -> FetchRequest {
        let request = FetchRequest::new(DEFAULT_CONTEXT, id);
        match max_bytes {
            Some(max_bytes) => request.with_max_bytes(max_bytes),
            None => request,
        }
    }

    /// Fetches one blob of at most `max_bytes`, and reports its progress.
    async fn fetch(
        &self,
        id: BlobId,
        max_bytes: Option<u64>,
        to: Destination,
    ) -> Result<Fetched, CommandError> {
        let request = self.request(id, max_bytes);
        let providers = vec![self.ticket.peer()];
        let mut transfer = self.client.request_blob_with(request, providers, to);
        let mut progress = std::mem::replace(transfer.progress(), stream::empty().boxed());
        let reporting = async {
            while let Some(progress) = progress.next().await {
                self.report(Update::Progress(id, progress)).await;
            }
        };
        let (fetched, ()) = futures::future::join(transfer, reporting).await;
        let fetched = fetched.map_err(CommandError::Fetch)?;
        let end = Update::End(id, fetched.size_bytes, fetched.received_bytes);
        self.report(end).await;
        Ok(fetched)
    }

    async fn report(&self, update: Update) {
        // Closed where the command is about to end.
        let _ = self.updates.send(update).await;
    }
}

fn arrived_file(fetched: &Fetched) -> Arrived {
    Arrived {
        size_bytes: fetched.size_bytes,
        files: 1,
        resumed_bytes: fetched.resumed_bytes,
        received_bytes: fetched.received_bytes,
    }
}
