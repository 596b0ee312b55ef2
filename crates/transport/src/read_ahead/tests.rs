//! The memory of a reader.

use futures::{AsyncReadExt, executor::block_on};

use super::*;

/// Returns at most `piece` bytes for each read.
struct Pieces {
    piece: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = self.piece.min(out.len());
        out[..count].fill(7);
        Poll::Ready(Ok(count))
    }
}

#[test]
fn the_memory_of_a_burst_is_released() {
    block_on(async {
        let mut reader = ReadAhead::new(Pieces { piece: usize::MAX });
        reader.read_exact(&mut vec![0; 1024 * 1024]).await.unwrap();
        assert_eq!(reader.buffer.allocated(), LIMIT_BYTES);
        reader.io.piece = 100;
        // The rest of the burst, then small reads.
        let rest = reader.buffer.len();
        reader.read_exact(&mut vec![0; rest]).await.unwrap();
        for _ in 0..200 {
            let mut small = [0; 100];
            reader.read_exact(&mut small).await.unwrap();
            assert_eq!(small, [7; 100]);
        }
        assert_eq!(reader.buffer.allocated(), 0);
    });
}
