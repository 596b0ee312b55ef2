//! WebSocket on any byte stream, for the fuzz targets of the repository. Not part of the interface: it
//! changes without notice.

use futures::{AsyncRead, AsyncWrite};

use super::{
    handshake,
    stream::{Role, WebSocket},
};

pub use super::handshake::MAX_HEAD_BYTES;

/// Returns the stream of a client after its opening handshake.
pub fn client<S>(io: S) -> impl AsyncRead + AsyncWrite + Unpin
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocket::new(io, Role::Client)
}

/// Returns the stream of a server after its opening handshake.
pub fn server<S>(io: S) -> impl AsyncRead + AsyncWrite + Unpin
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocket::new(io, Role::Server)
}

/// Reads the request of a client and answers it. Returns whether it opens a WebSocket.
pub async fn accept<S>(io: &mut S) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    handshake::accept(io).await.is_ok()
}

/// Sends a request and reads the response. Returns whether it opens a WebSocket.
pub async fn connect<S>(io: &mut S, host: &str, path: &str) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    handshake::connect(io, host, path).await.is_ok()
}
