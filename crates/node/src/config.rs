//! `calnet config`: the configuration in effect, and whether a file is accepted.

use std::{fmt, path::PathBuf};

use calimero_network::NetworkConfig;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{ConfigCommand, ConfigSource},
    control::Client,
    data::DataFolder,
    error::CommandError,
    output::Output,
    run::read_config,
};

/// The configuration in effect.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename = "config")]
struct Effective {
    config: NetworkConfig,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The same text as a configuration file.
        let text = self.config.to_toml().map_err(|_| fmt::Error)?;
        f.write_str(text.trim_end())
    }
}

/// A configuration that a node accepts.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "config_accepted")]
struct Accepted {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "accepted  {}", file.display()),
            None => f.write_str("accepted  the defaults"),
        }
    }
}

pub(crate) async fn execute(command: ConfigCommand, output: &Output) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Show(source) => {
            if let Some(data) = &source.data
                && let Some(node) = Client::connect(&DataFolder::of_running(data).control()).await?
            {
                let effective: Effective = node.get("/v1/config").await?;
                output.print(&effective);
                return Ok(());
            }
            let (_, config) = read(source)?;
            output.print(&Effective { config });
        }
        ConfigCommand::Check(source) => {
            let (file, _) = read(source)?;
            output.print(&Accepted { file });
        }
    }
    Ok(())
}

/// Reads and validates a file, or takes the defaults of `calnet run`.
fn read(source: ConfigSource) -> Result<(Option<PathBuf>, NetworkConfig), CommandError> {
    let of_folder = |data: PathBuf| DataFolder::of_running(&data).existing_config();
    let file = source.config.or_else(|| source.data.and_then(of_folder));
    let config = read_config(file.as_deref(), NetworkConfig::default())?;
    Ok((file, config))
}
