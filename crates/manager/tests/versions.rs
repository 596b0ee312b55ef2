//! Nodes of today and nodes that offer what their elders offered alone, in one network: everything
//! works between them, and nothing newer is attempted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a surprise ends the test"
)]

mod common;

use std::{
    fmt,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use calimero_network::{
    AnnounceBlobError, BlobId, BlobProvider, ContextId, GossipEvent, InviteEvent, Keypair,
    NetworkConfig, NetworkEvent, NetworkManager, ProtocolId,
    SpecializedNodeInviteRequest as Request, SpecializedNodeInviteResponse as Response, Topic,
    blob::{
        fetch::Destination,
        store::{FsBlobStore, FsConfig},
    },
};
use common::{BOTH, Node, Over, assert_works, within};
use tempfile::TempDir;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const CONTEXT: ContextId = ContextId::new([7; 32]);

/// What turns a node of today into one that offers no more than `calimero-network` 0.11.
const OLDER: &str = "
[blob]
versions = ['0.0.2']

[pubsub]
newest_version = '1.1'
";

/// Names that 0.11 does not know.
const NEWER: [&str; 3] = [
    "/calimero/blob/1.1.0",
    "/calimero/blob/1.0.0",
    "/meshsub/1.3.0",
];

/// Names that some node of this process was asked for and did not speak.
static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Hears what multistream-select says of each proposal that a listener refuses.
struct Proposals;

impl Proposals {
    fn watch() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Self).unwrap());
    }
}

impl Subscriber for Proposals {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "multistream_select::listener_select"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.message.contains("rejecting") {
            REFUSED.lock().unwrap().push(said.protocol);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    protocol: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "protocol" => self.protocol = format!("{value:?}"),
            _ => {}
        }
    }
}

/// A node with a store of blobs.
struct Member {
    node: Node,
    store: FsBlobStore,
    _dir: TempDir,
}

impl Member {
    async fn start(toml: &str, unsigned: bool) -> Self {
        Proposals::watch();
        let mut config = NetworkConfig::from_toml(toml).unwrap();
        config.listen = Vec::new();
        config.discovery.local_network = true;
        config.discovery.mdns = false;
        config.blob.unsigned_records = unsigned;
        // A published node neither writes nor reads provider records of Kademlia.
        config.blob.tuning.dht_providers = toml != OLDER;
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path(), &FsConfig::default()).unwrap();
        let (client, events) = NetworkManager::builder(Keypair::generate_ed25519(), config)
            .blobs(Arc::new(store.clone()))
            .start()
            .await
            .unwrap();
        Self {
            node: Node { client, events },
            store,
            _dir: dir,
        }
    }

    /// Waits until `other` has sent its protocols, and returns their names.
    async fn hears_of(&self, other: &Self) -> Vec<String> {
        let peer = other.node.peer();
        let identified = async {
            loop {
                // The node that was dialled has the connection a moment later.
                if let Some(info) = self.node.client.identified(peer).await.unwrap() {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let info = within(identified).await;
        info.protocols.iter().map(ToString::to_string).collect()
    }

    async fn fetch(&self, blob: BlobId, from: &Self) {
        let to = Destination::Store(Arc::new(self.store.clone()));
        let from = vec![from.node.peer()];
        let transfer = self.node.client.request_blob(CONTEXT, blob, from, to);
        within(transfer).await.unwrap();
        assert!(self.store.has(&blob));
    }

    /// Announces until a peer stores it: a node learns of others a moment after it is connected.
    async fn announce(&self, blob: BlobId) {
        let announced = async {
            while let Err(error) = self.node.client.announce_blob(CONTEXT, blob).await {
                assert!(matches!(error, AnnounceBlobError::NotStored), "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within(announced).await;
    }

    async fn providers(&self, blob: BlobId) -> Vec<BlobProvider> {
        let mut query = self.node.client.query_blob(CONTEXT, blob).await.unwrap();
        let mut found = Vec::new();
        while let Some(provider) = within(query.next()).await {
            found.push(provider);
        }
        found
    }
}

/// A v0 node and a node of today, connected and identified. The v0 node has dialled if
/// `older_dials`.
async fn met(over: Over, older_dials: bool, unsigned: bool) -> (Member, Member) {
    let older = Member::start(OLDER, unsigned).await;
    let today = Member::start("", unsigned).await;
    let of_older = older.node.listen(over).await;
    let of_today = today.node.listen(over).await;
    let (from, to) = if older_dials {
        (&older, of_today)
    } else {
        (&today, of_older)
    };
    within(from.node.client.dial(to)).await.unwrap();
    for name in today.hears_of(&older).await {
        assert!(!NEWER.contains(&&*name), "the older node speaks {name}");
        let own = name.starts_with("/calimero/");
        assert!(!own || name.parse::<ProtocolId>().is_ok(), "{name}");
    }
    let told = older.hears_of(&today).await;
    for name in NEWER {
        assert!(told.iter().any(|one| one == name), "{name} not in {told:?}");
    }
    (older, today)
}

/// That no older node was asked for what is new, but by gossipsub, which asks for its newest version
/// first whatever a peer has announced.
fn assert_nothing_newer_was_asked_for() {
    let refused = REFUSED.lock().unwrap();
    let others: Vec<_> = refused
        .iter()
        .filter(|name| !name.starts_with("/meshsub/1."))
        .collect();
    assert_eq!(others, Vec::<&String>::new());
}

fn content(seed: u8) -> Vec<u8> {
    (0..2_500_000_u32).map(|at| (at / 3) as u8 ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_open_both_ways() {
    for over in BOTH {
        for older_dials in [true, false] {
            let (mut older, mut today) = met(over, older_dials, false).await;
            assert_works(&older.node, &mut today.node).await;
            assert_works(&today.node, &mut older.node).await;
        }
    }
    assert_nothing_newer_was_asked_for();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_and_on() {
    let topic = Topic::context(CONTEXT);
    // The v0 node is between two nodes of today.
    let (mut older, mut today) = met(Over::Tcp, true, false).await;
    let mut far = Member::start("", false).await;
    far.node.listen(Over::Tcp).await;
    let address = older.node.listen(Over::Tcp).await;
    within(far.node.client.dial(address)).await.unwrap();
    let members = [&older, &today, &far];
    for member in members {
        within(member.node.client.subscribe(&topic)).await.unwrap();
    }
    for (member, others) in [(&older, 2), (&today, 1), (&far, 1)] {
        let client = &member.node.client;
        let known = async {
            while client.subscribed_peers(&topic).await.unwrap().len() < others {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(known).await;
    }
    for (from, payload) in [(0, "of the older"), (1, "of today"), (2, "of the far one")] {
        let mut members = [&mut older, &mut today, &mut far];
        let publisher = members[from].node.client.clone();
        within(publisher.publish(&topic, payload)).await.unwrap();
        for (at, member) in members.iter_mut().enumerate() {
            if at != from {
                let heard = member.node.wait_for(|event| match event {
                    NetworkEvent::Gossip(GossipEvent::Message(message)) => {
                        Some((message.source, message.data))
                    }
                    _ => None,
                });
                let expected = (publisher.peer_id(), payload.into());
                assert_eq!(heard.await, expected);
            }
        }
    }
    assert_nothing_newer_was_asked_for();
    // A request that is refused is reported here.
    let newest = "/meshsub/1.3.0".to_owned();
    assert!(REFUSED.lock().unwrap().contains(&newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_fetched_both_ways() {
    for over in BOTH {
        let (older, today) = met(over, true, false).await;
        for (seed, provider, requester) in [(1, &older, &today), (2, &today, &older)] {
            let blob = provider.store.put(&content(seed)).unwrap().id;
            requester.fetch(blob, provider).await;
        }
    }
    assert_nothing_newer_was_asked_for();
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_both_ways() {
    for (over, unsigned) in [(Over::Tcp, false), (Over::Quic, true)] {
        let (older, today) = met(over, false, unsigned).await;
        for (seed, provider, other) in [(3, &older, &today), (4, &today, &older)] {
            let stored = provider.store.put(&content(seed)).unwrap();
            provider.announce(stored.id).await;
            // The size comes from the record: no node stores the older
            // node as a provider, and the older node does not search
            // for providers.
            let expected = BlobProvider {
                peer: provider.node.peer(),
                size_bytes: Some(stored.size_bytes),
            };
            let found = other.providers(stored.id).await;
            assert_eq!(found, [expected], "unsigned: {unsigned}, blob {seed}");
        }
    }
    assert_nothing_newer_was_asked_for();
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_across_the_preset_for_published_nodes() {
    let preset = Member::start("preset = 'published-0.11'", true).await;
    let today = Member::start("", false).await;
    // A node without an address is in no routing table, so it stores no records.
    preset.node.listen(Over::Tcp).await;
    let address = today.node.listen(Over::Tcp).await;
    within(preset.node.client.dial(address)).await.unwrap();
    preset.hears_of(&today).await;
    today.hears_of(&preset).await;
    for (seed, provider, other) in [(5, &preset, &today), (6, &today, &preset)] {
        let stored = provider.store.put(&content(seed)).unwrap();
        provider.announce(stored.id).await;
        let expected = BlobProvider {
            peer: provider.node.peer(),
            size_bytes: Some(stored.size_bytes),
        };
        let found = other.providers(stored.id).await;
        assert!(found.contains(&expected), "blob {seed}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_are_asked_for_and_given_both_ways() {
    let (mut older, mut today) = met(Over::Tcp, true, false).await;
    for turn in [1, 2] {
        let (asking, asked) = if turn == 1 {
            (&mut older, &mut today)
        } else {
            (&mut today, &mut older)
        };
        let request = Request::TeeAttestation {
            nonce: [turn; 32],
            quote_bytes: vec![turn; 300].into(),
            public_key: [9; 32],
        };
        let sent = (asking.node.client)
            .send_specialized_node_verification_request(asked.node.peer(), request.clone());
        within(sent).await.unwrap();
        let heard = asked.node.wait_for(|event| match event {
            NetworkEvent::Invite(InviteEvent::Request {
                request, channel, ..
            }) => Some((request, channel)),
            _ => None,
        });
        let (heard, channel) = heard.await;
        assert_eq!(heard, request);
        let answer = Response::invitation([turn; 32], vec![turn; 100]);
        (asked.node.client)
            .send_specialized_node_invitation_response(channel, &answer)
            .unwrap();
        let answered = asking.node.wait_for(|event| match event {
            NetworkEvent::Invite(InviteEvent::Response { response, .. }) => Some(response),
            _ => None,
        });
        assert_eq!(answered.await, answer);
    }
    assert_nothing_newer_was_asked_for();
}
