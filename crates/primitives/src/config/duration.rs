//! Durations in configuration files: whole milliseconds, in keys that end in `_ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Writes `value` as a whole number of milliseconds.
pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(value.as_millis())
        .map_err(|_| serde::ser::Error::custom("duration exceeds 2^64 - 1 milliseconds"))?;
    to.serialize_u64(millis)
}

/// Reads a whole number of milliseconds.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}
