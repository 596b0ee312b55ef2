//! Messages to a service manager (systemd, `Type=notify`). Without one they are not sent.

use std::{env, ffi::OsStr, fmt::Write as _, io, os::unix::net::UnixDatagram, time::Duration};

use calimero_network::NetworkClient;
use sd_notify::NotifyState;
use tokio::time::timeout;

/// The variable with the socket of the service manager.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Time for one message. A service manager always reads its socket; another owner of the socket may
/// not, and a full socket would block the thread (guess).
const SEND_TIME: Duration = Duration::from_secs(1);

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
    // As `sd_watchdog_enabled` of systemd does, an interval of zero counts as none.
    let interval = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
    let Some(interval) = interval else {
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
    let Some(socket) = env::var_os(SOCKET) else {
        return;
    };
    if let Err(error) = send(&socket, states) {
        tracing::warn!(%error, "cannot send a message to the service manager ({SOCKET})");
    }
}

/// Sends states to a socket, within [`SEND_TIME`].
fn send(path: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let mut message = String::new();
    for state in states {
        let _ = writeln!(message, "{state}");
    }
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIME))?;
    connect(&socket, path)?;
    socket.send(message.as_bytes())?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn connect(socket: &UnixDatagram, path: &OsStr) -> io::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr},
    };
    match path.as_bytes() {
        // A name without a file, as `sd_notify` of systemd writes it.
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?),
        _ => socket.connect(path),
    }
}

#[cfg(not(target_os = "linux"))]
fn connect(socket: &UnixDatagram, path: &OsStr) -> io::Result<()> {
    socket.connect(path)
}
