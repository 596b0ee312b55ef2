//! Messages to a service manager (systemd, `Type=notify`). Without one they are not sent.

use std::time::Duration;

use calimero_network::NetworkClient;
use sd_notify::NotifyState;
use tokio::time::timeout;

/// Reports that the node listens and answers.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the node stops. Its connections close within `handle.shutdown_timeout_ms`.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Resets the watchdog of the service manager twice in its interval, for as long as the manager of
/// the network answers. If it does not, the service manager restarts the node.
pub(crate) async fn watchdog(client: NetworkClient) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let pause = interval / 2;
    loop {
        if let Some(peers) = answer(&client, pause).await {
            let status = format!("{peers} peers");
            notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
        tokio::time::sleep(pause).await;
    }
}

/// The number of peers, if the manager of the network answers within `limit`.
async fn answer(client: &NetworkClient, limit: Duration) -> Option<usize> {
    let status = timeout(limit, client.status()).await.ok()?.ok()?;
    Some(status.peers().len())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot send a message to the service manager (NOTIFY_SOCKET)");
    }
}
