//! `calnet config`: the configuration in effect, whether a file is accepted, and the conversion of a
//! file of the published 0.11 node.

use std::{fmt, path::PathBuf};

use calimero_network::{
    NetworkConfig,
    config::{Preset, import_0_11},
};
use serde::Serialize;

use crate::{
    api::{Client, Effective},
    cli::{ConfigCommand, ConfigSource},
    data::DataFolder,
    error::CommandError,
    init::write_for_owner,
    origins::Origins,
    output::{Output, path_text},
    run::read_text,
};

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
    file: Option<String>,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "accepted  {file}"),
            None => f.write_str("accepted  the defaults"),
        }
    }
}

/// A configuration that was converted.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "config_imported")]
struct Imported {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    config: NetworkConfig,
    /// The keys that differ from the preset.
    #[serde(skip)]
    text: String,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "written  {file}"),
            None => f.write_str(self.text.trim_end()),
        }
    }
}

pub(crate) async fn execute(command: ConfigCommand, output: &Output) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Show(source) => {
            if let Some(data) = &source.data
                && let Some(node) = Client::connect(&DataFolder::existing(data)?.socket()).await?
            {
                let effective: Effective = node.get("/v1/config").await?;
                output.print_lines(&effective);
                return Ok(());
            }
            let (_, config, origins) = read(source)?;
            output.print_lines(&origins.effective(config));
        }
        ConfigCommand::Check(source) => {
            let (file, ..) = read(source)?;
            let file = file.as_deref().map(path_text);
            output.print(&Accepted { file });
        }
        ConfigCommand::Import { file, output: to } => output.print_lines(&import(file, to)?),
    }
    Ok(())
}

/// Reads and validates a file over the defaults of the command that last ran on the data folder, or
/// of `calnet run`.
fn read(source: ConfigSource) -> Result<(Option<PathBuf>, NetworkConfig, Origins), CommandError> {
    let data = source.data.as_deref().map(DataFolder::existing);
    let data = data.transpose()?;
    let of_folder = || data.as_ref().and_then(DataFolder::existing_config);
    let file = source.config.or_else(of_folder);
    let base = data.as_ref().map(DataFolder::defaults);
    let (config, origins) = Origins::read(file.as_deref(), &base.unwrap_or_default())?;
    Ok((file, config, origins))
}

/// Converts a file of the published 0.11 node, and writes the result where a file is named.
fn import(from: PathBuf, to: Option<PathBuf>) -> Result<Imported, CommandError> {
    let refused = |source| CommandError::Config {
        path: from.clone(),
        source,
    };
    let config = import_0_11(&read_text(&from)?).map_err(refused)?;
    let text = config
        .to_toml_over_preset(Preset::Published0_11)
        .map_err(refused)?;
    if let Some(to) = &to {
        write_for_owner(to, &text)?;
    }
    Ok(Imported {
        from: path_text(&from),
        file: to.as_deref().map(path_text),
        config,
        text,
    })
}
