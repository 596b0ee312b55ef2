//! What peers say on `/calimero/blob/1.0.0`, in both directions. A message has one encoding, and
//! it reads the same however its bytes arrive.
#![no_main]

use asynchronous_codec::{Decoder, Encoder};
use bytes::BytesMut;
use calimero_network_blob::v1::{ListAssembly, ProviderCodec, RequesterCodec, Response};
use libfuzzer_sys::fuzz_target;

/// All messages at the front of `input`, and whether an error followed, given to the codec in
/// pieces of `step` bytes.
fn decode_all<D: Decoder>(mut codec: D, input: &[u8], step: usize) -> (Vec<D::Item>, bool) {
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

fn encode_all<E, M>(mut codec: E, messages: impl IntoIterator<Item = M>) -> BytesMut
where
    E: for<'a> Encoder<Item<'a> = M>,
    E::Error: std::fmt::Debug,
{
    let mut written = BytesMut::new();
    for message in messages {
        codec
            .encode(message, &mut written)
            .expect("what was read can be written");
    }
    written
}

fuzz_target!(|input: &[u8]| {
    let Some((step, input)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step) + 1;

    let (requests, failed) = decode_all(ProviderCodec, input, step);
    assert!(input.starts_with(&encode_all(RequesterCodec, requests.iter().cloned())));
    assert_eq!(
        decode_all(ProviderCodec, input, usize::MAX),
        (requests, failed)
    );

    let (responses, failed) = decode_all(RequesterCodec, input, step);
    assert!(input.starts_with(&encode_all(ProviderCodec, responses.iter().cloned())));
    assert_eq!(
        decode_all(RequesterCodec, input, usize::MAX),
        (responses.clone(), failed)
    );

    let id = [0x22; 32].into();
    let mut assembly = ListAssembly::new(id);
    for response in responses {
        if let Response::List(page) = response
            && let Ok(Some(list)) = assembly.push(&page)
        {
            assert_eq!(list.id(), id);
        }
    }
});
