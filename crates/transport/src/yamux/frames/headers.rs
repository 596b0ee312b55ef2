//! What a header says.

use super::*;

fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Header {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    Header::of(&bytes).unwrap()
}

#[test]
fn a_header_is_twelve_bytes() {
    for length in 0..24 {
        let header = Header::of(&vec![0; length]);
        assert_eq!(header.is_some(), length == 12, "{length}");
    }
    assert_eq!(header(0, 0, 0x0102_0304, 0).stream(), 0x0102_0304);
}

/// By the specification: the flags are SYN 1, ACK 2, FIN 4 and RST 8.
#[test]
fn a_stream_is_opened_by_syn_without_rst_on_frames_of_streams() {
    for kind in 0..=4 {
        for flags in 0..16 {
            let opens = kind <= 1 && flags & 1 != 0 && flags & 8 == 0;
            let header = header(kind, flags, 1, 7);
            assert_eq!(header.opens_stream(), opens, "{header:?}");
        }
    }
}

#[test]
fn only_data_frames_without_rst_carry_data() {
    for kind in 0..=4 {
        for flags in 0..16 {
            let bytes = if kind == 0 && flags & 8 == 0 { 7 } else { 0 };
            let header = header(kind, flags, 1, 7);
            assert_eq!(header.data_bytes(), bytes, "{header:?}");
        }
    }
}

#[test]
fn only_go_away_with_a_code_reports_an_error() {
    for kind in 0..=4 {
        for code in 0..3 {
            let reports = kind == 3 && code != 0;
            assert_eq!(header(kind, 0, 0, code).reports_error(), reports);
        }
    }
}

#[test]
fn a_limit_of_zero_is_one() {
    let mut frames = Frames::new(0);
    assert!(frames.at_boundary());
    let wire = header(TYPE_DATA, 0, 1, 2).0;
    let Next::Read(space) = frames.next() else {
        panic!("no header is read");
    };
    space[..5].copy_from_slice(&wire[..5]);
    frames.done(5);
    assert!(!frames.at_boundary());
    let Next::Read(space) = frames.next() else {
        panic!("the rest of the header is not read");
    };
    space.copy_from_slice(&wire[5..]);
    frames.done(7);
    frames.done(12);
    assert_eq!(frames.next(), Next::Pass(1));
}
