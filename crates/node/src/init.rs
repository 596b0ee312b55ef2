//! `calnet init`: the data folder of a node, with its identity and configuration.

use std::{
    fmt, fs,
    io::{self, BufRead, IsTerminal as _, Write},
    path::Path,
};

use calimero_network::{Multiaddr, NetworkConfig, NetworkName};
use serde::Serialize;

use crate::{
    cli::{AddressArgs, InitArgs},
    data::DataFolder,
    error::CommandError,
    identity, new_file,
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
    /// Other nodes of the network are made with the same name.
    network: String,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peer      {}", self.peer)?;
        writeln!(f, "identity  {}", self.identity)?;
        writeln!(f, "config    {}", self.config)?;
        write!(
            f,
            "network   {} (other nodes: calnet init --network {0})",
            self.network
        )
    }
}

pub(crate) async fn execute(args: InitArgs, output: &Output) -> Result<(), CommandError> {
    let data = DataFolder::open(&args.data)?;
    let (identity, config) = (data.identity(), data.config());
    // Neither is made if one of them is there.
    for path in [&identity, &config] {
        if path.exists() {
            return Err(CommandError::Exists { path: path.clone() });
        }
    }
    let mut addresses = args.addresses;
    let network = match addresses.network.take() {
        Some(network) => network,
        None => choose_network(output.is_json()).await?,
    };
    let text = config_text(&addresses, &network);
    parse_config(&config, &text, &NetworkConfig::default())?;
    write_for_owner(&config, &text)?;
    let keypair = identity::create(&identity).inspect_err(|_| {
        // The next attempt would take the configuration for that of another node.
        let _ = fs::remove_file(&config);
    })?;
    output.print_lines(&Made {
        peer: keypair.public().to_peer_id().to_base58(),
        identity: identity.display().to_string(),
        config: config.display().to_string(),
        network: network.to_string(),
    });
    Ok(())
}

/// The name of a new network, or on a terminal the name that its user enters.
async fn choose_network(json: bool) -> Result<NetworkName, CommandError> {
    let made = NetworkName::from_random(rand::random());
    if json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(made);
    }
    // On a thread of its own, so that a signal ends the command while it waits.
    let asked = tokio::task::spawn_blocking(|| ask(made, io::stdin().lock(), io::stderr()));
    let asked = asked
        .await
        .map_err(io::Error::other)
        .and_then(|asked| asked);
    asked.map_err(|source| CommandError::Io {
        what: "cannot ask for the name of the network",
        source,
    })
}

/// Asks for a name until one is valid. An empty line, or the end of the input, takes `made`.
fn ask(
    made: NetworkName,
    mut input: impl BufRead,
    mut prompt: impl Write,
) -> io::Result<NetworkName> {
    writeln!(
        prompt,
        "A node looks for nodes with the same network name. Enter the name of a network that exists, \
         or nothing for a new one."
    )?;
    let mut line = String::new();
    loop {
        write!(prompt, "network [{made}]: ")?;
        prompt.flush()?;
        line.clear();
        if input.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(made);
        }
        match line.trim().parse() {
            Ok(name) => return Ok(name),
            Err(error) => writeln!(prompt, "{error}")?,
        }
    }
}

/// The configuration: what was asked for, and what most change.
fn config_text(args: &AddressArgs, network: &NetworkName) -> String {
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
         # Network {network}: nodes with this namespace look for one another. It overrides the\n\
         # namespace of a preset.\n\
         global_namespace = {}\n\
         # Boot nodes, each with its /p2p/<peer>, and lists of them: /dnsaddr/<name>.\n\
         boot = {}\n\
         # Public addresses of this node. Without one, peers report them.\n\
         external = {}\n\
         # Whether the network lives on this machine or link.\n\
         local_network = {}\n",
        list(listen),
        serde_json::Value::from(network.global_namespace()),
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
    let written = new_file::create(path, |file| file.write_all(text.as_bytes()));
    written.map_err(|source| CommandError::of_new_file(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_until_it_is_valid() {
        let made = NetworkName::from_random(7);
        let answer = |input: &str| {
            let mut prompt = Vec::new();
            let name = ask(made.clone(), input.as_bytes(), &mut prompt).unwrap();
            (name, String::from_utf8(prompt).unwrap())
        };
        assert_eq!(answer("office\n").0.as_str(), "office");
        assert_eq!(answer("\n").0, made);
        assert_eq!(answer("").0, made);
        let (name, prompt) = answer("Not This\n home \n");
        assert_eq!(name.as_str(), "home");
        assert!(prompt.contains(made.as_str()), "{prompt}");
        assert!(prompt.contains("lower-case"), "{prompt}");
    }
}
