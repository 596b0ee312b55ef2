//! A stream that breaks off without a word.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite, FutureExt, channel::oneshot, future::BoxFuture};

use crate::net::Socket;

/// A stream that takes some bytes and then hangs, and word of when it does.
pub(crate) fn cut_after(bytes: usize, io: Socket) -> (Cut, BoxFuture<'static, ()>) {
    let (said, heard) = oneshot::channel();
    let cut = Cut {
        io,
        left: bytes,
        said: Some(said),
    };
    (cut, heard.map(|_| ()).boxed())
}

pub(crate) struct Cut {
    io: Socket,
    left: usize,
    said: Option<oneshot::Sender<()>>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, to)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            if let Some(said) = self.said.take() {
                let _ = said.send(());
            }
            return Poll::Pending;
        }
        let some = &from[..from.len().min(self.left)];
        let written = Pin::new(&mut self.io).poll_write(cx, some);
        if let Poll::Ready(Ok(len)) = &written {
            self.left -= len;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
