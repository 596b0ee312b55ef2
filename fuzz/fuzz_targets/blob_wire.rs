//! What peers say on `/calimero/blob/0.0.2` and write into provider records. The first byte
//! chooses the parser. What is read and written again reads the same.
#![no_main]

use bytes::Bytes;
use calimero_network_blob::record::{ProviderRecord, RecordKey, UnsignedRecord};
use calimero_network_blob::v0::{BlobChunk, BlobRequest, BlobResponse, MAX_HANDSHAKE_BYTES};
use libfuzzer_sys::fuzz_target;

fn chunk(frame: Bytes) {
    for max_bytes in [1, 1 << 20, usize::MAX] {
        let Ok(chunk) = BlobChunk::decode_within(frame.clone(), max_bytes) else {
            continue;
        };
        assert_eq!(chunk.data, frame[4..]);
        assert!(chunk.data.len() <= max_bytes);
        if let Ok(written) = chunk.encode() {
            assert_eq!(written, frame);
        }
    }
}

fn record(value: &[u8]) {
    let key = RecordKey {
        context_id: [0x11; 32].into(),
        blob_id: [0x22; 32].into(),
    };
    let elsewhere = RecordKey {
        blob_id: [0x23; 32].into(),
        ..key
    };
    if ProviderRecord::verify(&key, value).is_ok() {
        assert!(ProviderRecord::verify(&elsewhere, value).is_err());
    }
    if let Ok(record) = UnsignedRecord::decode(value) {
        assert_eq!(record.encode().expect("it was that long"), value);
    }
    if let Ok(key) = RecordKey::from_bytes(value) {
        assert_eq!(key.to_bytes(), value);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((parser, input)) = input.split_first() else {
        return;
    };
    match parser % 4 {
        0 => {
            if let Ok(request) = BlobRequest::decode(input) {
                assert!(input.len() <= MAX_HANDSHAKE_BYTES);
                let written = request.encode().expect("what was read can be written");
                assert_eq!(BlobRequest::decode(&written).as_ref(), Ok(&request));
                if let Some(auth) = request.auth {
                    let _ = auth.verify(&request.blob_id, &request.context_id, auth.timestamp);
                }
            }
        }
        1 => {
            if let Ok(response) = BlobResponse::decode(input) {
                let written = response.encode().expect("what was read can be written");
                assert_eq!(BlobResponse::decode(&written), Ok(response));
            }
        }
        2 => chunk(Bytes::copy_from_slice(input)),
        _ => record(input),
    }
});
