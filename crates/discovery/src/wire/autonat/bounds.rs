//! Amounts and positions at their limits.

use super::*;

fn unframed(framed: &Bytes) -> Message {
    Message::decode_length_delimited(framed.clone()).unwrap()
}

/// Bytes of data in each message.
fn parts(bytes: u64) -> Vec<u64> {
    encode_data(bytes)
        .map(|part| decode_data(&unframed(&part).encode_to_vec()).unwrap())
        .collect()
}

#[test]
fn data_is_sent_in_whole_parts_and_a_rest() {
    assert!(parts(0).is_empty());
    assert_eq!(parts(1), [1]);
    assert_eq!(parts(DATA_PART_BYTES), [DATA_PART_BYTES]);
    assert_eq!(parts(DATA_PART_BYTES + 1), [DATA_PART_BYTES, 1]);
    let most = parts(*DATA_BYTES.end());
    assert_eq!(most.iter().sum::<u64>(), *DATA_BYTES.end());
    assert_eq!(most.len(), 25);
}

/// The client matches a verdict to the address that it names.
#[test]
fn a_verdict_names_the_address_that_was_dialled() {
    for (verdict, expected) in [
        (Verdict::Refused, (101, 0, 0)),
        (Verdict::Rejected, (100, 0, 0)),
        (Verdict::Reached(3), (200, 3, 200)),
        (Verdict::NotReached(4), (200, 4, 100)),
        (Verdict::NotConfirmed(5), (200, 5, 101)),
    ] {
        let Some(Kind::Response(response)) = unframed(&encode_verdict(verdict)).kind else {
            panic!("{verdict:?}");
        };
        let read = (response.status, response.address, response.dial_status);
        assert_eq!(read, expected, "{verdict:?}");
    }
    let asked = unframed(&encode_data_request(3, 30_000)).kind;
    let expected = DialDataRequest {
        address: 3,
        bytes: 30_000,
    };
    assert_eq!(asked, Some(Kind::DataRequest(expected)));
}

#[test]
fn a_response_that_is_none_of_the_known_ones_was_not_tried() {
    for (status, address, dial_status) in [
        (200, 0, 0),
        (200, 0, 102),
        (200, 1, 100),
        (200, 1, 101),
        (101, 0, 100),
        (0, 0, 200),
    ] {
        let response = DialResponse {
            status,
            address,
            dial_status,
        };
        let kind = Some(Kind::Response(response));
        let read = decode_answer(&Message { kind }.encode_to_vec());
        assert_eq!(read, Ok(Answer::Outcome(ProbeOutcome::NotTried)));
    }
}
