//! One node of the published Calimero software, as a process.
//!
//!     real-node HOME SERVER_PORT LISTEN [BOOT..]
//!
//! `HOME` is a folder for the key, the store and the blobs. The HTTP API listens on loopback. The
//! first line of standard output is the peer id. The log goes to standard error (`RUST_LOG`). The
//! environment variable `READ_ONLY` starts a read-only node that accepts mock TEE quotes. The node
//! has no orderly stop: it ends with the process.

use std::{env, fs};

use calimero_blobstore::config::BlobStoreConfig;
use calimero_context::config::{ClientConfig, ContextConfig};
use calimero_network_primitives::config::{
    AutonatConfig, BootstrapConfig, BootstrapNodes, DiscoveryConfig, NetworkConfig, RelayConfig,
    RendezvousConfig, SwarmConfig,
};
use calimero_node::{NodeConfig, NodeMode, SpecializedNodeConfig, sync::SyncConfig};
use calimero_node_primitives::DagCompactionConfig;
use calimero_server::{admin::service::AdminConfig, config::ServerConfig, jsonrpc::JsonRpcConfig};
use calimero_store::config::StoreConfig;
use camino::{Utf8Path, Utf8PathBuf};
use eyre::{OptionExt as _, Result};
use libp2p::{Multiaddr, identity::Keypair};

/// The topic of invites for specialized nodes, as the published node has it.
const INVITE_TOPIC: &str = "mero_specialized_node_invites";

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    calimero_utils_actix::init_global_runtime()?;
    let mut arguments = env::args().skip(1);
    let home = Utf8PathBuf::from(arguments.next().ok_or_eyre("HOME is missing")?);
    let port: u16 = arguments
        .next()
        .ok_or_eyre("SERVER_PORT is missing")?
        .parse()?;
    let listen: Multiaddr = arguments.next().ok_or_eyre("LISTEN is missing")?.parse()?;
    let boot = arguments
        .map(|address| address.parse())
        .collect::<Result<Vec<Multiaddr>, _>>()?;

    fs::create_dir_all(&home)?;
    let identity = identity(&home.join("key"))?;
    println!("{}", identity.public().to_peer_id());
    calimero_node::start(node(home, identity, port, listen, boot)?).await
}

/// Reads the key of the node, or makes one.
fn identity(file: &Utf8Path) -> Result<Keypair> {
    if file.exists() {
        return Ok(Keypair::from_protobuf_encoding(&fs::read(file)?)?);
    }
    let key = Keypair::generate_ed25519();
    fs::write(file, key.to_protobuf_encoding()?)?;
    Ok(key)
}

fn node(
    home: Utf8PathBuf,
    identity: Keypair,
    port: u16,
    listen: Multiaddr,
    boot: Vec<Multiaddr>,
) -> Result<NodeConfig> {
    let discovery = DiscoveryConfig::new(
        false, // no mDNS: the nodes find each other by their boot nodes
        false,
        Vec::new(),
        RendezvousConfig::default(),
        RelayConfig::default(),
        AutonatConfig::default(),
    );
    let network = NetworkConfig::new(
        identity.clone(),
        SwarmConfig::new(vec![listen]),
        BootstrapConfig::new(BootstrapNodes::new(boot)),
        discovery,
    );
    let server = ServerConfig::new(
        vec![format!("/ip4/127.0.0.1/tcp/{port}").parse()?],
        identity.clone(),
        Some(AdminConfig::new(true)),
        Some(JsonRpcConfig::new(true)),
        None,
        None,
    );
    let read_only = env::var_os("READ_ONLY").is_some();
    let client: ClientConfig = serde_json::from_str(r#"{ "signer": { "self": {} } }"#)?;
    Ok(NodeConfig {
        network,
        sync: SyncConfig::default(),
        datastore: StoreConfig::new(home.join("store")),
        blobstore: BlobStoreConfig::new(home.join("blobs")),
        context: ContextConfig {
            client,
            migration_v2: true,
        },
        server,
        gc_interval_secs: None,
        dag_compaction: DagCompactionConfig::default(),
        mode: if read_only {
            NodeMode::ReadOnly
        } else {
            NodeMode::Standard
        },
        specialized_node: SpecializedNodeConfig {
            invite_topic: INVITE_TOPIC.to_owned(),
            accept_mock_tee: read_only,
        },
        vm_limits: calimero_runtime::logic::VMLimits::default(),
        home,
        identity,
    })
}
