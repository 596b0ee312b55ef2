//! Fields at their limits, and answers that leave fields out.

use super::*;

fn unframed(framed: &Bytes) -> Message {
    Message::decode_length_delimited(framed.clone()).unwrap()
}

fn bytes(message: &Message) -> Bytes {
    message.encode_to_vec().into()
}

#[test]
fn a_cookie_of_the_greatest_length_is_read() {
    for (length, fits) in [
        (1, true),
        (MAX_COOKIE_BYTES, true),
        (MAX_COOKIE_BYTES + 1, false),
    ] {
        let request = Request::Discover {
            namespace: Namespace::new("ns1").ok(),
            cookie: Some(vec![7; length].into()),
            limit: None,
        };
        let read = decode(&bytes(&unframed(&request.encode())));
        assert_eq!(read == Ok(request), fits, "{length}");
    }
    let empty = Request::Discover {
        namespace: None,
        cookie: Some(Bytes::new()),
        limit: Some(1),
    };
    let read = decode(&bytes(&unframed(&empty.encode())));
    let without = Request::Discover {
        namespace: None,
        cookie: None,
        limit: Some(1),
    };
    assert_eq!(read, Ok(without));
}

#[test]
fn a_registration_without_a_life_has_that_of_the_specification() {
    let mut answer = unframed(&encode_registered(Ok(7)));
    answer.register_response.as_mut().unwrap().ttl = None;
    assert_eq!(decode_registered(&bytes(&answer)), Ok(7200));
    answer.register_response.as_mut().unwrap().status = None;
    assert_eq!(decode_registered(&bytes(&answer)), Ok(7200));
}

#[test]
fn a_status_that_is_not_known_is_a_refusal() {
    let namespace = Namespace::new("ns1").unwrap();
    for status in [1, 99, 300, -1] {
        let unknown = AnswerError::UnknownStatus(status);
        let mut answer = unframed(&encode_registered(Ok(7)));
        answer.register_response.as_mut().unwrap().status = Some(status);
        assert_eq!(decode_registered(&bytes(&answer)), Err(unknown));
        let mut answer = unframed(&encode_discovered(&namespace, &[], b""));
        answer.discover_response.as_mut().unwrap().status = Some(status);
        let read = decode_discovered(&bytes(&answer), &namespace, 1);
        assert_eq!(read, Err(unknown));
    }
}

#[test]
fn no_more_registrations_are_read_than_the_client_wants() {
    let namespace = Namespace::new("ns1").unwrap();
    let found = |record: &[u8; 1]| Found {
        record: Arc::from(*record),
        ttl_s: 7,
    };
    let found = [b"a", b"b", b"c"].map(found);
    let answer = bytes(&unframed(&encode_discovered(&namespace, &found, b"")));
    for limit in 0..=4 {
        let page = decode_discovered(&answer, &namespace, limit).unwrap();
        let expected = (limit as usize).min(3);
        assert_eq!(page.records, [&b"a"[..], b"b", b"c"][..expected]);
    }
}

#[test]
fn each_request_names_the_kind_of_its_answer() {
    let namespace = Namespace::new("ns1").unwrap();
    let register = Request::Register {
        namespace: namespace.clone(),
        record: Bytes::new(),
        ttl_s: None,
    };
    let discover = Request::Discover {
        namespace: None,
        cookie: None,
        limit: None,
    };
    let unregister = Request::Unregister { namespace };
    assert_eq!(register.answer(), AnswerKind::Register);
    assert_eq!(unregister.answer(), AnswerKind::Unregister);
    assert_eq!(discover.answer(), AnswerKind::Discover);
}
