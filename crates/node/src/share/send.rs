//! `calnet send`: stores a file, a folder or standard input, prints a ticket and serves.

use std::{
    collections::HashSet,
    fs,
    io::{IsTerminal as _, stdout},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use calimero_network::{
    BlobEvent, BlobId, Events, Keypair, Multiaddr, NetworkClient, NetworkEvent, NetworkManager,
    Reachability, ReachableBecause, Status, addr,
    blob::{
        serve::Access,
        store::{FsBlobStore, Hold},
        ticket::{Kind, Secret, Ticket},
    },
    config::BlobStoreConfig,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use super::{addresses, lines::Line, qr};
use crate::{
    blob::{DEFAULT_CONTEXT, blocking, files::Source, local},
    cli::SendArgs,
    data::DataFolder,
    error::CommandError,
    identity,
    lock::{Lock, LockError},
    one_shot,
    output::Output,
    signals::Signals,
};

/// Time for a relay to grant a reservation, or for an address to be confirmed, before the ticket is
/// printed without: 30 s, the deadline of a dial.
const ADDRESS_TIME: Duration = Duration::from_secs(30);

/// Further time for a relay after an address was confirmed by a boot node, 5 s. A router that filters
/// by address lets in the boot nodes, which this node has sent packets to, and no other peer.
const RELAY_TIME: Duration = Duration::from_secs(5);

/// What the names of temporary folders begin with.
const TEMPORARY: &str = "calnet-send-";

/// Removes the temporary folders of this user whose processes were killed.
fn remove_stale(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY));
    for path in named.map(|entry| entry.path()) {
        let owner = rustix::process::geteuid().as_raw();
        // A symbolic link of another user could name any folder.
        let is_own = path
            .symlink_metadata()
            .is_ok_and(|it| it.is_dir() && it.uid() == owner);
        if is_own && let Some(_lock) = Lock::stale_folder(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    let folder = path.display();
                    tracing::info!(%folder, "removed the temporary folder of a killed send");
                }
                Err(error) => {
                    let folder = path.display();
                    tracing::warn!(%folder, %error, "cannot remove the folder of a killed send");
                }
            }
        }
    }
}

/// Where the blobs are kept, and the identity of the node.
struct Storage {
    store: FsBlobStore,
    identity: Keypair,
    /// The folder that keeps both, and the secrets of tickets.
    data: Option<DataFolder>,
    _lock: Option<Lock>,
    _temporary: Option<TempDir>,
}

impl Storage {
    fn open(data: Option<&Path>) -> Result<Self, CommandError> {
        if let Some(data) = data {
            let data = DataFolder::open(data)?;
            let lock = data.lock()?;
            return Ok(Self {
                store: data.configured_blobs()?,
                identity: identity::load_or_create(&data.identity())?,
                data: Some(data),
                _lock: Some(lock),
                _temporary: None,
            });
        }
        let parent = std::env::temp_dir();
        remove_stale(&parent);
        let (temporary, lock) = loop {
            let temporary = tempfile::Builder::new()
                .prefix(TEMPORARY)
                .tempdir_in(&parent);
            let temporary = temporary.map_err(|source| CommandError::Io {
                what: "cannot create a temporary folder",
                source,
            })?;
            match Lock::folder(temporary.path()) {
                // Another send that starts now has locked it to remove it.
                Err(LockError::Held { .. }) => {}
                lock => break (temporary, lock?),
            }
        };
        // The disk is the limit.
        let config = BlobStoreConfig {
            max_bytes: i64::MAX as u64,
            ..BlobStoreConfig::default()
        };
        Ok(Self {
            store: FsBlobStore::open(temporary.path().join("blobs"), &config)?,
            identity: Keypair::generate_ed25519(),
            data: None,
            _lock: Some(lock),
            _temporary: Some(temporary),
        })
    }

    /// The secret of the ticket of a blob. A data folder keeps it, so that the ticket stays valid.
    fn secret(&self, id: &BlobId) -> Result<Secret, CommandError> {
        let key = match &self.data {
            Some(data) => identity::load_or_create(&data.ticket_secret(id)?)?,
            None => Keypair::generate_ed25519(),
        };
        // An identity file of another kind of key is not one that this program has made.
        let key = key.try_into_ed25519().map_err(|_| CommandError::Io {
            what: "cannot use the secret of the ticket",
            source: std::io::ErrorKind::InvalidData.into(),
        })?;
        Ok(Secret::new(key))
    }
}

/// What is sent.
struct Shared {
    id: BlobId,
    kind: Kind,
    name: Option<String>,
    size_bytes: u64,
    files: usize,
    /// Every blob that may be fetched.
    ids: HashSet<BlobId>,
    _holds: Vec<Hold>,
}

impl Shared {
    /// Stores a file, a folder or standard input. What is `public` is announced by a node that runs on
    /// the data folder later.
    fn store(store: &FsBlobStore, path: &Path, public: bool) -> Result<Self, CommandError> {
        let tag = |id: &BlobId| match public {
            true => local::tag(DEFAULT_CONTEXT, id),
            false => local::private_tag(id),
        };
        // `.` has no name, its absolute path has.
        let name = fs::canonicalize(path).ok();
        let name = name.as_deref().and_then(Path::file_name);
        let name = name.and_then(|name| name.to_str()).map(str::to_owned);
        let is_folder = path != Path::new("-") && fs::metadata(path).is_ok_and(|it| it.is_dir());
        if !is_folder {
            let added = local::add(store, Source::open(path)?, tag)?;
            return Ok(Self {
                id: added.id,
                kind: Kind::Blob,
                name,
                size_bytes: added.size_bytes,
                files: 1,
                ids: HashSet::from([added.id]),
                _holds: Vec::new(),
            });
        }
        let folder = store.put_folder(path)?;
        let id = folder.stored.id;
        let entries = folder.collection.entries();
        store.tag(&tag(&id), id)?;
        let mut holds = folder.holds;
        holds.push(folder.stored.hold);
        Ok(Self {
            id,
            kind: Kind::Collection,
            name,
            size_bytes: folder.collection.size_bytes(),
            files: entries.len(),
            ids: entries.iter().map(|entry| entry.id).chain([id]).collect(),
            _holds: holds,
        })
    }

    fn ticket(
        &self,
        client: &NetworkClient,
        addresses: Vec<Multiaddr>,
        secret: Option<Secret>,
    ) -> Result<Ticket, CommandError> {
        let mut ticket = Ticket::new(client.peer_id(), self.id, self.kind)
            .with_size_bytes(self.size_bytes)
            .with_addresses(addresses)?;
        if let Some(name) = &self.name {
            // A name that no ticket carries, such as that of a hidden file, is left out.
            ticket = ticket.clone().with_name(name).unwrap_or(ticket);
        }
        Ok(match secret {
            Some(secret) => ticket.with_secret(secret),
            None => ticket,
        })
    }
}

/// The name of a kind in records.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Blob => "blob",
        Kind::Collection => "collection",
    }
}

pub(crate) async fn execute(
    args: SendArgs,
    output: &Output,
    mut signals: Signals,
) -> Result<(), CommandError> {
    let (data, path, public) = (args.data.clone(), args.path.clone(), args.public);
    let storing = blocking(move || {
        let storage = Storage::open(data.as_deref())?;
        let shared = Shared::store(&storage.store, &path, public)?;
        let secret = match public {
            true => None,
            false => Some(storage.secret(&shared.id)?),
        };
        Ok((storage, shared, secret))
    });
    let (storage, shared, secret) = tokio::select! {
        stored = storing => stored?,
        () = signals.stop() => return Err(CommandError::Interrupted),
    };
    let has_boot = !args.boot.is_empty();
    let mut config = one_shot::config(args.boot, args.local);
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.discovery.external = args.external;
    config.blob.max_upload_bytes_per_s = args.max_upload_bytes_per_s;
    let may_fetch = {
        let (ids, public_key) = (shared.ids.clone(), secret.as_ref().map(Secret::public_key));
        move |access: Access| {
            let proven = public_key.is_none() || access.public_key == public_key;
            proven && ids.contains(&access.blob_id)
        }
    };
    let builder = NetworkManager::builder(storage.identity.clone(), config)
        .blobs(Arc::new(storage.store.clone()))
        .authorize_blobs(may_fetch);
    let (client, mut events) = builder.start().await?;
    let served = tokio::select! {
        served = serve(&client, &mut events, &shared, secret, has_boot, args.qr, output) => served,
        () = signals.stop() => Ok(()),
    };
    client.shutdown().await?;
    served?;
    output.print(&Line::Stopped {});
    Ok(())
}

/// Prints the ticket, then a record for each peer that asks, until the node ends.
async fn serve(
    client: &NetworkClient,
    events: &mut Events,
    shared: &Shared,
    secret: Option<Secret>,
    has_boot: bool,
    with_qr: bool,
    output: &Output,
) -> Result<(), CommandError> {
    let found = addresses(client, events, has_boot).await?;
    let ticket = shared.ticket(client, found, secret)?;
    let text = ticket.to_string();
    output.print_lines(&Line::Ticket {
        ticket: text.clone(),
        id: shared.id.to_string(),
        kind: kind_name(shared.kind),
        size_bytes: shared.size_bytes,
        files: shared.files,
        peer: client.peer_id().to_base58(),
        addresses: ticket
            .addresses()
            .iter()
            .map(Multiaddr::to_string)
            .collect(),
    });
    if with_qr
        && !output.is_json()
        && stdout().is_terminal()
        && let Some(drawn) = qr::draw(&text)
    {
        output.write_bytes(drawn.into_bytes())?;
    }
    while let Some(event) = events.next().await {
        if let NetworkEvent::Blob(BlobEvent::Requested {
            peer,
            blob_id,
            given,
            ..
        }) = event
            && blob_id == shared.id
        {
            output.print(&Line::Requested {
                peer: peer.to_base58(),
                given,
            });
        }
    }
    Ok(())
}

/// Returns whether any peer reaches this node: the operator or the local network says so, a probe of a
/// boot node does not.
fn is_open(status: &Status) -> bool {
    matches!(
        status.reachability,
        Reachability::Reachable {
            why: ReachableBecause::Configured | ReachableBecause::LocalNetwork
        }
    )
}

/// Warns that receivers cannot connect, because the ticket names no address.
fn warn_of_no_address(is_local: bool) {
    let hint = match is_local {
        true => "give this node an address with --listen or --external",
        false => {
            "--local includes the addresses of this machine and link, --boot an address through a \
             relay, and --external names a public one"
        }
    };
    tracing::warn!(
        hint,
        "the ticket has no address of this node: receivers cannot connect"
    );
}

/// Returns the addresses for the ticket. With boot nodes, waits for an external address, and for one
/// through a relay unless other peers are known to reach this node.
async fn addresses(
    client: &NetworkClient,
    events: &mut Events,
    has_boot: bool,
) -> Result<Vec<Multiaddr>, CommandError> {
    let mut deadline = Instant::now() + ADDRESS_TIME;
    let mut confirmed = false;
    loop {
        let status = client.status().await?;
        if !confirmed && !status.external.is_empty() {
            confirmed = true;
            deadline = deadline.min(Instant::now() + RELAY_TIME);
        }
        let relayed = status.external.iter().any(addr::is_relayed);
        let is_complete = relayed || is_open(&status) && confirmed;
        if !has_boot || is_complete || Instant::now() >= deadline {
            if has_boot && status.external.is_empty() {
                tracing::warn!(
                    waited_s = ADDRESS_TIME.as_secs(),
                    "no boot node has granted a relay reservation or confirmed an address: only \
                     peers that reach the addresses of this host can receive"
                );
            }
            let scopes = client.config().discovery.dial_scopes();
            let peer = client.peer_id();
            let (external, listening) = (&status.external, &status.listening);
            let found = addresses::to_write(external, listening, peer, scopes);
            if found.is_empty() {
                warn_of_no_address(client.config().discovery.local_network);
            }
            return Ok(found);
        }
        tokio::select! {
            event = events.next() => if event.is_none() {
                return Err(calimero_network::Stopped.into());
            },
            () = sleep_until(deadline) => {}
        }
    }
}
