//! One request and its answer on one stream, seen from either end.

use std::{future::Future, io, pin::pin, time::Duration};

use bytes::Bytes;
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
    future::{Either, select},
};
use futures_timer::Delay;

use crate::{
    codec::{self, Message, PREFIX_BYTES, Receiver},
    error::DecodeError,
    failure::{InboundFailure, OutboundFailure},
    message::{NONCE_BYTES, Refusal, SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// The result of `work`, or `None` if it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match select(pin!(work), Delay::new(limit)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}

/// Why no message arrived.
enum Incomplete {
    /// The stream ended before its first byte.
    Nothing,
    Refused(DecodeError),
    Io(io::Error),
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Bytes, Incomplete> {
    let mut receiver = Receiver::new(limit);
    loop {
        let n = stream
            .read(receiver.space())
            .await
            .map_err(Incomplete::Io)?;
        if n == 0 {
            return Err(receiver
                .cut()
                .map_or(Incomplete::Nothing, Incomplete::Refused));
        }
        if let Some(body) = receiver.arrived(n).map_err(Incomplete::Refused)? {
            return Ok(body);
        }
    }
}

/// Sends the request `wire` and waits for its answer.
///
/// Reads while it writes: a peer that refuses a large request answers before it has read it.
pub(crate) async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    wire: Bytes,
    limit: usize,
) -> Result<SpecializedNodeInviteResponse, OutboundFailure> {
    let (mut reader, mut writer) = stream.split();
    let write = pin!(async {
        writer.write_all(&wire).await?;
        writer.close().await
    });
    let read = pin!(receive(&mut reader, limit));
    let received = match select(write, read).await {
        Either::Left((Ok(()), read)) => read.await,
        // The answer may lie before the end that the writer has met.
        Either::Left((Err(error), read)) => read.await.map_err(|_| Incomplete::Io(error)),
        Either::Right((received, _)) => received,
    };
    let body = received.map_err(|incomplete| match incomplete {
        Incomplete::Nothing => OutboundFailure::Unanswered,
        Incomplete::Refused(error) => OutboundFailure::Answer(error),
        Incomplete::Io(error) => OutboundFailure::Io(error),
    })?;
    let response = SpecializedNodeInviteResponse::decode_body(body)?;
    match response.as_refusal() {
        Some(refusal) => Err(OutboundFailure::Refused(refusal)),
        None => Ok(response),
    }
}

/// Reads a request within `time`. A peer whose request is not one is told, if it shows a nonce.
pub(crate) async fn receive_request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limit: usize,
    time: Duration,
) -> Result<SpecializedNodeInviteRequest, InboundFailure> {
    let work = async {
        let received = receive(stream, limit).await;
        let error = match received {
            Ok(body) => match SpecializedNodeInviteRequest::decode_body(body.clone()) {
                Ok(request) => return Ok(request),
                Err(error) => {
                    if let Some(nonce) = codec::request_nonce(&body) {
                        refuse(stream, nonce, Refusal::Malformed).await;
                    }
                    error
                }
            },
            Err(Incomplete::Refused(error)) => {
                if let DecodeError::TooLarge { .. } = error {
                    refuse_unread(stream, 0, Refusal::TooLarge).await;
                }
                error
            }
            Err(Incomplete::Nothing) => codec::EMPTY,
            Err(Incomplete::Io(error)) => return Err(error.into()),
        };
        Err(error.into())
    };
    within(time, work)
        .await
        .unwrap_or(Err(InboundFailure::Slow { after: time }))
}

/// Refuses a request of which nothing has been read, within `time`.
pub(crate) async fn refuse_request(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    refusal: Refusal,
    time: Duration,
) {
    let work = refuse_unread(&mut stream, PREFIX_BYTES, refusal);
    let _told = within(time, work).await;
}

/// Reads as much of a request as shows its nonce, `skip` bytes before its body, and refuses it.
/// A peer that shows none hears the end of the stream.
async fn refuse_unread(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    skip: usize,
    refusal: Refusal,
) {
    let mut head = [0; PREFIX_BYTES + codec::REQUEST_HEAD_BYTES];
    let head = &mut head[..skip + codec::REQUEST_HEAD_BYTES];
    if stream.read_exact(head).await.is_ok()
        && let Some(nonce) = codec::request_nonce(&head[skip..])
    {
        refuse(stream, nonce, refusal).await;
    }
}

async fn refuse(
    stream: &mut (impl AsyncWrite + Unpin),
    nonce: [u8; NONCE_BYTES],
    refusal: Refusal,
) {
    let response = SpecializedNodeInviteResponse::refusal(nonce, refusal);
    if let Ok(wire) = response.encode(codec::MAX_MESSAGE_BYTES) {
        // A peer that does not take it has been refused as well.
        let _told = send(stream, &wire, || ()).await;
    }
}

/// Sends `wire` as the last of the stream, and calls `written` before the peer can have all of it.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    wire: &[u8],
    written: impl FnOnce(),
) -> io::Result<()> {
    stream.write_all(wire).await?;
    written();
    stream.flush().await?;
    stream.close().await
}
