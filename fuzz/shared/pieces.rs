//! A byte stream that delivers given bytes in given pieces and records what is written.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

/// The bytes that a peer sends, and those that it receives.
pub struct Pieces<'a> {
    /// Bytes that are not read yet.
    pub unread: &'a [u8],
    /// Bytes that were written.
    pub written: Vec<u8>,
    cuts: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    has_waited: bool,
}

impl<'a> Pieces<'a> {
    /// A read takes as many bytes as the next of `cuts`, which repeat, but at least one. Before a
    /// read with an odd one the reader has to wait once.
    pub fn new(unread: &'a [u8], cuts: &'a [u8]) -> Self {
        Self {
            unread,
            written: Vec::new(),
            cuts: cuts.iter().cycle(),
            has_waited: false,
        }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let cut = this.cuts.clone().next().copied();
        if !this.has_waited && cut.is_some_and(|cut| cut % 2 == 1) {
            this.has_waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.has_waited = false;
        let _ = this.cuts.next();
        let most = cut.map_or(usize::MAX, |cut| usize::from(cut).max(1));
        let count = most.min(out.len()).min(this.unread.len());
        let (piece, rest) = this.unread.split_at(count);
        out[..count].copy_from_slice(piece);
        this.unread = rest;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
