//! Providers of blobs in a DHT of managers over TCP, with malicious nodes: the
//! Kademlia of libp2p, which stores and returns whatever the test chooses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use calimero_network::{
    AnnounceBlobError, BlobId, ContextId, Keypair, Multiaddr, NetworkClient, NetworkConfig,
    NetworkManager, PeerId, StreamProtocol,
    blob::{
        blob_id,
        fetch::Destination,
        record::{ProviderRecord, RecordKey},
        store::{FsBlobStore, FsConfig},
    },
};
use common::{LIMIT, Node, Over, config, within};
use futures::StreamExt as _;
use libp2p::{
    Swarm, SwarmBuilder, identify,
    kad::{
        self, ProviderRecord as Held, Quorum, Record, StoreInserts,
        store::{MemoryStore, MemoryStoreConfig, RecordStore as _},
    },
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tempfile::TempDir;
use tokio::time::sleep;

const CONTEXT: ContextId = ContextId::new([7; 32]);

const KAD: StreamProtocol = StreamProtocol::new("/calimero/kad/1.0.0");

/// Pause between two looks at the DHT.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A manager with a store, and where it listens.
struct Member {
    node: Node,
    store: FsBlobStore,
    address: Multiaddr,
    _dir: TempDir,
}

impl Member {
    async fn start(config: NetworkConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
        let builder = NetworkManager::builder(Keypair::generate_ed25519(), config);
        let builder = builder.blobs(Arc::new(store.clone()));
        let (client, events) = builder.start().await.unwrap();
        let node = Node { client, events };
        let address = node.listen(Over::Tcp).await;
        Self {
            node,
            store,
            address,
            _dir: dir,
        }
    }

    fn client(&self) -> &NetworkClient {
        &self.node.client
    }

    async fn dial(&self, address: &Multiaddr) {
        within(self.client().dial(address.clone())).await.unwrap();
    }

    /// Stores the blob and announces it until a peer stores the record.
    async fn provide(&self, content: &[u8]) -> BlobId {
        let id = self.store.put(content).unwrap().id;
        within(async {
            loop {
                match self.client().announce_blob(CONTEXT, id).await {
                    Ok(()) => return id,
                    Err(AnnounceBlobError::NotStored) => sleep(LOOK_AGAIN).await,
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await
    }

    /// All providers that one search finds, with the size that they have signed.
    async fn search(&self, id: BlobId) -> BTreeMap<PeerId, Option<u64>> {
        let mut found = BTreeMap::new();
        let mut query = self.client().query_blob(CONTEXT, id).await.unwrap();
        within(async {
            while let Some(provider) = query.next().await {
                let size = found.entry(provider.peer).or_insert(provider.size_bytes);
                *size = size.or(provider.size_bytes);
            }
        })
        .await;
        found
    }

    /// Searches until `is_it` accepts the providers of a search.
    async fn search_until(
        &self,
        id: BlobId,
        what: &str,
        is_it: impl Fn(&BTreeSet<PeerId>) -> bool,
    ) {
        let mut last = BTreeSet::new();
        let searching = async {
            loop {
                last = self.search(id).await.into_keys().collect();
                if is_it(&last) {
                    return;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let ended = tokio::time::timeout(LIMIT, searching).await;
        assert!(ended.is_ok(), "{what}: found {last:?}");
    }
}

fn local() -> NetworkConfig {
    let mut config = config();
    config.discovery.local_network = true;
    config
}

/// Records that live for four seconds and are renewed every second.
fn hasty() -> NetworkConfig {
    let mut config = local();
    config.discovery.records.ttl = Duration::from_secs(4);
    config.discovery.records.publication_interval = Duration::from_secs(1);
    config.discovery.records.replication_interval = Duration::from_secs(1);
    config
}

fn content(seed: u8) -> Vec<u8> {
    (0..3 << 20).map(|at: u32| (at / 3) as u8 ^ seed).collect()
}

fn key(id: BlobId) -> kad::RecordKey {
    let key = RecordKey {
        context_id: CONTEXT,
        blob_id: id,
    };
    kad::RecordKey::new(&key.to_bytes())
}

fn signed(by: &Keypair, id: BlobId, size_bytes: u64) -> Vec<u8> {
    let key = RecordKey {
        context_id: CONTEXT,
        blob_id: id,
    };
    ProviderRecord::sign(by, &key, size_bytes).unwrap().to_vec()
}

/// libp2p's Kademlia and nothing of ours.
#[derive(NetworkBehaviour)]
struct Foreign {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn foreign() -> Swarm<Foreign> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|identity| {
            let local = identity.public().to_peer_id();
            let store = MemoryStoreConfig {
                max_providers_per_key: 1000,
                ..MemoryStoreConfig::default()
            };
            let mut config = kad::Config::new(KAD);
            // What others put does not replace what the test has put there.
            config.set_record_filtering(StoreInserts::FilterBoth);
            let store = MemoryStore::with_config(local, store);
            let mut kad = kad::Behaviour::with_config(local, store, config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify =
                identify::Config::new("/calimero-network/foreign".into(), identity.public());
            Foreign {
                kad,
                identify: identify::Behaviour::new(identify),
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT))
        .build()
}

/// Listens, and gives the address with the peer id.
async fn listen(swarm: &mut Swarm<Foreign>) -> Multiaddr {
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    };
    let address = within(listening).await;
    address.with(Protocol::P2p(*swarm.local_peer_id()))
}

/// Drives a foreign node for good, and lets it learn of others as nodes do. Counts the answers
/// that it gives about records and about providers.
async fn drive(mut swarm: Swarm<Foreign>, records: Arc<AtomicUsize>, providers: Arc<AtomicUsize>) {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(ForeignEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                for address in info.listen_addrs {
                    swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
            }
            SwarmEvent::Behaviour(ForeignEvent::Kad(kad::Event::InboundRequest { request })) => {
                match request {
                    kad::InboundRequest::GetRecord {
                        present_locally: true,
                        ..
                    } => records.fetch_add(1, Ordering::Relaxed),
                    kad::InboundRequest::GetProvider {
                        num_provider_peers: 1..,
                        ..
                    } => providers.fetch_add(1, Ordering::Relaxed),
                    _ => 0,
                };
            }
            _ => {}
        }
    }
}

/// What a hostile node says of a blob.
enum Lie {
    /// Another's name under a signature that is not its own.
    WrongPeer,
    /// A record whose size was changed after it was signed.
    Altered,
    /// A genuine record of an honest provider, for another blob.
    Replayed(Vec<u8>),
    Garbage,
    Huge,
}

impl Lie {
    fn value(self, id: BlobId) -> Vec<u8> {
        let keypair = Keypair::generate_ed25519();
        let mut value = signed(&keypair, id, 1 << 20);
        let name_bytes = keypair.public().to_peer_id().to_bytes().len();
        match self {
            Self::WrongPeer => {
                let other = Keypair::generate_ed25519().public().to_peer_id();
                value[4..4 + name_bytes].copy_from_slice(&other.to_bytes());
            }
            Self::Altered => value[4 + name_bytes] ^= 1,
            Self::Replayed(genuine) => value = genuine,
            Self::Garbage => value = vec![0xff; 100],
            Self::Huge => value = vec![0; 4096],
        }
        value
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_and_invented_providers_hide_nobody() {
    let hub = Member::start(local()).await;
    let content = content(1);
    let id = blob_id(&content);
    // The liars are first everywhere.
    let replayed = {
        let other = Keypair::generate_ed25519();
        signed(&other, blob_id(b"another blob"), 1 << 20)
    };
    let lies = [
        Lie::WrongPeer,
        Lie::Altered,
        Lie::Replayed(replayed),
        Lie::Garbage,
        Lie::Huge,
    ];
    let (told_records, told_providers) = (Arc::<AtomicUsize>::default(), Arc::default());
    let mut liars = Vec::new();
    let mut invented = BTreeSet::new();
    for lie in lies {
        let mut swarm = foreign();
        let address = listen(&mut swarm).await;
        let kad = &mut swarm.behaviour_mut().kad;
        let record = Record::new(key(id), lie.value(id));
        kad.store_mut().put(record.clone()).unwrap();
        for _ in 0..100 {
            let peer = PeerId::random();
            invented.insert(peer);
            let nowhere = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
            let held = Held::new(key(id), peer, vec![nowhere]);
            kad.store_mut().add_provider(held).unwrap();
        }
        // And it puts its record wherever it is taken.
        let peer = hub.node.peer();
        kad.add_address(&peer, hub.address.clone());
        kad.put_record(record, Quorum::One).unwrap();
        swarm.dial(hub.address.clone()).unwrap();
        let (records, providers) = (Arc::clone(&told_records), Arc::clone(&told_providers));
        tokio::spawn(drive(swarm, records, Arc::clone(&providers)));
        liars.push(address);
    }
    let mut expected = BTreeSet::new();
    let mut providers = Vec::new();
    for _ in 0..5 {
        let one = Member::start(local()).await;
        one.dial(&hub.address).await;
        one.dial(&liars[0]).await;
        one.provide(&content).await;
        expected.insert(one.node.peer());
        providers.push(one);
    }
    let here = Member::start(local()).await;
    for address in liars.iter().chain([&hub.address]) {
        here.dial(address).await;
    }
    let all_lied = |least: usize| {
        let told = |count: &AtomicUsize| count.load(Ordering::Relaxed) >= least;
        told(&told_records) && told(&told_providers)
    };
    here.search_until(id, "not all are found", |found| {
        expected.is_subset(found) && all_lied(5)
    })
    .await;
    // A size is signed; only a provider that has signed has one.
    let found = here.search(id).await;
    for (peer, size) in &found {
        let honest = expected.contains(peer);
        assert!(honest || invented.contains(peer), "{peer} was never named");
        assert!(size.is_none() || honest, "{peer} has signed nothing");
        assert!(size.is_none_or(|size| size == content.len() as u64));
    }
    assert!(found.values().any(Option::is_some), "no record was found");
    // And it can be had from them.
    let to = Destination::Store(Arc::new(here.store.clone()));
    let transfer = here.client().request_blob(CONTEXT, id, Vec::new(), to);
    let fetched = within(transfer).await.unwrap();
    assert_eq!(fetched.size_bytes, content.len() as u64);
    assert!(
        fetched
            .providers
            .iter()
            .all(|(peer, _)| expected.contains(peer))
    );
}

/// A peer that claims to store a record ends the announcement even if it does not store it: all peers
/// close to the key receive the record all the same.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_that_they_store_a_record_and_do_not_keep_it_from_nobody() {
    let hub = Member::start(local()).await;
    let one = Member::start(local()).await;
    // With the hub as many as a record is put to. They take everything and keep nothing.
    for _ in 0..9 {
        let mut swarm = foreign();
        let address = listen(&mut swarm).await;
        tokio::spawn(drive(swarm, Arc::default(), Arc::default()));
        one.dial(&address).await;
    }
    one.dial(&hub.address).await;
    let kept = async || hub.client().status().await.unwrap().records;
    // The first announcements of the first blob may come before the hub is known as a server of the
    // DHT. However late they arrive, they are one record.
    let mut blobs = (0_u8..=10).map(|nth| [nth; 100]);
    let first = blobs.next().unwrap();
    within(async {
        while kept().await == 0 {
            one.provide(&first).await;
        }
    })
    .await;
    for blob in blobs {
        one.provide(&blob).await;
    }
    // An announcement ends with the first answer, which may come before the hub has its copy.
    let mut stored = 0;
    let all = tokio::time::timeout(LIMIT, async {
        while stored < 11 {
            sleep(LOOK_AGAIN).await;
            stored = kept().await;
        }
    });
    assert!(all.await.is_ok(), "the hub stores {stored} of 11 records");
    assert_eq!(stored, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_reader_that_takes_the_first_record_finds_a_provider() {
    let hub = Member::start(local()).await;
    let content = content(2);
    let mut expected = BTreeSet::new();
    let mut providers = Vec::new();
    for _ in 0..3 {
        let one = Member::start(local()).await;
        one.dial(&hub.address).await;
        one.provide(&content).await;
        expected.insert(one.node.peer());
        providers.push(one);
    }
    let id = blob_id(&content);
    let mut reader = foreign();
    let peer = hub.node.peer();
    let kad = &mut reader.behaviour_mut().kad;
    kad.add_address(&peer, hub.address.clone());
    kad.get_record(key(id));
    let first = within(async {
        loop {
            if let SwarmEvent::Behaviour(ForeignEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetRecord(result),
                ..
            })) = reader.select_next_some().await
            {
                match result.expect("a record") {
                    kad::GetRecordOk::FoundRecord(found) => return found.record,
                    other => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
    let key = RecordKey {
        context_id: CONTEXT,
        blob_id: id,
    };
    let record = ProviderRecord::verify(&key, &first.value).unwrap();
    assert!(expected.contains(&record.provider));
    assert_eq!(record.size_bytes, content.len() as u64);
    assert!(first.expires.is_some(), "it would live for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_renewed_stays_and_what_is_not_expires() {
    let hub = Member::start(hasty()).await;
    let (one, other) = (Member::start(hasty()).await, Member::start(hasty()).await);
    let here = Member::start(hasty()).await;
    for member in [&one, &other, &here] {
        member.dial(&hub.address).await;
    }
    let content = content(3);
    let id = one.provide(&content).await;
    other.provide(&content).await;
    let announced = Instant::now();
    let both = BTreeSet::from([one.node.peer(), other.node.peer()]);
    here.search_until(id, "both at first", |found| *found == both)
        .await;
    // Twice the life of a record: what is found then was put again.
    here.search_until(id, "both after two lives", |found| {
        announced.elapsed() > Duration::from_secs(8) && *found == both
    })
    .await;
    let withdrawn = one.client().withdraw_blob(CONTEXT, id).await;
    assert!(withdrawn.unwrap());
    let rest = BTreeSet::from([other.node.peer()]);
    here.search_until(id, "the other alone", |found| *found == rest)
        .await;
    // A provider that vanished is removed as well.
    drop(other);
    here.search_until(id, "nobody", BTreeSet::is_empty).await;
}
