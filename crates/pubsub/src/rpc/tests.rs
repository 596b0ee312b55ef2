use calimero_network_primitives::Keypair;
use proptest::prelude::*;

use super::*;

mod bounds;

fn signed(key: &Keypair, data: Option<&'static [u8]>) -> Message {
    let author = key.public().to_peer_id();
    let topic = TopicHash::from_raw("topic");
    let mut message = Message::unsigned(author, 7, topic, Bytes::new());
    message.data = data.map(Bytes::from_static);
    message.signature = key.sign(&message.signed()).unwrap().into();
    message
}

/// The bytes of the message in a frame.
fn raw(frame: &Frame) -> Bytes {
    frame.body().clone()
}

fn bytes(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::from(frame.head());
    out.extend_from_slice(frame.body());
    out
}

fn decode(frame: &Frame) -> Rpc {
    let frame = next_frame(&mut bytes(frame), 1 << 20).unwrap().unwrap();
    Rpc::decode(frame).unwrap()
}

fn topic(name: &str) -> TopicHash {
    TopicHash::from_raw(name)
}

fn is_by_author(message: &Message) -> bool {
    message.public_key().is_some_and(|key| message.verify(&key))
}

#[test]
fn what_the_author_signed_is_verified_and_nothing_else() {
    let key = Keypair::generate_ed25519();
    let foreign = || Keypair::generate_ed25519().public();
    for data in [None, Some(&b""[..]), Some(b"payload")] {
        let message = Message::parse(&raw(&signed(&key, data).frame()))
            .unwrap()
            .unwrap();
        assert_eq!(
            (message.sequence_number, message.topic.as_str()),
            (7, "topic")
        );
        assert_eq!(message.data, data.map(Bytes::from_static));
        assert!(is_by_author(&message));
        let own_key = Message {
            key: Some(key.public().encode_protobuf().into()),
            ..message.clone()
        };
        assert!(is_by_author(&own_key));
        let changes: [&dyn Fn(&mut Message); 8] = [
            &|m| m.data = Some("other".into()),
            &|m| m.sequence_number += 1,
            &|m| m.topic = topic("topics"),
            &|m| m.author = foreign().to_peer_id(),
            &|m| m.signature = m.signature.slice(1..),
            &|m| m.key = Some(foreign().encode_protobuf().into()),
            &|m| m.key = Some(Bytes::new()),
            // The same key with a field that no encoder writes.
            &|m| {
                m.key = Some(
                    [&key.public().encode_protobuf()[..], &[24, 1]]
                        .concat()
                        .into(),
                )
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = message.clone();
            change(&mut changed);
            assert!(!is_by_author(&changed), "change {index}");
        }
    }
}

#[test]
fn fields_that_strict_signing_requires_must_be_there() {
    let whole = signed(&Keypair::generate_ed25519(), Some(b"payload"));
    let author = whole.author.to_bytes();
    let number = 7_u64.to_be_bytes();
    let fields: [(u32, &[u8]); 4] = [
        (1, &author),
        (3, &number),
        (4, b"topic"),
        (5, &whole.signature),
    ];
    let encode = |fields: &[(u32, &[u8])]| {
        let mut out = BytesMut::new();
        fields
            .iter()
            .for_each(|(field, bytes)| put_field(&mut out, *field, bytes));
        Message::parse(&out.freeze()).unwrap()
    };
    assert!(encode(&fields).is_some());
    for missing in 0..fields.len() {
        let mut some = fields.to_vec();
        some.remove(missing);
        assert_eq!(encode(&some), None);
        some.insert(missing, (fields[missing].0, b""));
        assert!(missing == 3 || encode(&some).is_none());
    }
}

#[test]
fn a_message_is_forwarded_in_the_canonical_encoding() {
    let message = signed(&Keypair::generate_ed25519(), Some(b"payload"));
    let canonical = raw(&message.frame());
    let same = Message::parse(&canonical).unwrap().unwrap();
    assert_eq!(same.frame().body().as_ptr(), canonical.as_ptr(), "copied");
    let mut unknown = BytesMut::from(&canonical[..]);
    put_field(&mut unknown, 9, b"unknown");
    let mut twice = BytesMut::new();
    put_field(&mut twice, 2, b"first");
    twice.extend_from_slice(&canonical);
    for odd in [unknown, twice] {
        let parsed = Message::parse(&odd.freeze()).unwrap().unwrap();
        assert!(is_by_author(&parsed));
        assert_eq!(parsed.frame().body(), &canonical);
    }
}

#[test]
fn rpcs_come_out_as_they_went_in() {
    let ids = |names: &[&'static str]| names.iter().map(|n| Bytes::from(*n)).collect::<Vec<_>>();
    let rpc = Rpc {
        subscriptions: vec![
            Subscription {
                topic: topic("a"),
                subscribes: true,
            },
            Subscription {
                topic: topic("b"),
                subscribes: false,
            },
        ],
        messages: vec!["first".into(), "second".into()],
        control: Control {
            ihave: vec![(topic("a"), ids(&["1", "2"])), (topic("b"), ids(&["3"]))],
            iwant: ids(&["4", "5"]),
            graft: vec![topic("a"), topic("b")],
            prune: vec![(topic("a"), Some(60)), (topic("b"), None)],
            idontwant: ids(&["6"]),
            announces: Some(2),
        },
        control_entries: 0,
    };
    let entries = 2 + 1 + 2 + 2 + 1;
    assert_eq!(
        decode(&rpc.encode()),
        Rpc {
            control_entries: entries,
            ..rpc
        }
    );
    assert!(Rpc::default().encode().is_empty());
}

/// A PRUNE with peers to exchange and the extensions of others are read and skipped.
#[test]
fn unknown_fields_are_skipped() {
    let mut prune = BytesMut::new();
    put_field(&mut prune, 1, b"a");
    put_field(&mut prune, 2, b"peer info");
    put_number(&mut prune, 3, 60);
    let mut control = BytesMut::new();
    put_field(&mut control, 4, &prune);
    put_nested(&mut control, 6, 2, |out| put_number(out, 10, 1));
    let mut body = BytesMut::new();
    put_field(&mut body, 3, &control);
    put_field(&mut body, 10, b"partial message");
    let rpc = Rpc::decode(body.freeze()).unwrap();
    assert_eq!(rpc.control.prune, [(topic("a"), Some(60))]);
    assert_eq!(rpc.control_entries, 1);
}

#[test]
fn limits_hold_before_anything_is_stored() {
    let mut arrived = BytesMut::new();
    encode_varint(101, &mut arrived);
    let (limit, claimed) = (100, 101);
    let refused = Err(RpcError::TooLarge { limit, claimed });
    assert_eq!(next_frame(&mut arrived, limit), refused);
    let mut endless = BytesMut::from(&[0xff; 5][..]);
    assert_eq!(next_frame(&mut endless, limit), Err(RpcError::Malformed));
    let repeated = |entry: &[u8], times: usize| Rpc::decode(entry.repeat(times).into());
    // Empty messages, subscriptions, and control with empty ids.
    assert!(repeated(&[0x12, 0], MAX_MESSAGES).is_ok());
    assert_eq!(
        repeated(&[0x12, 0], MAX_MESSAGES + 1),
        Err(RpcError::TooMany)
    );
    assert!(repeated(&[0x0a, 0], MAX_ENTRIES).is_ok());
    assert_eq!(
        repeated(&[0x0a, 0], MAX_ENTRIES + 1),
        Err(RpcError::TooMany)
    );
    let iwant = [0x1a, 4, 0x12, 2, 0x0a, 0];
    assert!(repeated(&iwant, MAX_ENTRIES / 2).is_ok());
    assert_eq!(
        repeated(&iwant, MAX_ENTRIES / 2 + 1),
        Err(RpcError::TooMany)
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let mut arrived = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = next_frame(&mut arrived, 200) {
            let _ = Rpc::decode(frame);
        }
        if let Ok(rpc) = Rpc::decode(bytes.clone()) {
            // What was understood is written so that it is understood again.
            let again = decode(&rpc.encode());
            prop_assert_eq!(again.messages, rpc.messages);
            prop_assert_eq!(again.subscriptions, rpc.subscriptions);
        }
        if let Ok(Some(message)) = Message::parse(&bytes) {
            prop_assert!(!is_by_author(&message));
            let again = Message::parse(&raw(&message.frame())).unwrap().unwrap();
            prop_assert_eq!(again.signed(), message.signed());
        }
    }

    #[test]
    fn frames_come_out_however_they_arrive(
        sizes in prop::collection::vec(0..300_usize, 1..5),
        step in 1..50_usize,
    ) {
        let mut wire = BytesMut::new();
        for size in &sizes {
            encode_varint(*size as u64, &mut wire);
            wire.extend_from_slice(&vec![7; *size]);
        }
        let (mut arrived, mut out) = (BytesMut::new(), Vec::new());
        for part in wire.chunks(step) {
            arrived.extend_from_slice(part);
            while let Some(frame) = next_frame(&mut arrived, 1000).unwrap() {
                out.push(frame.len());
            }
        }
        prop_assert_eq!(out, sizes);
    }
}

/// What a peer puts around a message must not stay in memory with it.
#[test]
fn a_message_keeps_no_more_than_about_twice_its_size_in_memory() {
    let small = raw(&signed(&Keypair::generate_ed25519(), Some(b"small")).frame());
    for (junk, shares) in [(0, true), (400, false), (40_000, false), (900_000, false)] {
        let mut body = BytesMut::new();
        put_field(&mut body, 2, &small);
        // A field that no version has.
        put_field(&mut body, 100, &vec![0; junk]);
        let body = body.freeze();
        let rpc = Rpc::decode(body.clone()).unwrap();
        let (memory, message) = (body.as_ptr_range(), rpc.messages[0].as_ptr());
        assert_eq!(memory.contains(&message), shares, "{junk}");
        assert!(is_by_author(
            &Message::parse(&rpc.messages[0]).unwrap().unwrap()
        ));
    }
    // A large message is not copied.
    let large = raw(&signed(&Keypair::generate_ed25519(), Some(&[7; 100_000])).frame());
    let mut body = BytesMut::new();
    put_field(&mut body, 2, &large);
    let body = body.freeze();
    let rpc = Rpc::decode(body.clone()).unwrap();
    assert!(body.as_ptr_range().contains(&rpc.messages[0].as_ptr()));
}

/// Whether the bytes of `inner` lie in the memory of `outer`.
fn is_part_of(inner: &Bytes, outer: &std::ops::Range<*const u8>) -> bool {
    outer.contains(&inner.as_ptr())
}

#[test]
fn a_small_message_does_not_keep_the_memory_of_others() {
    let (small, large) = (vec![1; 200], vec![2; 600_000]);
    let rpc = Rpc {
        messages: vec![large.clone().into(), small.clone().into()],
        ..Rpc::default()
    };
    let frame = next_frame(&mut bytes(&rpc.encode()), 1 << 20)
        .unwrap()
        .unwrap();
    let memory = frame.as_ptr_range();
    let messages = Rpc::decode(frame.clone()).unwrap().messages;
    assert_eq!(messages, [large, small]);
    let shared: Vec<_> = messages.iter().map(|m| is_part_of(m, &memory)).collect();
    assert_eq!(shared, [true, false]);
}

#[test]
fn an_rpc_that_is_ignored_does_not_lend_its_memory_to_the_next_ones() {
    let ignored = Rpc {
        messages: vec![vec![2; 600_000].into()],
        ..Rpc::default()
    };
    let next = Rpc {
        messages: vec![vec![1; 200].into()],
        ..Rpc::default()
    };
    let mut arrived = bytes(&ignored.encode());
    arrived.reserve(1 << 20);
    let memory =
        arrived.as_ptr_range().start..arrived.spare_capacity_mut().as_ptr_range().end.cast();
    arrived.extend_from_slice(&bytes(&next.encode()));
    let first = next_frame(&mut arrived, 1 << 20).unwrap().unwrap();
    let second = next_frame(&mut arrived, 1 << 20).unwrap().unwrap();
    assert!(is_part_of(&first, &memory));
    assert!(!is_part_of(&second, &memory));
}

/// Small RPCs arrive together in memory of 64 KiB. One of them that is kept must not keep all.
#[test]
fn a_small_rpc_does_not_keep_the_memory_that_it_arrived_in() {
    let small = Rpc {
        messages: vec![vec![1; 200].into()],
        ..Rpc::default()
    };
    let mut arrived = BytesMut::new();
    for _ in 0..100 {
        arrived.extend_from_slice(&bytes(&small.encode()));
    }
    let memory = arrived.as_ptr_range();
    for _ in 0..100 {
        let frame = next_frame(&mut arrived, 1 << 20).unwrap().unwrap();
        assert!(!is_part_of(&frame, &memory));
    }
    assert!(arrived.is_empty());
}

/// The same for what is around the payload in a message.
#[test]
fn a_payload_does_not_keep_unknown_fields_of_its_message() {
    let message = signed(&Keypair::generate_ed25519(), Some(b"payload"));
    for junk in [0, 100_000] {
        let mut body = BytesMut::from(&raw(&message.frame())[..]);
        if junk > 0 {
            put_field(&mut body, 100, &vec![0; junk]);
        }
        let body = body.freeze();
        let memory = body.as_ptr_range();
        let data = Message::parse(&body).unwrap().unwrap().data.unwrap();
        assert_eq!(data, "payload");
        assert_eq!(is_part_of(&data, &memory), junk == 0);
    }
}

#[test]
fn sixteen_ids_count_as_one_control_entry() {
    let ids = |count: usize| vec![Bytes::from("id"); count];
    let rpc = Rpc {
        control: Control {
            ihave: vec![(topic("a"), ids(1_000))],
            iwant: ids(500),
            idontwant: ids(100),
            ..Control::default()
        },
        ..Rpc::default()
    };
    assert_eq!(decode(&rpc.encode()).control_entries, 3 + 1_600 / 16);
}
