use proptest::prelude::*;

use super::*;

fn request(kind: Option<i32>, id: Option<Vec<u8>>, addresses: Vec<Vec<u8>>) -> Vec<u8> {
    let peer = Some(PeerInfo { id, addresses });
    let message = Message {
        kind,
        dial: Some(Dial { peer }),
        response: None,
    };
    message.encode_to_vec()
}

#[test]
fn answers_are_pinned() {
    let address = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    // The status 0 is present in the message: go-libp2p and rust-libp2p tell it from none.
    assert_eq!(
        encode_answer(&Answer::Reached(address)).as_ref(),
        b"\x10\x08\x01\x1a\x0c\x08\x00\x1a\x08\x04\xc0\x00\x02\x01\x06\x00\x01"
    );
    for (answer, status) in [
        (Answer::NotReached, 100_u8),
        (Answer::NoAddress, 101),
        (Answer::TooMany, 101),
        (Answer::NotDialled, 101),
    ] {
        let bytes = encode_answer(&answer);
        assert_eq!(bytes[5..7], [8, status], "{answer:?}");
    }
    assert_eq!(encode_answer(&Answer::OtherPeer)[5..8], [8, 0xc8, 1]);
}

#[test]
fn a_request_has_a_peer_and_the_addresses_that_are_valid() {
    let peer = PeerId::random();
    let id = Some(peer.to_bytes());
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let sent = vec![address.to_vec(), vec![0xff; 3]];
    let addresses = vec![address];
    assert_eq!(
        decode_request(&request(Some(DIAL), id.clone(), sent)),
        Ok(Request { peer, addresses })
    );
    for bad in [
        request(None, id.clone(), vec![]),
        request(Some(DIAL_RESPONSE), id, vec![]),
        request(Some(DIAL), None, vec![]),
        request(Some(DIAL), Some(vec![1, 2, 3]), vec![]),
        encode_answer(&Answer::NotReached)[1..].to_vec(),
        vec![8, 0],
        vec![],
    ] {
        assert_eq!(decode_request(&bad), Err(MALFORMED), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode_request(&bytes);
    }
}
