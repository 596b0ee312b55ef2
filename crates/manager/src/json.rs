//! How fields of events and of the status are written as JSON.

use std::{error::Error, fmt::Display, sync::Arc};

use calimero_network_transport::Chain;
use serde::{Serialize, Serializer};

/// Writes a value as the string of its `Display`.
pub(crate) fn text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Writes values as the strings of their `Display`.
pub(crate) fn texts<T: Display, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}

/// Writes an error with all its causes.
pub(crate) fn error<S: Serializer>(
    error: &(impl Error + 'static),
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(&Chain(error))
}

/// Writes an error with all its causes, or null.
pub(crate) fn maybe_error<E: Error + 'static, S: Serializer>(
    error: &Option<E>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let error = error.as_ref().map(|error| Chain(error).to_string());
    error.serialize(to)
}

/// Writes a shared value as what it holds.
pub(crate) fn shared<T: Serialize, S: Serializer>(
    value: &Arc<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    T::serialize(value, to)
}
