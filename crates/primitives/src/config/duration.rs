//! Durations as whole milliseconds in configuration files: the unit stands in the key.

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

/// Lists of durations, all of one length.
pub(super) mod list {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    /// Writes each as a whole number of milliseconds.
    pub(in super::super) fn serialize<S: Serializer, const N: usize>(
        values: &[Duration; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let millis: Result<Vec<_>, _> = values
            .iter()
            .map(|value| u64::try_from(value.as_millis()))
            .collect();
        let millis =
            millis.map_err(|_| S::Error::custom("duration exceeds 2^64 - 1 milliseconds"))?;
        to.collect_seq(millis)
    }

    /// Reads exactly `N` whole numbers of milliseconds.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[Duration; N], D::Error> {
        let millis = Vec::<u64>::deserialize(from)?;
        let millis: [u64; N] = millis
            .try_into()
            .map_err(|_| D::Error::custom(format_args!("must be {N} numbers")))?;
        Ok(millis.map(Duration::from_millis))
    }
}
