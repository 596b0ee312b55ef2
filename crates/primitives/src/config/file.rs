//! Configuration files: TOML to [`NetworkConfig`] and back.

use serde_path_to_error::{Path, Segment};

use super::{ConfigError, NetworkConfig, Preset, removed};

/// Key at the top of a file that names a [`Preset`].
const PRESET_KEY: &str = "preset";

impl NetworkConfig {
    /// Reads a configuration from TOML and validates it. A missing key has its default, or the value
    /// of the [`Preset`] that `preset = "…"` at the top of the text names.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`] with the line that is not TOML, [`ConfigError::Published`] for a file
    /// of the published 0.11 node, [`ConfigError::Removed`] with a key of an earlier version,
    /// [`ConfigError::Parse`] with the path of a key that is unknown or has another type, and
    /// [`ConfigError::Invalid`] with the key whose value is refused.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::from_toml_over(text, &Self::default())
    }

    /// Reads a configuration as [`from_toml`](Self::from_toml) does, but a missing key has the value
    /// of `base`. The result is validated as a whole, and its tuning is that of `base`.
    ///
    /// # Errors
    ///
    /// As [`from_toml`](Self::from_toml).
    pub fn from_toml_over(text: &str, base: &Self) -> Result<Self, ConfigError> {
        let mut over = parse(text)?;
        if is_published(&over) {
            return Err(ConfigError::Published);
        }
        if let Some((key, now)) = removed::find(&over) {
            return Err(ConfigError::Removed { key, now });
        }
        let mut base = base.clone();
        if let Some(name) = over.remove(PRESET_KEY) {
            let preset: Preset =
                name.try_into()
                    .map_err(|error: toml::de::Error| ConfigError::Parse {
                        key: PRESET_KEY.to_owned(),
                        reason: error.message().to_owned(),
                    })?;
            preset.apply(&mut base);
        }
        let mut whole = parse(&base.to_toml()?)?;
        merge(&mut whole, over);
        let mut config: Self = deserialize(whole)?;
        config.copy_tuning(&base);
        config.validate()?;
        Ok(config)
    }

    /// Writes as TOML the name of a preset and the keys whose value differs from it. Reading the text
    /// gives the same configuration. Tuning is not written.
    ///
    /// # Errors
    ///
    /// As [`to_toml`](Self::to_toml).
    pub fn to_toml_over_preset(&self, preset: Preset) -> Result<String, ConfigError> {
        let mut changed = parse(&self.to_toml()?)?;
        retain_changes(&mut changed, &parse(&Self::preset(preset).to_toml()?)?);
        let name = toml::Value::try_from(preset).map_err(|error| unwritable(&error))?;
        let text = toml::to_string_pretty(&changed).map_err(|error| unwritable(&error))?;
        // The keys at the top of a file come before its tables, and this one comes first.
        Ok(format!("{PRESET_KEY} = {name}\n{text}"))
    }

    /// Writes the configuration as TOML with every key. Tuning is not written.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unwritable`] where a duration exceeds 2^64 - 1 milliseconds, which
    /// [`validate`](Self::validate) refuses.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| unwritable(&error))
    }
}

fn unwritable(error: &toml::ser::Error) -> ConfigError {
    ConfigError::Unwritable {
        reason: error.to_string(),
    }
}

/// Removes the keys of `table` that have the same value in `base`, and the tables that are then
/// empty.
fn retain_changes(table: &mut toml::Table, base: &toml::Table) {
    table.retain(|key, value| match (value, base.get(key)) {
        (toml::Value::Table(value), Some(toml::Value::Table(base))) => {
            retain_changes(value, base);
            !value.is_empty()
        }
        (value, base) => base != Some(&*value),
    });
}

/// Returns `true` for a file of the published 0.11 node. Its tables `swarm` and `bootstrap` exist in
/// no other format, and each file of a node has one of them.
pub(super) fn is_published(table: &toml::Table) -> bool {
    ["swarm", "bootstrap"]
        .iter()
        .any(|name| matches!(table.get(*name), Some(toml::Value::Table(_))))
}

/// Parses TOML into a table.
pub(super) fn parse(text: &str) -> Result<toml::Table, ConfigError> {
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })
}

/// Reads a value from a table. Errors name the key.
pub(super) fn deserialize<T: serde::de::DeserializeOwned>(
    table: toml::Table,
) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(table).map_err(
        |error: serde_path_to_error::Error<toml::de::Error>| ConfigError::Parse {
            key: key_of(error.path()),
            reason: error.inner().message().to_owned(),
        },
    )
}

/// Replaces the values of `under` by those of `over`, key by key in tables of both.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Returns a path as TOML writes it. Keys that are not bare are quoted, so that an empty one or one
/// with a dot is visible.
fn key_of(path: &Path) -> String {
    let bare = |key: &str| {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !key.is_empty() && key.chars().all(is_bare)
    };
    let mut text = String::new();
    for segment in path {
        let key = match segment {
            Segment::Seq { index } => {
                text.push_str(&format!("[{index}]"));
                continue;
            }
            Segment::Map { key } | Segment::Enum { variant: key } => key.as_str(),
            Segment::Unknown => "?",
        };
        if !text.is_empty() {
            text.push('.');
        }
        if bare(key) {
            text.push_str(key);
        } else {
            text.push_str(&format!("{key:?}"));
        }
    }
    text
}

/// Returns the line of the byte at `offset`, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|&byte| byte == b'\n').count()
}
