//! What is refused as malformed or too long, and what is just not.

use super::*;

/// A field with the key of a number and wire type, before `rest`.
fn field(number: u32, wire: u64, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    encode_varint(tag(number, wire), &mut out);
    out.extend_from_slice(rest);
    out.freeze()
}

/// A field that contains `inner`.
fn nested(number: u32, inner: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_field(&mut out, number, inner);
    out.freeze()
}

#[test]
fn an_rpc_of_the_largest_size_is_read() {
    for (bytes, fits) in [(100_usize, true), (101, false)] {
        let mut arrived = BytesMut::new();
        encode_varint(bytes as u64, &mut arrived);
        arrived.extend_from_slice(&vec![0; bytes]);
        let frame = next_frame(&mut arrived, 100);
        assert_eq!(frame.is_ok_and(|frame| frame.is_some()), fits);
    }
}

#[test]
fn a_length_that_has_not_arrived_is_awaited() {
    for arrived in 0..MAX_PREFIX_BYTES {
        let mut arrived = BytesMut::from(&vec![0xff; arrived][..]);
        assert_eq!(next_frame(&mut arrived, usize::MAX), Ok(None));
    }
    let mut whole = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x0f][..]);
    assert_eq!(next_frame(&mut whole, usize::MAX), Ok(None));
    let claimed = usize::try_from(u32::MAX).unwrap();
    assert_eq!(next_length(&whole, usize::MAX), Ok(Some((5, claimed))));
}

/// Fields of types that no version uses are skipped by their length, if they are whole.
#[test]
fn fields_of_fixed_length_are_skipped_if_they_are_whole() {
    let graft = nested(3, &nested(3, &nested(1, b"a")));
    for (wire, bytes) in [(1, 8), (5, 4)] {
        let whole = field(100, wire, &vec![0xff; bytes]);
        assert_eq!(Rpc::decode(whole.clone()), Ok(Rpc::default()));
        let with_graft = Rpc::decode([whole, graft.clone()].concat().into()).unwrap();
        assert_eq!(with_graft.control.graft, [topic("a")]);
        let cut = field(100, wire, &vec![0xff; bytes - 1]);
        assert_eq!(Rpc::decode(cut), Err(RpcError::Malformed));
    }
}

#[test]
fn bytes_that_are_no_fields_are_malformed() {
    for malformed in [
        field(100, 2, &[2, 0]),
        field(100, 2, &[0xff]),
        field(100, 0, &[0xff]),
        field(100, 3, &[]),
        field(100, 4, &[]),
        Bytes::from_static(&[0xff]),
    ] {
        assert_eq!(Rpc::decode(malformed.clone()), Err(RpcError::Malformed));
        assert_eq!(Message::parse(&malformed), Err(RpcError::Malformed));
    }
    assert_eq!(Rpc::decode(field(100, 2, &[2, 0, 0])), Ok(Rpc::default()));
}

#[test]
fn fields_of_another_type_are_malformed() {
    let number = |field_number| field(field_number, 0, &[1]);
    let bytes = |field_number| nested(field_number, b"a");
    for malformed in [
        // Of an RPC, of a subscription, and of a topic in it.
        number(1),
        number(2),
        number(3),
        nested(1, &bytes(1)),
        nested(1, &number(2)),
        nested(1, &nested(2, &[0xff])),
        // Of control, of its entries, and of the back-off of a PRUNE.
        nested(3, &number(1)),
        nested(3, &nested(1, &number(1))),
        nested(3, &nested(2, &number(1))),
        nested(3, &nested(4, &bytes(3))),
        nested(3, &nested(6, &bytes(ANNOUNCED_TOPICS))),
    ] {
        let read = Rpc::decode(malformed.clone());
        assert_eq!(read, Err(RpcError::Malformed), "{malformed:?}");
    }
    for field_number in 1..=6 {
        let read = Message::parse(&number(field_number));
        assert_eq!(read, Err(RpcError::Malformed), "{field_number}");
    }
}

#[test]
fn entries_without_a_topic_do_not_count_as_ones_with_one() {
    for entry in [1, 3, 4] {
        let rpc = Rpc::decode(nested(3, &nested(entry, &[]))).unwrap();
        assert_eq!((rpc.control, rpc.control_entries), (Control::default(), 1));
    }
    assert_eq!(Rpc::decode(nested(1, &[8, 1])), Ok(Rpc::default()));
}

#[test]
fn control_entries_of_each_kind_are_counted_and_bounded() {
    for entry in 1..=6 {
        let entries = |count: usize| nested(3, &nested(entry, &[]).repeat(count));
        let rpc = Rpc::decode(entries(MAX_ENTRIES)).unwrap();
        let counted = if entry == 6 { 0 } else { MAX_ENTRIES };
        assert_eq!(rpc.control_entries, counted, "{entry}");
        let more = Rpc::decode(entries(MAX_ENTRIES + 1));
        assert_eq!(more, Err(RpcError::TooMany), "{entry}");
    }
    // Message ids count towards the same limit.
    for (entry, id) in [(1, 2), (2, 1), (5, 1)] {
        let ids = |count: usize| nested(3, &nested(entry, &nested(id, b"id").repeat(count)));
        assert!(Rpc::decode(ids(MAX_ENTRIES - 1)).is_ok(), "{entry}");
        let more = Rpc::decode(ids(MAX_ENTRIES));
        assert_eq!(more, Err(RpcError::TooMany), "{entry}");
    }
}

/// Others check the signature over the canonical encoding, so nothing else is passed on.
#[test]
fn an_odd_encoding_is_not_forwarded_as_it_arrived() {
    let message = signed(&Keypair::generate_ed25519(), Some(b"payload"));
    let canonical = raw(&message.frame());
    let author = message.author.to_bytes();
    let number = message.sequence_number.to_be_bytes();
    // The same bytes in another order: as long as the canonical encoding.
    let mut reordered = BytesMut::new();
    put_field(&mut reordered, 2, b"payload");
    put_field(&mut reordered, 1, &author);
    put_field(&mut reordered, 3, &number);
    put_field(&mut reordered, 4, b"topic");
    put_field(&mut reordered, 5, &message.signature);
    assert_eq!(reordered.len(), canonical.len());
    // In order, with the length of the payload in two bytes, where one suffices.
    let mut long = BytesMut::new();
    put_field(&mut long, 1, &author);
    encode_varint(tag(2, 2), &mut long);
    long.extend_from_slice(&[0x87, 0]);
    long.extend_from_slice(b"payload");
    put_field(&mut long, 3, &number);
    put_field(&mut long, 4, b"topic");
    put_field(&mut long, 5, &message.signature);
    for odd in [reordered, long] {
        let parsed = Message::parse(&odd.freeze()).unwrap().unwrap();
        assert!(is_by_author(&parsed));
        assert_eq!(parsed.frame().body(), &canonical);
    }
}

#[test]
fn a_message_of_a_forwarded_frame_is_read_with_its_key() {
    let key = Keypair::generate_ed25519();
    let mut message = signed(&key, Some(b"payload"));
    message.key = Some(key.public().encode_protobuf().into());
    let frame = message.frame();
    assert_eq!(frame.len(), frame.head().len() + frame.body().len());
    let rpc = decode(&frame);
    assert_eq!(rpc.messages, [raw(&frame)]);
    let parsed = Message::parse(&rpc.messages[0]).unwrap().unwrap();
    assert_eq!(parsed.key, message.key);
    assert!(is_by_author(&parsed));
}
