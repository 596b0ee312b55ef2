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

/// A client and a server after their handshake, with nothing to send.
fn opened() -> (Session, Session) {
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
    (client, server)
}

#[test]
fn the_memory_of_a_burst_is_released() {
    let (mut client, mut server) = opened();
    transfer(&mut client, &mut server, 1024 * 1024);
    assert!(server.receive_allocation() > 4 * MIN_BYTES);
    for _ in 0..200 {
        transfer(&mut client, &mut server, 100);
    }
    assert_eq!(server.receive_allocation(), MIN_BYTES);
}

/// Whole records are accepted as far as the send buffer of 96 KiB has space for them and for an
/// answer of 2 KiB.
#[test]
fn ciphertext_that_is_not_sent_is_bounded() {
    const RECORD: usize = 16 * 1024;
    let (mut client, mut server) = opened();
    let data = vec![7; 1 << 20];
    for _ in 0..3 {
        assert_eq!(client.write(&data[..RECORD]).unwrap(), RECORD);
        assert!(!client.wants_send());
    }
    assert_eq!(client.write(&data).unwrap(), 2 * RECORD);
    assert!(client.wants_send());
    assert!(client.to_send().len() <= 94 * 1024);
    assert_eq!(client.write(&data).unwrap(), 0);
    // The end is announced beyond what data may use, once.
    client.close().unwrap();
    let queued = client.to_send().len();
    client.close().unwrap();
    assert_eq!(client.to_send().len(), queued);
    let mut out = vec![0; 1 << 20];
    let mut read = 0;
    while !client.to_send().is_empty() {
        move_once(&mut client, &mut server);
        read += server.read(&mut out).unwrap();
    }
    assert_eq!(read, 5 * RECORD);
    assert_eq!(server.status(), Status::PeerClosed);
}

#[test]
fn nothing_is_written_before_the_handshake() {
    let mut client = Session::client(crypto().client(None), name()).unwrap();
    assert!(client.to_send().is_empty());
    assert!(client.write(b"data").is_err());
    assert_eq!(client.status(), Status::Handshaking);
}
