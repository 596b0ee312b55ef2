use std::sync::mpsc;

use futures::{executor::block_on, poll};

use super::*;

#[test]
fn the_collection_is_awaited_by_any_number_of_handshakes() {
    let (finish, finished) = mpsc::sync_channel(1);
    let collection = Collection::start(move || finished.recv().unwrap());
    let handshakes = [collection.done.clone(), collection.done.clone()];
    block_on(async {
        for handshake in &mut handshakes.clone() {
            assert!(poll!(handshake).is_pending());
        }
        finish.send(()).unwrap();
        for handshake in handshakes {
            handshake.await;
        }
    });
}

#[test]
fn a_collection_that_fails_is_not_awaited_for_ever() {
    let collection = Collection::start(|| panic!("no entropy, in a test"));
    block_on(collection.done);
}
