//! Where the values of a configuration come from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use calimero_network::{
    NetworkConfig,
    config::{ConfigError, Preset},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::Effective, cli::AddressArgs, error::CommandError, output::path_text, run::read_text,
};

/// Key of a file that names a preset.
const PRESET_KEY: &str = "preset";

/// The source of the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// The default of the command.
    Default,
    /// The preset that the configuration file names.
    Preset,
    /// The configuration file.
    File,
    /// The arguments of the command.
    CommandLine,
}

/// The source of each value of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    file: Option<PathBuf>,
    keys: BTreeMap<String, Vec<Origin>>,
}

impl Origins {
    /// Reads a configuration file over `base`, or takes `base`, with the origin of each value.
    pub(crate) fn read(
        path: Option<&Path>,
        base: &NetworkConfig,
    ) -> Result<(NetworkConfig, Self), CommandError> {
        let mut origins = Self::default();
        origins
            .read_over(path, base)
            .map_err(|error| match (error, path) {
                (ReadError::Command(error), _) => error,
                (ReadError::Config(source), path) => CommandError::Config {
                    path: path.unwrap_or(Path::new("the defaults")).to_owned(),
                    source,
                },
            })
            .map(|config| (config, origins))
    }

    fn read_over(
        &mut self,
        path: Option<&Path>,
        base: &NetworkConfig,
    ) -> Result<NetworkConfig, ReadError> {
        let of_base = values(&base.to_toml()?);
        let defaults = of_base.keys().cloned();
        self.keys = defaults.map(|key| (key, vec![Origin::Default])).collect();
        let Some(path) = path else {
            return Ok(base.clone());
        };
        let text = read_text(path)?;
        let config = NetworkConfig::from_toml_over(&text, base)?;
        let mut of_file = values(&text);
        let preset = of_file.remove(PRESET_KEY);
        if let Some(Ok(preset)) = preset.map(toml::Value::try_into::<Preset>) {
            let mut with_preset = base.clone();
            preset.apply(&mut with_preset);
            for (key, value) in values(&with_preset.to_toml()?) {
                if of_base.get(&key) != Some(&value) {
                    self.keys.insert(key, vec![Origin::Preset]);
                }
            }
        }
        for key in of_file.into_keys() {
            self.keys.insert(key, vec![Origin::File]);
        }
        self.file = Some(path.to_owned());
        Ok(config)
    }

    /// Puts the addresses of the command line into the configuration. Addresses to listen on
    /// replace those of the configuration, all others are added to them.
    pub(crate) fn add_addresses(&mut self, addresses: AddressArgs, config: &mut NetworkConfig) {
        if !addresses.listen.is_empty() {
            config.listen = addresses.listen;
            self.replace("listen");
        }
        let discovery = &mut config.discovery;
        if !addresses.boot.is_empty() {
            self.add("discovery.boot", discovery.boot.is_empty());
            discovery.boot.extend(addresses.boot);
        }
        if !addresses.external.is_empty() {
            self.add("discovery.external", discovery.external.is_empty());
            discovery.external.extend(addresses.external);
        }
        if addresses.local {
            discovery.local_network = true;
            self.replace("discovery.local_network");
        }
        if let Some(network) = addresses.network {
            discovery.global_namespace = network.global_namespace();
            self.replace("discovery.global_namespace");
        }
    }

    fn replace(&mut self, key: &str) {
        self.keys.insert(key.to_owned(), vec![Origin::CommandLine]);
    }

    /// Adds to a list, which may have been empty.
    fn add(&mut self, key: &str, was_empty: bool) {
        let origins = self.keys.entry(key.to_owned()).or_default();
        if was_empty {
            origins.clear();
        }
        origins.push(Origin::CommandLine);
    }

    /// The configuration with the origins of its values.
    pub(crate) fn effective(&self, config: NetworkConfig) -> Effective {
        Effective {
            config,
            origins: self.keys.clone(),
            file: self.file.as_deref().map(path_text),
        }
    }
}

/// Why a configuration was not read.
enum ReadError {
    Command(CommandError),
    Config(ConfigError),
}

impl From<CommandError> for ReadError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<ConfigError> for ReadError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// The values of a text that was read as a configuration, by their path.
fn values(text: &str) -> BTreeMap<String, toml::Value> {
    let mut values = BTreeMap::new();
    collect("", text.parse().unwrap_or_default(), &mut values);
    values
}

fn collect(prefix: &str, table: toml::Table, values: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => collect(&format!("{prefix}{key}."), table, values),
            value => {
                values.insert(format!("{prefix}{key}"), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_origin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        let text = "preset = 'large'\nagent_version = 'mine'\n[discovery]\nmdns = true\n\
            boot = ['/ip4/192.0.2.1/tcp/1/p2p/12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh']\n";
        std::fs::write(&path, text).unwrap();
        let base = NetworkConfig::default();
        let (mut config, mut origins) = Origins::read(Some(&path), &base).unwrap();
        let address = |text: &str| text.parse().unwrap();
        let boot = "/ip4/192.0.2.2/tcp/1/p2p/12D3KooWR5V4zmisVtVdGE6i8jfFwtgRNq5t8eDGxfckKuhXu7Eh";
        let addresses = AddressArgs {
            listen: vec![address("/ip4/127.0.0.1/tcp/0")],
            boot: vec![address(boot)],
            external: vec![address("/ip4/192.0.2.3/tcp/1")],
            local: false,
            network: Some("office".parse().unwrap()),
        };
        origins.add_addresses(addresses, &mut config);
        config.validate().unwrap();
        assert_eq!(config.discovery.boot.len(), 2);
        let effective = origins.effective(config);
        assert_eq!(effective.file, Some(path_text(&path)));
        let cases: [(&str, &[Origin]); 9] = [
            ("listen", &[Origin::CommandLine]),
            ("agent_version", &[Origin::File]),
            ("pubsub.mesh", &[Origin::Preset]),
            ("discovery.members_target", &[Origin::Preset]),
            ("discovery.mdns", &[Origin::File]),
            ("discovery.boot", &[Origin::File, Origin::CommandLine]),
            ("discovery.external", &[Origin::CommandLine]),
            ("discovery.local_network", &[Origin::Default]),
            ("discovery.global_namespace", &[Origin::CommandLine]),
        ];
        for (key, expected) in cases {
            assert_eq!(effective.origins[key], expected, "{key}");
        }
        // Every key of the configuration has one.
        for key in values(&effective.config.to_toml().unwrap()).keys() {
            assert!(effective.origins.contains_key(key), "{key}");
        }
    }
}
