//! Every blob vector of `testdata/vectors.json`, read and written by the crate's own functions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::sync::LazyLock;

use bytes::Bytes;
use calimero_network_blob::{
    BlobHasher, BlobId, ChunkHash, ChunkList, blob_id,
    record::{ProviderRecord, RecordKey, UnsignedRecord},
    v0::{BlobAuth, BlobChunk, BlobRequest, BlobResponse, chunk_prefix},
};
use calimero_network_primitives::{
    ContextId, Keypair, PeerId,
    identity::ed25519::{self, SecretKey},
    limits::BLOB_CHUNK_BYTES,
};
use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../testdata/vectors.json")).expect("vectors are JSON")
});

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no text"))
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    hex::decode(text(value, key)).unwrap()
}

fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    bytes(value, key).try_into().unwrap()
}

/// The payload of the one frame in `wire`, whose prefix must match it.
fn payload(wire: &[u8]) -> &[u8] {
    let (prefix, payload) = wire.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*prefix) as usize, payload.len());
    payload
}

fn ids() -> (BlobId, ContextId, u64) {
    let ids = &VECTORS["ids"];
    let blob_id: BlobId = text(ids, "blob_id_base58").parse().unwrap();
    let context_id: ContextId = text(ids, "context_id_base58").parse().unwrap();
    assert_eq!(blob_id.as_bytes(), &array(ids, "blob_id_hex"));
    assert_eq!(context_id.as_bytes(), &array(ids, "context_id_hex"));
    (blob_id, context_id, ids["timestamp"].as_u64().unwrap())
}

fn ed25519_keypair(seed: [u8; 32]) -> ed25519::Keypair {
    SecretKey::try_from_bytes(seed).unwrap().into()
}

#[test]
fn blob_ids() {
    let vectors = VECTORS["blob_ids"]["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let len = usize::try_from(vector["len"].as_u64().unwrap()).unwrap();
        assert_eq!(text(vector, "content"), "byte i = i % 251");
        let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let id: BlobId = text(vector, "blob_id_base58").parse().unwrap();
        assert_eq!(id.as_bytes(), &array(vector, "blob_id_hex"));
        assert_eq!(blob_id(&content), id);

        let mut hasher = BlobHasher::new();
        content
            .chunks(65_521)
            .for_each(|piece| hasher.update(piece).unwrap());
        let hashed = hasher.finish();
        assert_eq!((hashed.list.id(), hashed.size_bytes), (id, len as u64));

        let digests: Vec<u8> = vector["chunk_sha256"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|digest| hex::decode(digest.as_str().unwrap()).unwrap())
            .collect();
        let list = ChunkList::prove(id, digests.into()).unwrap();
        assert_eq!(list, hashed.list);
        for (index, chunk) in content.chunks(BLOB_CHUNK_BYTES).enumerate() {
            list.verify(index, chunk).unwrap();
            assert_eq!(list.get(index), Some(ChunkHash::of(chunk)));
        }
    }
}

#[test]
fn requests() {
    let (blob_id, context_id, timestamp) = ids();
    let without = &VECTORS["blob_request"]["auth_null"];
    let request = BlobRequest {
        blob_id,
        context_id,
        auth: None,
    };
    assert_eq!(request.encode().unwrap(), text(without, "json"));
    assert_eq!(
        request.encode().unwrap(),
        payload(&bytes(without, "frame_hex"))
    );
    assert_eq!(
        BlobRequest::decode(text(without, "json").as_bytes()).unwrap(),
        request
    );

    let with = &VECTORS["blob_request"]["with_auth"];
    let signer = ed25519_keypair(array(with, "signer_seed_hex"));
    let auth = BlobAuth::sign(&signer, &blob_id, &context_id, timestamp).unwrap();
    assert_eq!(auth.public_key, array(with, "public_key_hex"));
    assert_eq!(auth.signature, array(with, "signature_hex"));
    let request = BlobRequest {
        blob_id,
        context_id,
        auth: Some(auth),
    };
    assert_eq!(request.encode().unwrap(), text(with, "json"));
    assert_eq!(
        request.encode().unwrap(),
        payload(&bytes(with, "frame_hex"))
    );
    let read = BlobRequest::decode(text(with, "json").as_bytes()).unwrap();
    assert_eq!(read, request);
    read.auth
        .unwrap()
        .verify(&blob_id, &context_id, timestamp)
        .unwrap();
}

#[test]
fn responses() {
    let size = 2_621_440;
    for (name, response) in [
        ("found", BlobResponse::found(size)),
        (
            "found_no_size",
            BlobResponse {
                found: true,
                size: None,
            },
        ),
        ("not_found", BlobResponse::NOT_FOUND),
    ] {
        let vector = &VECTORS["blob_response"][name];
        assert_eq!(response.encode().unwrap(), text(vector, "text"));
        assert_eq!(response.encode().unwrap(), bytes(vector, "hex"));
        assert_eq!(
            BlobResponse::decode(&bytes(vector, "hex")).unwrap(),
            response
        );
    }
}

#[test]
fn chunks() {
    let vectors = &VECTORS["blob_chunk_borsh"];
    for (plain, framed, data) in [
        ("empty", "empty_framed", Bytes::new()),
        (
            "three_bytes_010203",
            "three_bytes_framed",
            Bytes::from_static(&[1, 2, 3]),
        ),
    ] {
        let chunk = BlobChunk { data };
        assert_eq!(chunk.encode().unwrap(), bytes(vectors, plain));
        assert_eq!(chunk.encode().unwrap(), payload(&bytes(vectors, framed)));
        assert!(bytes(vectors, plain).starts_with(&chunk_prefix(chunk.data.len()).unwrap()));
        let frame = Bytes::from(payload(&bytes(vectors, framed)).to_vec());
        assert_eq!(BlobChunk::decode(frame).unwrap(), chunk);
    }
}

#[test]
fn authentication() {
    let (blob_id, context_id, timestamp) = ids();
    let payload = bytes(&VECTORS["blob_auth_payload"], "borsh_hex");
    let signer = ed25519_keypair(array(
        &VECTORS["blob_request"]["with_auth"],
        "signer_seed_hex",
    ));
    let auth = BlobAuth::sign(&signer, &blob_id, &context_id, timestamp).unwrap();
    assert!(signer.public().verify(&payload, &auth.signature));
}

#[test]
fn provider_records() {
    let vectors = &VECTORS["blob_provider_record"];
    let (blob_id, context_id, _) = ids();
    let keypair = Keypair::from(ed25519_keypair(array(vectors, "identity_seed_hex")));
    let provider: PeerId = text(vectors, "peer_id").parse().unwrap();
    assert_eq!(keypair.public().to_peer_id(), provider);
    assert_eq!(provider.to_bytes(), bytes(vectors, "peer_id_hex"));
    let size_bytes = vectors["size"].as_u64().unwrap();

    let key = RecordKey {
        context_id,
        blob_id,
    };
    assert_eq!(key.to_bytes().as_slice(), bytes(vectors, "key_hex"));
    assert_eq!(
        RecordKey::from_bytes(&bytes(vectors, "key_hex")).unwrap(),
        key
    );

    let unsigned = &vectors["layout_0.11.0-rc.4"];
    let record = UnsignedRecord {
        provider,
        size_bytes,
    };
    assert_eq!(record.encode().unwrap(), bytes(unsigned, "value_hex"));
    let put = &unsigned["captured_put_value"];
    let captured = bytes(put, "value");
    assert_eq!(UnsignedRecord::decode(&captured).unwrap(), record);
    assert_eq!(bytes(put, "key"), key.to_bytes());
    assert_eq!(put["publisher"], record.provider.to_base58());

    let signed = &vectors["layout_signed"];
    let domain = signed["domain"].as_str().unwrap().as_bytes();
    assert!(bytes(signed, "signed_message_hex").starts_with(domain));
    let value = bytes(signed, "value_hex");
    assert_eq!(
        ProviderRecord::sign(&keypair, &key, size_bytes).unwrap(),
        value
    );
    let record = ProviderRecord::verify(&key, &value).unwrap();
    assert_eq!(
        record,
        ProviderRecord {
            provider,
            size_bytes
        }
    );
    assert_eq!(
        keypair.public().encode_protobuf(),
        bytes(signed, "public_key_protobuf_hex")
    );
    assert!(value.ends_with(&bytes(signed, "signature_hex")));
    let message = bytes(signed, "signed_message_hex");
    assert!(
        keypair
            .public()
            .verify(&message, &bytes(signed, "signature_hex"))
    );
}
