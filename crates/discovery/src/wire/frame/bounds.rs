//! Lengths at their limits.

use futures::{executor::block_on, io::Cursor};

use super::*;

fn read_bytes(bytes: &[u8], limit: usize) -> Result<Bytes, FrameError> {
    block_on(read(&mut Cursor::new(bytes), limit))
}

#[test]
fn a_message_of_the_longest_length_is_read_and_a_longer_one_is_not() {
    let framed = |length: u8| [&[length], &vec![7; usize::from(length)][..]].concat();
    assert_eq!(read_bytes(&framed(100), 100).unwrap(), vec![7; 100]);
    let longer = read_bytes(&framed(101), 100);
    assert!(matches!(
        longer,
        Err(FrameError::TooLong {
            claimed: 101,
            limit: 100
        })
    ));
    assert!(read_bytes(&framed(0), 0).unwrap().is_empty());
}

#[test]
fn a_length_of_four_bytes_is_read_and_one_of_five_is_not() {
    let whole = [0xff, 0xff, 0xff, 0x7f];
    let claimed = read_bytes(&whole, 0);
    assert!(matches!(
        claimed,
        Err(FrameError::TooLong {
            claimed: 0x0fff_ffff,
            ..
        })
    ));
    let longer = read_bytes(&[0x80, 0x80, 0x80, 0x80, 1], usize::MAX);
    assert!(matches!(longer, Err(FrameError::Length)));
    // Two bytes, seven bits each, the lowest first.
    let message = [&[0x81, 1][..], &[7; 129]].concat();
    assert_eq!(read_bytes(&message, 129).unwrap().len(), 129);
}

#[test]
fn a_message_does_not_take_what_follows_it() {
    let mut stream = Cursor::new([1, 7, 2, 8, 9]);
    for expected in [&[7][..], &[8, 9]] {
        assert_eq!(block_on(read(&mut stream, 2)).unwrap(), expected);
    }
    let ended = block_on(read(&mut stream, 2)).unwrap_err();
    let ended = io::Error::from(ended);
    assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
}
