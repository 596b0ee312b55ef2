//! Configuration of this crate, one part of the configuration of a node.

pub use calimero_network_primitives::config::{ConfigError, SpecializedConfig, SpecializedTuning};
use calimero_network_primitives::limits::MAX_INVITE_MESSAGE_BYTES;

use crate::codec::MAX_MESSAGE_BYTES;

// The codec defines the limit separately because it builds without the
// primitives crate.
const _: () = assert!(MAX_MESSAGE_BYTES == MAX_INVITE_MESSAGE_BYTES);
