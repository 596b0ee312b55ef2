//! The wire format under hostile and arbitrary input.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use bytes::Bytes;
use calimero_network_blob::{
    BlobHasher, BlobId, ChunkList, blob_id,
    error::{
        AuthError, ChunkError, ChunkFrameError, HandshakeError, JsonErrorKind, ListError,
        RecordError,
    },
    record::{ProviderRecord, RecordKey, UnsignedRecord},
    v0::{
        AUTH_MAX_AGE_S, AUTH_MAX_AHEAD_S, BlobAuth, BlobChunk, BlobRequest, BlobResponse,
        MAX_HANDSHAKE_BYTES, ReplayGuard, chunk_prefix,
    },
};
use calimero_network_primitives::{
    ContextId, Keypair, PeerId,
    identity::ed25519,
    limits::{BLOB_CHUNK_BYTES, MAX_PROVIDER_RECORD_BYTES},
};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000;
const BLOB: BlobId = BlobId::new([0x22; 32]);
const CONTEXT: ContextId = ContextId::new([0x11; 32]);

fn signer(seed: u8) -> ed25519::Keypair {
    ed25519::SecretKey::try_from_bytes([seed; 32])
        .unwrap()
        .into()
}

fn auth(timestamp: u64) -> BlobAuth {
    BlobAuth::sign(&signer(2), &BLOB, &CONTEXT, timestamp).unwrap()
}

fn peer(seed: u8) -> PeerId {
    Keypair::from(signer(seed)).public().to_peer_id()
}

#[test]
fn unknown_and_missing_keys_of_a_handshake() {
    let json = format!(
        r#"{{"later":[{{"a":null}}],"context_id":"{CONTEXT}","blob_id":"{BLOB}","priority":7}}"#
    );
    let request = BlobRequest::decode(json.as_bytes()).unwrap();
    assert_eq!(
        request,
        BlobRequest {
            blob_id: BLOB,
            context_id: CONTEXT,
            auth: None
        }
    );
    let response = BlobResponse::decode(br#"{"x":{},"found":true}"#).unwrap();
    assert_eq!(
        response,
        BlobResponse {
            found: true,
            size: None
        }
    );
}

#[test]
fn handshakes_that_are_none() {
    let kind = |json: &str| match BlobRequest::decode(json.as_bytes()) {
        Err(HandshakeError::Json { kind, .. }) => kind,
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(kind(""), JsonErrorKind::Truncated);
    assert_eq!(kind("{]"), JsonErrorKind::Syntax);
    assert_eq!(kind("{}"), JsonErrorKind::Shape);
    assert_eq!(
        kind(r#"{"blob_id":"../../etc/passwd"}"#),
        JsonErrorKind::Shape
    );
    let numbers = |count| {
        let signature = vec!["7"; count].join(",");
        let key = bs58::encode([1; 32]).into_string();
        format!(
            r#"{{"blob_id":"{BLOB}","context_id":"{CONTEXT}","auth":{{"public_key":"{key}","signature":[{signature}],"timestamp":1}}}}"#
        )
    };
    assert!(BlobRequest::decode(numbers(64).as_bytes()).is_ok());
    for count in [0, 63, 65, 1000] {
        assert!(
            BlobRequest::decode(numbers(count).as_bytes()).is_err(),
            "{count} numbers"
        );
    }
    assert!(BlobResponse::decode(br#"{"found":true,"size":-1}"#).is_err());
    assert!(BlobResponse::decode(br#"{"found":true,"size":1e400}"#).is_err());
}

#[test]
fn a_handshake_is_measured_before_it_is_parsed() {
    let padded = |len: usize| {
        let mut json = br#"{"found":false,"size":null}"#.to_vec();
        json.resize(len, b' ');
        json
    };
    assert!(BlobResponse::decode(&padded(MAX_HANDSHAKE_BYTES)).is_ok());
    let error = BlobResponse::decode(&padded(MAX_HANDSHAKE_BYTES + 1)).unwrap_err();
    let too_long = HandshakeError::TooLong {
        len_bytes: MAX_HANDSHAKE_BYTES + 1,
        max_bytes: MAX_HANDSHAKE_BYTES,
    };
    assert_eq!(error, too_long);
    // Nesting as deep as the bound allows neither overflows the stack nor passes.
    let nested = format!(
        r#"{{"found":true,"x":{}"#,
        "[".repeat(MAX_HANDSHAKE_BYTES - 20)
    );
    assert!(BlobResponse::decode(nested.as_bytes()).is_err());
}

#[test]
fn a_size_of_two_to_the_63_is_only_a_number() {
    let response = BlobResponse::decode(br#"{"found":true,"size":9223372036854775808}"#).unwrap();
    assert_eq!(response.size, Some(1 << 63));
    let list = BlobHasher::new().finish().list;
    assert!(!list.accepts_size(1 << 63));
}

#[test]
fn chunk_bounds() {
    let whole = BlobChunk {
        data: Bytes::from(vec![7; BLOB_CHUNK_BYTES]),
    };
    let frame = whole.encode().unwrap();
    assert_eq!(BlobChunk::decode(frame).unwrap(), whole);
    let data = Bytes::from(vec![7; BLOB_CHUNK_BYTES + 1]);
    assert!(matches!(
        BlobChunk { data: data.clone() }.encode(),
        Err(ChunkFrameError::TooLong {
            max_bytes: BLOB_CHUNK_BYTES,
            ..
        })
    ));
    let mut frame = u32::try_from(data.len()).unwrap().to_le_bytes().to_vec();
    frame.extend_from_slice(&data);
    let frame = Bytes::from(frame);
    assert!(matches!(
        BlobChunk::decode(frame.clone()),
        Err(ChunkFrameError::TooLong {
            max_bytes: BLOB_CHUNK_BYTES,
            ..
        })
    ));
    assert_eq!(
        BlobChunk::decode_within(frame, usize::MAX).unwrap().data,
        data
    );
}

#[test]
fn the_window_of_an_authentication() {
    let verify = |timestamp, now| auth(timestamp).verify(&BLOB, &CONTEXT, now);
    assert_eq!(verify(NOW, NOW + AUTH_MAX_AGE_S), Ok(()));
    assert_eq!(verify(NOW + AUTH_MAX_AHEAD_S, NOW), Ok(()));
    let expired = AuthError::Expired {
        age_s: 31,
        max_age_s: 30,
    };
    assert_eq!(verify(NOW, NOW + 31), Err(expired));
    let future = AuthError::Future {
        ahead_s: 11,
        max_ahead_s: 10,
    };
    assert_eq!(verify(NOW + 11, NOW), Err(future));
    assert!(verify(u64::MAX, NOW).is_err());
    assert!(verify(0, u64::MAX).is_err());
}

#[test]
fn an_authentication_belongs_to_its_request() {
    let auth = auth(NOW);
    let other = BlobId::new([0x23; 32]);
    assert_eq!(
        auth.verify(&other, &CONTEXT, NOW),
        Err(AuthError::Signature)
    );
    let other = ContextId::new([0x12; 32]);
    assert_eq!(auth.verify(&BLOB, &other, NOW), Err(AuthError::Signature));
    let moved = BlobAuth {
        timestamp: NOW + 1,
        ..auth.clone()
    };
    assert_eq!(
        moved.verify(&BLOB, &CONTEXT, NOW),
        Err(AuthError::Signature)
    );
    let stolen = BlobAuth {
        public_key: signer(3).public().to_bytes(),
        ..auth.clone()
    };
    assert_eq!(
        stolen.verify(&BLOB, &CONTEXT, NOW),
        Err(AuthError::Signature)
    );
    // The encoding of y = 2, which no point of the curve has.
    let mut off_curve = [0; 32];
    off_curve[0] = 2;
    let off_curve = BlobAuth {
        public_key: off_curve,
        ..auth
    };
    assert_eq!(
        off_curve.verify(&BLOB, &CONTEXT, NOW),
        Err(AuthError::PublicKey)
    );
}

#[test]
fn a_replay_by_another_peer_is_refused_while_it_is_valid() {
    let mut guard = ReplayGuard::new(2);
    let mut admit = |timestamp, presenter, now| {
        let result = guard.admit(&auth(timestamp), &BLOB, &CONTEXT, presenter, now);
        (result, guard.len())
    };
    assert_eq!(admit(NOW, peer(1), NOW), (Ok(()), 1));
    assert_eq!(admit(NOW, peer(1), NOW), (Ok(()), 1));
    let replayed = AuthError::Replayed { first: peer(1) };
    assert_eq!(
        admit(NOW, peer(9), NOW + AUTH_MAX_AGE_S),
        (Err(replayed), 1)
    );
    assert_eq!(admit(NOW + 1, peer(1), NOW), (Ok(()), 2));
    let busy = AuthError::Busy {
        capacity: 2,
        max_age_s: 40,
    };
    assert_eq!(admit(NOW + 2, peer(1), NOW), (Err(busy), 2));
    // What is expired is forgotten, and not valid any more either.
    assert_eq!(admit(NOW + 2, peer(1), NOW + 31), (Ok(()), 2));
    assert!(matches!(
        admit(NOW, peer(9), NOW + 31).0,
        Err(AuthError::Expired { .. })
    ));
}

#[test]
fn records_of_others() {
    let provider = Keypair::from(signer(1));
    let key = RecordKey {
        context_id: CONTEXT,
        blob_id: BLOB,
    };
    let value = ProviderRecord::sign(&provider, &key, 4096).unwrap();
    let elsewhere = RecordKey {
        blob_id: BlobId::new([1; 32]),
        ..key
    };
    let refused = ProviderRecord::verify(&elsewhere, &value).unwrap_err();
    assert_eq!(refused, RecordError::Signature { named: peer(1) });

    // A record in the name of peer 1 with the key of peer 9.
    let forged = ProviderRecord::sign(&Keypair::from(signer(9)), &key, 4096).unwrap();
    let mut forged = forged.to_vec();
    forged[4..42].copy_from_slice(&peer(1).to_bytes());
    let refused = ProviderRecord::verify(&key, &forged).unwrap_err();
    assert_eq!(
        refused,
        RecordError::NotTheSigner {
            named: peer(1),
            signer: Box::new(peer(9))
        }
    );

    let long = vec![0; MAX_PROVIDER_RECORD_BYTES + 1];
    assert!(matches!(
        ProviderRecord::verify(&key, &long),
        Err(RecordError::TooLong { .. })
    ));
    assert!(matches!(
        UnsignedRecord::decode(&long),
        Err(RecordError::TooLong { .. })
    ));
    assert!(matches!(
        RecordKey::from_bytes(&[0; 63]),
        Err(RecordError::KeyLength { .. })
    ));
    assert_eq!(UnsignedRecord::decode(&[1; 7]), Err(RecordError::Layout));
}

#[test]
fn a_list_proves_itself_and_its_chunks() {
    let content: Vec<u8> = (0..2 * BLOB_CHUNK_BYTES + 5)
        .map(|i| (i % 253) as u8)
        .collect();
    let mut hasher = BlobHasher::new();
    hasher.update(&content).unwrap();
    let list = hasher.finish().list;
    assert_eq!(list.len(), 3);
    assert!(list.accepts_size(content.len() as u64));
    assert!(!list.accepts_size(2 * BLOB_CHUNK_BYTES as u64));

    let last = &content[2 * BLOB_CHUNK_BYTES..];
    assert_eq!(list.verify(2, last), Ok(()));
    assert_eq!(
        list.verify(1, last),
        Err(ChunkError::Length {
            index: 1,
            len_bytes: 5,
            max_bytes: BLOB_CHUNK_BYTES,
        })
    );
    assert_eq!(
        list.verify(2, b"12345"),
        Err(ChunkError::Mismatch { index: 2 })
    );
    assert!(matches!(
        list.verify(2, b""),
        Err(ChunkError::Length { index: 2, .. })
    ));
    let beyond = ChunkError::OutOfRange {
        index: 3,
        chunks: 3,
    };
    assert_eq!(list.verify(3, last), Err(beyond));
    assert_eq!(list.get(usize::MAX), None);

    let digests = list.digests();
    assert!(ChunkList::prove(list.id(), digests.clone()).is_ok());
    let cut = ChunkList::prove(list.id(), digests.slice(..64)).unwrap_err();
    assert!(matches!(cut, ListError::Mismatch { id, .. } if id == list.id()));
    let ragged = ChunkList::prove(list.id(), digests.slice(..65)).unwrap_err();
    assert_eq!(ragged, ListError::Ragged { len_bytes: 65 });
    let long = Bytes::from(vec![0; 32 * ((1 << 20) + 1)]);
    assert!(matches!(
        ChunkList::prove(BLOB, long),
        Err(ListError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = BlobRequest::decode(&bytes);
        let _ = BlobResponse::decode(&bytes);
        let _ = UnsignedRecord::decode(&bytes);
        let _ = RecordKey::from_bytes(&bytes);
        let key = RecordKey { context_id: CONTEXT, blob_id: BLOB };
        prop_assert!(ProviderRecord::verify(&key, &bytes).is_err());
        prop_assert!(ChunkList::prove(BLOB, bytes.clone().into()).is_err());
        let _ = BlobChunk::decode(bytes.into());
    }

    #[test]
    fn requests_survive_a_round_trip(
        blob in any::<[u8; 32]>(), context in any::<[u8; 32]>(), key in any::<[u8; 32]>(),
        half in any::<[u8; 32]>(), timestamp in any::<u64>(), with_auth in any::<bool>(),
    ) {
        let signature = [half, key].concat().try_into().unwrap();
        let auth = with_auth.then_some(BlobAuth { public_key: key, signature, timestamp });
        let request = BlobRequest { blob_id: blob.into(), context_id: context.into(), auth };
        let encoded = request.encode().unwrap();
        prop_assert!(encoded.len() <= 700);
        prop_assert_eq!(BlobRequest::decode(&encoded).unwrap(), request);
    }

    #[test]
    fn responses_survive_a_round_trip(found in any::<bool>(), size in any::<Option<u64>>()) {
        let response = BlobResponse { found, size };
        prop_assert_eq!(BlobResponse::decode(&response.encode().unwrap()).unwrap(), response);
    }

    #[test]
    fn a_chunk_is_a_slice_of_its_frame(data in prop::collection::vec(any::<u8>(), 0..4096)) {
        let frame = BlobChunk { data: data.clone().into() }.encode().unwrap();
        let inside = frame.as_ptr_range();
        let read = BlobChunk::decode(frame).unwrap().data;
        prop_assert_eq!(&read, &data);
        prop_assert!(read.is_empty() || inside.contains(&read.as_ptr()));
    }

    #[test]
    fn a_claimed_length_must_be_the_length(
        claim in any::<u32>(), data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let frame = Bytes::from([&claim.to_le_bytes(), data.as_slice()].concat());
        let result = BlobChunk::decode_within(frame, usize::MAX);
        prop_assert_eq!(result.is_ok(), claim as usize == data.len());
        prop_assert_eq!(chunk_prefix(claim as usize).is_ok(), claim as usize <= BLOB_CHUNK_BYTES);
    }

    #[test]
    fn lengths_claimed_inside_a_record_are_refused(claim in 253_u32.., rest in any::<[u8; 32]>()) {
        let key = RecordKey { context_id: CONTEXT, blob_id: BLOB };
        let value = [claim.to_le_bytes().as_slice(), &rest].concat();
        prop_assert_eq!(ProviderRecord::verify(&key, &value), Err(RecordError::Layout));
    }

    #[test]
    fn records_survive_a_round_trip(seed in any::<[u8; 32]>(), size_bytes in any::<u64>()) {
        let keypair = Keypair::ed25519_from_bytes(seed).unwrap();
        let provider = keypair.public().to_peer_id();
        let key = RecordKey { context_id: CONTEXT, blob_id: BLOB };
        prop_assert_eq!(RecordKey::from_bytes(&key.to_bytes()).unwrap(), key);
        let value = ProviderRecord::sign(&keypair, &key, size_bytes).unwrap();
        prop_assert!(value.len() <= MAX_PROVIDER_RECORD_BYTES);
        let record = ProviderRecord::verify(&key, &value).unwrap();
        prop_assert_eq!(record, ProviderRecord { provider, size_bytes });
        let unsigned = UnsignedRecord { provider, size_bytes };
        prop_assert_eq!(UnsignedRecord::decode(&unsigned.encode().unwrap()).unwrap(), unsigned);
    }

    #[test]
    fn a_flipped_bit_of_a_record_is_noticed(bit in 0_usize..186 * 8) {
        let keypair = Keypair::from(signer(1));
        let key = RecordKey { context_id: CONTEXT, blob_id: BLOB };
        let mut value = ProviderRecord::sign(&keypair, &key, 1 << 20).unwrap().to_vec();
        prop_assume!(bit / 8 < value.len());
        value[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(ProviderRecord::verify(&key, &value).is_err());
    }

}

proptest! {
    // Each case hashes megabytes or verifies dozens of signatures.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_hasher_does_not_care_about_pieces(
        len in 0..3 * BLOB_CHUNK_BYTES, cuts in prop::collection::vec(1_usize..700_000, 1..20),
    ) {
        let content: Vec<u8> = (0..len).map(|i| (i % 241) as u8).collect();
        let mut hasher = BlobHasher::new();
        let mut rest = content.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            hasher.update(piece).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let hashed = hasher.finish();
        prop_assert_eq!(hashed.list.id(), blob_id(&content));
        prop_assert_eq!(hashed.size_bytes, len as u64);
        prop_assert!(hashed.list.accepts_size(len as u64));
    }

    #[test]
    fn the_guard_holds_no_more_than_it_may(
        steps in prop::collection::vec((0_u64..80, 0_u64..60), 0..24),
    ) {
        let mut guard = ReplayGuard::new(8);
        for (timestamp, now) in steps {
            let _ = guard.admit(&auth(NOW + timestamp), &BLOB, &CONTEXT, peer(1), NOW + now);
            prop_assert!(guard.len() <= 8);
        }
    }
}
