//! The parts of a node that are compiled in: one constant for each Cargo feature.

use super::ConfigError;

pub(super) const BLOBS: bool = cfg!(feature = "blobs");
pub(super) const DNS: bool = cfg!(feature = "dns");
pub(super) const INVITES: bool = cfg!(feature = "invites");
pub(super) const MDNS: bool = cfg!(feature = "mdns");
pub(super) const QUIC: bool = cfg!(feature = "quic");
pub(super) const RELAY: bool = cfg!(feature = "relay");
pub(super) const TCP: bool = cfg!(feature = "tcp");
pub(super) const TLS: bool = cfg!(feature = "tls");
pub(super) const UPNP: bool = cfg!(feature = "upnp");
pub(super) const WEBSOCKET: bool = cfg!(feature = "websocket");

/// Refuses a value that needs `feature`, unless the feature is compiled in.
pub(super) fn check_feature(
    needed: bool,
    is_compiled: bool,
    feature: &'static str,
    key: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if needed && !is_compiled {
        let key = key();
        return Err(ConfigError::MissingFeature { key, feature });
    }
    Ok(())
}
