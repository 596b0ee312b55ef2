//! Configuration of this crate, which the whole network's configuration holds as one part.

pub use calimero_network_primitives::config::{ConfigError, SpecializedConfig, SpecializedTuning};
use calimero_network_primitives::limits::MAX_INVITE_MESSAGE_BYTES;

use crate::codec::MAX_MESSAGE_BYTES;

// The wire part names the bound again, because it builds without the primitives.
const _: () = assert!(MAX_MESSAGE_BYTES == MAX_INVITE_MESSAGE_BYTES);
