//! Protobuf messages on a stream: an unsigned varint length, then the message.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use prost::Message;

/// Reads one message of at most `max` bytes. Memory grows with what arrives, not with what is
/// claimed.
pub(super) async fn read<M, S>(stream: &mut S, max: usize) -> io::Result<M>
where
    M: Message + Default,
    S: AsyncRead + Unpin,
{
    let claimed = read_length(stream).await?;
    if claimed > max as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too long",
        ));
    }
    let mut bytes = Vec::new();
    stream.take(claimed).read_to_end(&mut bytes).await?;
    if (bytes.len() as u64) < claimed {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::decode(bytes.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(super) async fn write<M, S>(stream: &mut S, message: &M) -> io::Result<()>
where
    M: Message,
    S: AsyncWrite + Unpin,
{
    let bytes = message.encode_length_delimited_to_vec();
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// A varint of at most 4 bytes: 256 MiB, more than any message here may have.
async fn read_length<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<u64> {
    let mut length = 0;
    for place in 0..4 {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "length too long",
    ))
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};
    use proptest::prelude::*;

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
            block_on(write(&mut stream, &message)).unwrap();
            stream.set_position(0);
            prop_assert_eq!(block_on(read::<Text, _>(&mut stream, 1024)).unwrap(), message);
        }

        #[test]
        fn nothing_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(read::<Text, _>(&mut Cursor::new(bytes), 1024));
        }
    }

    #[test]
    fn claims_are_looked_at_before_bytes() {
        // 2 MiB claimed, nothing there.
        let error = block_on(read::<Text, _>(
            &mut Cursor::new([0x80, 0x80, 0x80, 1]),
            1024,
        ));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let error = block_on(read::<Text, _>(&mut Cursor::new([100, 1, 2]), 1024));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let error = block_on(read::<Text, _>(&mut Cursor::new([0xff; 12]), usize::MAX));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
