//! Proposals and answers.

use proptest::prelude::*;

use super::super::wire::{Answer, HEADER, MAX_NAME_BYTES, Verdict, name_of, proposal};

/// Encodes a line as multistream-select does.
fn line(name: &str) -> Vec<u8> {
    let length = name.len() + 1;
    let mut line = match length {
        0..0x80 => vec![length as u8],
        _ => vec![length as u8 | 0x80, (length >> 7) as u8],
    };
    line.extend(name.as_bytes());
    line.push(b'\n');
    line
}

/// Feeds `answer` in the pieces that a reader may take. Returns the verdict and the number of bytes
/// that were read.
fn judge(line: &[u8], answer: &[u8], step: usize) -> (Verdict, usize) {
    let mut state = Answer::default();
    let mut at = 0;
    while at < answer.len() {
        let count = state.missing(line).min(step).min(answer.len() - at);
        let verdict = state.receive(line, &answer[at..at + count]);
        at += count;
        if verdict != Verdict::Incomplete {
            return (verdict, at);
        }
    }
    (Verdict::Incomplete, at)
}

#[test]
fn only_a_header_with_one_proposal_is_answered() {
    let of = |name: &str| [HEADER, &line(name)].concat();
    let long = format!("/{}", "x".repeat(MAX_NAME_BYTES - 1));
    for name in ["/a", "/ipfs/ping/1.0.0", &long, &long[..126], &long[..128]] {
        let written = of(name);
        assert_eq!(proposal(&written), Some(&line(name)[..]), "{name}");
        assert_eq!(name_of(&line(name)), name);
        // Neither a part of it, nor more.
        assert_eq!(proposal(&written[..written.len() - 1]), None, "{name}");
        assert_eq!(proposal(&[&written[..], b"x"].concat()), None, "{name}");
        assert_eq!(proposal(&[&written[..], &line("/b")].concat()), None);
    }
    for other in [
        of(&format!("{long}x")),
        of("without slash"),
        of("/two\nlines"),
        of("ls"),
        HEADER.to_vec(),
        line("/a"),
        [HEADER, b"\x83\x00/a\n"].concat(),
        [HEADER, b"\x83\x80\x00/a\n"].concat(),
        Vec::new(),
    ] {
        assert_eq!(proposal(&other), None, "{other:?}");
    }
}

#[test]
fn an_answer_with_the_length_of_a_refusal_is_distinguished() {
    let short = line("/a");
    let answers = [
        (&b"\x03/a\n"[..], Verdict::Confirmed),
        (b"\x03na\n", Verdict::Refused),
        (b"\x03nb\n", Verdict::Invalid),
        (b"\x03/b\n", Verdict::Invalid),
        (b"\x03/a", Verdict::Incomplete),
    ];
    for (message, verdict) in answers {
        let answer = [HEADER, message].concat();
        assert_eq!(judge(&short, &answer, 1).0, verdict, "{message:?}");
        assert_eq!(judge(&short, &answer, 99).0, verdict, "{message:?}");
    }
}

proptest! {
    #[test]
    fn an_answer_is_read_to_its_end_and_no_further(
        name in "/[a-z]{0,200}",
        data in prop::collection::vec(any::<u8>(), 0..9),
        step in 1_usize..99,
    ) {
        let line = line(&name);
        for (message, verdict) in [
            (&line[..], Verdict::Confirmed),
            (b"\x03na\n", Verdict::Refused),
        ] {
            let answer = [HEADER, message].concat();
            let all = [&answer[..], &data].concat();
            prop_assert_eq!(judge(&line, &all, step), (verdict, answer.len()));
        }
    }

    #[test]
    fn an_answer_with_a_wrong_byte_is_invalid(
        at in 0_usize..28,
        byte: u8,
        step in 1_usize..99,
    ) {
        let line = line("/test/1");
        let mut answer = [HEADER, &line].concat();
        answer.resize(29, 0);
        prop_assume!(answer[at] != byte);
        answer[at] = byte;
        let verdict = judge(&line, &answer, step).0;
        // The length prefix of a refusal, without its text.
        prop_assert_eq!(verdict, Verdict::Invalid);
    }

    #[test]
    fn any_bytes_are_judged(
        written: Vec<u8>,
        pieces: Vec<Vec<u8>>,
    ) {
        let _ = proposal(&written);
        let _ = proposal(&[HEADER, &written].concat());
        let _ = name_of(&written);
        let mut state = Answer::default();
        for piece in pieces {
            prop_assert!(state.missing(b"\x03/a\n") > 0);
            if state.receive(b"\x03/a\n", &piece) != Verdict::Incomplete {
                break;
            }
        }
    }
}
