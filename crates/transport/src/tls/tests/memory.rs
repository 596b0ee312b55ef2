//! The memory of a session.

use super::{
    super::session::{Session, Status},
    crypto, name,
};
use crate::buffer::{MIN_BYTES, SMALL_BYTES};

/// Moves one read's worth of ciphertext.
fn move_once(from: &mut Session, to: &mut Session) {
    if to.is_buffer_released() {
        let count = from.to_send().len().min(SMALL_BYTES);
        to.receive(&from.to_send()[..count]);
        from.sent(count);
        return;
    }
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

/// A client and a server after their handshake.
fn open() -> [Session; 2] {
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
    [client, server]
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let [mut client, mut server] = open();
    assert_eq!(client.allocations(), [0; 3]);
    assert_eq!(server.allocations(), [0; 3]);
    for _ in 0..3 {
        transfer(&mut client, &mut server, 100);
        transfer(&mut server, &mut client, 2000);
        assert_eq!(client.allocations(), [0; 3]);
        assert_eq!(server.allocations(), [0; 3]);
    }
}

#[test]
fn the_memory_of_a_burst_is_released() {
    let [mut client, mut server] = open();
    transfer(&mut client, &mut server, 1024 * 1024);
    let [received, ..] = server.allocations();
    assert!(received > 4 * MIN_BYTES, "{received}");
    let [.., to_send] = client.allocations();
    assert!(to_send > 4 * MIN_BYTES, "{to_send}");
    for _ in 0..200 {
        transfer(&mut client, &mut server, 100);
    }
    assert!(server.is_buffer_released());
    assert_eq!(server.allocations(), [0; 3]);
    assert_eq!(client.allocations(), [0; 3]);
}

/// Whole records are accepted as far as the send buffer of 96 KiB has space for them and for an
/// answer of 2 KiB.
#[test]
fn ciphertext_that_is_not_sent_is_bounded() {
    const RECORD: usize = 16 * 1024;
    let [mut client, mut server] = open();
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
