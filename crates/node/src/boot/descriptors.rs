//! File descriptors: one for each connection.

use calimero_network::NetworkConfig;

/// Descriptors of everything but connections: listeners, the runtime, files, standard streams.
const OTHERS: u64 = 256;

/// Raises the soft limit of descriptors to the hard one, and warns where that is not enough for
/// the connections of `config`.
#[cfg(unix)]
pub(super) fn raise(config: &NetworkConfig) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let connections = &config.connections;
    let wanted = u64::from(connections.max_established)
        + u64::from(connections.tuning.max_pending_inbound)
        + u64::from(connections.tuning.max_pending_outbound)
        + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(current) {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    } else if !enough(maximum) {
        tracing::warn!(
            wanted,
            hard_limit = maximum,
            "fewer file descriptors than connections; raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
    }
}

#[cfg(not(unix))]
pub(super) fn raise(_: &NetworkConfig) {}
