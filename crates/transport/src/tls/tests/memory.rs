//! The memory of a session.

use super::{
    super::session::{Session, Status},
    crypto, name,
};
use crate::buffer::MIN_BYTES;

/// Moves one read's worth of ciphertext.
fn move_once(from: &mut Session, to: &mut Session) {
    let space = to.receive_space();
    let offered = space.len();
    let count = from.to_send().len().min(offered);
    space[..count].copy_from_slice(&from.to_send()[..count]);
    from.sent(count);
    to.received(count, offered);
}

/// Sends `length` bytes and reads them on the other side.
fn transfer(from: &mut Session, to: &mut Session, length: usize) {
    let data = vec![7; length];
    let (mut written, mut read) = (0, 0);
    let mut out = vec![0; 64 * 1024];
    while read < length {
        written += from.write(&data[written..]).unwrap();
        move_once(from, to);
        loop {
            let count = to.read(&mut out).unwrap();
            assert!(out[..count].iter().all(|byte| *byte == 7));
            read += count;
            if count == 0 {
                break;
            }
        }
    }
}

#[test]
fn the_memory_of_a_burst_is_released() {
    let mut client = Session::client(crypto().client(None), name()).unwrap();
    let mut server = Session::server(crypto().server()).unwrap();
    while client.status() != Status::Open || server.status() != Status::Open {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut both = [&mut client, &mut server];
            let [from, to] = both.get_disjoint_mut([from, to]).unwrap();
            from.advance().unwrap();
            while !from.to_send().is_empty() {
                move_once(from, to);
                to.advance().unwrap();
            }
        }
    }
    transfer(&mut client, &mut server, 1024 * 1024);
    assert!(server.receive_allocation() > 4 * MIN_BYTES);
    for _ in 0..200 {
        transfer(&mut client, &mut server, 100);
    }
    assert_eq!(server.receive_allocation(), MIN_BYTES);
}
