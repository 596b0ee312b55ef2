//! One request and its response on one stream, for both sides.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use calimero_network_exchange::within;
use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
    future::{Either, select},
};

use crate::{
    codec::{self, Message, PREFIX_BYTES, Receiver},
    error::DecodeError,
    failure::{InboundFailure, OutboundFailure},
    message::{NONCE_BYTES, Refusal, SpecializedNodeInviteRequest, SpecializedNodeInviteResponse},
};

/// Reason for which no complete message was received.
enum Incomplete {
    /// The stream ended before the first byte.
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

/// Sends the encoded request and receives its response.
///
/// It reads while it writes, because a peer that refuses a large request
/// answers before it has read all of it.
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
    // `select` prefers the write if both are ready. The read then continues on
    // the same future, so no received byte is lost.
    let received = match select(write, read).await {
        Either::Left((Ok(()), read)) => read.await,
        // The response may have arrived before the write failed.
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

/// Receives a request within `time`. If the request is invalid but contains a
/// nonce, the peer gets a refusal.
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

/// Refuses a request that was not read yet, within `time`.
pub(crate) async fn refuse_request(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    refusal: Refusal,
    time: Duration,
) {
    let work = refuse_unread(&mut stream, PREFIX_BYTES, refusal);
    let _ = within(time, work).await;
}

/// Reads a request up to its nonce, which starts `skip` bytes before the body,
/// and sends a refusal. Without a nonce the stream is only closed.
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
        // The failure to deliver a refusal does not change the result.
        let _ = send(stream, &wire, || ()).await;
    }
}

/// Sends `wire` and closes the stream. Calls `written` before the peer can
/// receive the last byte.
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
