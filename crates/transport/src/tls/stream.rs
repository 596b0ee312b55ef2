//! A TLS session over a byte stream.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::poll_fn, ready};
use futures_timer::Delay;
use rustls::{ClientConfig, CommonState, ServerConfig, pki_types::ServerName};

use super::session::{Session, Status};
use crate::{buffer::SMALL_BYTES, crypto::collected};

/// Time for which an alert of the peer is awaited after a write has failed, 1 s. The alert was sent
/// before the peer closed the byte stream, so usually it has already arrived.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// The first failure to write during the handshake, and the time until which the alert that
/// explains it is awaited.
type Unsent = (io::Error, Delay);

/// An error of the TLS handshake.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The byte stream failed or ended.
    Io(io::Error),
    /// One side refused the handshake and sent an alert.
    Tls(rustls::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// A byte stream encrypted with TLS.
///
/// Written bytes are collected in records. They are sent on `poll_flush`, or
/// when there are enough of them for an efficient write. An end of stream that
/// the peer has not announced is [`io::ErrorKind::UnexpectedEof`], because an
/// attacker may have truncated the stream.
pub(crate) struct TlsStream<S> {
    io: S,
    session: Session,
    /// The first failure. Data that was received before it is still returned.
    failed: Option<(io::ErrorKind, rustls::Error)>,
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("status", &self.session.status())
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake as client. Completes when the certificate of the
    /// peer is verified and the own certificate was written to the byte stream.
    /// Waits for the entropy of the process first.
    pub(crate) async fn client(
        io: S,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        collected().await;
        Self::handshake(io, Session::client(config, name)?).await
    }

    /// Performs the handshake as server. Completes when the certificate of the
    /// peer is verified. Waits for the entropy of the process first.
    pub(crate) async fn server(io: S, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        collected().await;
        Self::handshake(io, Session::server(config)?).await
    }

    /// Returns the negotiated parameters.
    pub(crate) fn common(&self) -> &CommonState {
        self.session.common()
    }

    async fn handshake(io: S, session: Session) -> Result<Self, HandshakeError> {
        let mut stream = Self {
            io,
            session,
            failed: None,
        };
        let mut unsent = None;
        poll_fn(|cx| stream.poll_handshake(cx, &mut unsent)).await?;
        Ok(stream)
    }

    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        unsent: &mut Option<Unsent>,
    ) -> Poll<Result<(), HandshakeError>> {
        if let Some((_, error)) = &self.failed {
            // The refusal is final, whether or not the alert can be sent.
            let error = error.clone();
            let _ = ready!(self.poll_send(cx));
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Err(error) = self.session.advance() {
                self.failed = Some((io::ErrorKind::InvalidData, error.clone()));
                let _ = ready!(self.poll_send(cx));
                return Poll::Ready(Err(error.into()));
            }
            if !self.session.common().is_handshaking() {
                ready!(self.poll_send(cx))?;
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                return Poll::Ready(Ok(()));
            }
            if unsent.is_none() {
                let mut sent = self.poll_send(cx);
                if let Poll::Ready(Ok(())) = sent {
                    // Flush the layers below as well, because the peer may wait for
                    // this message.
                    sent = Pin::new(&mut self.io).poll_flush(cx);
                }
                if let Poll::Ready(Err(error)) = sent {
                    // The peer may have sent the reason in an alert, so reading continues.
                    *unsent = Some((error, Delay::new(ALERT_TIMEOUT)));
                }
            }
            let error = match self.poll_receive(cx) {
                Poll::Ready(Ok(0)) => io::ErrorKind::UnexpectedEof.into(),
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => error,
                Poll::Pending => match unsent {
                    Some((_, timeout)) => {
                        ready!(timeout.poll_unpin(cx));
                        io::ErrorKind::TimedOut.into()
                    }
                    None => return Poll::Pending,
                },
            };
            let error = unsent.take().map_or(error, |(first, _)| first);
            return Poll::Ready(Err(error.into()));
        }
    }

    /// Reads once into the session. Returns 0 at the end of the byte stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.session.is_buffer_released() {
            let mut small = [0; SMALL_BYTES];
            let count = ready!(Pin::new(&mut self.io).poll_read(cx, &mut small))?;
            self.session.receive(&small[..count]);
            return Poll::Ready(Ok(count));
        }
        let space = self.session.receive_space();
        let offered = space.len();
        if offered == 0 {
            let message = "handshake message is split into too many records";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let count = ready!(Pin::new(&mut self.io).poll_read(cx, space))?;
        self.session.received(count, offered);
        Poll::Ready(Ok(count))
    }

    /// Writes all queued ciphertext.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.to_send().is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, self.session.to_send()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.sent(count);
        }
        Poll::Ready(Ok(()))
    }

    fn failure(&self) -> Option<io::Error> {
        let (kind, error) = self.failed.as_ref()?;
        Some(io::Error::new(*kind, error.clone()))
    }

    fn fail(&mut self, kind: io::ErrorKind, error: rustls::Error) -> io::Error {
        let (kind, error) = self.failed.get_or_insert((kind, error));
        io::Error::new(*kind, error.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if out.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if let Some(error) = this.failure() {
                return Poll::Ready(Err(error));
            }
            match this.session.read(out) {
                Ok(0) => {}
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => {
                    let error = this.fail(io::ErrorKind::InvalidData, error);
                    // The alert is sent only as far as the byte stream accepts
                    // it now.
                    let _ = this.poll_send(cx);
                    return Poll::Ready(Err(error));
                }
            }
            if this.session.status() == Status::PeerClosed {
                return Poll::Ready(Ok(0));
            }
            if ready!(this.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut accepted = 0;
        while accepted < data.len() {
            if let Some(error) = this.failure() {
                return Poll::Ready(Err(error));
            }
            match this.session.write(&data[accepted..]) {
                Ok(count) => accepted += count,
                Err(error) => {
                    return Poll::Ready(Err(this.fail(io::ErrorKind::Other, error)));
                }
            }
            if accepted < data.len() || this.session.wants_send() {
                match this.poll_send(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if accepted > 0 => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        Poll::Ready(Ok(accepted))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.failed.is_none()
            && let Err(error) = this.session.close()
        {
            return Poll::Ready(Err(this.fail(io::ErrorKind::Other, error)));
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_close(cx)
    }
}
