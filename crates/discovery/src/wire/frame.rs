//! Messages on a stream: the length as an unsigned varint, then the message.

use std::io;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that a length may take: four of them count to 256 MiB, above every limit used here.
const MAX_LENGTH_BYTES: u32 = 4;

/// Why no message could be read from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The length takes more bytes than any length within the limits.
    #[error("the length of the message takes more than {MAX_LENGTH_BYTES} bytes")]
    Length,
    /// The message is longer than the reader accepts. Nothing of it was read.
    #[error("a message of {claimed} bytes; at most {limit} are accepted")]
    TooLong {
        /// Length that the peer announced, in bytes.
        claimed: usize,
        /// Longest message that is read, in bytes.
        limit: usize,
    },
    /// The stream failed or ended within a message.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// Reads one message of at most `limit` bytes, without its length. Memory grows with the bytes
/// that arrive, not with the announced length.
pub(crate) async fn read<S>(stream: &mut S, limit: usize) -> Result<Bytes, FrameError>
where
    S: AsyncRead + Unpin,
{
    let claimed = read_length(stream).await?;
    if claimed > limit {
        return Err(FrameError::TooLong { claimed, limit });
    }
    let mut message = Vec::new();
    stream
        .take(claimed as u64)
        .read_to_end(&mut message)
        .await?;
    if message.len() < claimed {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(message.into())
}

/// Writes a message that already has its length before it, and flushes the stream.
pub(crate) async fn write<S>(stream: &mut S, framed: &[u8]) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_all(framed).await?;
    stream.flush().await
}

async fn read_length<S: AsyncRead + Unpin>(stream: &mut S) -> Result<usize, FrameError> {
    let mut length = 0;
    for index in 0..MAX_LENGTH_BYTES {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(FrameError::Length)
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Text {
        #[prost(string, tag = "1")]
        text: String,
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".{0,200}") {
            let message = Text { text };
            let mut stream = Cursor::new(Vec::new());
            block_on(write(&mut stream, &message.encode_length_delimited_to_vec())).unwrap();
            stream.set_position(0);
            let read = block_on(read(&mut stream, 1024)).unwrap();
            prop_assert_eq!(Text::decode(read).unwrap(), message);
        }

        #[test]
        fn nothing_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(read(&mut Cursor::new(bytes), 1024));
        }
    }

    #[test]
    fn claims_are_looked_at_before_bytes() {
        // 2 MiB announced, nothing sent.
        let error = block_on(read(&mut Cursor::new([0x80, 0x80, 0x80, 1]), 1024));
        assert!(matches!(
            error,
            Err(FrameError::TooLong { limit: 1024, .. })
        ));
        let error = block_on(read(&mut Cursor::new([100, 1, 2]), 1024)).unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::UnexpectedEof);
        let error = block_on(read(&mut Cursor::new([0xff; 12]), usize::MAX)).unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
    }
}
