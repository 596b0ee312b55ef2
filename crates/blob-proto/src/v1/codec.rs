//! The messages as frames, for `asynchronous-codec`.

use std::io;

use asynchronous_codec::{Decoder, Encoder};
use bytes::{Buf, Bytes, BytesMut};
use unsigned_varint::encode;

use super::{
    FRAME_PREFIX_MAX_BYTES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MessageError, Request, Response,
    message::read_number,
};

/// Why a stream of messages ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The stream failed, or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A frame is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Writes requests and reads responses.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequesterCodec;

/// Reads requests and writes responses.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProviderCodec;

impl Encoder for RequesterCodec {
    type Item<'a> = Request;
    type Error = CodecError;

    fn encode(&mut self, request: Request, to: &mut BytesMut) -> Result<(), CodecError> {
        let mut message = BytesMut::new();
        request.encode(&mut message)?;
        put_frame(to, &message, &[]);
        Ok(())
    }
}

impl Decoder for RequesterCodec {
    type Item = Response;
    type Error = CodecError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Response>, CodecError> {
        let frame = take_frame(from, MAX_RESPONSE_BYTES)?;
        Ok(frame.map(|frame| Response::decode(&frame)).transpose()?)
    }
}

impl Encoder for ProviderCodec {
    type Item<'a> = Response;
    type Error = CodecError;

    fn encode(&mut self, response: Response, to: &mut BytesMut) -> Result<(), CodecError> {
        let (head, payload) = response.parts()?;
        put_frame(to, &head, &payload);
        Ok(())
    }
}

impl Decoder for ProviderCodec {
    type Item = Request;
    type Error = CodecError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Request>, CodecError> {
        let frame = take_frame(from, MAX_REQUEST_BYTES)?;
        Ok(frame.map(|frame| Request::decode(&frame)).transpose()?)
    }
}

fn put_frame(to: &mut BytesMut, head: &[u8], payload: &[u8]) {
    let len = head.len() + payload.len();
    let mut prefix = encode::usize_buffer();
    let prefix = encode::usize(len, &mut prefix);
    to.reserve(prefix.len() + len);
    to.extend_from_slice(prefix);
    to.extend_from_slice(head);
    to.extend_from_slice(payload);
}

/// The next frame, if all of it is there. Reserves nothing for what is not.
fn take_frame(from: &mut BytesMut, max_bytes: usize) -> Result<Option<Bytes>, MessageError> {
    let Some((prefix_bytes, len)) = frame_len(from, max_bytes)? else {
        return Ok(None);
    };
    if from.len() - prefix_bytes < len {
        return Ok(None);
    }
    from.advance(prefix_bytes);
    Ok(Some(from.split_to(len).freeze()))
}

/// Length of the leading prefix and of the frame behind it, or `None` where the prefix is not
/// all there.
pub(crate) fn frame_len(
    from: &[u8],
    max_bytes: usize,
) -> Result<Option<(usize, usize)>, MessageError> {
    let Some((len_bytes, prefix_bytes)) = read_number(from)? else {
        // A prefix that goes on beyond the longest that is valid need not be waited for.
        return match from.len() {
            FRAME_PREFIX_MAX_BYTES.. => Err(MessageError::Number),
            _ => Ok(None),
        };
    };
    match usize::try_from(len_bytes) {
        Ok(len) if len <= max_bytes => Ok(Some((prefix_bytes, len))),
        _ => Err(MessageError::TooLong {
            len_bytes,
            max_bytes,
        }),
    }
}

#[cfg(test)]
mod bounds;
