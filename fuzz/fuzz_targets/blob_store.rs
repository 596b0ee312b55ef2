//! The files of the blob store that say what others mean: the state of a partial download and the
//! index of a pack. Damaged ones are refused; nothing of them is trusted.
#![no_main]

use bytes::Bytes;
use calimero_network_blob::{
    ChunkList,
    store::{PackIndex, PartialState},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(state) = PartialState::decode(&Bytes::copy_from_slice(input)) {
        let list = &state.list;
        assert_eq!(
            ChunkList::prove(list.id(), list.digests().clone()).as_ref(),
            Ok(list)
        );
        assert!(
            state
                .claimed
                .iter()
                .all(|index| (*index as usize) < list.len())
        );
        assert!(state.claimed.len() <= 2 * list.len());
        assert!(state.valid_bytes <= input.len());
        let valid = Bytes::copy_from_slice(&input[..state.valid_bytes]);
        assert_eq!(PartialState::decode(&valid).as_ref(), Some(&state));
    }
    // A pack as long as the input, and as long as its own footer says.
    let footer = input
        .len()
        .checked_sub(40)
        .and_then(|at| input.get(at..at + 8));
    let content = footer
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    for pack_bytes in [
        input.len() as u64,
        content.saturating_add(input.len() as u64),
    ] {
        if let Some(index) = PackIndex::decode(input, pack_bytes) {
            assert!(input.ends_with(&index.encode()));
        }
    }
});
