//! `calnet init`: the data folder of a node, with its identity and configuration.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use calimero_network::{Multiaddr, NetworkConfig};
use serde::Serialize;

use crate::{
    cli::{AddressArgs, InitArgs},
    data::DataFolder,
    error::CommandError,
    identity,
    output::Output,
    run::parse_config,
};

/// The files and the identity that were created.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "made")]
struct Made {
    peer: String,
    identity: String,
    config: String,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peer      {}", self.peer)?;
        writeln!(f, "identity  {}", self.identity)?;
        write!(f, "config    {}", self.config)
    }
}

pub(crate) fn execute(args: &InitArgs, output: &Output) -> Result<(), CommandError> {
    let data = DataFolder::open(&args.data)?;
    let (identity, config) = (data.identity(), data.config());
    // Neither is made if one of them is there.
    for path in [&identity, &config] {
        if path.exists() {
            return Err(CommandError::Exists { path: path.clone() });
        }
    }
    let text = config_text(&args.addresses);
    parse_config(&config, &text, &NetworkConfig::default())?;
    write_for_owner(&config, &text)?;
    let keypair = identity::create(&identity)?;
    output.print(&Made {
        peer: keypair.public().to_peer_id().to_base58(),
        identity: identity.display().to_string(),
        config: config.display().to_string(),
    });
    Ok(())
}

/// The configuration: what was asked for, and what most change.
fn config_text(args: &AddressArgs) -> String {
    let listen = match args.listen.is_empty() {
        true => &NetworkConfig::default().listen,
        false => &args.listen,
    };
    format!(
        "# Configuration of a node. What is not here has its default, which\n\
         # `calnet run --data DIR` takes too; a key that is not known is refused.\n\
         \n\
         # Addresses to listen on.\n\
         listen = {}\n\
         \n\
         [discovery]\n\
         # Boot nodes, each with its /p2p/<peer>.\n\
         boot = {}\n\
         # Public addresses of this node. Without one, others are asked to find out.\n\
         external = {}\n\
         # Whether the network lives on this machine or link.\n\
         local_network = {}\n",
        list(listen),
        list(&args.boot),
        list(&args.external),
        args.local,
    )
}

/// A TOML array. JSON escapes as TOML does.
fn list(addresses: &[Multiaddr]) -> String {
    let texts: Vec<_> = addresses
        .iter()
        .map(|address| format!("\n    {},", serde_json::Value::from(address.to_string())))
        .collect();
    match texts.is_empty() {
        true => "[]".to_owned(),
        false => format!("[{}\n]", texts.concat()),
    }
}

/// Writes a new file that its owner alone reads.
pub(crate) fn write_for_owner(path: &Path, text: &str) -> Result<(), CommandError> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| CommandError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}
