//! Blobs for members only: a node that serves a store checks for each request whether the key that
//! signed it belongs to a member of the context. The program ends without input.
//!
//! `cargo run -p calimero-network --example blob_authorizer`

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use calimero_network::{
    BlobId, ContextId, FetchBlobError, Keypair, Multiaddr, NetworkClient, NetworkConfig,
    NetworkManager, PeerId,
    blob::{
        fetch::{Destination, FetchError, FetchRequest},
        serve::{Access, Authorized, Authorizer},
        store::{FsBlobStore, FsConfig},
    },
    identity::ed25519,
};

/// Deadline of the whole program: 60 s.
const DEADLINE: Duration = Duration::from_secs(60);

const CONTEXT: ContextId = ContextId::new([7; 32]);

/// An Ed25519 public key.
type MemberKey = [u8; 32];

/// The members of each context. Clones share it, so that members can change while the node runs.
#[derive(Clone, Default)]
struct Members {
    of: Arc<RwLock<HashMap<ContextId, HashSet<MemberKey>>>>,
}

impl Members {
    fn admit(&self, context: ContextId, member: MemberKey) {
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        of.entry(context).or_default().insert(member);
    }

    fn has(&self, context: ContextId, member: &MemberKey) -> bool {
        let of = self.of.read().unwrap_or_else(PoisonError::into_inner);
        of.get(&context).is_some_and(|keys| keys.contains(member))
    }
}

impl Authorizer for Members {
    /// The server has verified that the signature is valid, recent and not used before; this decides
    /// what it permits. The answer is a future, so that a rule can query a database.
    fn authorize(&self, access: Access) -> Authorized {
        let members = self.clone();
        Box::pin(async move {
            let Some(key) = access.public_key else {
                return false; // not signed
            };
            members.has(access.context_id, &key)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(DEADLINE, run()).await?
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = FsBlobStore::open(folder.path(), &FsConfig::default())?;
    let blob_id = store.put(b"for members only")?.id;
    let members = Members::default();
    let (provider, _) = NetworkManager::builder(Keypair::generate_ed25519(), loopback()?)
        .blobs(Arc::new(store))
        .authorize_blobs(members.clone())
        .start()
        .await?;
    let address = provider.status().await?.listening.remove(0);
    let provider_id = provider.peer_id();

    let key = ed25519::Keypair::generate();
    let visitor = requester(&address, key.clone()).await?;
    let refused = fetch(&visitor, provider_id, blob_id).await?.err();
    println!("before: {}", refused.as_ref().ok_or("a stranger got it")?);
    // To any other peer the answer is the same as for a missing blob.
    assert!(matches!(
        refused.as_deref(),
        Some(FetchBlobError::Fetch(FetchError::NoProviders { .. }))
    ));

    members.admit(CONTEXT, key.public().to_bytes());
    let member = requester(&address, key).await?;
    let content = fetch(&member, provider_id, blob_id).await??;
    println!("after: {}", String::from_utf8_lossy(&content));
    assert_eq!(content, b"for members only");

    for client in [visitor, member, provider] {
        client.shutdown().await?;
    }
    Ok(())
}

fn loopback() -> Result<NetworkConfig, Box<dyn Error>> {
    Ok(NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..NetworkConfig::default()
    })
}

/// A node that signs its requests with `key`, connected to `address`.
async fn requester(
    address: &Multiaddr,
    key: ed25519::Keypair,
) -> Result<NetworkClient, Box<dyn Error>> {
    let (client, _) = NetworkManager::builder(Keypair::generate_ed25519(), loopback()?)
        .sign_blob_requests(key)
        .start()
        .await?;
    client.dial(address.clone()).await?;
    Ok(client)
}

/// Fetches a blob and returns the content or the error.
async fn fetch(
    client: &NetworkClient,
    from: PeerId,
    blob_id: BlobId,
) -> Result<Result<Vec<u8>, Arc<FetchBlobError>>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("content");
    let to = Destination::File(path.clone());
    // Another provider is not searched for, so a refusal ends the fetch at once.
    let request = FetchRequest::new(CONTEXT, blob_id).without_search();
    let fetched = client.request_blob_with(request, vec![from], to).await;
    match fetched {
        Ok(_) => Ok(Ok(std::fs::read(path)?)),
        Err(error) => Ok(Err(error)),
    }
}
