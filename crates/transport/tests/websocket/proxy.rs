//! A reverse proxy that has the certificate: it decrypts TLS and passes the bytes on.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::{
    TlsAcceptor,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    rustls::{ServerConfig, crypto::aws_lc_rs},
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// A socket of tokio with the traits of `futures`.
struct Socket(TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut out = ReadBuf::new(out);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut out))?;
        Poll::Ready(Ok(out.filled().len()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Starts a proxy in front of `node` and returns its port.
pub(crate) async fn start(certificate: &Path, key: &Path, node: SocketAddr) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let outer = acceptor.accept(Socket(socket)).await.unwrap();
                let inner = Socket(TcpStream::connect(node).await.unwrap());
                let (from_client, mut to_client) = outer.split();
                let (from_node, mut to_node) = inner.split();
                let up = futures::io::copy(from_client, &mut to_node);
                // TLS sends what was written when it is flushed.
                let down = async {
                    let mut from_node = from_node;
                    let mut bytes = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = from_node.read(&mut bytes).await {
                        to_client.write_all(&bytes[..count]).await?;
                        to_client.flush().await?;
                    }
                    Ok::<_, io::Error>(())
                };
                let _ = futures::future::select(Box::pin(up), Box::pin(down)).await;
            });
        }
    });
    port
}
